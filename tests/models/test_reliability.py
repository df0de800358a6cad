import json

import numpy as np
import pytest

from models.errors import InvalidConfig
from models.gate import Evidence
from models.reliability import (
    NOVELTY_FEATURES,
    ByGroup,
    HigherTaxa,
    NoveltyModel,
    Reliability,
    independent_looks,
    novelty_features,
    tempered,
)
from models.taxonomy import Species, SpeciesId, TaxonRank

VIOLAS = (
    Species(SpeciesId("a"), "Viola alba", "Viola", "Violaceae"),
    Species(SpeciesId("b"), "Viola biflora", "Viola", "Violaceae"),
    Species(SpeciesId("c"), "Rinorea alba", "Rinorea", "Violaceae"),
    Species(SpeciesId("d"), "Unplaced", None, None),
)
NOVELTY = NoveltyModel((0.0,) * 4, (1.0,) * 4, (1.0, 2.0, 0.5, 0.5), 0.3, 0.6)
WITH = np.array([True, True, False, False])


def random_probabilities(rows: int, species: int = 4, seed: int = 0) -> np.ndarray:
    raw = np.random.default_rng(seed).gamma(0.3, size=(rows, species)) + 1e-6
    return (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)


def test_tempering_is_the_softmax_of_divided_logarithms() -> None:
    p = random_probabilities(20)
    t = np.linspace(0.5, 3.0, 20)
    for row, temperature, got in zip(p, t, tempered(p, t), strict=True):
        powers = [float(value) ** (1.0 / temperature) for value in row]
        np.testing.assert_allclose(got, np.array(powers) / sum(powers), rtol=1e-5)


@pytest.mark.parametrize("photos", [1, 2, 5])
def test_photos_that_are_alike_are_one_look_and_unrelated_ones_as_many_as_they_are(photos: int) -> None:
    vectors = np.eye(5, dtype=np.float32)[:photos]
    assert independent_looks(np.repeat(vectors[:1], photos, axis=0)) == pytest.approx(1.0)
    assert independent_looks(vectors) == pytest.approx(photos)


def test_photos_in_between_count_by_their_mean_cosine() -> None:
    vectors = np.random.default_rng(0).normal(size=(4, 6)) + 0.8
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    cosine = np.mean([vectors[a] @ vectors[b] for a in range(4) for b in range(a)])
    assert independent_looks(vectors) == pytest.approx(4 / (1 + 3 * cosine), rel=1e-5)


def test_photos_that_contradict_each_other_are_no_more_than_they_are() -> None:
    opposite = np.array([[1.0, 0.0], [-1.0, 0.0]], dtype=np.float32)
    assert independent_looks(opposite) == 2.0


def test_calibration_keeps_the_order_and_uses_the_temperature_of_the_first_species_group() -> None:
    p = random_probabilities(200)
    reliability = Reliability(ByGroup(2.0, 0.5))
    got = reliability.calibrate(p, WITH)
    np.testing.assert_allclose(got.sum(axis=1), 1.0, rtol=1e-5)
    for before, after in zip(p, got, strict=True):
        assert np.all(np.diff(after[np.argsort(before)]) >= 0)
        assert (after.max() < before.max()) == bool(WITH[before.argmax()])
    assert Reliability().calibrate(p, WITH) is p


def test_certainty_and_impossible_species_stay_finite() -> None:
    p = np.array([[1.0, 0.0, 0.0, 0.0]], dtype=np.float32)
    got = Reliability(ByGroup(5.0, 5.0)).calibrate(p, WITH)
    assert np.isfinite(got).all()
    assert got[0, 0] > 0.99


def test_sets_have_their_own_limit_for_each_group() -> None:
    reliability = Reliability(set_limits=ByGroup(0.5, 0.1))
    p = np.array([[0.5, 0.3, 0.1, 0.1], [0.05, 0.05, 0.9, 0.0]], dtype=np.float32)
    inside = reliability.in_set(p, WITH)
    assert inside.tolist() == [[True, False, True, True], [False, False, True, False]]


def test_a_lower_limit_gives_a_set_that_holds_the_smaller_one() -> None:
    p = random_probabilities(100)
    strict = Reliability(set_limits=ByGroup(0.4, 0.4)).in_set(p, WITH)
    loose = Reliability(set_limits=ByGroup(0.2, 0.1)).in_set(p, WITH)
    assert np.all(loose[strict])
    assert loose.sum() > strict.sum()


