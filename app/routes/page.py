"""The web page and its files."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from app.dependencies import SettingsDependency

STATIC = Path(__file__).resolve().parent.parent / "static"

REVALIDATE = "no-cache"
"""Browsers keep a copy and ask whether it still holds, so that an update shows at once."""

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
async def page(settings: SettingsDependency) -> HTMLResponse:
    """The page on which photos are identified; it knows the limits before it sends."""
    template = (STATIC / "index.html").read_text(encoding="utf-8")
    html = template.replace("{max_photos}", str(settings.max_photos)).replace(
        "{max_upload_bytes}", str(settings.max_upload_bytes)
    )
    return HTMLResponse(html, headers={"Cache-Control": REVALIDATE})
