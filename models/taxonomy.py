"""Species, their order in a classifier head, and the only conversion between the two."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType

from models.errors import UnknownSpecies

SpeciesId = NewType("SpeciesId", str)
"""Identifier that the outside world uses, e.g. ``105951``; a string, never a number."""

ClassIndex = NewType("ClassIndex", int)
"""Column of a classifier head; only `Taxonomy` converts it."""


class TaxonRank(StrEnum):
    """Ranks that an answer may be given at (Darwin Core ``taxonRank``)."""

    SPECIES = "species"
    GENUS = "genus"
    FAMILY = "family"


@dataclass(frozen=True, slots=True)
class Species:
    """One species, as the curator named it.

    `scientific_name` may carry its authorship (``Costus arabicus L.``). `genus` is the genus in
    current use and may differ from the first word of the name, which can be a synonym's.
    """

    species_id: SpeciesId
    scientific_name: str
    genus: str | None = None
    family: str | None = None

    def __post_init__(self) -> None:
        if not self.species_id or self.species_id != self.species_id.strip():
            raise ValueError(f"species_id must be a non-empty trimmed string: {self.species_id!r}")
        if not self.scientific_name:
            raise ValueError(f"species {self.species_id} needs a scientific name")


@dataclass(frozen=True)
class Taxonomy:
    """An ordered, duplicate-free list of species. Position is the `ClassIndex`."""

    species: tuple[Species, ...]
    _position: dict[SpeciesId, ClassIndex] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        position = {s.species_id: ClassIndex(i) for i, s in enumerate(self.species)}
        if len(position) != len(self.species):
            raise ValueError("a taxonomy lists every species once")
        object.__setattr__(self, "_position", position)

    @classmethod
    def of(cls, species: Iterable[Species]) -> "Taxonomy":
        """Taxonomy ordered by species id, so that equal sets give equal digests."""
        return cls(tuple(sorted(species, key=lambda s: s.species_id)))

    def __len__(self) -> int:
        return len(self.species)

    def __iter__(self) -> Iterator[Species]:
        return iter(self.species)

    def __contains__(self, species_id: object) -> bool:
        return species_id in self._position

    def class_index(self, species_id: SpeciesId) -> ClassIndex:
        """Column of `species_id`. Raises `UnknownSpecies`."""
        try:
            return self._position[species_id]
        except KeyError:
            raise UnknownSpecies(f"species {species_id!r} is not among the {len(self)} species of this model") from None

    def at(self, class_index: ClassIndex) -> Species:
        """Species of a column. Raises `IndexError` outside ``0 … len - 1``."""
        if class_index < 0:
            raise IndexError(f"class index {class_index} is negative")
        return self.species[class_index]

    def get(self, species_id: SpeciesId) -> Species:
        """Species of an identifier. Raises `UnknownSpecies`."""
        return self.species[self.class_index(species_id)]

    @property
    def digest(self) -> str:
        """SHA-256 over the ordered identifiers: equal digests mean equal columns."""
        joined = "\x1f".join(s.species_id for s in self.species)
        return hashlib.sha256(joined.encode()).hexdigest()
