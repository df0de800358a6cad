import pytest

from models.retrieval import Candidate, DecisionSource, GateDecision, Identification, Novelty, Outcome, RollUp
from models.taxonomy import Species, SpeciesId, TaxonRank

DECISION = GateDecision(DecisionSource.FUSION, "Both agree.", {})
VIOLA = Candidate(Species(SpeciesId("a"), "Viola alba Besser", "Viola", "Violaceae"), 0.41, 0.5, True, True)


@pytest.mark.parametrize(
    ("roll_up", "novelty", "outcome", "summary"),
    [
        (
            RollUp(TaxonRank.SPECIES, "Viola alba Besser", 0.999, 1),
            None,
            Outcome.SPECIES,
            "Viola alba Besser (more than 99 %).",
        ),
        (
            RollUp(TaxonRank.GENUS, "Viola", 0.92, 5),
            Novelty(0.5, 0.5),
            Outcome.GENUS,
            "Genus Viola (92 %): the species are too close to call. Most likely: Viola alba Besser (41 %).",
        ),
        (
            RollUp(TaxonRank.FAMILY, "Violaceae", 0.85, 9),
            None,
            Outcome.FAMILY,
            "Family Violaceae (85 %): species and genera are too close to call. Most likely: Viola alba Besser (41 %).",
        ),
        (None, None, Outcome.UNDECIDED, "Not even the family is clear. Most likely: Viola alba Besser (41 %)."),
        (
            RollUp(TaxonRank.SPECIES, "Viola alba Besser", 0.99, 1),
            Novelty(0.51, 0.5),
            Outcome.NONE_OF_THESE,
            "None of these. Nearest: Viola alba Besser.",
        ),
    ],
)
def test_an_answer_comes_down_to_one_outcome_in_words(
    roll_up: RollUp | None, novelty: Novelty | None, outcome: Outcome, summary: str
) -> None:
    answer = Identification((VIOLA,), DECISION, "bundle", 1, roll_up=roll_up, novelty=novelty)
    assert answer.outcome is outcome
    assert answer.summary == summary


def test_an_answer_without_candidates_says_so() -> None:
    assert Identification((), DECISION, "bundle", 1).summary == "No species of this collection fits."


def test_candidates_out_of_order_are_refused() -> None:
    better = Candidate(VIOLA.species, 0.5, 0.5, True, True)
    with pytest.raises(ValueError, match="falling probability"):
        Identification((VIOLA, better), DECISION, "bundle", 1)
