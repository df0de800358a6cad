import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests_support import noise_picture

from indexer.answer_lines import answer_lines
from indexer.evaluate import evaluate
from indexer.identify_files import answer_to_json, identify_files
from models.artifacts import INDEX_KIND, activate, active_artifact_id, read, writing
from models.catalogue import Catalogue
from models.compute import Compute
from models.home import Home
from models.identifier import Identifier
from models.reliability import ByGroup, NoveltyModel, Reliability
from models.retrieval import Outcome
from models.specimens import Split

CPU = Compute("cpu", None)
NOVELTY = NoveltyModel((0.0,) * 4, (1.0,) * 4, (0.1, 0.1, 0.1, 0.1), 0.0, 0.5)
FITTED = Reliability(ByGroup(1.7, 2.4), ByGroup(0.2, 0.12), NOVELTY, fitted=True)


def publish(home: Home, reliability: Reliability) -> Identifier:
    """The active index once more, with another reliability."""
    old = read(home.indexes / active_artifact_id(home), kind=INDEX_KIND)
    with writing(home.indexes, kind=INDEX_KIND, artifact_id="other", metadata=old.metadata) as folder:
        shutil.copytree(old.root, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
        (folder / "reliability.json").write_text(json.dumps(reliability.to_json()))
    activate(home, "other")
    return Identifier.load(home, CPU)


def test_served_probabilities_sets_and_verdicts_are_those_that_are_evaluated(tiny_home: Home, tmp_path: Path) -> None:
    identifier = publish(tiny_home, FITTED)
    strangers = tmp_path / "strangers"
    strangers.mkdir()
    for number in range(3):
        noise_picture(number).save(strangers / f"{number}.png")
    with Catalogue.open(tiny_home) as catalogue:
        result = evaluate(tiny_home, catalogue, identifier, unknown=strangers)
        photos = [p for p in catalogue.field_photos() if p.split is Split.TEST]
        answers = [
            identify_files(identifier, [catalogue.image_store.path(p.image)], top_k=6, sheets_per_candidate=0)
            for p in photos
        ]
    served = {p.photo_id: a for p, a in zip(photos, answers, strict=True)}
    figures = json.loads((result.report / "figures.json").read_text(encoding="utf-8"))
    assert figures["reliability"] == json.loads(json.dumps(result.reliability))
    confidence = np.array([a.candidates[0].probability for a in answers])
    assert figures["reliability"]["calibration"]["overall"]["mean_confidence"] == pytest.approx(
        float(confidence.mean()), abs=1e-4
    )
    inside = [p.species_id in {s.species_id for s in served[p.photo_id].prediction_set.species} for p in photos]  # type: ignore[union-attr]
    sizes = [a.prediction_set.size for a in answers]  # type: ignore[union-attr]
    sets = figures["reliability"]["prediction_sets"]["overall"]
    assert sets["share"] == pytest.approx(np.mean(inside))
    assert sets["mean_size"] == pytest.approx(np.mean(sizes))
    counted = figures["reliability"]["answers"]
    for outcome in Outcome:
        assert counted[outcome.value]["n"] == sum(a.outcome is outcome for a in answers)
    accepted = figures["reliability"]["novelty"]["known_accepted"]["overall"]["share"]
    assert accepted == pytest.approx(np.mean([not a.novelty.is_unknown for a in answers]))  # type: ignore[union-attr]
    assert figures["reliability"]["unknown_species"]["unknown_photos"] == 3
    assert set(figures["reliability"]["unknown_species"]["scores"]) == {"novelty", "max_probability", "similarity"}
    assert "## Unknown species" in (result.report / "figures.md").read_text(encoding="utf-8")


def test_temperatures_change_probabilities_but_no_order(tiny_home: Home) -> None:
    before = Identifier.load(tiny_home, CPU)
    with Catalogue.open(tiny_home) as catalogue:
        path = catalogue.image_store.path(next(iter(catalogue.field_photos())).image)
    one = identify_files(before, [path], top_k=6)
    other = identify_files(publish(tiny_home, Reliability(ByGroup(9.0, 9.0))), [path], top_k=6)
    assert [c.species for c in one.candidates] == [c.species for c in other.candidates]
    assert other.candidates[0].probability < one.candidates[0].probability
    assert sum(c.probability for c in other.candidates) == pytest.approx(1.0, abs=1e-4)


def test_all_photos_of_a_plant_are_answered_as_the_service_answers_them(tiny_home: Home) -> None:
    identifier = publish(tiny_home, FITTED)
    with Catalogue.open(tiny_home) as catalogue:
        result = evaluate(tiny_home, catalogue, identifier)
        plants: dict[str, list] = {}  # type: ignore[type-arg]
        for photo in catalogue.field_photos():
            if photo.split is Split.TEST:
                plants.setdefault(photo.observation_key, []).append(photo)
        several = {key: photos for key, photos in plants.items() if len(photos) > 1}
        right = [
            identify_files(identifier, [catalogue.image_store.path(p.image) for p in photos]).candidates[0].species
            for photos in several.values()
        ]
    assert several
    figures = result.reliability["several_photos"]
    expected = [s.species_id == photos[0].species_id for s, photos in zip(right, several.values(), strict=True)]
    assert figures["plants"] == len(several)
    assert figures["combined"]["share"] == pytest.approx(np.mean(expected))


def test_the_answer_at_the_command_line_says_what_it_is_worth(tiny_home: Home) -> None:
    for reliability, words in (
        (FITTED, "Set of 90 % coverage"),
        (Reliability(set_limits=ByGroup(1.0, 1.0), fitted=True), "doubt this answer"),
        (Reliability(), "not calibrated"),
        (Reliability(novelty=NoveltyModel((0.0,) * 4, (1.0,) * 4, (0.0,) * 4, 0.0, 0.1)), "None of these. Nearest: "),
    ):
        shutil.rmtree(tiny_home.indexes / "other", ignore_errors=True)
        activate(tiny_home, next(p.name for p in tiny_home.indexes.iterdir() if p.name.startswith("index-")))
        identifier = publish(tiny_home, reliability)
        with Catalogue.open(tiny_home) as catalogue:
            path = catalogue.image_store.path(next(iter(catalogue.field_photos())).image)
            answer = identify_files(identifier, [path])
            values = answer_to_json(answer, catalogue, identifier.model_id)
            lines = list(answer_lines(values))
        assert lines[0] == answer.summary == values["summary"]
        assert any(words in line for line in lines)
        assert values["outcome"] == answer.outcome.value
        assert (values["prediction_set"] is None) == (reliability.set_limits == ByGroup(None, None))
        assert (values["unknown"] is None) == (reliability.novelty is None)
        json.dumps(values, allow_nan=False)


def test_a_build_fits_the_reliability_to_the_calibration_photos(trained_home: Home) -> None:
    bundle = Identifier.load(trained_home, CPU).bundle
    figures = bundle.metadata["reliability_figures"]
    assert figures["photos"] == len(bundle.model.calibration()) >= 20
    assert bundle.reliability.fitted
    assert (bundle.reliability.set_limits.herbarium_only is None) == (figures["hidden_photos"] < 20)
