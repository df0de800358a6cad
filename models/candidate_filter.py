"""Which species may be answered: a checklist, genera, families. NumPy only."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidCandidateFilter
from models.plain_text import comparable
from models.taxonomy import Species

_MOST_NAMED = 10


@dataclass(frozen=True, slots=True)
class CandidateFilter:
    """Restricts candidates to species that are of everything that is given.

    Within one field any entry will do; each field that is not empty narrows the choice further, so that a region's
    checklist and a family leave the species of that family on the checklist. Identifiers are compared exactly, names of
    genera and families whatever their case.
    """

    species_ids: frozenset[str] = frozenset()
    genera: frozenset[str] = frozenset()
    families: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls, species_ids: Iterable[str] = (), genera: Iterable[str] = (), families: Iterable[str] = ()
    ) -> "CandidateFilter | None":
        """The filter of these entries, blanks aside; None where none is left, which lets everything through."""
        fields = [
            frozenset(trimmed for entry in entries if (trimmed := entry.strip()))
            for entries in (species_ids, genera, families)
        ]
        return cls(*fields) if any(fields) else None

    def positions(self, species: Sequence[Species]) -> NDArray[np.intp]:
        """Ascending positions of the allowed among all `species` that can be answered; at least one.

        Raises `InvalidCandidateFilter`, which names entries that none of `species` has, or says that none has all.
        """
        allowed = np.ones(len(species), dtype=bool)
        for word, wanted, of_species in (
            ("species_ids", self.species_ids, _own_id),
            ("genera", self.genera, _own_genus),
            ("families", self.families, _own_family),
        ):
            if wanted:
                allowed &= _with_one_of(word, wanted, species, of_species)
        if not allowed.any():
            raise InvalidCandidateFilter(
                f"none of the {len(species):,} species in the index fits species_ids, genera and families together; "
                "each narrows what the others leave, so give fewer of them"
            )
        return np.flatnonzero(allowed)

    def to_json(self) -> dict[str, list[str]]:
        """Plain values, sorted."""
        return {
            "species_ids": sorted(self.species_ids),
            "genera": sorted(self.genera),
            "families": sorted(self.families),
        }


def _own_id(species: Species) -> str:
    return species.species_id


def _own_genus(species: Species) -> str:
    return comparable(species.genus or "")


def _own_family(species: Species) -> str:
    return comparable(species.family or "")


def _with_one_of(
    word: str, wanted: frozenset[str], species: Sequence[Species], of_species: Callable[[Species], str]
) -> NDArray[np.bool_]:
    """``(U,)``: whether a species has one of the wanted entries. Raises `InvalidCandidateFilter` for one nobody has."""
    own = [of_species(each) for each in species]
    keys = {entry if of_species is _own_id else comparable(entry): entry for entry in wanted}
    held = set(own)
    if unknown := sorted(entry for key, entry in keys.items() if key not in held):
        named = ", ".join(repr(entry) for entry in unknown[:_MOST_NAMED])
        more = f" and {len(unknown) - _MOST_NAMED:,} more" if len(unknown) > _MOST_NAMED else ""
        raise InvalidCandidateFilter(
            f"{word}: the index holds none of {named}{more}; what it holds is listed by GET /v1/species and on the page"
        )
    return np.fromiter((each in keys for each in own), dtype=bool, count=len(own))
