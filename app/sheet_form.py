"""The form that adds sheets: images, and what is told of their specimen."""

from collections.abc import Sequence
from typing import Any

from app.refusals import UnacceptableForm
from app.uploads import FormShape
from models.curation import NewSheet, NewSpecies
from models.specimens import Specimen
from models.taxonomy import SpeciesId

IMAGE_FIELD = "images"
MAX_IMAGES = 50

_NEW_SPECIES = ("scientific_name", "genus", "family")
_SPECIMEN = ("institution_code", "collection_code", "catalog_number")
_RIGHTS = ("license", "rights_holder")
TEXT_FIELDS = ("species_id", *_NEW_SPECIES, *_SPECIMEN, *_RIGHTS, "curator")

MAX_TEXT_BYTES = 4_000
"""A thousand characters of any script."""

_DESCRIPTIONS = {
    "species_id": "of a species of the catalogue; with scientific_name that of the new species, none: one is made",
    "scientific_name": "of a new species",
    "genus": "of a new species",
    "family": "of a new species",
    "institution_code": "Darwin Core institutionCode of the specimen",
    "collection_code": "Darwin Core collectionCode of the specimen",
    "catalog_number": "Darwin Core catalogNumber: all images are of this one specimen, and join those of it",
    "license": "of the images",
    "rights_holder": "of the images",
    "curator": "who adds them, for the record",
}

FORM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": [IMAGE_FIELD],
    "additionalProperties": False,
    "properties": {
        IMAGE_FIELD: {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_IMAGES,
            "items": {"type": "string", "format": "binary"},
            "description": "images of sheets, all of one species; JPEG, PNG, WebP or TIFF",
        },
        **{name: {"type": "string", "description": _DESCRIPTIONS[name]} for name in TEXT_FIELDS},
    },
}


def form_shape(*, max_image_bytes: int) -> FormShape:
    """What the form may hold."""
    return FormShape(IMAGE_FIELD, "image", "images of sheets", TEXT_FIELDS, MAX_IMAGES, max_image_bytes, MAX_TEXT_BYTES)


def read_sheets(images: Sequence[bytes], texts: dict[str, list[str]]) -> list[NewSheet]:
    """The sheets that a form describes; whether the text is plain is for the curator to say.

    Raises `UnacceptableForm` when a field is there twice, or no species is named.
    """
    given = {name: _single(texts, name) for name in TEXT_FIELDS}
    specimen = Specimen(*(given[name] for name in _SPECIMEN))
    species = _species(given)
    return [NewSheet(image, species, specimen, given["license"], given["rights_holder"]) for image in images]


def read_curator(texts: dict[str, list[str]]) -> str | None:
    """Who sends the form, if it says so. Raises `UnacceptableForm`."""
    return _single(texts, "curator")


def _species(given: dict[str, str | None]) -> SpeciesId | NewSpecies:
    species_id, name = given["species_id"], given["scientific_name"]
    if name is not None:
        return NewSpecies(name, given["genus"], given["family"], species_id)
    if species_id is None:
        raise UnacceptableForm("expected species_id of a species of the catalogue, or scientific_name of a new one")
    if given["genus"] is not None or given["family"] is not None:
        raise UnacceptableForm("genus and family describe a new species: expected scientific_name with them")
    return SpeciesId(species_id)


def _single(texts: dict[str, list[str]], name: str) -> str | None:
    """The value of a field; None when it is absent or empty, as forms of browsers send it."""
    values = texts.get(name, [])
    if len(values) > 1:
        raise UnacceptableForm(f"{name}: expected one value, found {len(values)}")
    return (values[0] or None) if values else None
