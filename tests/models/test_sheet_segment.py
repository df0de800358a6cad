import numpy as np
import pyarrow as pa
import pytest
from gallery_support import batch, random_metric, unit_rows

from models.metric import Metric
from models.sheet_segment import LivingSegment, SheetSegment, living_columns, merged
from models.specimens import Role
from models.taxonomy import SpeciesId

SPECIES = [SpeciesId(s) for s in ("b", "a", "b", "c", "a", "b")]


def segment(prefix="sheet", seed=0, metric=None, dead=()):
    vectors = unit_rows(np.random.default_rng(seed), 6, 8)
    made = SheetSegment.of(batch(vectors, [f"{prefix}{i}" for i in range(6)]), SPECIES)
    return LivingSegment.of(made, metric or Metric.cosine(8), np.array(dead, dtype=np.int64))


def test_rows_of_a_species_are_those_that_live():
    # Rows: a 1, a 4, b 0, b 2, b 5, c 3.
    living = segment(dead=[0, 3, 5])
    assert len(living) == 3
    assert living.living_rows().tolist() == [1, 2, 4]
    assert {s: living.rows_of(SpeciesId(s)).tolist() for s in "abcd"} == {"a": [1], "b": [2, 4], "c": [], "d": []}
    assert dict(living.species_counts()) == {"a": 1, "b": 2}
    assert living.columns().to_pydict() == {"sheet_id": ["sheet4", "sheet0", "sheet5"], "species_id": ["a", "b", "b"]}


def test_removed_sheets_are_found_among_the_living_alone():
    living = segment(dead=[0])
    rows = living.rows_among(pa.array(["sheet1", "sheet5", "sheet3", "other"], pa.large_string()))
    assert rows.tolist() == [4, 5]
    assert living.species_of_rows(rows) == {"b", "c"}
    fewer = living.without(rows)
    assert (len(living), len(fewer)) == (5, 3)
    assert fewer.dead.tolist() == [0, 4, 5]
    assert fewer.segment is living.segment
    assert living.without(rows[:0]) is living


@pytest.mark.parametrize("metric", [Metric.cosine(8), random_metric(8)])
def test_merged_segments_hold_the_living_sheets_of_all_with_their_norms(metric):
    parts = [segment("x", 1, metric, [0, 5]), segment("y", 2, metric), segment("w", 3, metric, [2])]
    together = merged(parts)
    assert together.columns() == living_columns(parts)
    assert len(together) == len(together.segment) == 15
    by_sheet = {}
    for part in parts:
        for row in part.living_rows():
            by_sheet[part.segment.table.sheet_id(row)] = part.segment.vectors[row]
    for row in range(15):
        vector = by_sheet[together.segment.table.sheet_id(row)]
        np.testing.assert_array_equal(together.segment.vectors[row], vector)
        assert together.norms[row] == pytest.approx(float(metric.norms(vector[None], Role.SHEET)[0]), abs=1e-6)


def test_vectors_of_a_segment_follow_its_table():
    vectors = unit_rows(np.random.default_rng(0), 6, 8)
    made = segment().segment
    for row in range(6):
        np.testing.assert_array_equal(made.vectors[row], vectors[int(made.table.sheet_id(row)[5:])])
