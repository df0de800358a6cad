"""Species and sheets, and changes of them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.wire import WireModel


class SpeciesBody(WireModel):
    """One species of the catalogue."""

    species_id: str
    scientific_name: str
    genus: str | None = None
    family: str | None = None
    sheet_count: int = Field(ge=0)
    field_photo_count: int = Field(ge=0)
    in_index: bool | None = Field(None, description="whether answers can name it now; null while no index answers")
    in_classifier: bool | None = Field(
        None, description="as in a candidate; null for species that are not in the index"
    )
    has_field_photos: bool | None = Field(None, description="as in a candidate; null as in_classifier")


class SpeciesPage(WireModel):
    """A page of the species list, by scientific name."""

    total: int = Field(ge=0, description="species that fit the search")
    limit: int
    offset: int
    species: list[SpeciesBody]


class SheetBody(WireModel):
    """One herbarium sheet."""

    sheet_id: str
    species_id: str
    scientific_name: str
    institution_code: str | None = Field(None, description="Darwin Core institutionCode")
    collection_code: str | None = Field(None, description="Darwin Core collectionCode")
    catalog_number: str | None = Field(None, description="Darwin Core catalogNumber")
    license: str | None = None
    rights_holder: str | None = None
    added_at: str | None = Field(None, description="UTC, ISO 8601; null where it was not noted")
    removed_at: str | None = Field(None, description="UTC, ISO 8601; null while it is in the collection")
    removed: bool = Field(False, description="taken out of the collection; the next index is without it")
    width: int = Field(ge=1, description="pixels")
    height: int = Field(ge=1, description="pixels")
    image_url: str
    thumbnail_url: str


class AddedSheetBody(SheetBody):
    """A sheet that was sent, as the collection holds it now."""

    outcome: Literal["added", "restored", "already_present"]


class AddedSheetsBody(WireModel):
    """Sheets in the order of their images."""

    sheets: list[AddedSheetBody]


class MovedSheetsBody(WireModel):
    """All sheets of the specimen that was determined anew, also those that are removed."""

    sheets: list[SheetBody]


class CuratorBody(BaseModel):
    """Who changes something."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    curator: str | None = Field(None, max_length=200, description="who asks, for the record")


class SheetMoveBody(CuratorBody):
    """The species that a specimen really is."""

    species_id: str = Field(min_length=1, max_length=200, description="of a species of the catalogue")


class NewSpeciesBody(CuratorBody):
    """A species to enter."""

    scientific_name: str = Field(min_length=1, max_length=300)
    genus: str | None = Field(None, max_length=300)
    family: str | None = Field(None, max_length=300)
    species_id: str | None = Field(None, max_length=200, description="null: one is made from the name")


class SheetPage(WireModel):
    """A page of a species' sheets."""

    total: int = Field(ge=0)
    limit: int
    offset: int
    sheets: list[SheetBody]


class RevisionBody(WireModel):
    """One change of the catalogue."""

    revision: int = Field(ge=1, description="its number; the order of changes, whatever clocks say")
    at: str = Field(description="UTC, ISO 8601")
    by: str
    action: str
    sheets: int = Field(ge=0, description="how many it was about")


class ChangesBody(WireModel):
    """What was done to the collection."""

    pending: int = Field(ge=0, description="sheets that were changed since the newest index was built")
    pending_is_more: bool = Field(description="whether there are more than are counted")
    since: int = Field(ge=0, description="the revision that the newest index was built from; 0 without one")
    newest_is_served: bool = Field(description="whether the index in service knows as much as the newest one")
    latest: list[RevisionBody] = Field(description="the latest first")
