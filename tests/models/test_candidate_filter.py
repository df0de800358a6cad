from pathlib import Path

import numpy as np
import pytest

from models.candidate_filter import CandidateFilter
from models.catalogue import Catalogue
from models.compute import Compute
from models.encoder import Encoded
from models.errors import InvalidCandidateFilter
from models.home import Home
from models.identifier import Identifier
from models.retrieval import DecisionSource, GateDecision, Identification
from models.taxonomy import Species, SpeciesId, TaxonRank

FLORA = (
    Species(SpeciesId("1"), "Viola alba", "Viola", "Violaceae"),
    Species(SpeciesId("2"), "Viola odorata", "Viola", "Violaceae"),
    Species(SpeciesId("3"), "Hybanthus calceolaria", "Hybanthus", "Violaceae"),
    Species(SpeciesId("4"), "Incertae sedis"),
)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"species_ids": ["1", "4"]}, [0, 3]),
        ({"genera": ["viola"]}, [0, 1]),
        ({"families": ["VIOLACEAE"]}, [0, 1, 2]),
        ({"genera": ["Viola", "Hybanthus"]}, [0, 1, 2]),
        ({"species_ids": ["2", "3", "4"], "families": ["Violaceae"]}, [1, 2]),
        ({"species_ids": ["2", "3"], "genera": ["Viola"], "families": ["Violaceae"]}, [1]),
        ({"species_ids": [" 2 ", ""]}, [1]),
    ],
)
def test_every_field_narrows_what_the_others_leave(fields: dict[str, list[str]], expected: list[int]) -> None:
    asked = CandidateFilter.of(**fields)
    assert asked is not None
    assert asked.positions(FLORA).tolist() == expected


def test_nothing_given_is_no_filter() -> None:
    assert CandidateFilter.of() is None
    assert CandidateFilter.of(species_ids=["", " "]) is None


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"species_ids": ["1", "77", "78"]}, ["species_ids", "'77', '78'"]),
        ({"genera": ["Rosa"]}, ["genera", "'Rosa'"]),
        ({"families": ["Rosaceae"]}, ["families", "'Rosaceae'"]),
        ({"species_ids": [f"x{n:02}" for n in range(12)]}, ["'x00'", "'x09' and 2 more"]),
        ({"species_ids": ["4"], "genera": ["Viola"]}, ["none of the 4 species"]),
    ],
)
def test_what_the_index_does_not_hold_is_named(fields: dict[str, list[str]], named: list[str]) -> None:
    asked = CandidateFilter.of(**fields)
    assert asked is not None
    with pytest.raises(InvalidCandidateFilter) as caught:
        asked.positions(FLORA)
    assert all(word in str(caught.value) for word in named)


@pytest.mark.parametrize(
    ("fields", "expected", "unlisted"),
    [
        ({"species_ids": ["1", "77", "78"]}, [0], ["77", "78"]),
        (
            {"species_ids": ["1", "3"], "genera": ["Rosa", "viola"], "families": ["Rosaceae", "Violaceae"]},
            [0],
            ["Rosa", "Rosaceae"],
        ),
        ({"species_ids": ["4"]}, [3], []),
    ],
)
def test_what_the_index_does_not_hold_is_left_out_where_that_is_wanted(
    fields: dict[str, list[str]], expected: list[int] | None, unlisted: list[str]
) -> None:
    asked = CandidateFilter.of(**fields, ignores_unlisted=True)
    assert asked is not None
    if expected is not None:
        assert asked.positions(FLORA).tolist() == expected
    assert asked.unlisted(FLORA) == unlisted


@pytest.mark.parametrize("fields", [{"species_ids": ["77"]}, {"species_ids": ["1", "77"], "families": ["Rosaceae"]}])
def test_nothing_left_is_an_error_all_the_same(fields: dict[str, list[str]]) -> None:
    asked = CandidateFilter.of(**fields, ignores_unlisted=True)
    assert asked is not None
    with pytest.raises(InvalidCandidateFilter, match="none of the 4 species"):
        asked.positions(FLORA)


def test_a_species_without_a_family_is_of_none() -> None:
    asked = CandidateFilter(families=frozenset({"Violaceae"}))
    assert 3 not in asked.positions(FLORA)


@pytest.fixture(scope="module")
def identifier(trained_home: Home) -> Identifier:
    return Identifier.load(trained_home, Compute.resolve("cpu", precision="float32"))


@pytest.fixture(scope="module")
def seen(identifier: Identifier, trained_home: Home) -> Encoded:
    with Catalogue.open(trained_home) as catalogue:
        path: Path = catalogue.image_store.path(next(catalogue.field_photos()).image)
    return identifier.encode(identifier.preprocess(identifier.decode(path, max_pixels=10**7))[None])


def test_probabilities_are_those_given_that_the_plant_is_allowed(identifier: Identifier, seen: Encoded) -> None:
    free = {c.species.species_id: c for c in identifier.answer(seen, top_k=6).candidates}
    some = list(free)[1:4]
    answer = identifier.answer(seen, top_k=6, within=CandidateFilter.of(species_ids=some))
    total = sum(free[s].probability for s in some)
    assert [c.species.species_id for c in answer.candidates] == some
    for candidate in answer.candidates:
        before = free[candidate.species.species_id]
        assert candidate.probability == pytest.approx(before.probability / total, rel=1e-4)
        assert (candidate.similarity, candidate.sheets) == (before.similarity, before.sheets)
    assert answer.probability_outside == pytest.approx(1 - total, abs=1e-6)


