"""`/v1/session`: signing in on the page with a key, and what one may do here."""

from fastapi import APIRouter, Request, Response

from app.access import Scope, control_of, verified
from app.access_control import Quota
from app.access_offer import MAX_KEY_CHARACTERS, Offer, Source, cookie_of, delete_cookie, offer_of, set_cookie
from app.curation_access import check_local_curation
from app.dependencies import SettingsDependency
from app.foreign_pages import refuse_foreign_pages
from app.refusals import CurationOff, ForeignPage, KeyWrong
from app.routes.documented_errors import problems
from app.schemas.service import QuotaBody, SessionBody, SignInBody
from app.settings import Settings
from models.api_keys import ApiKey

router = APIRouter(tags=["access"])

_NOT_STORED = {"Cache-Control": "no-store"}


@router.get("/v1/session", summary="What one may do here", responses=problems(403, 429, 503))
async def get_session(request: Request, response: Response, settings: SettingsDependency) -> SessionBody:
    """Whether keys are needed, and what the key that the request shows opens, if it shows one.

    A key that is not right, or no longer, is no error here; a browser is told to forget it.
    """
    response.headers.update(_NOT_STORED)
    session = await session_of(request, settings)
    if session.keys_needed and not session.signed_in and cookie_of(request) is not None:
        delete_cookie(request, response)
    return session


@router.post("/v1/session", summary="Sign in on the page", responses=problems(401, 403, 422, 429, 503))
async def sign_in(request: Request, response: Response, asked: SignInBody, settings: SettingsDependency) -> SessionBody:
    """Has the browser send the key by itself from now on, in a cookie that no script can read.

    For the service's own page; other programs send their key in a header.
    """
    refuse_foreign_pages(request.headers)
    response.headers.update(_NOT_STORED)
    if not await control_of(request).in_force():
        return _open(request, settings)
    text = asked.key.get_secret_value().strip()
    session = await _session_of(request, settings, Offer(text[:MAX_KEY_CHARACTERS], Source.HEADER))
    set_cookie(request, response, text, remember=asked.remember)
    return session


@router.delete("/v1/session", status_code=204, summary="Sign out on the page", responses=problems(403))
async def sign_out(request: Request, response: Response) -> None:
    """Has the browser forget the key; the key itself goes on working."""
    refuse_foreign_pages(request.headers)
    response.headers.update(_NOT_STORED)
    delete_cookie(request, response)


async def session_of(request: Request, settings: Settings) -> SessionBody:
    """What the sender of this request may do. Raises `TooManyFailures`, `ForeignPage` and `NotReady`."""
    if not await control_of(request).in_force():
        return _open(request, settings)
    offer = offer_of(request)
    if offer is None:
        return _session(settings, None, None)
    try:
        return await _session_of(request, settings, offer)
    except KeyWrong:
        return _session(settings, None, None)


async def _session_of(request: Request, settings: Settings, offer: Offer) -> SessionBody:
    key = await verified(request, offer)
    admission = await control_of(request).admitted(key, 0)
    return _session(settings, key, admission.quota)


def _session(settings: Settings, key: ApiKey | None, quota: Quota | None) -> SessionBody:
    scopes = frozenset() if key is None else key.scopes
    refusal = None
    if Scope.CURATE not in scopes:
        refusal = "curation is off: it needs a key with the scope curate; sign in with one"
    return SessionBody(
        keys_needed=True,
        signed_in=key is not None,
        key_id=None if key is None else key.key_id,
        name=None if key is None else key.name,
        scopes=sorted(scopes),
        expires_at=None if key is None or key.expires_at is None else key.expires_at.isoformat(),
        may_identify=Scope.IDENTIFY in scopes,
        may_curate=Scope.CURATE in scopes,
        may_read=settings.public_reading or bool(scopes),
        curation_refusal=refusal,
        quota=None
        if quota is None
        else QuotaBody(limit=quota.limit, remaining=quota.remaining, resets_in_seconds=quota.resets_in_seconds),
    )


def _open(request: Request, settings: Settings) -> SessionBody:
    refusal = None
    try:
        check_local_curation(settings, request.headers)
    except CurationOff as error:
        refusal = str(error)
    except ForeignPage:
        pass  # A link on another site led here; what the page sends comes from the page.
    return SessionBody(
        keys_needed=False,
        signed_in=False,
        key_id=None,
        name=None,
        scopes=[],
        expires_at=None,
        may_identify=True,
        may_curate=refusal is None,
        may_read=True,
        curation_refusal=refusal,
        quota=None,
    )
