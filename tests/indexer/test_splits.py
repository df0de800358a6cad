from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.run_config import SplitConfig
from indexer.splits import Record, Splits, draw_splits
from models.errors import BundleCorrupt, InsufficientData
from models.specimens import Role, Split
from models.taxonomy import SpeciesId


def records(
    species: int = 4, sheets: int = 6, photos: int = 10, per_group: int = 1, declared: Split | None = None
) -> list[Record]:
    """Images of several species; `per_group` of them share a specimen or observation."""
    made = []
    for s in range(species):
        for role, count in ((Role.SHEET, sheets), (Role.FIELD, photos)):
            for i in range(count):
                group = f"{role}-{s}-{i // per_group}"
                made.append(Record(f"{role}-{s}-{i}", SpeciesId(f"s{s}"), role, group, declared))
    return made


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def count(splits: Splits, part: list[Record]) -> Counter[Split]:
    return Counter(splits.split_of[r.image_id] for r in part)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(0, 7),
    st.integers(1, 12),
    st.integers(1, 4),
    st.floats(0, 0.8),
    st.floats(0, 0.8),
    st.integers(0, 100),
)
def test_siblings_never_straddle_and_everything_gets_a_split(
    species: int, sheets: int, photos: int, per_group: int, validation: float, test: float, seed: int
) -> None:
    everything = records(species, sheets, photos, per_group)
    config = SplitConfig(validation_fraction=validation, test_fraction=test)
    splits = draw_splits(everything, config, rng(seed))
    assert set(splits.split_of) == {r.image_id for r in everything}
    of_group = defaultdict(set)
    for record in everything:
        of_group[record.group].add(splits.split_of[record.image_id])
    assert all(len(found) == 1 for found in of_group.values())
    for s in range(species):
        for role in Role:
            part = [r for r in everything if r.species_id == f"s{s}" and r.role is role]
            assert not part or count(splits, part)[Split.TRAIN] > 0


def test_sheets_are_never_drawn_for_testing() -> None:
    everything = records()
    splits = draw_splits(everything, SplitConfig(test_fraction=0.5), rng())
    assert count(splits, [r for r in everything if r.role is Role.SHEET])[Split.TEST] == 0
    assert count(splits, [r for r in everything if r.role is Role.FIELD])[Split.TEST] == 20


def test_declared_splits_are_obeyed_and_end_the_drawing_of_test_photos() -> None:
    declared = [Record("t", SpeciesId("s0"), Role.FIELD, "t", Split.TEST)]
    declared += [Record("v", SpeciesId("s0"), Role.FIELD, "v", Split.VALIDATION)]
    everything = records() + declared
    splits = draw_splits(everything, SplitConfig(test_fraction=0.5, validation_fraction=0.3), rng())
    assert splits.split_of["t"] is Split.TEST
    field = [r for r in everything if r.role is Role.FIELD]
    assert count(splits, field) == {Split.TEST: 1, Split.VALIDATION: 1, Split.TRAIN: 40}
    sheets = [r for r in everything if r.role is Role.SHEET]
    assert count(splits, sheets)[Split.VALIDATION] == 4 * 2


def test_hidden_species_are_tested_with_all_their_photos() -> None:
    everything = records(species=14, photos=12)
    config = SplitConfig(hide_photos_of_species=6, photos_per_species=10, validation_fraction=0.2)
    splits = draw_splits(everything, config, rng(3))
    assert len(splits.hidden_species) == 6
    for s in range(14):
        found = count(splits, [r for r in everything if r.species_id == f"s{s}" and r.role is Role.FIELD])
        if f"s{s}" in splits.hidden_species:
            assert found == {Split.TEST: 12}
        else:
            assert found == {Split.TEST: 2, Split.VALIDATION: 2, Split.TRAIN: 8}
    assert draw_splits(everything, config, rng(3)) == splits
    assert draw_splits(everything, config, rng(4)).hidden_species != splits.hidden_species


def test_kept_photos_are_whole_observations() -> None:
    everything = records(species=1, photos=12, per_group=4)
    splits = draw_splits(everything, SplitConfig(photos_per_species=5, validation_fraction=0), rng())
    assert count(splits, [r for r in everything if r.role is Role.FIELD]) == {Split.TRAIN: 8, Split.TEST: 4}
    few = draw_splits(everything, SplitConfig(photos_per_species=50, validation_fraction=0), rng())
    assert count(few, [r for r in everything if r.role is Role.FIELD]) == {Split.TRAIN: 12}


def test_hiding_everything_is_refused() -> None:
    with pytest.raises(InsufficientData, match="only 4 species"):
        draw_splits(records(), SplitConfig(hide_photos_of_species=4), rng())


def test_saved_splits_hold_no_species_but_the_hidden_ones(tmp_path: Path) -> None:
    splits = draw_splits(records(), SplitConfig(hide_photos_of_species=2), rng())
    splits.save(tmp_path / "splits.parquet")
    assert Splits.load(tmp_path / "splits.parquet") == splits
    plain = draw_splits(records(), SplitConfig(), rng())
    plain.save(tmp_path / "plain.parquet")
    assert Splits.load(tmp_path / "plain.parquet").hidden_species == ()


@pytest.mark.parametrize("content", [b"", b"PAR1 nonsense PAR1"])
def test_a_damaged_split_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "splits.parquet").write_bytes(content)
    with pytest.raises(BundleCorrupt, match="Train again"):
        Splits.load(tmp_path / "splits.parquet")


def test_only_species_with_sheets_and_undeclared_photos_are_hidden() -> None:
    everything = [r for r in records(species=5) if not (r.species_id == "s0" and r.role is Role.SHEET)]
    everything += [Record("kept", SpeciesId("s1"), Role.FIELD, "kept", Split.TRAIN)]
    for seed in range(10):
        hidden = draw_splits(everything, SplitConfig(hide_photos_of_species=2), rng(seed)).hidden_species
        assert not {"s0", "s1"} & set(hidden)
