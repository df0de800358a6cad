"""`POST /v1/embeddings`: images to the vectors that they are compared by."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import APIRouter, Response

from app.access import Scope, check_access
from app.dependencies import AskDependency
from app.desk import AtDesk
from app.hang_up import client_gone
from app.identification_form import MAX_TEXT_BYTES, PHOTO_FIELD, photos_schema, single_value
from app.refusals import UnacceptableForm
from app.routes.documented_errors import problems
from app.schemas.identification import EmbeddingsBody
from app.uploads import FormShape, read_upload
from models.retrieval import FloatArray
from models.specimens import Role

router = APIRouter(tags=["embeddings"])

BINARY = "application/octet-stream"

FORM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": [PHOTO_FIELD],
    "additionalProperties": False,
    "properties": {
        PHOTO_FIELD: photos_schema("images, each of them embedded by itself; JPEG, PNG, WebP or TIFF"),
        "role": {
            "type": "string",
            "enum": [role.value for role in Role],
            "description": "what the images are: the vectors are then in the metric of the bundle, in which photos are "
            "compared with sheets; left out, they are as the network gives them",
        },
    },
}

REQUEST_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": FORM_SCHEMA}}}
}


@dataclass(frozen=True, slots=True)
class _Vectors:
    rows: FloatArray
    space_id: str


@router.post(
    "/v1/embeddings",
    summary="Vectors of images",
    response_model=EmbeddingsBody,
    responses={
        200: {"content": {BINARY: {"schema": {"type": "string", "format": "binary"}}}},
        **problems(400, 401, 403, 408, 413, 415, 422, 429, 503),
    },
    openapi_extra=REQUEST_BODY,
)
async def create_embeddings(access: AskDependency, desk: AtDesk) -> EmbeddingsBody | Response:
    """A unit vector for each image, in their order. Cosines of vectors are comparable where `space_id` is the same.

    Without `role` that space is the network's, and lasts as long as the model. With `role` the vectors are in the
    metric of the bundle: the cosine of a field photo and a sheet is then the similarity of its answers, and the space
    ends with the bundle. With `Accept: application/octet-stream` the answer is the numbers alone, row by row, 32-bit
    floats with the lowest byte first; what else there is to say is in the headers `X-Voucher-Dimensions`,
    `X-Voucher-Space-Id`, `X-Voucher-Bundle-Id` and `X-Voucher-Model-Id`. Every image counts as one identification.
    """
    request, settings, serving = desk.request, desk.settings, desk.serving
    identifier = serving.identifier
    serving.queue.refuse_when_full()
    shape = FormShape(
        PHOTO_FIELD, "photo", "images", ("role",), settings.max_photos, settings.max_upload_bytes, MAX_TEXT_BYTES
    )
    with desk.budget.share() as share:
        form = await read_upload(request.headers, request.receive, shape, share)
        role = _role(form.texts)
        await check_access(request, Scope.IDENTIFY, identifications=len(form.files))
        metric = identifier.bundle.gallery.metric

        def vectors(embeddings: FloatArray) -> _Vectors:
            space_id = identifier.encoder.space_id
            if role is None:
                return _Vectors(embeddings, space_id)
            return _Vectors(metric.apply(embeddings, role), f"{space_id}/{identifier.bundle_id}")

        found = await serving.queue.ask(
            identifier,
            form.files,
            lambda looked: vectors(looked.encoded.embeddings),
            client_gone=lambda: client_gone(request),
        )
    if BINARY in request.headers.get("accept", ""):
        headers = {
            "X-Voucher-Dimensions": str(found.rows.shape[1]),
            "X-Voucher-Space-Id": found.space_id,
            "X-Voucher-Bundle-Id": identifier.bundle_id,
            "X-Voucher-Model-Id": identifier.model_id,
        }
        return Response(found.rows.astype(np.dtype("<f4")).tobytes(), media_type=BINARY, headers=headers)
    return EmbeddingsBody(
        bundle_id=identifier.bundle_id,
        model_id=identifier.model_id,
        space_id=found.space_id,
        role=None if role is None else role.value,
        dimensions=found.rows.shape[1],
        embeddings=found.rows.tolist(),
    )


def _role(texts: dict[str, list[str]]) -> Role | None:
    value = single_value(texts, "role")
    if value is None:
        return None
    if value not in list(Role):
        raise UnacceptableForm(f"role: expected {' or '.join(role.value for role in Role)}")
    return Role(value)
