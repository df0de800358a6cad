"""How the routes of this API are described in OpenAPI."""

from typing import Any

from app.plantnet.asked import IMAGES_FIELD, MAX_IMAGES, ORGANS_FIELD
from app.plantnet.errors import status_name
from app.plantnet.wire import ErrorBody
from models.specimens import Organ

TAG = "plantnet"

FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [IMAGES_FIELD],
                    "properties": {
                        IMAGES_FIELD: {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": MAX_IMAGES,
                            "items": {"type": "string", "format": "binary"},
                            "description": "images of one plant; JPEG or PNG",
                        },
                        ORGANS_FIELD: {
                            "type": "array",
                            "maxItems": MAX_IMAGES,
                            "items": {"type": "string", "enum": [organ.value for organ in Organ]},
                            "description": "organ of each image, in their order; none: auto",
                        },
                    },
                },
                "encoding": {IMAGES_FIELD: {"contentType": "image/jpeg, image/png"}},
            }
        },
    }
}

EXAMPLE: dict[str, Any] = {
    "query": {
        "project": "all",
        "images": ["0a1b2c3d4e5f60718293a4b5c6d7e8f9"],
        "organs": ["leaf"],
        "includeRelatedImages": True,
        "noReject": False,
        "type": None,
    },
    "predictedOrgans": [],
    "language": "en",
    "preferedReferential": "collection",
    "bestMatch": "Costus arabicus L.",
    "results": [
        {
            "score": 0.91806,
            "species": {
                "scientificNameWithoutAuthor": "Costus arabicus",
                "scientificNameAuthorship": "L.",
                "genus": {
                    "scientificNameWithoutAuthor": "Costus",
                    "scientificNameAuthorship": "",
                    "scientificName": "Costus",
                },
                "family": {
                    "scientificNameWithoutAuthor": "Costaceae",
                    "scientificNameAuthorship": "",
                    "scientificName": "Costaceae",
                },
                "commonNames": [],
                "scientificName": "Costus arabicus L.",
            },
            "images": [
                {
                    "organ": "other",
                    "author": "CAY",
                    "license": "CC BY 4.0",
                    "date": {"timestamp": 1655459830138, "string": "June 17, 2022"},
                    "citation": "CAY herbarium CAY012345, CC BY 4.0",
                    "url": {
                        "o": "https://plants.example.org/v1/sheets/0f6c1f2f4d1c4a8d9a53/image",
                        "m": "https://plants.example.org/v1/sheets/0f6c1f2f4d1c4a8d9a53/thumbnail?size=640",
                        "s": "https://plants.example.org/v1/sheets/0f6c1f2f4d1c4a8d9a53/thumbnail?size=160",
                    },
                }
            ],
        }
    ],
    "version": "index-20261121-101112-ab12",
    "remainingIdentificationRequests": 499,
}


def answered(example: Any) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route: what a good answer looks like."""
    return {200: {"content": {"application/json": {"example": example}}}}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route that may answer with errors of `statuses`; those that any may answer with are added."""
    every = (*statuses, 400, 401, 403, 414, 429, 500, 503)
    return {status: {"model": ErrorBody, "description": status_name(status)} for status in every}
