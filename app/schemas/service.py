"""The service itself: how it is, and who asks it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from app.schemas.wire import WireModel


class Health(WireModel):
    """The process is alive."""

    status: str


class ReadinessCheck(WireModel):
    """One thing that the service needs; a warning says that plants are identified all the same."""

    name: str
    state: Literal["ok", "warning", "fault"]
    detail: str | None = Field(description="what is wrong and how to mend it; null when all is well")


class Readiness(WireModel):
    """The service identifies plants."""

    status: str
    bundle_id: str
    model_id: str
    species_count: int
    complaint: str | None = Field(
        None, description="why the bundle that was activated last does not answer; the one before goes on"
    )
    checks: list[ReadinessCheck] = Field(description="everything that was looked at")


class SignInBody(BaseModel):
    """The key to sign in with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: SecretStr = Field(min_length=1, max_length=200, description="as `voucher keys create` has shown it")
    remember: bool = Field(False, description="stay signed in for 30 days; otherwise until the browser is closed")


class QuotaBody(WireModel):
    """What a key has left of its day (UTC)."""

    limit: int = Field(ge=1, description="identifications")
    remaining: int = Field(ge=0)
    resets_in_seconds: int = Field(ge=0)


class SessionBody(WireModel):
    """What one may do here."""

    keys_needed: bool = Field(description="whether identifying needs a key")
    signed_in: bool = Field(description="whether the request shows a key that is right")
    key_id: str | None = Field(description="the public part of the key")
    name: str | None = Field(description="what the operator has called the key")
    scopes: list[str] = Field(description="identify, curate")
    expires_at: str | None = Field(description="UTC, ISO 8601; null when the key does not expire")
    may_identify: bool
    may_curate: bool
    may_read: bool = Field(description="see species, sheets and their images")
    curation_refusal: str | None = Field(description="why the collection cannot be changed; null when it can")
    quota: QuotaBody | None = Field(description="null where there is no limit")
