import csv
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from tests_support import noise_picture

from indexer.progress import silent
from indexer.unknown_photos import UnknownScores, list_unknown, score_unknown, unknown_figures
from models.compute import Compute
from models.errors import InsufficientData
from models.home import Home
from models.identifier import Identifier
from models.reliability import NoveltyModel
from models.taxonomy import SpeciesId

NOVELTY = NoveltyModel((0.0,) * 4, (1.0,) * 4, (1.0,) * 4, 0.0, 0.5)


def scores(values: list[float]) -> UnknownScores:
    return UnknownScores({"novelty": np.array(values)})


def test_all_images_below_a_folder_are_unknown(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.jpg", "a.PNG", "deep/c.webp"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no photo")
    found = list_unknown(tmp_path, [SpeciesId("x")])
    assert [p.name for p in found.files] == ["a.PNG", "b.jpg", "c.webp"]


def test_of_a_manifest_sheets_and_known_species_are_left_out(tmp_path: Path) -> None:
    rows = [("1.jpg", "new", "field"), ("2.jpg", "known", "field"), ("3.jpg", "new", "sheet")]
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "species_id", "role"), *rows])
    for name, _, _ in rows:
        (tmp_path / name).write_bytes(b"")
    found = list_unknown(tmp_path, [SpeciesId("known")])
    assert [p.name for p in found.files] == ["1.jpg"]
    assert found.of_known_species == 1


def test_a_manifest_without_roles_lists_field_photos(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("path,species_id\n1.jpg,new\n2.jpg,known\n")
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / name).write_bytes(b"")
    assert [p.name for p in list_unknown(tmp_path, [SpeciesId("known")]).files] == ["1.jpg"]


@pytest.mark.parametrize("name", [".", "absent"])
def test_a_place_without_photos_is_said_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(InsufficientData, match="found none"):
        list_unknown(tmp_path / name, [])


def test_figures_of_a_score_are_scikit_learns_and_a_count_by_hand() -> None:
    rng = np.random.default_rng(0)
    known, unknown = rng.normal(size=200), rng.normal(1.0, size=100)
    got = unknown_figures(scores(known.tolist()), scores(unknown.tolist()), np.arange(200), None)
    score = got["scores"]["novelty"]
    truth = np.repeat([0, 1], [200, 100])
    assert score["auroc"] == pytest.approx(roc_auc_score(truth, np.concatenate([known, unknown])))
    limit = np.sort(known)[189]
    assert score["fpr_at_95_tpr"] == pytest.approx(np.mean(unknown <= limit))
    for name in ("auroc", "fpr_at_95_tpr"):
        low, high = score[f"{name}_interval"]
        assert low < score[name] < high
        assert high - low < 0.25
    assert (got["known_photos"], got["unknown_photos"]) == (200, 100)
    assert got["answered_none_of_these"] is None


def test_the_served_threshold_is_counted_on_both_sides() -> None:
    got = unknown_figures(scores([0.1, 0.2, 0.9, 0.3]), scores([0.8, 0.4]), np.array(list("aabb")), NOVELTY)
    assert got["answered_none_of_these"]["unknown"]["share"] == 0.5
    assert got["answered_none_of_these"]["known"]["share"] == 0.25


def test_photos_are_read_where_they_lie_and_torn_ones_counted(trained_home: Home, tmp_path: Path) -> None:
    identifier = Identifier.load(trained_home, Compute("cpu", None))
    files = []
    for number in range(20):
        files.append(tmp_path / f"{number}.png")
        noise_picture(number).save(files[-1])
    (tmp_path / "torn.png").write_bytes(b"torn")
    got, unreadable = score_unknown(identifier, [*files[:3], tmp_path / "torn.png", *files[3:]], silent)
    assert unreadable == 1
    answer = identifier.identify([identifier.decode(files[7], max_pixels=10**7)])
    assert got.by_name["max_probability"][7] == pytest.approx(1 - answer.candidates[0].probability, abs=1e-5)
    with pytest.raises(InsufficientData, match="none of the 1"):
        score_unknown(identifier, [tmp_path / "torn.png"], silent)
