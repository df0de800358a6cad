import csv
import io

import pytest

from models.answer_values import COLUMNS, answer_values, csv_head, csv_line, one_line, plain_cell, safe_cell, table_row
from models.retrieval import Candidate, DecisionSource, GateDecision, Identification, Novelty, RollUp, SheetMatch
from models.taxonomy import Species, SpeciesId, TaxonRank

ROSE = Species(SpeciesId("7"), "Rosa canina L.", "Rosa", "Rosaceae")


def an_answer(*, is_unknown: bool = False) -> Identification:
    candidate = Candidate(ROSE, 0.62, 0.7, True, True, (SheetMatch("sheet-1", ROSE.species_id, 0.5),))
    return Identification(
        (candidate,),
        GateDecision(DecisionSource.FUSION, "Both agree.", {"similarity": 0.7}),
        "index-1",
        2,
        calibrated=True,
        roll_up=RollUp(TaxonRank.GENUS, "Rosa", 0.9, 3),
        novelty=Novelty(0.9 if is_unknown else 0.1, 0.5),
    )


def test_a_row_names_who_answered() -> None:
    row = table_row("a.jpg", answer_values(an_answer(), "model-1"))
    assert tuple(row) == COLUMNS
    assert (row["scientific_name"], row["genus"], row["family"]) == ("Rosa canina L.", "Rosa", "Rosaceae")
    assert (row["probability"], row["outcome"], row["identified_as"]) == (0.62, "genus", "Rosa")
    assert (row["unknown"], row["decision_source"], row["photo_count"]) == (False, "fusion", 2)
    assert row["identification_references"].startswith("voucher ")
    assert row["identification_references"].endswith("; model model-1; index index-1")


def test_an_unknown_plant_is_identified_as_nothing() -> None:
    row = table_row("a.jpg", answer_values(an_answer(is_unknown=True), "model-1"))
    assert (row["outcome"], row["unknown"], row["identified_as"]) == ("none of these", True, None)
    assert row["species_id"] == "7"


def test_an_error_is_a_row_with_nothing_else() -> None:
    row = table_row("a.jpg", None, "it is damaged")
    assert {name: value for name, value in row.items() if value is not None} == {
        "file": "a.jpg",
        "error": "it is damaged",
    }


@pytest.mark.parametrize(
    "name",
    ['=HYPERLINK("http://x","y")', "+1", "-1", "@SUM(A1)", "'quoted", "＝1", "plain.jpg", 'with "quotes", and commas'],
)
def test_no_cell_is_a_formula_and_every_name_comes_back(name: str) -> None:
    line = csv_line(table_row(name, None, name))
    row = next(csv.DictReader(io.StringIO(csv_head() + line)))
    for cell in (row["file"], row["error"]):
        assert not cell.startswith(("=", "+", "-", "@", "＝"))
        assert plain_cell(cell) == name


@pytest.mark.parametrize("name", ["a\nb.jpg", "a\rb.jpg", "\t=1", "a\u2028b", "a\x00b"])
def test_every_row_is_one_line(name: str) -> None:
    line = csv_line(table_row(name, None, "x"))
    assert line.count("\n") == 1
    assert len(line.splitlines()) == 1


def test_lone_surrogates_of_odd_file_systems_can_be_written() -> None:
    assert safe_cell("a\udcffb").encode()
    assert one_line("ordinary é × 木.jpg") == "ordinary é × 木.jpg"
