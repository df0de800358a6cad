"""Species that come after training: what they cost the ones that were there, and how well they are found.

Some species are left out of the catalogue entirely, a network is trained and an index built without them; then their
sheets are added and the index is continued, without training. Photos of all are scored before and after.
"""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.build_gallery import build
from indexer.evaluate import read_test_photos
from indexer.leave_one_out import leave_one_out, specimens_of
from indexer.metrics import GroupFigures, group_figures
from indexer.progress import Report, silent
from indexer.run_config import RunConfig
from indexer.run_folder import TrainingRun
from indexer.scoring import score_files
from indexer.training_run import train
from models.catalogue import Catalogue
from models.compute import Compute
from models.curation import Curator, NewSheet, NewSpecies
from models.errors import InsufficientData, InvalidConfig
from models.home import Home
from models.identifier import Identifier
from models.specimens import FieldPhoto, Split
from models.taxonomy import Species, SpeciesId

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GrowthFigures:
    """Top-1 and the rest of one group of photos, before the new species came and after; `before` is None of those."""

    before: GroupFigures | None
    after: GroupFigures

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"before": None if self.before is None else self.before.to_json(), "after": self.after.to_json()}


@dataclass(frozen=True)
class Growth:
    """What came of adding `new_species` to an index of `old_species`.

    Groups: old species with field photos in training, old herbarium-only ones, and new ones. `retrieval` is top-1 of
    leave-one-out among the sheets, before and after. `lost` counts photos of old species that were named rightly
    before and by a new species after.
    """

    old_species: int
    new_species: int
    added_sheets: int
    build_seconds: float
    groups: dict[str, GrowthFigures]
    lost: int
    retrieval: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "groups"}
        return plain | {"groups": {name: figures.to_json() for name, figures in self.groups.items()}}


@dataclass(frozen=True)
class _Scored:
    """Probabilities ``(N, S)`` of photos over the species of one bundle, and which bundle."""

    identifier: Identifier
    probabilities: NDArray[np.float32]

    def truth(self, photos: list[FieldPhoto]) -> NDArray[np.int64]:
        position = {s: i for i, s in enumerate(self.identifier.species_ids)}
        return np.array([position[p.species_id] for p in photos], dtype=np.int64)

    def named(self) -> list[SpeciesId]:
        ids = self.identifier.species_ids
        return [ids[i] for i in self.probabilities.argmax(axis=1)]


def bench_growth(
    source: Home,
    work: Home,
    config: RunConfig,
    compute: Compute,
    *,
    left_out: int,
    seed: int = 0,
    report: Report = silent,
) -> Growth:
    """Figures from a catalogue that is only read; everything is made in `work`, which must not exist yet.

    `left_out` species are drawn among those with sheets and field photos. Raises `InsufficientData` when there are too
    few of them, and `InvalidConfig` for a `work` that is there.
    """
    if work.root.exists():
        raise InvalidConfig(f"{work.root} is there already; choose another folder to work in")
    with Catalogue.open(source) as whole:
        new = _drawn(whole, left_out, seed)
        _copy_without(whole, work, {s.species_id for s in new})
        with Catalogue.open(work) as catalogue:
            run = TrainingRun.start(work, catalogue, config)
            train(work, catalogue, run, compute, report=report)
            build(work, catalogue, compute, report=report)
            old_photos, _ = read_test_photos(work, catalogue, Identifier.load(work, compute))
            new_photos = [p for s in new for p in whole.field_photos(s.species_id)]
            before = _score(work, catalogue, compute, old_photos, report)
            alone_before = leave_one_out(before.identifier.bundle.gallery, specimens_of(catalogue.sheets()))
            added = _add(whole, catalogue, new)
            built = build(work, catalogue, compute, most_fall=1.0, report=report)
            after = _score(work, catalogue, compute, [*old_photos, *new_photos], report)
            everyone = specimens_of(catalogue.sheets())
            gallery, ids = after.identifier.bundle.gallery, frozenset(s.species_id for s in new)
            retrieval = {
                "old_before": alone_before.to_json(),
                "old_after": leave_one_out(
                    gallery, everyone, species=frozenset(gallery.species_ids) - ids, most_doubtful=0
                ).to_json(),
                "new_after": leave_one_out(gallery, everyone, species=ids, most_doubtful=0).to_json(),
            }
    groups, lost = _groups(before, after, old_photos, new_photos)
    return Growth(
        old_species=len(before.identifier.species_ids),
        new_species=len(new),
        added_sheets=added,
        build_seconds=built.seconds,
        groups=groups,
        lost=lost,
        retrieval=retrieval,
    )


