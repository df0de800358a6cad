"""The fields beside the photos in the form of an identification."""

from dataclasses import dataclass
from typing import Any

from app.refusals import UnacceptableForm
from app.uploads import FormShape
from models.candidate_filter import CandidateFilter
from models.specimens import Organ

PHOTO_FIELD = "photos"
FILTER_FIELDS = ("species_ids", "genera", "families")
IGNORE_FIELD = "ignore_unlisted"
TEXT_FIELDS = (
    "organs",
    "top_k",
    "include_sheets",
    "sheets_per_candidate",
    "explain",
    "explained_candidates",
    *FILTER_FIELDS,
    IGNORE_FIELD,
)
MAX_TEXT_BYTES = 100
MAX_FILTER_BYTES = 512 * 1024
"""A checklist of some forty thousand identifiers."""
MAX_FILTER_ENTRIES = 60_000

MAX_TOP_K = 50
DEFAULT_TOP_K = 5
MAX_SHEETS = 20
DEFAULT_SHEETS = 3
MAX_EXPLAINED = 5
DEFAULT_EXPLAINED = 3

TRUTHS = {"true": True, "1": True, "false": False, "0": False}


def _entries_schema(description: str) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string"}, "description": description}


FILTER_SCHEMA: dict[str, Any] = {
    "species_ids": _entries_schema(
        "a checklist: answer only with these species, given by identifier or by scientific name with or without "
        "authors; comma separated, repeated, or both. Each of species_ids, genera and families narrows what the "
        "others leave"
    ),
    "genera": _entries_schema("answer only with species of these genera; comma separated or repeated"),
    "families": _entries_schema("answer only with species of these families; comma separated or repeated"),
    IGNORE_FIELD: {
        "type": "boolean",
        "default": False,
        "description": "whether entries of species_ids, genera and families that the index does not hold are left out "
        "rather than refused, as for a region's checklist; `ignored` of the answer tells which",
    },
}
"""Of the fields that restrict candidates."""


def photos_schema(description: str) -> dict[str, Any]:
    """Of a field with one to five images."""
    items = {"type": "string", "format": "binary"}
    return {"type": "array", "minItems": 1, "maxItems": 5, "items": items, "description": description}


FORM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": [PHOTO_FIELD],
    "additionalProperties": False,
    "properties": {
        PHOTO_FIELD: photos_schema("photos of one plant; JPEG, PNG, WebP or TIFF"),
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
        "explain": {
            "type": "boolean",
            "default": False,
            "description": "whether the best sheet of the first candidates comes with heat maps, which take several "
            "times the time of the answer",
        },
        "explained_candidates": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_EXPLAINED,
            "default": DEFAULT_EXPLAINED,
            "description": "candidates that are explained, where explain is true",
        },
        **FILTER_SCHEMA,
    },
}


def form_shape(*, max_photos: int, max_photo_bytes: int) -> FormShape:
    """What the form may hold."""
    return FormShape(
        PHOTO_FIELD,
        "photo",
        "photos of one plant",
        TEXT_FIELDS,
        max_photos,
        max_photo_bytes,
        MAX_TEXT_BYTES,
        longer_texts=dict.fromkeys(FILTER_FIELDS, MAX_FILTER_BYTES),
    )


@dataclass(frozen=True, slots=True)
class IdentificationOptions:
    """What was asked for beside the photos."""

    top_k: int
    sheets_per_candidate: int
    organs: tuple[Organ, ...]
    within: CandidateFilter | None = None
    explained_candidates: int = 0


def read_options(texts: dict[str, list[str]], *, photo_count: int) -> IdentificationOptions:
    """Options from the text fields of the form. Raises `UnacceptableForm`; what was sent is not repeated."""
    sheets = whole_number(texts, "sheets_per_candidate", 0, MAX_SHEETS, DEFAULT_SHEETS)
    if not truth(texts, "include_sheets", True):
        sheets = 0
    return IdentificationOptions(
        top_k=whole_number(texts, "top_k", 1, MAX_TOP_K, DEFAULT_TOP_K),
        sheets_per_candidate=sheets,
        organs=_organs(texts.get("organs", []), photo_count),
        within=read_filter(texts),
        explained_candidates=_explained(texts),
    )


def _explained(texts: dict[str, list[str]]) -> int:
    count = whole_number(texts, "explained_candidates", 1, MAX_EXPLAINED, DEFAULT_EXPLAINED)
    return count if truth(texts, "explain", False) else 0


def read_filter(texts: dict[str, list[str]]) -> CandidateFilter | None:
    """What candidates are restricted to, if anything. Raises `UnacceptableForm` for a field that is given empty."""
    entries = {name: entries_of(texts, name) for name in FILTER_FIELDS}
    for name, given in entries.items():
        if texts.get(name) and not given:
            raise UnacceptableForm(f"{name}: expected at least one entry, found none; leave the field out for all")
    return CandidateFilter.of(**entries, ignores_unlisted=truth(texts, IGNORE_FIELD, False))


def entries_of(texts: dict[str, list[str]], name: str) -> list[str]:
    """What a field lists, its values split at commas; empty entries are none. Raises `UnacceptableForm`."""
    if sum(value.count(",") + 1 for value in texts.get(name, [])) > MAX_FILTER_ENTRIES:
        raise UnacceptableForm(f"{name}: expected at most {MAX_FILTER_ENTRIES:,} entries, found more")
    return [entry for value in texts.get(name, []) for part in value.split(",") if (entry := part.strip())]


def single_value(texts: dict[str, list[str]], name: str) -> str | None:
    """The value of a field, None without it. Raises `UnacceptableForm` for several."""
    values = texts.get(name, [])
    if len(values) > 1:
        raise UnacceptableForm(f"{name}: expected one value, found {len(values)}")
    return values[0] if values else None


def whole_number(texts: dict[str, list[str]], name: str, least: int, most: int, default: int) -> int:
    """The value of a field as a number in a range. Raises `UnacceptableForm`."""
    value = single_value(texts, name)
    if value is None:
        return default
    # isascii: int() also reads the digits of other scripts.
    number = int(value) if value.isascii() and value.isdecimal() and len(value) < 10 else -1
    if not least <= number <= most:
        raise UnacceptableForm(f"{name}: expected a whole number from {least} to {most}")
    return number


def truth(texts: dict[str, list[str]], name: str, default: bool) -> bool:
    """The value of a field as true or false. Raises `UnacceptableForm`."""
    value = single_value(texts, name)
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
