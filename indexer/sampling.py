"""Batches in which every species weighs the same and both domains meet."""

import numpy as np

from indexer.run_config import SamplingConfig
from indexer.training_set import BoolArray, IntArray


class CrossDomainSampler:
    """Draws row numbers: some species, and of each some sheets and some photos.

    Half of a batch's species have both domains, as long as there are such; the others fill the rest. Each kind is
    gone through in random order before any of its species returns. A role with fewer images than
    ``images_per_role`` gives them more than once, each time in another random view.
    """

    def __init__(
        self,
        rows: IntArray,
        classes: IntArray,
        is_field: BoolArray,
        config: SamplingConfig,
        generator: np.random.Generator,
    ) -> None:
        self._rows_of: dict[tuple[int, bool], IntArray] = {}
        for role in (False, True):
            chosen = rows[is_field[rows] == role]
            chosen = chosen[np.argsort(classes[chosen], kind="stable")]
            values, starts = np.unique(classes[chosen], return_index=True)
            ends = np.append(starts[1:], len(chosen))
            for value, start, end in zip(values, starts, ends, strict=False):
                self._rows_of[int(value), role] = chosen[start:end]
        present = sorted({species for species, _ in self._rows_of})
        both = [s for s in present if (s, False) in self._rows_of and (s, True) in self._rows_of]
        single = [s for s in present if s not in set(both)]
        self._both, self._single = _Deck(both, generator), _Deck(single, generator)
        size = min(config.species_per_batch, len(present))
        self._both_count = min(len(both), max(size - len(single), (size + 1) // 2))
        self._single_count = min(len(single), size - self._both_count)
        self._per_role = config.images_per_role
        self._generator = generator
        self.expected_batch = 2 * self._per_role * self._both_count + self._per_role * self._single_count

    def batch(self) -> IntArray:
        """Row numbers of one batch."""
        species = self._both.draw(self._both_count) + self._single.draw(self._single_count)
        parts = [self._draw(s, role) for s in species for role in (False, True) if (s, role) in self._rows_of]
        return np.concatenate(parts)

    def _draw(self, species: int, role: bool) -> IntArray:
        rows = self._rows_of[species, role]
        return self._generator.choice(rows, size=self._per_role, replace=len(rows) < self._per_role)


class _Deck:
    """Species in random order, shuffled anew when all have been drawn; never one twice in a draw."""

    def __init__(self, species: list[int], generator: np.random.Generator) -> None:
        self._species, self._generator = species, generator
        self._rest: list[int] = []

    def draw(self, count: int) -> list[int]:
        drawn, self._rest = self._rest[:count], self._rest[count:]
        if len(drawn) < count:
            fresh = [self._species[i] for i in self._generator.permutation(len(self._species))]
            fresh.sort(key=set(drawn).__contains__)  # stable: those of this draw go to the end
            missing = count - len(drawn)
            drawn, self._rest = drawn + fresh[:missing], fresh[missing:]
        return drawn
