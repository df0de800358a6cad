"""Who may ask for what: API keys, their scopes, quotas and rates."""

from dataclasses import dataclass
from enum import StrEnum

from starlette.requests import HTTPConnection


class Scope(StrEnum):
    """What a key opens."""

    IDENTIFY = "identify"
    CURATE = "curate"


@dataclass(frozen=True, slots=True)
class Quota:
    """Identifications of one key in one day (UTC)."""

    limit: int
    remaining: int
    resets_in_seconds: int


@dataclass(frozen=True, slots=True)
class Access:
    """A request that was let in; `key_id` is None where no key is needed, `quota` where there is no limit."""

    key_id: str | None = None
    name: str | None = None
    quota: Quota | None = None


async def check_access(connection: HTTPConnection, scope: Scope, *, identifications: int = 0) -> Access:
    """Access for this request, `identifications` charged to its key's day."""
    return Access()
