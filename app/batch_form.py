"""The form of a batch: its fields, and what they ask for."""

from typing import Any

from app.access import Access
from app.batch_upload import ARCHIVE_FIELD, BatchLimits
from app.identification_form import (
    DEFAULT_TOP_K,
    FILTER_FIELDS,
    FILTER_SCHEMA,
    IGNORE_FIELD,
    MAX_FILTER_BYTES,
    MAX_SHEETS,
    MAX_TEXT_BYTES,
    MAX_TOP_K,
    PHOTO_FIELD,
    read_filter,
    whole_number,
)
from app.settings import Settings
from app.uploads import FormShape
from models.batches import BatchOptions
from models.candidate_filter import CandidateFilter

ANONYMOUS = "web"
"""Who has sent a batch, where no key is needed."""

FORM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        PHOTO_FIELD: {
            "type": "array",
            "items": {"type": "string", "format": "binary"},
            "description": "photos, each of a plant of its own; JPEG, PNG, WebP or TIFF",
        },
        ARCHIVE_FIELD: {
            "type": "string",
            "format": "binary",
            "description": "in place of photos: a ZIP of them, without password and without archives in it",
        },
        "folders_are_plants": {
            "type": "boolean",
            "default": False,
            "description": "whether the photos of one folder are of one plant; a file's folder is that of its name",
        },
        "top_k": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_TOP_K,
            "default": DEFAULT_TOP_K,
            "description": "candidates of each plant",
        },
        "sheets_per_candidate": {
            "type": "integer",
            "minimum": 0,
            "maximum": MAX_SHEETS,
            "default": 0,
            "description": "ids of sheets that vouch for each candidate; in JSON lines only",
        },
        **FILTER_SCHEMA,
    },
}


def form_shape(settings: Settings) -> FormShape:
    """What the form may hold beside an archive."""
    return FormShape(
        PHOTO_FIELD,
        "photo",
        f"photos (or a ZIP of them in “{ARCHIVE_FIELD}”)",
        ("folders_are_plants", "top_k", "sheets_per_candidate", *FILTER_FIELDS, IGNORE_FIELD),
        settings.batch_photos,
        settings.max_upload_bytes,
        MAX_TEXT_BYTES,
        longer_texts=dict.fromkeys(FILTER_FIELDS, MAX_FILTER_BYTES),
    )


def batch_limits(settings: Settings) -> BatchLimits:
    """What a batch may hold."""
    return BatchLimits(
        max_photos=settings.batch_photos,
        max_photo_bytes=settings.max_upload_bytes,
        max_bytes=settings.batch_upload_bytes,
        max_pixels=settings.max_pixels,
        max_plant_photos=settings.max_photos,
    )


def read_options(texts: dict[str, list[str]], settings: Settings, access: Access) -> BatchOptions:
    """What was asked for, and by whom. Raises `UnacceptableForm`."""
    within = read_filter(texts) or CandidateFilter()
    return BatchOptions(
        top_k=whole_number(texts, "top_k", 1, MAX_TOP_K, DEFAULT_TOP_K),
        sheets_per_candidate=whole_number(texts, "sheets_per_candidate", 0, MAX_SHEETS, 0),
        species_ids=tuple(sorted(within.species_ids)),
        genera=tuple(sorted(within.genera)),
        families=tuple(sorted(within.families)),
        ignores_unlisted=within.ignores_unlisted,
        max_pixels=settings.max_pixels,
        keep_hours=settings.batch_keep_hours,
        key_id=access.key_id,
        requested_by=access.name or ANONYMOUS,
    )
