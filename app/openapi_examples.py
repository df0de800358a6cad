"""Examples in the OpenAPI description: of every body, parameter and problem below /v1."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from app.error_responses import PROBLEM_MEDIA_TYPE, TABLE, UNEXPECTED, Row

_SHEET: dict[str, Any] = {
    "sheet_id": "a3c1f0d2e4b596877869",
    "species_id": "105951",
    "scientific_name": "Costus arabicus L.",
    "institution_code": "CAY",
    "collection_code": None,
    "catalog_number": "CAY012345",
    "license": "CC BY 4.0",
    "rights_holder": "Herbier IRD de Guyane",
    "added_at": "2026-01-01T12:00:00+00:00",
    "removed_at": None,
    "removed": False,
    "width": 3000,
    "height": 4500,
    "image_url": "/v1/sheets/a3c1f0d2e4b596877869/image",
    "thumbnail_url": "/v1/sheets/a3c1f0d2e4b596877869/thumbnail?size=320",
}

_SPECIES: dict[str, Any] = {
    "species_id": "105951",
    "scientific_name": "Costus arabicus L.",
    "genus": "Costus",
    "family": "Costaceae",
    "sheet_count": 48,
    "field_photo_count": 0,
    "in_index": True,
    "in_classifier": True,
    "has_field_photos": False,
}

_JOB: dict[str, Any] = {
    "job_id": "build-20260101-120000-1f2e3d",
    "kind": "build-index",
    "state": "running",
    "created_at": "2026-01-01T12:00:00.000+00:00",
    "started_at": "2026-01-01T12:00:00.500+00:00",
    "finished_at": None,
    "requested_by": "Ada",
    "progress": {"stage": "embedding sheets", "done": 120, "total": 400, "per_second": 24.0, "seconds_left": 11.7},
    "result": None,
    "reason": None,
}

_BUNDLE: dict[str, Any] = {
    "bundle_id": "index-20260101-120030-1f2e3d",
    "model_id": "model-20251220-093000-4c5b6a",
    "number": 7,
    "created_at": "2026-01-01T12:00:30+00:00",
    "catalogue_revision": 41,
    "species": 100,
    "sheets": 4820,
    "base": "index-20251231-080000-0a1b2c",
    "built_by": "Ada",
    "job_id": "build-20260101-120000-1f2e3d",
    "changes": {
        "added": 2,
        "removed": 0,
        "moved": 1,
        "species_added": 0,
        "species_removed": 0,
        "revisions": [{"revision": 41, "by": "Ada", "action": "add sheets", "sheets": 2}],
    },
    "validation": {
        "photos": 180,
        "species": 60,
        "top1": 0.86,
        "top1_interval": [0.81, 0.91],
        "top5": 0.95,
        "mrr": 0.9,
    },
    "held_back": None,
    "is_active": True,
    "fault": None,
}

_BATCH_ID = "batch-20260101-120000-1f2e3d4c5b6a7988"

OF_SCHEMAS: dict[str, Any] = {
    "SpeciesBody": _SPECIES,
    "SpeciesPage": {"total": 1, "limit": 100, "offset": 0, "species": [_SPECIES]},
    "SheetBody": _SHEET,
    "SheetPage": {"total": 1, "limit": 50, "offset": 0, "sheets": [_SHEET]},
    "AddedSheetsBody": {"sheets": [_SHEET | {"outcome": "added"}]},
    "MovedSheetsBody": {"sheets": [_SHEET]},
    "ChangesBody": {
        "pending": 2,
        "pending_is_more": False,
        "since": 40,
        "newest_is_served": True,
        "latest": [
            {"revision": 41, "at": "2026-01-01T11:58:00+00:00", "by": "Ada", "action": "add sheets", "sheets": 2}
        ],
    },
    "JobBody": _JOB,
    "JobList": {"jobs": [_JOB]},
    "BundleBody": _BUNDLE,
    "BundleList": {"bundles": [_BUNDLE]},
    "BundleDifferenceBody": {
        "before": "index-20251231-080000-0a1b2c",
        "after": "index-20260101-120030-1f2e3d",
        "counts": {"added": 1, "removed": 0, "moved": 0, "species_added": 0, "species_removed": 0},
        "species_added": [],
        "species_removed": [],
        "added": [{"sheet_id": "a3c1f0d2e4b596877869", "species_id": "105951"}],
        "removed": [],
        "moved": [],
    },
    "BatchBody": {
        "batch_id": _BATCH_ID,
        "state": "succeeded",
        "created_at": "2026-01-01T12:00:00+00:00",
        "started_at": "2026-01-01T12:00:01.000+00:00",
        "finished_at": "2026-01-01T12:00:40+00:00",
        "expires_at": "2026-01-04T12:00:40+00:00",
        "plants": 200,
        "photos": 199,
        "done": 200,
        "failed": 1,
        "progress": {"stage": "identifying", "done": 200, "total": 200, "per_second": 5.1, "seconds_left": 0.0},
        "bundle_id": "index-20260101-120030-1f2e3d",
        "model_id": "model-20251220-093000-4c5b6a",
        "reason": None,
        "results_url": f"/v1/batches/{_BATCH_ID}/results",
    },
    "EmbeddingsBody": {
        "bundle_id": "index-20260101-120030-1f2e3d",
        "model_id": "model-20251220-093000-4c5b6a",
        "space_id": "4f1a0c9be27d5a63",
        "role": None,
        "dimensions": 4,
        "embeddings": [[0.5, -0.5, 0.5, 0.5]],
    },
    "SessionBody": {
        "keys_needed": True,
        "signed_in": True,
        "key_id": "k3y1d",
        "name": "garden app",
        "scopes": ["identify"],
        "expires_at": None,
        "may_identify": True,
        "may_curate": False,
        "may_read": True,
        "curation_refusal": "this needs a key with the scope curate",
        "quota": {"limit": 500, "remaining": 412, "resets_in_seconds": 30600},
    },
    "IndexBuildBody": {"model_id": None, "activate": True, "from_nothing": False, "curator": "Ada"},
    "ActivationBody": {"curator": "Ada"},
    "CuratorBody": {"curator": "Ada"},
    "SheetMoveBody": {"species_id": "105951", "curator": "Ada"},
    "NewSpeciesBody": {
        "scientific_name": "Costus spiralis (Jacq.) Roscoe",
        "genus": "Costus",
        "family": "Costaceae",
        "species_id": None,
        "curator": "Ada",
    },
    "SignInBody": {"key": "the key, as `voucher keys create` has shown it", "remember": False},
}
"""By the name of the schema."""

OF_FORMS: dict[str, dict[str, Any]] = {
    "/v1/identifications": {
        "photos": ["(the bytes of flower.jpg)", "(the bytes of leaf.jpg)"],
        "organs": ["flower", "leaf"],
        "top_k": 5,
        "species_ids": ["105951", "12254"],
    },
    "/v1/embeddings": {"photos": ["(the bytes of flower.jpg)"], "role": "field"},
    "/v1/explanations": {"photos": ["(the bytes of flower.jpg)"], "sheet_ids": ["a3c1f0d2e4b596877869"]},
    "/v1/batches": {"archive": "(the bytes of excursion.zip)", "folders_are_plants": True, "families": ["Costaceae"]},
    "/v1/sheets": {"images": ["(the bytes of sheet.jpg)"], "species_id": "105951", "catalog_number": "CAY012345"},
}
"""By the path."""

_ROW = '{"position":0,"file":"plot 4/IMG_1.jpg","error":"the image is cut off","answer":null}\n'

OF_TEXTS: dict[str, str] = {
    "application/jsonl": _ROW,
    "text/csv": "file,species_id,scientific_name,…\nplot 4/IMG_2.jpg,105951,Costus arabicus L.,…\n",
    "text/event-stream": 'event: job\ndata: {"job_id":"build-20260101-120000-1f2e3d","state":"running"}\n\n',
}
"""By the media type."""

OF_PARAMETERS: dict[str, Any] = {
    "species_id": "105951",
    "sheet_id": "a3c1f0d2e4b596877869",
    "job_id": "build-20260101-120000-1f2e3d",
    "bundle_id": "index-20260101-120030-1f2e3d",
    "batch_id": _BATCH_ID,
    "since": "index-20251231-080000-0a1b2c",
    "explanation_id": "9f2c4b7e1d3a5068",
    "name": "photo-1-1",
    "curator": "Ada",
    "q": "costus",
    "format": "csv",
}
"""By the name; others have a default that says as much."""


def add_examples(description: dict[str, Any]) -> None:
    """Put the examples into an OpenAPI description, below /v1."""
    for path, operations in description["paths"].items():
        if not path.startswith("/v1/"):
            continue
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                if parameter["name"] in OF_PARAMETERS:
                    parameter["example"] = OF_PARAMETERS[parameter["name"]]
            for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
                _add_body(content, OF_FORMS.get(path) if media_type == "multipart/form-data" else None)
            for status, response in operation["responses"].items():
                _add_response(int(status), response)


def _add_response(status: int, response: dict[str, Any]) -> None:
    for media_type, content in response.get("content", {}).items():
        if media_type == PROBLEM_MEDIA_TYPE:
            # A copy: the errors of all operations share one description.
            response["content"] = {media_type: content | {"examples": dict(_problems(status))}}
        else:
            _add_body(content, OF_TEXTS.get(media_type))


def _add_body(content: dict[str, Any], example: Any) -> None:
    found = example if example is not None else OF_SCHEMAS.get(_name_of(content.get("schema", {})))
    if found is not None:
        content["example"] = found


def _name_of(schema: dict[str, Any]) -> str:
    """The name of the schema that is referred to, also where the body may be left out."""
    alternatives = [schema, *schema.get("anyOf", [])]
    reference = next((str(each["$ref"]) for each in alternatives if "$ref" in each), "")
    return reference.rpartition("/")[2]


def _problems(status: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """A document for each kind of problem of this status, by its identifier."""
    rows = [row for row in (*TABLE.values(), UNEXPECTED) if row.status == status]
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        rows.append(Row(status, "invalid-parameter", "A parameter is not valid"))
    for row in rows:
        yield (
            row.slug,
            {
                "summary": row.title,
                "value": {
                    "type": f"urn:voucher:problem:{row.slug}",
                    "title": row.title,
                    "status": status,
                    "detail": "What was expected, what was found, and the remedy.",
                    "request_id": "0f6c1f2f4d1c4a8d9a53f2f6a8f1c001",
                },
            },
        )