def _drawn(catalogue: Catalogue, count: int, seed: int) -> list[Species]:
    counts = catalogue.species_counts()
    both = [s for s in catalogue.species() if counts[s.species_id].sheets and counts[s.species_id].field_photos]
    if len(both) < count + 2:
        raise InsufficientData(
            f"{len(both)} species have sheets and field photos; {count} cannot be left out so that two are left"
        )
    chosen = np.random.default_rng(seed).choice(len(both), count, replace=False)
    return [both[i] for i in sorted(chosen)]


def _copy_without(whole: Catalogue, work: Home, new: set[SpeciesId]) -> None:
    """A catalogue of the other species, on the same image files."""
    work.root.mkdir(parents=True)
    work.images.symlink_to(whole.image_store.root.resolve(), target_is_directory=True)
    with Catalogue.open(work, create=True) as catalogue, catalogue.writing(action="import") as writer:
        writer.put_species(s for s in whole.species() if s.species_id not in new)
        # A split that one run has drawn is no part of the catalogue; what it declares is kept.
        writer.add_sheets([s for s in whole.sheets() if s.species_id not in new])
        writer.add_field_photos([p for p in whole.field_photos() if p.species_id not in new])


def _add(whole: Catalogue, catalogue: Catalogue, new: list[Species]) -> int:
    """How many sheets were added, as a curator would."""
    count = 0
    curator = Curator(catalogue, "bench")
    for one in new:
        species = NewSpecies(one.scientific_name, one.genus, one.family, one.species_id)
        sheets = [
            NewSheet(whole.image_store.path(s.image), species, s.specimen)
            for s in whole.sheets(one.species_id)
            if s.split is not Split.TEST
        ]
        count += len(curator.add(sheets))
    return count


def _score(home: Home, catalogue: Catalogue, compute: Compute, photos: list[FieldPhoto], report: Report) -> _Scored:
    identifier = Identifier.load(home, compute)
    plants = [(p.observation_key, row) for row, p in enumerate(photos)]  # each photo for itself
    files = [catalogue.image_store.path(p.image) for p in photos]
    return _Scored(identifier, score_files(identifier, files, plants, report).streams["ensemble"])


def _groups(
    before: _Scored, after: _Scored, old: list[FieldPhoto], new: list[FieldPhoto]
) -> tuple[dict[str, GrowthFigures], int]:
    truth_before, truth_after = before.truth(old), after.truth([*old, *new])
    plants = np.array([p.observation_key for p in [*old, *new]])
    is_new = np.arange(len(truth_after)) >= len(old)
    with_photos = np.append(before.identifier.has_field_photos[truth_before], np.zeros(len(new), dtype=bool))
    groups: dict[str, GrowthFigures] = {}
    chosen = {"old, with photos": with_photos, "old, herbarium-only": ~with_photos & ~is_new, "old": ~is_new}
    for name, rows in chosen.items():
        of_old = rows[: len(old)]
        groups[name] = GrowthFigures(
            group_figures(before.probabilities[of_old], truth_before[of_old], groups=plants[: len(old)][of_old]),
            group_figures(after.probabilities[rows], truth_after[rows], groups=plants[rows]),
        )
    groups["new"] = GrowthFigures(
        None, group_figures(after.probabilities[is_new], truth_after[is_new], groups=plants[is_new])
    )
    newcomers = set(after.identifier.species_ids) - set(before.identifier.species_ids)
    pairs = zip(before.named(), after.named()[: len(old)], old, strict=True)
    return groups, sum(was == p.species_id and now in newcomers for was, now, p in pairs)
