"""The web page and its files."""

from html import escape
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from app.dependencies import SettingsDependency
from app.refusals import AccessRefused, ForeignPage, NotReady
from app.routes.session import session_of
from app.settings import Settings

STATIC = Path(__file__).resolve().parent.parent / "static"

REVALIDATE = "no-cache"
"""Browsers keep a copy and ask whether it still holds, so that an update shows at once."""

PHOTOS_ARE_NOT_KEPT = "Photos are used for the answer only and are not kept."
PHOTOS_ARE_KEPT = (
    "The operator of this service keeps the photos that are sent, without what they tell of place and camera."
)

router = APIRouter(include_in_schema=False)


class RevalidatedFiles(StaticFiles):
    """Static files that browsers check with each use; an ETag makes that cheap."""

    def file_response(self, *arguments: object, **named: object) -> Response:
        """The file, or 304."""
        response = super().file_response(*arguments, **named)  # type: ignore[arg-type]
        response.headers["Cache-Control"] = REVALIDATE
        return response


def static_files() -> StaticFiles:
    """The files below `app/static`."""
    return RevalidatedFiles(directory=STATIC)


@router.get("/")
async def page(request: Request, settings: SettingsDependency) -> HTMLResponse:
    """The page; it knows the limits before it sends, and whether the collection can be changed from where it is."""
    html = (STATIC / "index.html").read_text(encoding="utf-8")
    known = {
        "max_photos": str(settings.max_photos),
        "max_upload_bytes": str(settings.max_upload_bytes),
        "max_request_bytes": str(settings.max_request_bytes),
        "explanations": str(settings.explanations).lower(),
        "privacy": PHOTOS_ARE_KEPT if settings.keep_photos else PHOTOS_ARE_NOT_KEPT,
        "curation_refusal": escape(await _curation_refusal(request, settings)),
    }
    for name, value in known.items():
        html = html.replace(f"{{{name}}}", value)
    return HTMLResponse(html, headers={"Cache-Control": REVALIDATE})


async def _curation_refusal(request: Request, settings: Settings) -> str:
    """Why changes would be refused, or nothing when they would not."""
    try:
        session = await session_of(request, settings)
    except (AccessRefused, NotReady) as error:
        return f"curation is off: {error}"
    except ForeignPage:
        return ""  # A link on another site led here; what this page sends comes from this page.
    return session.curation_refusal or ""
