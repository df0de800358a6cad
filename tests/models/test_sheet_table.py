import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.sheet_table import SheetTable
from models.taxonomy import SpeciesId

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=4)


@given(st.dictionaries(NAMES, NAMES, max_size=30), st.randoms())
def test_rows_are_ordered_as_python_orders_their_names(species_of, random):
    sheets = list(species_of)
    random.shuffle(sheets)
    table, order = SheetTable.order(sheets, [SpeciesId(species_of[s]) for s in sheets])
    expected = sorted((species, sheet) for sheet, species in species_of.items())
    assert [(table.species_of(i), table.sheet_id(i)) for i in range(len(table))] == expected
    assert [sheets[i] for i in order] == [sheet for _, sheet in expected]
    assert table.columns().to_pydict() == {"sheet_id": [t for _, t in expected], "species_id": [s for s, _ in expected]}
    assert table.species_ids == tuple(sorted(set(species_of.values())))
    for species in table.species_ids:
        assert {table.sheet_id(row) for row in table.rows_of(species)} == {
            sheet for sheet, s in species_of.items() if s == species
        }
    positions = [table.species_ids[i] for i in table.species_positions()]
    assert positions == [s for s, _ in expected]


def table_of_four() -> SheetTable:
    return SheetTable.order(["d", "a", "c", "b"], [SpeciesId(s) for s in ("1", "2", "1", "2")])[0]


def test_a_species_without_sheets_has_no_rows():
    assert table_of_four().rows_of(SpeciesId("3")) == range(0)


def test_rows_of_given_sheets_are_found_and_others_passed_over():
    table = table_of_four()
    wanted = pa.array(["b", "absent", "c", "b"], pa.large_string())
    assert [table.sheet_id(i) for i in table.rows_among(wanted)] == ["c", "b"]
    assert table.rows_among(wanted[:0]).tolist() == []


def test_sheets_of_rows_come_in_the_order_of_the_rows():
    table = table_of_four()
    assert table.sheet_ids(range(1, 3)) == ["d", "a"]
    assert table.sheet_ids(np.array([3, 0])) == ["b", "c"]


@pytest.mark.parametrize(
    ("sheets", "species", "message"),
    [(["a", "a"], ["1", "2"], "twice"), (["a", ""], ["1", "1"], "empty"), (["a"], ["1", "1"], "2 species for 1")],
)
def test_sheets_that_cannot_be_told_apart_are_refused(sheets, species, message):
    with pytest.raises(ValueError, match=message):
        SheetTable.order(sheets, [SpeciesId(s) for s in species])


def test_a_table_comes_back_from_its_file(tmp_path):
    table_of_four().write(tmp_path / "sheets.parquet")
    read = SheetTable.read(tmp_path / "sheets.parquet")
    assert read.columns() == table_of_four().columns()
    assert read.starts.tolist() == [0, 2, 4]
