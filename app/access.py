"""Who may ask for what: API keys, their scopes, quotas and rates.

A route that identifies takes `app.dependencies.IdentifyDependency`; one that finds out late how many identifications
it makes calls `charge_more`. What was charged is given back when the answer is a refusal or a failure
(`app.access_answers`).
"""

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import HTTPConnection

from app.access_control import AccessControl, Admission, Quota
from app.access_offer import Offer, Source, offer_of
from app.cross_origin import COMPATIBLE
from app.foreign_pages import refuse_foreign_pages
from app.refusals import AccessRefused, KeyMissing, ScopeMissing
from app.settings import Settings
from models.api_keys import ApiKey, Scope
from models.api_keys_usage import Charge

__all__ = ["Access", "Quota", "Scope", "charge_more", "check_access", "check_reading", "control_of", "give_back"]

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True, slots=True)
class Access:
    """A request that was let in; `key_id` is None where no key is needed, `quota` where there is no limit."""

    key_id: str | None = None
    name: str | None = None
    quota: Quota | None = None
    rate: Quota | None = None


@dataclass(slots=True)
class AccessNote:
    """What the answer to a request has to say of its key; kept beside the request."""

    key: ApiKey | None = None
    quota: Quota | None = None
    rate: Quota | None = None
    charges: list[Charge] = field(default_factory=list)
    is_private: bool = False
    """The answer is for those with a key, and not for caches that many use."""


def control_of(connection: HTTPConnection) -> AccessControl:
    """The doorkeeper of the service."""
    control: AccessControl = connection.app.state.access
    return control


def note_of(scope: Any) -> AccessNote:
    """The note of the request that this ASGI scope is of."""
    state = scope.setdefault("state", {})
    note: AccessNote = state.setdefault("access_note", AccessNote())
    return note


async def check_access(connection: HTTPConnection, scope: Scope, *, identifications: int = 0) -> Access:
    """Access for this request, `identifications` charged to its key's day.

    Raises `KeyMissing`, `KeyWrong`, `TooManyFailures`, `ScopeMissing`, `RateExceeded`, `QuotaSpent`, `ForeignPage` for
    a foreign page that has its visitor's cookie sent, and `NotReady` when keys cannot be looked up.
    """
    return await _check(connection, frozenset({scope}), identifications)


async def charge_more(connection: HTTPConnection, identifications: int) -> None:
    """Put more identifications on the key of a request that was let in, which is no other request in its rate.

    Raises `QuotaSpent` and `NotReady`.
    """
    note = note_of(connection.scope)
    if note.key is not None and identifications:
        await _charge(connection, note, identifications, is_request=False)


async def check_reading(connection: HTTPConnection) -> Access:
    """Access to the collection: for everybody, or for those with a key of whatever scope. Raises as `check_access`."""
    settings: Settings = connection.app.state.settings
    if settings.public_reading:
        return Access()
    return await _check(connection, frozenset(Scope), 0)


async def give_back(connection: HTTPConnection) -> None:
    """Take off whatever this request has charged so far: its work was not done."""
    note = note_of(connection.scope)
    quota = note.key.daily_quota if note.key is not None else None
    while note.charges:
        note.quota = await control_of(connection).give_back(quota, note.charges.pop())


async def _check(connection: HTTPConnection, scopes: frozenset[Scope], identifications: int) -> Access:
    control = control_of(connection)
    if not await control.in_force():
        _refuse_planting(connection)
        return Access()
    note = note_of(connection.scope)
    offer = offer_of(connection)
    if offer is None:
        is_compatible = connection.url.path.startswith(COMPATIBLE)
        raise KeyMissing(
            "this needs an API key, and the request shows none: send it in the header “Authorization: Bearer KEY” or "
            f"“X-API-Key”, {'or in the parameter “api-key”' if is_compatible else 'or sign in on the page'}"
        )
    key = await verified(connection, offer)
    if not key.scopes & scopes:
        needed = " or ".join(sorted(scopes))
        raise ScopeMissing(f"this needs a key with the scope {needed}; the key {key.key_id} is for other things")
    note.key, note.is_private = key, True
    await _charge(connection, note, identifications)
    return _access_of(note)


async def verified(connection: HTTPConnection, offer: Offer) -> ApiKey:
    """The key that is shown. Raises as `check_access` does for keys that are not right."""
    if offer.source is Source.COOKIE:
        refuse_foreign_pages(connection.headers)
    address = connection.client.host if connection.client is not None else ""
    return await control_of(connection).verified(offer.text, address)


def _refuse_planting(connection: HTTPConnection) -> None:
    """Where no keys are in force, a page of another site may not have its visitors' browsers send photos here.

    Below /v2 every page may ask, as with Pl@ntNet; and those may that the operator has named.
    """
    if connection.scope.get("method") in _SAFE_METHODS or connection.url.path.startswith(COMPATIBLE):
        return
    origins = connection.app.state.settings.cors_origins
    if "*" not in origins and connection.headers.get("origin") not in origins:
        refuse_foreign_pages(connection.headers)


async def _charge(
    connection: HTTPConnection, note: AccessNote, identifications: int, *, is_request: bool = True
) -> None:
    assert note.key is not None
    try:
        admission = await control_of(connection).admitted(note.key, identifications, is_request=is_request)
    except AccessRefused as error:
        if error.admission is not None:
            _enter(note, error.admission)
        raise
    _enter(note, admission)


def _enter(note: AccessNote, admission: Admission) -> None:
    note.quota = admission.quota or note.quota
    note.rate = admission.rate or note.rate
    if admission.charge is not None:
        note.charges.append(admission.charge)


def _access_of(note: AccessNote) -> Access:
    if note.key is None:
        return Access()
    return Access(note.key.key_id, note.key.name, note.quota, note.rate)
