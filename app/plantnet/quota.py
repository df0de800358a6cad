"""What is left of a key's day, as Pl@ntNet tells it in headers and bodies."""

import base64
from datetime import UTC, date, datetime
from typing import Annotated

from fastapi import Depends, Request
from starlette.types import Scope as AsgiScope

from app.access import Access, Scope, check_access, control_of, note_of

DAY_SECONDS = 86_400
MINUTE_SECONDS = 60

UNLIMITED = 2_147_483_647
"""Where there is no limit: clients read a number, many of them of 32 bits."""


async def uncharged(request: Request) -> Access:
    """Leave to ask for lists and for the quota; nothing is charged."""
    return await check_access(request, Scope.IDENTIFY)


UnchargedAccess = Annotated[Access, Depends(uncharged)]


def rate_limit_headers(scope: AsgiScope) -> dict[str, str]:
    """Headers as Pl@ntNet writes those of draft-ietf-httpapi-ratelimit-headers-08; none for a key without limits."""
    note = note_of(scope)
    if note.key is None:
        return {}
    # Names whom the limits are of; the id of a key is no secret.
    partition = base64.b64encode(f"{note.key.key_id}-identify".encode()).decode("ascii")
    limits = [("dailyQuota", note.quota, DAY_SECONDS), ("minute", note.rate, MINUTE_SECONDS)]
    known = [(name, quota, seconds) for name, quota, seconds in limits if quota is not None]
    if not known:
        return {}
    policies = [f'"{name}";q={quota.limit};w={seconds};pk=:{partition}:' for name, quota, seconds in known]
    states = [f'"{name}";r={quota.remaining};t={quota.resets_in_seconds};pk=:{partition}:' for name, quota, _ in known]
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(states)}


def limit_of(access: Access) -> int:
    """Identifications that a day has."""
    return UNLIMITED if access.quota is None else access.quota.limit


def remaining_of(access: Access) -> int:
    """Identifications that are left of today."""
    return UNLIMITED if access.quota is None else access.quota.remaining


def today() -> date:
    """The day that is charged."""
    return datetime.now(UTC).date()


async def used_by_day(request: Request, access: Access, year: int) -> dict[date, int]:
    """Identifications of the key on each day of a year that had any, the latest first; none without a key."""
    if access.key_id is None:
        return {}
    return await control_of(request).used_by_day(access.key_id, year)
