"""`/v1/sheets`: herbarium sheets, what they are and what they look like."""

from typing import Annotated

import anyio
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse

from app.dependencies import CatalogueDependency, DirectoryDependency, RenditionsDependency
from app.refusals import UnacceptableForm
from app.renditions import SIZES
from app.routes.documented_errors import problems
from app.schemas.collection import SheetBody, SheetPage
from models.errors import CatalogueError
from models.specimens import Sheet
from models.taxonomy import Species, SpeciesId

router = APIRouter(tags=["sheets"])

MAX_OFFSET = 10_000_000

DEFAULT_THUMBNAIL = 320

MEDIA_TYPES = {".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}
"""Of the suffixes that the image store writes."""

CACHE_CONTROL = "public, max-age=31536000, immutable"
"""A sheet's id is taken from its image's hash, so what is at its address never changes."""

_rendering = anyio.CapacityLimiter(2)
"""A large sheet takes hundreds of megabytes while it is scaled; waiting for it takes no thread."""

SheetId = Annotated[str, Path(max_length=64)]


def image_url(sheet_id: str) -> str:
    """Address of a sheet's image on this service."""
    return f"/v1/sheets/{sheet_id}/image"


def thumbnail_url(sheet_id: str, size: int = DEFAULT_THUMBNAIL) -> str:
    """Address of a smaller JPEG of a sheet on this service."""
    return f"/v1/sheets/{sheet_id}/thumbnail?size={size}"


@router.get("/v1/sheets", summary="List the sheets of a species", responses=problems(404, 422, 503))
def list_sheets(
    catalogue: CatalogueDependency,
    directory: DirectoryDependency,
    species_id: Annotated[str, Query(min_length=1, max_length=200)],
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
    removed: Annotated[bool, Query(description="those that were removed and can be restored")] = False,
) -> SheetPage:
    """A page of a species' sheets, by sheet id."""
    entry = directory.get(SpeciesId(species_id))
    found = entry.species.species_id
    page = catalogue.sheets_page(found, limit=limit, offset=offset, removed=removed)
    counted = catalogue.removed_count(found) if removed else entry.sheet_count
    total = max(counted, offset + len(page) if page else 0)
    bodies = [sheet_body(sheet, entry.species) for sheet in page]
    return SheetPage(total=total, limit=limit, offset=offset, sheets=bodies)


@router.get("/v1/sheets/{sheet_id}", summary="One sheet", responses=problems(404, 422, 503))
def get_sheet(sheet_id: SheetId, catalogue: CatalogueDependency) -> SheetBody:
    """What is known of a sheet, and where its image is."""
    sheet = catalogue.get_sheet(sheet_id)
    return sheet_body(sheet, catalogue.get_species(sheet.species_id))


@router.get(
    "/v1/sheets/{sheet_id}/image",
    summary="A sheet's image in full size",
    response_class=Response,
    responses={200: {"content": {kind: {} for kind in MEDIA_TYPES.values()}}, 304: {}, **problems(404, 422, 503)},
)
def get_image(sheet_id: SheetId, request: Request, catalogue: CatalogueDependency) -> Response:
    """The image as it was imported, without metadata. Byte ranges and `If-None-Match` are answered."""
    image = catalogue.get_sheet(sheet_id).image
    headers = _image_headers(image.stored_sha256)
    if _has_current_copy(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    path = catalogue.image_store.path(image)
    if image not in catalogue.image_store:
        raise CatalogueError(f"the file of sheet {sheet_id} is missing or changed (expected {path})")
    return FileResponse(path, media_type=MEDIA_TYPES[image.suffix], headers=headers)


@router.get(
    "/v1/sheets/{sheet_id}/thumbnail",
    summary="A sheet's image, smaller, as JPEG",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}, 304: {}, **problems(404, 422, 503)},
)
async def get_thumbnail(
    sheet_id: SheetId,
    request: Request,
    catalogue: CatalogueDependency,
    renditions: RenditionsDependency,
    size: Annotated[
        int, Query(description="longest side in pixels", json_schema_extra={"enum": list(SIZES)})
    ] = DEFAULT_THUMBNAIL,
) -> Response:
    """JPEG of one of the sizes 160, 320, 640, 1024 and 2048; never larger than the image itself."""
    if size not in SIZES:
        raise UnacceptableForm(f"size: expected one of {', '.join(map(str, SIZES))}")
    image = (await run_in_threadpool(catalogue.get_sheet, sheet_id)).image
    headers = _image_headers(f"{image.stored_sha256}-{size}")
    if _has_current_copy(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    content = await anyio.to_thread.run_sync(renditions.get, image, size, limiter=_rendering)
    return Response(content, media_type="image/jpeg", headers=headers)


def _image_headers(version: str) -> dict[str, str]:
    return {"ETag": f'"{version}"', "Cache-Control": CACHE_CONTROL}


def _has_current_copy(request: Request, etag: str) -> bool:
    offered = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    return etag in offered or "*" in offered


def sheet_body(sheet: Sheet, species: Species) -> SheetBody:
    """What is sent of a sheet."""
    return SheetBody(
        sheet_id=sheet.sheet_id,
        species_id=sheet.species_id,
        scientific_name=species.scientific_name,
        institution_code=sheet.specimen.institution_code,
        collection_code=sheet.specimen.collection_code,
        catalog_number=sheet.specimen.catalog_number,
        license=sheet.license,
        rights_holder=sheet.rights_holder,
        added_at=None if sheet.added_at is None else sheet.added_at.isoformat(),
        removed_at=None if sheet.removed_at is None else sheet.removed_at.isoformat(),
        removed=sheet.removed,
        width=sheet.image.width,
        height=sheet.image.height,
        image_url=image_url(sheet.sheet_id),
        thumbnail_url=thumbnail_url(sheet.sheet_id),
    )
