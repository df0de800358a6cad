"""`/v1/explanations`: heat maps of photos and sheets, and their pictures for as long as they are kept."""

from typing import Any

from fastapi import APIRouter, Response

from app.dependencies import ExplainerDependency, IdentifyDependency
from app.desk import AtDesk
from app.explanations import Asked
from app.hang_up import client_gone
from app.identification_form import MAX_EXPLAINED, PHOTO_FIELD, entries_of, photos_schema
from app.refusals import UnacceptableForm, UnknownExplanation
from app.routes.documented_errors import problems
from app.schemas.identification import ExplanationsBody, SheetExplanationBody
from app.uploads import FormShape, give_files, read_upload

router = APIRouter(tags=["identifications"])

SHEETS_FIELD = "sheet_ids"
_MAX_SHEETS_BYTES = 1000

FORM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": [PHOTO_FIELD, SHEETS_FIELD],
    "additionalProperties": False,
    "properties": {
        PHOTO_FIELD: photos_schema("photos of one plant; JPEG, PNG, WebP or TIFF"),
        SHEETS_FIELD: {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_EXPLAINED,
            "items": {"type": "string"},
            "description": "sheets of the index that answers; comma separated, repeated, or both",
        },
    },
}

REQUEST_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": FORM_SCHEMA}}}
}


@router.post(
    "/v1/explanations",
    summary="Heat maps that show what makes photos and sheets alike",
    responses=problems(400, 401, 403, 404, 408, 413, 415, 422, 429, 503),
    openapi_extra=REQUEST_BODY,
)
async def create_explanations(access: IdentifyDependency, desk: AtDesk) -> ExplanationsBody:
    """For each sheet a heat map over it and one over the photo that is most like it.

    As with `explain` of an identification, but for sheets of your choice, and when somebody wants to see them: each
    takes several times the time of an answer. Counts as one identification. Photos are not kept.
    """
    request, settings, serving = desk.request, desk.settings, desk.serving
    identifier = serving.identifier
    desk.explainer.refuse_when_off()
    serving.queue.refuse_when_full()
    shape = FormShape(
        PHOTO_FIELD,
        "photo",
        "photos of one plant",
        (SHEETS_FIELD,),
        settings.max_photos,
        settings.max_upload_bytes,
        _MAX_SHEETS_BYTES,
    )
    with desk.budget.share() as share:
        form = await read_upload(request.headers, request.receive, shape, share)
        sheet_ids = _sheet_ids(form.texts)
        identifier.bundle.gallery.vectors_for(sheet_ids)
        with serving.queue.place():
            looked = await serving.queue.ask(
                identifier, form.files, lambda looked: looked, client_gone=lambda: client_gone(request), has_place=True
            )
            give_files(share, form)
            asked = Asked(serving, identifier, looked, client_gone=lambda: client_gone(request))
            found = await desk.explainer.explain_sheets(asked, sheet_ids)
    return ExplanationsBody(
        bundle_id=identifier.bundle_id,
        explanations=[SheetExplanationBody(sheet_id=s, explanation=found.get(s)) for s in sheet_ids],
    )


def _sheet_ids(texts: dict[str, list[str]]) -> list[str]:
    """The sheets asked for, each once. Raises `UnacceptableForm`."""
    found = list(dict.fromkeys(entries_of(texts, SHEETS_FIELD)))
    if not 1 <= len(found) <= MAX_EXPLAINED:
        raise UnacceptableForm(f"{SHEETS_FIELD}: expected 1 to {MAX_EXPLAINED} sheets, found {len(found)}")
    return found


@router.get(
    "/v1/explanations/{explanation_id}/{name}.png",
    summary="A heat map, as PNG",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}, **problems(404)},
)
def get_heat_map(explanation_id: str, name: str, explainer: ExplainerDependency) -> Response:
    """What of a photo or a sheet made the two alike, to be laid over the whole upright picture.

    RGBA with the picture's proportions, transparent where nothing counted. Whoever knows the address may see it, for
    an hour unless the service is set otherwise; it holds no pixel of the photo.
    """
    found = explainer.store.get(explanation_id, name)
    if found is None:
        raise UnknownExplanation("no such heat map, or it has expired; ask for it again with POST /v1/explanations")
    headers = {"Cache-Control": f"private, max-age={int(found.seconds_left)}"}
    return Response(found.png, media_type="image/png", headers=headers)
