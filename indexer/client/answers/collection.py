"""Species and sheets."""

from typing import Literal

from indexer.client.answers.base import Answer


class Species(Answer):
    """One species of the catalogue."""

    species_id: str
    scientific_name: str
    genus: str | None = None
    family: str | None = None
    sheet_count: int
    field_photo_count: int
    in_index: bool | None = None
    in_classifier: bool | None = None
    has_field_photos: bool | None = None


class SpeciesPage(Answer):
    """A page of the list of species."""

    total: int
    limit: int
    offset: int
    species: tuple[Species, ...]


class Sheet(Answer):
    """One herbarium sheet; times are ISO 8601 in UTC."""

    sheet_id: str
    species_id: str
    scientific_name: str
    institution_code: str | None = None
    collection_code: str | None = None
    catalog_number: str | None = None
    license: str | None = None
    rights_holder: str | None = None
    added_at: str | None = None
    removed_at: str | None = None
    removed: bool = False
    width: int
    height: int
    image_url: str
    thumbnail_url: str


class SheetPage(Answer):
    """A page of a species' sheets."""

    total: int
    limit: int
    offset: int
    sheets: tuple[Sheet, ...]


class AddedSheet(Sheet):
    """A sheet that was sent, as the collection holds it now."""

    outcome: Literal["added", "restored", "already_present"]


class AddedSheets(Answer):
    """Sheets in the order of their images."""

    sheets: tuple[AddedSheet, ...]