def test_roll_up_and_set_are_among_the_allowed(identifier: Identifier, seen: Encoded) -> None:
    free = identifier.answer(seen)
    last = identifier.answer(seen, top_k=6).candidates[-1].species
    answer = identifier.answer(seen, within=CandidateFilter.of(species_ids=[last.species_id]))
    assert answer.roll_up is not None
    assert (answer.roll_up.taxon_rank, answer.roll_up.name) == (TaxonRank.SPECIES, last.scientific_name)
    assert answer.candidates[0].probability == pytest.approx(1.0)
    assert (answer.novelty, answer.decision) == (free.novelty, free.decision)
    if free.prediction_set is not None:
        assert answer.prediction_set is not None
        assert answer.prediction_set.species in ((), (last,))
        assert "only for plants of the species that were allowed" in answer.prediction_set.guarantee


def test_all_species_allowed_changes_no_figure(identifier: Identifier, seen: Encoded) -> None:
    free = identifier.answer(seen, top_k=6)
    every = identifier.answer(seen, top_k=6, within=CandidateFilter.of(species_ids=identifier.species_ids))
    assert [c.species for c in every.candidates] == [c.species for c in free.candidates]
    for one, other in zip(every.candidates, free.candidates, strict=True):
        assert one.probability == pytest.approx(other.probability, abs=1e-5)
    assert every.probability_outside == pytest.approx(0, abs=1e-5)


def test_species_of_which_nothing_is_left_still_have_an_order(
    identifier: Identifier, seen: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence, calibrated = identifier.combine(seen)
    nothing = np.zeros_like(calibrated)
    nothing[0, 0] = 1.0
    monkeypatch.setattr(identifier, "combine", lambda _: (evidence, nothing))
    others = [s for s in identifier.species_ids if s != identifier.species_ids[0]]
    answer = identifier.answer(seen, top_k=6, within=CandidateFilter.of(species_ids=others))
    probabilities = [c.probability for c in answer.candidates]
    assert sum(probabilities) == pytest.approx(1.0, abs=1e-5)
    assert len(set(probabilities)) > 1
    assert answer.probability_outside == 1.0


@pytest.mark.parametrize(("outside", "doubts"), [(None, False), (0.49, False), (0.97, True)])
def test_an_answer_says_when_what_was_left_out_fits_better(outside: float | None, doubts: bool) -> None:
    decision = GateDecision(DecisionSource.FUSION, "Both agree.", {})
    answer = Identification((), decision, "bundle", 1, probability_outside=outside)
    assert ("those that were not allowed have 97 % of the probability" in answer.summary) is doubts


NAMED = (
    Species(SpeciesId("1"), "Viola alba Besser", "Viola", "Violaceae"),
    Species(SpeciesId("2"), "Viola odorata L.", "Viola", "Violaceae"),
    Species(SpeciesId("3"), "Viola alba subsp. dehnhardtii (Ten.) W.Becker", "Viola", "Violaceae"),
    Species(SpeciesId("4"), "×Violacea nova Auct.", "Violacea", "Violaceae"),
    Species(SpeciesId("5"), "Viola odorata Bourg. ex Boiss.", "Viola", "Violaceae"),
)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("Viola alba", [0]),
        ("viola  ALBA", [0]),
        ("VIOLA ALBA BESSER", [0]),
        ("Viola alba Besser", [0]),
        ("Viola alba subsp. dehnhardtii", [2]),
        ("× Violacea nova", [3]),
        ("Violacea nova", []),
        ("Viola odorata", [1, 4]),
        ("Viola", []),
        ("2", [1]),
    ],
)
def test_species_are_given_by_their_names_too(entry: str, expected: list[int]) -> None:
    asked = CandidateFilter.of(species_ids=[entry], ignores_unlisted=True)
    assert asked is not None
    assert asked.unlisted(NAMED) == ([] if expected else [entry])
    if expected:
        assert asked.positions(NAMED).tolist() == expected
    else:
        with pytest.raises(InvalidCandidateFilter, match="is among the species_ids"):
            asked.positions(NAMED)


def test_names_and_identifiers_mix() -> None:
    asked = CandidateFilter.of(species_ids=["Viola alba", "1", "2", "Rosa canina", "rosa canina L."])
    assert asked is not None
    with pytest.raises(InvalidCandidateFilter, match="'Rosa canina', 'rosa canina L\\.'"):
        asked.positions(NAMED)
    assert asked.unlisted(NAMED) == ["Rosa canina", "rosa canina L."]


@pytest.mark.parametrize("own", ["x Triticosecale rimpaui Wittm.", "×Triticosecale rimpaui", "× Triticosecale rimpaui"])
@pytest.mark.parametrize("entry", ["× Triticosecale rimpaui", "x Triticosecale rimpaui"])
def test_a_hybrids_sign_is_written_in_many_ways(own: str, entry: str) -> None:
    asked = CandidateFilter.of(species_ids=[entry])
    assert asked is not None
    assert asked.positions((Species(SpeciesId("7"), own),)).tolist() == [0]


def test_what_is_passed_over_is_counted_and_the_first_are_named() -> None:
    asked = CandidateFilter.of(species_ids=["1", *(f"none {n:03}" for n in range(60))], ignores_unlisted=True)
    assert asked is not None
    found = asked.passed_over(NAMED)
    assert found is not None
    assert (found["count"], len(found["entries"]), found["entries"][0]) == (60, 50, "none 000")
    strict = CandidateFilter.of(species_ids=["1"])
    assert strict is not None
    assert strict.passed_over(NAMED) is None