def test_a_set_is_listed_by_probability_and_says_what_holds() -> None:
    reliability = Reliability(set_limits=ByGroup(0.2, 0.2))
    found = reliability.prediction_set(np.array([0.25, 0.5, 0.25, 0.0], dtype=np.float32), VIOLAS, WITH)
    assert found is not None
    assert [s.species_id for s in found.species] == ["b", "a", "c"]
    assert (found.size, found.herbarium_only, found.coverage) == (3, 1, 0.9)
    assert "90 %" in found.guarantee
    assert "not guaranteed" in found.guarantee
    photos_only = reliability.prediction_set(np.array([0.6, 0.4, 0.0, 0.0], dtype=np.float32), VIOLAS, WITH)
    assert photos_only is not None
    assert "not guaranteed" not in photos_only.guarantee


def test_a_set_may_be_empty_and_a_long_one_is_cut_but_counted() -> None:
    many = tuple(Species(SpeciesId(f"{i:03}"), f"Planta p{i}") for i in range(200))
    p = np.full(200, 1 / 200, dtype=np.float32)
    flags = np.ones(200, dtype=bool)
    full = Reliability(set_limits=ByGroup(0.0, None)).prediction_set(p, many, flags)
    empty = Reliability(set_limits=ByGroup(0.5, None)).prediction_set(p, many, flags)
    assert full is not None
    assert empty is not None
    assert (full.size, len(full.species)) == (200, 50)
    assert (empty.size, empty.species) == (0, ())


def test_no_set_where_the_limit_of_a_group_of_the_flora_is_not_known() -> None:
    reliability = Reliability(set_limits=ByGroup(0.2, None))
    p = random_probabilities(1)[0]
    assert reliability.prediction_set(p, VIOLAS, WITH) is None
    assert reliability.prediction_set(p, VIOLAS, np.ones(4, dtype=bool)) is not None
    assert Reliability().prediction_set(p, VIOLAS, WITH) is None


@pytest.mark.parametrize(
    ("probabilities", "rank", "name", "probability", "count"),
    [
        ([0.8, 0.1, 0.05, 0.05], TaxonRank.SPECIES, "Viola alba", 0.8, 1),
        ([0.5, 0.3, 0.1, 0.1], TaxonRank.GENUS, "Viola", 0.8, 2),
        ([0.4, 0.39, 0.2, 0.01], TaxonRank.FAMILY, "Violaceae", 0.99, 3),
        ([0.05, 0.05, 0.05, 0.85], TaxonRank.SPECIES, "Unplaced", 0.85, 1),
    ],
)
def test_the_lowest_taxon_that_is_likely_enough_is_named(
    probabilities: list[float], rank: TaxonRank, name: str, probability: float, count: int
) -> None:
    found = HigherTaxa(VIOLAS).roll_up(np.array(probabilities, dtype=np.float32))
    assert found is not None
    assert (found.taxon_rank, found.name, found.species_count) == (rank, name, count)
    assert found.probability == pytest.approx(probability, abs=1e-6)


def test_not_even_the_family_is_an_answer_too() -> None:
    assert HigherTaxa(VIOLAS).roll_up(np.array([0.3, 0.2, 0.2, 0.3], dtype=np.float32)) is None
    unplaced = tuple(Species(SpeciesId(str(i)), f"Planta p{i}") for i in range(3))
    assert HigherTaxa(unplaced).roll_up(np.array([0.4, 0.3, 0.3], dtype=np.float32)) is None
    only_families = tuple(Species(SpeciesId(str(i)), f"Planta p{i}", None, "Fabaceae") for i in range(2))
    found = HigherTaxa(only_families).roll_up(np.array([0.5, 0.5], dtype=np.float32))
    assert found is not None
    assert found.name == "Fabaceae"


def test_species_without_a_genus_are_not_summed_as_one_genus() -> None:
    species = (*VIOLAS[:1], *(Species(SpeciesId(f"x{i}"), f"Planta p{i}", None, "Fabaceae") for i in range(3)))
    assert HigherTaxa(species).roll_up(np.array([0.1, 0.3, 0.3, 0.3], dtype=np.float32)).taxon_rank == "family"  # type: ignore[union-attr]


def test_genera_and_families_are_summed_over_their_species() -> None:
    totals = HigherTaxa(VIOLAS).totals(np.array([0.1, 0.1, 0.5, 0.3], dtype=np.float32))
    families = totals[TaxonRank.FAMILY]
    assert [name for name, _ in families] == ["Violaceae"]
    assert families[0][1] == pytest.approx(0.7)
    genera = totals[TaxonRank.GENUS]
    assert [total for _, total in genera] == pytest.approx(sorted((total for _, total in genera), reverse=True))
    assert dict(genera)["Viola"] == pytest.approx(0.2)
    assert sum(total for _, total in genera) == pytest.approx(0.7)  # one species has no genus


def test_a_taxon_holds_its_species_only() -> None:
    taxa = HigherTaxa(VIOLAS)
    genus = taxa.roll_up(np.array([0.5, 0.5, 0.0, 0.0], dtype=np.float32))
    assert genus is not None
    assert [taxa.holds(genus, i) for i in range(4)] == [True, True, False, False]


