"""The fields beside the photos in the form of an identification."""

from dataclasses import dataclass
from typing import Any

from app.error_responses import UnacceptableForm
from app.uploads import FormShape
from models.specimens import Organ

PHOTO_FIELD = "photos"
TEXT_FIELDS = ("organs", "top_k", "include_sheets", "sheets_per_candidate")
MAX_TEXT_BYTES = 100

MAX_TOP_K = 50
DEFAULT_TOP_K = 5
MAX_SHEETS = 20
DEFAULT_SHEETS = 3

TRUTHS = {"true": True, "1": True, "false": False, "0": False}

FORM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": [PHOTO_FIELD],
    "additionalProperties": False,
    "properties": {
        PHOTO_FIELD: {
            "type": "array",
            "minItems": 1,
            "maxItems": 5,
            "items": {"type": "string", "format": "binary"},
            "description": "photos of one plant; JPEG, PNG, WebP or TIFF",
        },
        "organs": {
            "type": "array",
            "items": {"type": "string", "enum": [organ.value for organ in Organ]},
            "description": "what each photo shows, in the order of the photos; none, or one for each",
        },
        "top_k": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_TOP_K,
            "default": DEFAULT_TOP_K,
            "description": "candidates to return",
        },
        "include_sheets": {
            "type": "boolean",
            "default": True,
            "description": "whether candidates come with the sheets that vouch for them",
        },
        "sheets_per_candidate": {
            "type": "integer",
            "minimum": 0,
            "maximum": MAX_SHEETS,
            "default": DEFAULT_SHEETS,
            "description": "sheets of each candidate",
        },
    },
}


def form_shape(*, max_photos: int, max_photo_bytes: int) -> FormShape:
    """What the form may hold."""
    return FormShape(
        PHOTO_FIELD, "photo", "photos of one plant", TEXT_FIELDS, max_photos, max_photo_bytes, MAX_TEXT_BYTES
    )


@dataclass(frozen=True, slots=True)
class IdentificationOptions:
    """What was asked for beside the photos."""

    top_k: int
    sheets_per_candidate: int
    organs: tuple[Organ, ...]


def read_options(texts: dict[str, list[str]], *, photo_count: int) -> IdentificationOptions:
    """Options from the text fields of the form. Raises `UnacceptableForm`; what was sent is not repeated."""
    sheets = _whole_number(texts, "sheets_per_candidate", 0, MAX_SHEETS, DEFAULT_SHEETS)
    if not _truth(texts, "include_sheets", True):
        sheets = 0
    return IdentificationOptions(
        top_k=_whole_number(texts, "top_k", 1, MAX_TOP_K, DEFAULT_TOP_K),
        sheets_per_candidate=sheets,
        organs=_organs(texts.get("organs", []), photo_count),
    )


def _single(texts: dict[str, list[str]], name: str) -> str | None:
    values = texts.get(name, [])
    if len(values) > 1:
        raise UnacceptableForm(f"{name}: expected one value, found {len(values)}")
    return values[0] if values else None


def _whole_number(texts: dict[str, list[str]], name: str, least: int, most: int, default: int) -> int:
    value = _single(texts, name)
    if value is None:
        return default
    # isascii: int() also reads the digits of other scripts.
    number = int(value) if value.isascii() and value.isdecimal() else -1
    if not least <= number <= most:
        raise UnacceptableForm(f"{name}: expected a whole number from {least} to {most}")
    return number


def _truth(texts: dict[str, list[str]], name: str, default: bool) -> bool:
    value = _single(texts, name)
    if value is None:
        return default
    if value.lower() not in TRUTHS:
        raise UnacceptableForm(f"{name}: expected true or false")
    return TRUTHS[value.lower()]


def _organs(values: list[str], photo_count: int) -> tuple[Organ, ...]:
    known = [organ.value for organ in Organ]
    for value in values:
        if value not in known:
            raise UnacceptableForm(f"organs: expected each to be one of {', '.join(known)}")
    if values and len(values) != photo_count:
        raise UnacceptableForm(f"organs: expected none or one for each of {photo_count} photos, found {len(values)}")
    return tuple(Organ(value) for value in values)
