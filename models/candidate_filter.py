"""Which species may be answered: a checklist, genera, families. NumPy only."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidCandidateFilter
from models.plain_text import comparable
from models.scientific_name import split_scientific_name
from models.taxonomy import Species

_MOST_NAMED = 10


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

    def _fields(self, species: Sequence[Species]) -> Iterator[tuple[str, dict[str, str], list[str]]]:
        """Of each field that is given its word, its entries as they are compared, and what each species has there."""
        if self.species_ids:
            yield "species_ids", _by_id(self.species_ids, species), [each.species_id for each in species]
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


def _by_id(entries: Iterable[str], species: Sequence[Species]) -> dict[str, str]:
    """Each entry under the identifiers of the species that it means, and under itself when it means none."""
    known = {each.species_id for each in species}
    wanted = {entry: entry for entry in entries if entry in known}
    names: dict[str, list[str]] = {}
    for entry in entries:
        if entry not in known:
            names.setdefault(_name(entry), []).append(entry)
    beginnings = {_beginning(name) for name in names}
    meant: set[str] = set()
    for each in species if names else ():
        # Names are read in full only where they may be meant: a flora has hundreds of thousands.
        if _beginning(each.scientific_name) in beginnings and (name := _name(each.scientific_name)) in names:
            meant.add(name)
            wanted.setdefault(each.species_id, names[name][0])
    for name in names.keys() - meant:
        wanted.update((entry, entry) for entry in names[name])
    return wanted


def _name(text: str) -> str:
    """The name without its authors, as names are compared; lists have them in capitals, too."""
    found = split_scientific_name(text)
    words = text.split()
    if len(found.without_author.split()) < 2 <= len(words) or found.genus is None:
        found = split_scientific_name(
            " ".join([*(w.capitalize() for w in words[:1]), *map(str.lower, words[1:2]), *words[2:]])
        )
    return comparable(found.without_author)


def _beginning(name: str) -> str:
    words = name.lstrip("×+ ").split(maxsplit=1)
    return words[0].casefold() if words else ""


def _own_genus(species: Species) -> str:
    return comparable(species.genus or "")


def _own_family(species: Species) -> str:
    return comparable(species.family or "")
