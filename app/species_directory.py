"""All species with their counts, in memory, by name: what lists and searches are answered from."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from models.catalogue import Catalogue, SpeciesCounts
from models.taxonomy import Species, SpeciesId

FRESH_SECONDS = 30.0
"""Counting a million sheets takes about a second; a list may be this much behind the catalogue."""


@dataclass(frozen=True, slots=True)
class SpeciesEntry:
    """A species and how many images the catalogue has of it, all splits together."""

    species: Species
    sheet_count: int
    field_photo_count: int
    search_text: str


class SpeciesDirectory:
    """Snapshot of a catalogue's species, taken again when it is older than `FRESH_SECONDS`."""

    def __init__(self, catalogue: Catalogue, now: Callable[[], float] = time.monotonic) -> None:
        self._catalogue = catalogue
        self._now = now
        self._lock = threading.Lock()
        self._taken_at = float("-inf")
        self._entries: tuple[SpeciesEntry, ...] = ()
        self._counts: dict[SpeciesId, SpeciesCounts] = {}

    def find(self, query: str, *, limit: int, offset: int) -> tuple[list[SpeciesEntry], int]:
        """One page of the species that have every word of `query` in name, genus, family or id; and how many do.

        Ordered by scientific name.
        """
        words = query.casefold().split()
        entries = self._fresh_entries()
        found = [e for e in entries if all(word in e.search_text for word in words)] if words else entries
        return list(found[offset : offset + limit]), len(found)

    def get(self, species_id: SpeciesId) -> SpeciesEntry:
        """One species and its counts as they are now. Raises `UnknownSpecies`."""
        species = self._catalogue.get_species(species_id)
        return _entry_of(species, self._catalogue.species_counts(species_id).get(species_id))

    def forget(self) -> None:
        """Take the snapshot again when it is next asked for: something was changed through this process."""
        with self._lock:
            self._taken_at = float("-inf")

    def _fresh_entries(self) -> tuple[SpeciesEntry, ...]:
        with self._lock:
            if self._now() - self._taken_at > FRESH_SECONDS:
                self._counts = self._catalogue.species_counts()
                entries = (_entry_of(each, self._counts.get(each.species_id)) for each in self._catalogue.species())
                self._entries = tuple(sorted(entries, key=_by_name))
                self._taken_at = self._now()
            return self._entries


def _by_name(entry: SpeciesEntry) -> tuple[str, str]:
    return entry.species.scientific_name.casefold(), entry.species.species_id


def _entry_of(species: Species, counts: SpeciesCounts | None) -> SpeciesEntry:
    """Entry of one species; `counts` is missing for one that was added after the snapshot."""
    counted = counts or SpeciesCounts()
    names = [species.scientific_name, species.genus, species.family, species.species_id]
    return SpeciesEntry(
        species,
        sheet_count=counted.sheets + counted.test_sheets,
        field_photo_count=counted.field_photos + counted.test_field_photos,
        search_text=" ".join(name for name in names if name).casefold(),
    )
