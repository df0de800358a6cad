"""Species as curators name them: by an identifier of the catalogue, or as new ones."""

import hashlib
import re
import unicodedata
from dataclasses import dataclass

from models.catalogue_revisions import ChangeAction
from models.curation_rows import CurationRows
from models.errors import SpeciesConflict, UnknownSpecies
from models.plain_text import comparable, optional_text, required_text
from models.taxonomy import Species, SpeciesId

MAX_SPECIES_ID = 200
MAX_NAME = 300
_MAX_SLUG = 60


@dataclass(frozen=True, slots=True)
class NewSpecies:
    """A species that the catalogue may not hold yet; without an identifier one is made from the name."""

    scientific_name: str
    genus: str | None = None
    family: str | None = None
    species_id: str | None = None

    def checked(self) -> "NewSpecies":
        """The same with its text in order. Raises `InvalidSheetDetails`."""
        return NewSpecies(
            required_text("scientific_name", self.scientific_name, most=MAX_NAME),
            optional_text("genus", self.genus, most=MAX_NAME),
            optional_text("family", self.family, most=MAX_NAME),
            optional_text("species_id", self.species_id, most=MAX_SPECIES_ID),
        )


def checked_species(species: SpeciesId | NewSpecies) -> SpeciesId | NewSpecies:
    """The same with its text in order. Raises `InvalidSheetDetails`."""
    if isinstance(species, NewSpecies):
        return species.checked()
    return SpeciesId(required_text("species_id", species, most=MAX_SPECIES_ID))


def resolve_species(rows: CurationRows, wanted: SpeciesId | NewSpecies) -> tuple[SpeciesId, bool]:
    """The identifier of a species that is in the catalogue afterwards, and whether it is new.

    A new one whose name is in the catalogue is that species. Raises `UnknownSpecies`, and `SpeciesConflict` when the
    catalogue holds the identifier or the name with other details.
    """
    if isinstance(wanted, str):
        if rows.find_species(wanted) is None:
            raise UnknownSpecies(f"species {wanted!r} is not in the catalogue; give a name to enter it as a new one")
        return wanted, False
    known = rows.species_named(wanted.scientific_name) if wanted.species_id is None else _by_id(rows, wanted)
    if known is not None:
        _refuse_contradiction(known, wanted)
        return known.species_id, False
    species_id = SpeciesId(wanted.species_id) if wanted.species_id is not None else _free_id(rows, wanted)
    rows.writer.put_species([Species(species_id, wanted.scientific_name, wanted.genus, wanted.family)])
    rows.note(ChangeAction.SPECIES_ADDED, None, species_id, None)
    return species_id, True


def _by_id(rows: CurationRows, wanted: NewSpecies) -> Species | None:
    known = rows.find_species(SpeciesId(wanted.species_id or ""))
    namesake = None if known is not None else rows.species_named(wanted.scientific_name)
    if namesake is not None:
        raise SpeciesConflict(
            f"the catalogue has {namesake.scientific_name} as species {namesake.species_id!r}; use that identifier"
        )
    return known


def _refuse_contradiction(known: Species, wanted: NewSpecies) -> None:
    pairs = (
        ("name", known.scientific_name, wanted.scientific_name),
        ("genus", known.genus, wanted.genus),
        ("family", known.family, wanted.family),
    )
    for what, has, given in pairs:
        if given is not None and has is not None and comparable(has) != comparable(given):
            raise SpeciesConflict(
                f"species {known.species_id!r} has the {what} {has!r} in the catalogue, not {given!r}; "
                "give another identifier, or leave the details out to use it as it is"
            )


def _free_id(rows: CurationRows, wanted: NewSpecies) -> SpeciesId:
    ascii_only = unicodedata.normalize("NFKD", wanted.scientific_name).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_only.lower()).strip("-")[:_MAX_SLUG].strip("-")
    if not slug:  # a name in another script
        slug = f"species-{hashlib.sha256(wanted.scientific_name.encode()).hexdigest()[:10]}"
    candidate, number = SpeciesId(slug), 1
    while rows.find_species(candidate) is not None:
        number += 1
        candidate = SpeciesId(f"{slug}-{number}")
    return candidate
