"""`/v1/sheets` and `/v1/species`, as curators change them. Answers of the service follow with the next index."""

from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Query, Request, Response

from app.dependencies import (
    CatalogueDependency,
    CuratorDependency,
    DirectoryDependency,
    ServingDependency,
    SettingsDependency,
    UploadBudgetDependency,
)
from app.routes.documented_errors import problems
from app.routes.sheets import SheetId, sheet_body
from app.routes.species import species_body
from app.schemas.collection import (
    AddedSheetBody,
    AddedSheetsBody,
    CuratorBody,
    MovedSheetsBody,
    NewSpeciesBody,
    SheetBody,
    SheetMoveBody,
    SpeciesBody,
)
from app.sheet_form import FORM_SCHEMA, form_shape, read_curator, read_sheets
from app.uploads import read_upload
from models.curation import AddedSheet, Curator, NewSpecies
from models.taxonomy import SpeciesId

router = APIRouter(tags=["curation"])

REQUEST_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": FORM_SCHEMA}}}
}

_storing = anyio.CapacityLimiter(2)
"""A large sheet takes hundreds of megabytes while it is checked; waiting for it takes no thread."""

CuratorQuery = Annotated[str | None, Query(max_length=200, description="who asks, for the record")]


@router.post(
    "/v1/sheets",
    status_code=201,
    summary="Add sheets of one species",
    responses=problems(400, 403, 404, 408, 409, 413, 415, 422, 503, 507),
    openapi_extra=REQUEST_BODY,
)
async def add_sheets(
    access: CuratorDependency,
    request: Request,
    settings: SettingsDependency,
    budget: UploadBudgetDependency,
    catalogue: CatalogueDependency,
    directory: DirectoryDependency,
) -> AddedSheetsBody:
    """All of them, or none. They are on the disk when the answer comes.

    The same image is one sheet however often it is sent; one that was removed comes back. Images are stored without
    the metadata and the names of their files.
    """
    with budget.share() as share:
        shape = form_shape(max_image_bytes=settings.max_upload_bytes)
        form = await read_upload(request.headers, request.receive, shape, share)
        curator = Curator(catalogue, access.named(read_curator(form.texts)))
        new = read_sheets(form.files, form.texts)
        added = await anyio.to_thread.run_sync(curator.add, new, limiter=_storing)
    directory.forget()
    species = await anyio.to_thread.run_sync(catalogue.get_species, added[0].sheet.species_id)

    def body(one: AddedSheet) -> AddedSheetBody:
        return AddedSheetBody(outcome=one.outcome.value, **sheet_body(one.sheet, species).model_dump())

    return AddedSheetsBody(sheets=[body(one) for one in added])


@router.delete("/v1/sheets/{sheet_id}", summary="Remove a sheet", responses=problems(403, 404, 422, 503, 507))
def remove_sheet(
    sheet_id: SheetId,
    access: CuratorDependency,
    catalogue: CatalogueDependency,
    directory: DirectoryDependency,
    curator: CuratorQuery = None,
) -> SheetBody:
    """Takes a sheet out of the collection; it can be restored until the files of removed sheets are deleted."""
    (sheet,) = Curator(catalogue, access.named(curator)).remove([sheet_id])
    directory.forget()
    return sheet_body(sheet, catalogue.get_species(sheet.species_id))


@router.post(
    "/v1/sheets/{sheet_id}/restore", summary="Restore a removed sheet", responses=problems(403, 404, 409, 422, 503, 507)
)
def restore_sheet(
    sheet_id: SheetId,
    access: CuratorDependency,
    catalogue: CatalogueDependency,
    directory: DirectoryDependency,
    asked: CuratorBody | None = None,
) -> SheetBody:
    """Takes a removed sheet back into the collection."""
    (sheet,) = Curator(catalogue, access.named(asked.curator if asked else None)).restore([sheet_id])
    directory.forget()
    return sheet_body(sheet, catalogue.get_species(sheet.species_id))


@router.patch(
    "/v1/sheets/{sheet_id}", summary="Correct the determination of a sheet", responses=problems(403, 404, 422, 503, 507)
)
def move_sheet(
    sheet_id: SheetId,
    asked: SheetMoveBody,
    access: CuratorDependency,
    catalogue: CatalogueDependency,
    directory: DirectoryDependency,
) -> MovedSheetsBody:
    """Moves all sheets of the specimen to another species, since what is determined is the plant."""
    sheets = Curator(catalogue, access.named(asked.curator)).move(sheet_id, SpeciesId(asked.species_id))
    directory.forget()
    species = catalogue.get_species(sheets[0].species_id)
    return MovedSheetsBody(sheets=[sheet_body(sheet, species) for sheet in sheets])


@router.post("/v1/species", status_code=201, summary="Add a species", responses=problems(403, 409, 422, 503, 507))
def add_species(
    asked: NewSpeciesBody,
    access: CuratorDependency,
    catalogue: CatalogueDependency,
    directory: DirectoryDependency,
    serving: ServingDependency,
    response: Response,
) -> SpeciesBody:
    """Enters a species without sheets; one that is there with these details is answered with 200."""
    wanted = NewSpecies(asked.scientific_name, asked.genus, asked.family, asked.species_id)
    species, is_new = Curator(catalogue, access.named(asked.curator)).add_species(wanted)
    directory.forget()
    response.status_code = 201 if is_new else 200
    return species_body(directory.get(species.species_id), serving.identifier_or_none)
