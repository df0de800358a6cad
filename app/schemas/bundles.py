"""Versions of the index."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.wire import WireModel


class ActivationBody(BaseModel):
    """Who has a bundle served."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    curator: str | None = Field(None, max_length=200, description="who asks, for the record")


class ValidationBody(WireModel):
    """Figures of a bundle on validation photos, to compare bundles by: no accuracy, since training knows them."""

    photos: int
    species: int
    top1: float
    top1_interval: list[float] | None
    top5: float
    mrr: float


class BundleChangesBody(WireModel):
    """What differs from the bundle that was continued."""

    added: int = 0
    removed: int = 0
    moved: int = 0
    species_added: int = 0
    species_removed: int = 0
    revisions: list[dict[str, Any]] = Field(default=[], description="who changed what in the catalogue, and when")


class BundleBody(WireModel):
    """One version of the index."""

    bundle_id: str
    model_id: str
    number: int = Field(description="counts the builds, in the order that they were done")
    created_at: str
    catalogue_revision: int
    species: int
    sheets: int
    base: str | None = Field(description="the bundle that it continues")
    built_by: str
    job_id: str | None
    changes: BundleChangesBody
    validation: ValidationBody | None
    held_back: str | None = Field(description="why it was not put into service by itself")
    is_active: bool = Field(description="whether it is served")
    fault: str | None = Field(description="why it cannot be served")


class BundleList(WireModel):
    """Bundles, the latest first."""

    bundles: list[BundleBody]


class BundleDifferenceBody(WireModel):
    """From one bundle to another; lists are cut at a thousand, counts are not."""

    before: str
    after: str
    counts: dict[str, int]
    species_added: list[str]
    species_removed: list[str]
    added: list[dict[str, str]]
    removed: list[dict[str, str]]
    moved: list[dict[str, str]]
