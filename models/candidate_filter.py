"""Which species may be answered: a checklist, genera, families. NumPy only."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidCandidateFilter
from models.plain_text import comparable
from models.species_names import species_meant
from models.taxonomy import Species

_MOST_NAMED = 10
_MOST_PASSED_OVER = 50


@dataclass(frozen=True, slots=True)
class CandidateFilter:
    """Restricts candidates to species that are of everything that is given.

    Within one field any entry will do; each field that is not empty narrows the choice further, so that a region's
    checklist and a family leave the species of that family on the checklist. A species is given by its identifier, or
    by its scientific name with or without authors; names are compared whatever their case. Entries that no species has
    are an error, or, with `ignores_unlisted`, as if they had not been given: a region's checklist names species that a
    collection does not have.
    """

    species_ids: frozenset[str] = frozenset()
    genera: frozenset[str] = frozenset()
    families: frozenset[str] = frozenset()
    ignores_unlisted: bool = False

    @classmethod
    def of(
        cls,
        species_ids: Iterable[str] = (),
        genera: Iterable[str] = (),
        families: Iterable[str] = (),
        *,
        ignores_unlisted: bool = False,
    ) -> "CandidateFilter | None":
        """The filter of these entries, blanks aside; None where none is left, which lets everything through."""
        ids, of_genera, of_families = (
            frozenset(trimmed for entry in entries if (trimmed := entry.strip()))
            for entries in (species_ids, genera, families)
        )
        if not (ids or of_genera or of_families):
            return None
        return cls(ids, of_genera, of_families, ignores_unlisted)

    def positions(self, species: Sequence[Species]) -> NDArray[np.intp]:
        """Ascending positions of the allowed among all `species` that can be answered; at least one.

        Raises `InvalidCandidateFilter`, which names entries that none of `species` has, or says that none has all.
        """
        allowed = np.ones(len(species), dtype=bool)
        for word, wanted, own in self._fields(species):
            if not self.ignores_unlisted and (unlisted := sorted(wanted[key] for key in wanted.keys() - set(own))):
                named = ", ".join(repr(entry) for entry in unlisted[:_MOST_NAMED])
                more = f" and {len(unlisted) - _MOST_NAMED:,} more" if len(unlisted) > _MOST_NAMED else ""
                raise InvalidCandidateFilter(
                    f"{word}: the index holds none of {named}{more}; what it holds is listed on the page, by "
                    "GET /v1/species and by `voucher species`. Leave these out, or have such entries passed over "
                    "(ignore_unlisted, --ignore-unlisted)"
                )
            allowed &= np.fromiter((each in wanted for each in own), dtype=bool, count=len(own))
        if not allowed.any():
            given = [word for word, entries in self._given() if entries]
            why = (
                f"is among the {given[0]}"
                if len(given) == 1
                else f"fits {' and '.join(given)} together; each narrows what the others leave, so give fewer of them"
            )
            raise InvalidCandidateFilter(f"none of the {len(species):,} species in the index {why}")
        return np.flatnonzero(allowed)

    def unlisted(self, species: Sequence[Species]) -> list[str]:
        """Entries that none of `species` has, field by field, each in alphabetical order."""
        return [
            entry
            for _, wanted, own in self._fields(species)
            for entry in sorted(wanted[key] for key in wanted.keys() - set(own))
        ]

    def passed_over(self, species: Sequence[Species]) -> dict[str, Any] | None:
        """How many entries are passed over, and the first of them; None where such entries are an error."""
        if not self.ignores_unlisted:
            return None
        entries = self.unlisted(species)
        return {"count": len(entries), "entries": entries[:_MOST_PASSED_OVER]}

    def _fields(self, species: Sequence[Species]) -> Iterator[tuple[str, dict[str, str], list[str]]]:
        """Of each field that is given its word, its entries as they are compared, and what each species has there."""
        if self.species_ids:
            yield "species_ids", species_meant(self.species_ids, species), [each.species_id for each in species]
        for word, entries, own in (("genera", self.genera, _own_genus), ("families", self.families, _own_family)):
            if entries:
                yield word, {comparable(entry): entry for entry in entries}, [own(each) for each in species]

    def _given(self) -> tuple[tuple[str, frozenset[str]], ...]:
        return ("species_ids", self.species_ids), ("genera", self.genera), ("families", self.families)

    def to_json(self) -> dict[str, Any]:
        """Plain values, sorted."""
        return {
            "species_ids": sorted(self.species_ids),
            "genera": sorted(self.genera),
            "families": sorted(self.families),
            "ignores_unlisted": self.ignores_unlisted,
        }


def _own_genus(species: Species) -> str:
    return comparable(species.genus or "")


def _own_family(species: Species) -> str:
    return comparable(species.family or "")