def test_a_single_species_is_answered_with_certainty_about_the_index_alone() -> None:
    found = HigherTaxa(VIOLAS[:1]).roll_up(np.ones(1, dtype=np.float32))
    assert found is not None
    assert found.probability == 1.0


def evidence(logits: list[list[float]], similarities: list[list[float]]) -> Evidence:
    return Evidence(np.array(logits, np.float32), np.array(similarities, np.float32), WITH)


def test_features_of_novelty_are_those_of_a_slow_reading() -> None:
    seen = evidence([[3.0, 1.0, -1.0, -np.inf]], [[0.9, -np.inf, 0.1, 0.2]])
    p = np.array([[0.8, 0.1, 0.05, 0.05]], dtype=np.float32)
    got = novelty_features(seen, p)[0]
    np.testing.assert_allclose(got, [np.log(0.8 / 0.2), 0.9, 0.9 - 0.4, 3.0 - 1.0], rtol=1e-5)


def test_an_offset_of_the_logits_is_no_matter() -> None:
    p = random_probabilities(1)
    one = evidence([[3.0, 1.0, -1.0, 0.0]], [[0.9, 0.3, 0.1, 0.2]])
    other = evidence([[13.0, 11.0, 9.0, 10.0]], [[0.9, 0.3, 0.1, 0.2]])
    np.testing.assert_allclose(novelty_features(one, p), novelty_features(other, p), rtol=1e-5)


def test_a_stream_that_says_nothing_counts_as_average() -> None:
    silent = evidence([[-np.inf] * 4], [[0.9, 0.3, 0.1, 0.2]])
    features = novelty_features(silent, random_probabilities(1))
    assert np.isnan(features[0]).tolist() == [False, False, False, True]
    average = np.where(np.isnan(features), NOVELTY.means, features)
    np.testing.assert_allclose(NOVELTY.unknown_scores(features), NOVELTY.unknown_scores(average))


@pytest.mark.parametrize("feature", range(len(NOVELTY_FEATURES)))
def test_more_of_a_feature_never_makes_a_plant_less_known(feature: int) -> None:
    features = np.zeros((50, 4))
    features[:, feature] = np.linspace(-100, 100, 50)
    scores = NOVELTY.unknown_scores(features)
    assert np.all(np.diff(scores) <= 0)
    assert scores[0] > scores[-1]
    assert np.all((scores >= 0) & (scores <= 1))


def test_a_plant_is_unknown_beyond_the_threshold_alone() -> None:
    reliability = Reliability(novelty=NOVELTY)
    p = np.full((1, 4), 0.25, dtype=np.float32)
    far = reliability.judge(evidence([[0.0] * 4], [[-0.9] * 4]), p)
    near = reliability.judge(evidence([[9.0, 0, 0, 0]], [[0.9, 0, 0, 0]]), p)
    assert far is not None
    assert near is not None
    assert far.is_unknown
    assert not near.is_unknown
    assert Reliability().judge(evidence([[0.0] * 4], [[-0.9] * 4]), p) is None


def test_files_give_back_what_was_written() -> None:
    for reliability in (Reliability(), Reliability(ByGroup(1.5, 2.5), ByGroup(0.3, None), NOVELTY, fitted=True)):
        assert Reliability.from_json(json.loads(json.dumps(reliability.to_json()))) == reliability


@pytest.mark.parametrize(
    "change",
    [
        {"temperatures": {"with_photos": 0.0, "herbarium_only": 1.0}},
        {"temperatures": {"with_photos": None, "herbarium_only": 1.0}},
        {"temperatures": {"with_photos": "hot", "herbarium_only": 1.0}},
        {"set_limits": {"with_photos": 1.5, "herbarium_only": None}},
        {"set_limits": {"with_photos": 0.5}},
        {"novelty": {"means": [0.0]}},
        {"novelty": 3},
        {"surprise": 1},
    ],
)
def test_files_that_make_no_sense_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidConfig):
        Reliability.from_json({**Reliability(novelty=NOVELTY).to_json(), **change})


@pytest.mark.parametrize(
    "change",
    [{"weights": (-1.0, 0, 0, 0)}, {"scales": (0.0, 1, 1, 1)}, {"bias": float("nan")}, {"threshold": 2.0}],
)
def test_impossible_novelty_models_are_refused(change: dict[str, object]) -> None:
    values = {"means": (0.0,) * 4, "scales": (1.0,) * 4, "weights": (0.0,) * 4, "bias": 0.0, "threshold": 0.5}
    with pytest.raises(InvalidConfig):
        NoveltyModel(**{**values, **change})  # type: ignore[arg-type]
