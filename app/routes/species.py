"""`/v1/species`: what species there are."""

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query

from app.dependencies import DirectoryDependency, ServingDependency
from app.routes.documented_errors import problems
from app.schemas.collection import SpeciesBody, SpeciesPage
from app.species_directory import SpeciesEntry
from models.taxonomy import SpeciesId

if TYPE_CHECKING:
    from models.identifier import Identifier

router = APIRouter(tags=["species"])

MAX_OFFSET = 10_000_000


@router.get("/v1/species", summary="List or search species", responses=problems(422, 503))
def list_species(
    directory: DirectoryDependency,
    serving: ServingDependency,
    q: Annotated[str, Query(max_length=100, description="words of a name, genus, family or id")] = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    offset: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
) -> SpeciesPage:
    """A page of the species that have every word of `q`, by scientific name. Counts may be half a minute old."""
    entries, total = directory.find(q, limit=limit, offset=offset)
    identifier = serving.identifier_or_none
    species = [species_body(entry, identifier) for entry in entries]
    return SpeciesPage(total=total, limit=limit, offset=offset, species=species)


@router.get("/v1/species/{species_id:path}", summary="One species", responses=problems(404, 422, 503))
def get_species(species_id: str, directory: DirectoryDependency, serving: ServingDependency) -> SpeciesBody:
    """A species with its counts of sheets and field photos, and how the index that answers knows it."""
    return species_body(directory.get(SpeciesId(species_id)), serving.identifier_or_none)


def species_body(entry: SpeciesEntry, identifier: "Identifier | None") -> SpeciesBody:
    """What is sent of a species; `identifier` is the one that answers, if there is one."""
    species = entry.species
    known = None if identifier is None else identifier.knowledge(species.species_id)
    return SpeciesBody(
        species_id=species.species_id,
        scientific_name=species.scientific_name,
        genus=species.genus,
        family=species.family,
        sheet_count=entry.sheet_count,
        field_photo_count=entry.field_photo_count,
        in_index=None if identifier is None else known is not None,
        in_classifier=None if known is None else known.in_classifier,
        has_field_photos=None if known is None else known.has_field_photos,
    )
