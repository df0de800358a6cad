"""`/v1/species`: what species there are."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.dependencies import DirectoryDependency
from app.routes.documented_errors import problems
from app.schemas import SpeciesBody, SpeciesPage
from app.species_directory import SpeciesEntry
from models.taxonomy import SpeciesId

router = APIRouter(tags=["species"])

MAX_OFFSET = 10_000_000


@router.get("/v1/species", summary="List or search species", responses=problems(422, 503))
def list_species(
    directory: DirectoryDependency,
    q: Annotated[str, Query(max_length=100, description="words of a name, genus, family or id")] = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    offset: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
) -> SpeciesPage:
    """A page of the species that have every word of `q`, by scientific name. Counts may be half a minute old."""
    entries, total = directory.find(q, limit=limit, offset=offset)
    return SpeciesPage(total=total, limit=limit, offset=offset, species=[species_body(entry) for entry in entries])


@router.get("/v1/species/{species_id:path}", summary="One species", responses=problems(404, 422, 503))
def get_species(species_id: str, directory: DirectoryDependency) -> SpeciesBody:
    """A species with its counts of sheets and field photos."""
    return species_body(directory.get(SpeciesId(species_id)))


def species_body(entry: SpeciesEntry) -> SpeciesBody:
    """What is sent of a species."""
    species = entry.species
    return SpeciesBody(
        species_id=species.species_id,
        scientific_name=species.scientific_name,
        genus=species.genus,
        family=species.family,
        sheet_count=entry.sheet_count,
        field_photo_count=entry.field_photo_count,
    )
