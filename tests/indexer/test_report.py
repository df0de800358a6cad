import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.metrics import protocol_figures
from indexer.report import FILES, _evaluated, best_answers, write_report
from indexer.report_plots import MOST_SPECIES, _confused_species
from indexer.report_tables import EvaluatedPhotos, plain_cell
from models.errors import InsufficientData
from models.taxonomy import Species, SpeciesId


def report_inputs(size=6, photos_each=3, hidden=(4, 5), streams=("specialist", "generalist", "ensemble"), name=None):
    """Arguments of `write_report` for random answers that are right more often than not."""
    generator = np.random.default_rng(3)
    truth = np.repeat(np.arange(size), photos_each)
    scored = {}
    for stream in streams:
        raw = generator.random((len(truth), size))
        raw[np.arange(len(truth)), truth] += 0.6
        scored[stream] = raw / raw.sum(axis=1, keepdims=True)
    herbarium_only = np.isin(truth, hidden)
    observation = np.array([f"plant-{i // 2}" for i in range(len(truth))])
    figures = {
        stream: protocol_figures(p, truth, herbarium_only, observation, resamples=50) for stream, p in scored.items()
    }
    names = name or (lambda i: f"Planta numero{i} L.")
    return {
        "figures": figures,
        "scored": scored,
        "truth": truth,
        "herbarium_only": herbarium_only,
        "observation": observation,
        "species": [Species(SpeciesId(f"id{i}"), names(i)) for i in range(size)],
        "photo_ids": [f"photo-{i}" for i in range(len(truth))],
        "run": {"seed": 7},
    }


@pytest.fixture
def no_plots(monkeypatch):
    """Plots take a second each report; tests of the tables and of the file handling do without."""
    for name in ("figures", "confusion", "per_species", "risk_coverage", "reliability"):
        monkeypatch.setattr(f"indexer.report.plot_{name}", lambda path, *_: path.write_bytes(b"picture"))


def read_csv(path: Path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home") / "runs" / "report"
    inputs = report_inputs()
    return inputs, write_report(folder, **inputs), folder


def test_report_writes_exactly_its_files_and_leaves_no_other(written):
    _, paths, folder = written
    assert [p.name for p in paths] == list(FILES)
    assert sorted(p.name for p in folder.iterdir()) == sorted(FILES)
    assert [p.name for p in folder.parent.iterdir()] == ["report"]


def test_figures_json_holds_each_stream_and_the_run(written):
    inputs, _, folder = written
    content = json.loads((folder / "figures.json").read_text())
    for stream, groups in inputs["figures"].items():
        assert content[stream]["herbarium_only"] == json.loads(json.dumps(groups["herbarium_only"].to_json()))
    assert content["run"] == {"seed": 7}
    difference = content["differences"]["ensemble - specialist"]["overall"]
    top1 = {stream: content[stream]["overall"]["top1"] for stream in inputs["scored"]}
    assert difference["difference"] == pytest.approx(top1["ensemble"] - top1["specialist"])


def test_markdown_gives_counts_and_intervals_of_every_group(written):
    inputs, _, folder = written
    text = (folder / "figures.md").read_text()
    f = inputs["figures"]["ensemble"]["herbarium_only"]
    low, high = f.top1_interval
    expected = (
        f"| ensemble | herbarium only | {f.n} | {f.species} | {100 * f.top1:.1f} ({100 * low:.1f}–{100 * high:.1f}) |"
    )
    assert expected in text
    table = [line for line in text.splitlines() if line.startswith(("| stream", "|---", "| ensemble | "))]
    assert len({line.count("|") for line in table[:3]}) == 1


@pytest.mark.usefixtures("no_plots")
def test_run_is_kept_whole_in_json_and_flat_in_markdown(tmp_path):
    inputs = report_inputs(size=3, hidden=(2,), streams=("ensemble",))
    inputs["run"] = {"gate": {"kind": "a|b", "threshold": float("inf")}, "hidden": ["x"] * 300}
    write_report(tmp_path / "report", **inputs)
    content = json.loads((tmp_path / "report" / "figures.json").read_text(), parse_constant=pytest.fail)
    assert content["run"] == {"gate": {"kind": "a|b", "threshold": "inf"}, "hidden": ["x"] * 300}
    text = (tmp_path / "report" / "figures.md").read_text()
    assert "| gate.kind | a\\|b |" in text
    assert max(len(line) for line in text.splitlines() if line.startswith("| hidden")) < 250


def test_plots_are_pictures_with_something_on_them(written):
    _, paths, _ = written
    pictures = [p for p in paths if p.suffix == ".png"]
    assert len(pictures) == 5
    for path in pictures:
        with Image.open(path) as picture:
            assert min(picture.size) >= 400
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 20


def test_confusion_counts_every_photo_once(written):
    inputs, _, folder = written
    rows = read_csv(folder / "confusion.csv")
    assert sum(int(r["count"]) for r in rows) == len(inputs["truth"])
    right = sum(int(r["count"]) for r in rows if r["true_species_id"] == r["predicted_species_id"])
    assert right / len(inputs["truth"]) == pytest.approx(inputs["figures"]["ensemble"]["overall"].top1)


def test_per_species_rows_agree_with_the_probabilities(written):
    inputs, _, folder = written
    rows = read_csv(folder / "per_species.csv")
    assert len(rows) == 3 * 6
    row = next(r for r in rows if r["stream"] == "generalist" and r["species_id"] == "id4")
    mine = inputs["truth"] == 4
    predicted = inputs["scored"]["generalist"].argmax(axis=1)
    assert row["group"] == "herbarium_only"
    assert int(row["n"]) == 3
    assert float(row["top1"]) == pytest.approx((predicted[mine] == 4).mean(), abs=1e-5)
    truth_probability = inputs["scored"]["generalist"][mine, 4].mean()
    assert float(row["mean_probability_of_truth"]) == pytest.approx(truth_probability, abs=1e-5)
    assert int(row["times_predicted"]) == (predicted == 4).sum()


@pytest.mark.usefixtures("no_plots")
def test_most_frequent_wrong_answer_is_the_most_frequent_one(tmp_path):
    inputs = report_inputs(size=3, photos_each=5, hidden=(), streams=("ensemble",))
    answers = np.array([0, 2, 1, 2, 2] + [1] * 5 + [2] * 5)
    inputs["scored"]["ensemble"] = np.eye(3)[answers] * 0.8 + 0.05
    write_report(tmp_path / "report", **inputs)
    rows = {r["species_id"]: r for r in read_csv(tmp_path / "report" / "per_species.csv")}
    assert (rows["id0"]["most_frequent_wrong_id"], rows["id0"]["most_frequent_wrong_count"]) == ("id2", "3")
    assert rows["id1"]["most_frequent_wrong_id"] == ""


def test_predictions_list_the_best_five_in_order(written):
    inputs, _, folder = written
    rows = read_csv(folder / "predictions.csv")
    assert [r["photo_id"] for r in rows] == inputs["photo_ids"]
    probabilities = inputs["scored"]["ensemble"][0]
    order = np.argsort(-probabilities)[:5]
    assert [rows[0][f"species_id_{k}"] for k in range(1, 6)] == [f"id{s}" for s in order]
    assert float(rows[0]["probability_2"]) == pytest.approx(probabilities[order[1]], abs=1e-5)
    assert rows[0]["generalist_species_id"] == f"id{inputs['scored']['generalist'][0].argmax()}"


def test_best_answers_keep_the_class_order_among_equals_and_never_repeat():
    best, probability = best_answers(np.array([[0.2, 0.4, 0.4, 0.0], [0.0, 0.0, 0.0, 0.0]]), 5)
    assert best.tolist() == [[1, 2, 0, 3], [0, 1, 2, 3]]
    assert probability[0].tolist() == [0.4, 0.4, 0.2, 0.0]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-cmd", "@SUM(A1)", "\t=1", "\r=1", "＝1"])
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(text):
    assert plain_cell(text) == "'" + text


def test_plain_cells_stay_as_they_are():
    assert plain_cell("Rosa × alba L.") == "Rosa × alba L."
    assert plain_cell(-0.5) == "-0.5"
    assert plain_cell(None) == ""


def test_hostile_and_foreign_names_neither_run_nor_break_the_plots(tmp_path):
    name = '=HYPERLINK("x")|$x_{$ 漢 \\frac'
    inputs = report_inputs(size=3, hidden=(), name=lambda i: f"{name} {i}")
    write_report(tmp_path / "report", **inputs)
    rows = read_csv(tmp_path / "report" / "confusion.csv")
    assert all(r["true_name"].startswith("'=HYPERLINK") for r in rows)


def test_empty_group_is_reported_without_figures(tmp_path):
    inputs = report_inputs(hidden=())
    write_report(tmp_path / "report", **inputs)
    content = json.loads((tmp_path / "report" / "figures.json").read_text())
    assert content["ensemble"]["herbarium_only"]["n"] == 0
    assert "herbarium_only" not in content["differences"]["ensemble - specialist"]
    assert "| ensemble | herbarium only | 0 | 0 | – |" in (tmp_path / "report" / "figures.md").read_text()


@pytest.mark.usefixtures("no_plots")
def test_a_second_report_replaces_the_first_and_keeps_other_files(tmp_path):
    inputs = report_inputs(size=3, hidden=(2,), streams=("ensemble",))
    write_report(tmp_path / "report", **inputs)
    (tmp_path / "report" / "notes.txt").write_text("mine")
    write_report(tmp_path / "report", **(inputs | {"run": {"seed": 8}}))
    assert json.loads((tmp_path / "report" / "figures.json").read_text())["run"] == {"seed": 8}
    assert (tmp_path / "report" / "notes.txt").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["report"]


@pytest.mark.usefixtures("no_plots")
def test_a_report_that_fails_leaves_the_old_one_whole(tmp_path, monkeypatch):
    inputs = report_inputs(size=3, hidden=(2,), streams=("ensemble",))
    write_report(tmp_path / "report", **inputs)
    before = {p.name: p.read_bytes() for p in (tmp_path / "report").iterdir()}

    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr("indexer.report.plot_reliability", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_report(tmp_path / "report", **(inputs | {"run": {"seed": 8}}))
    assert {p.name: p.read_bytes() for p in (tmp_path / "report").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["report"]


def test_a_long_species_list_shows_the_most_confused():
    size = MOST_SPECIES + 30
    inputs = report_inputs(size=size, photos_each=1, hidden=range(0, size, 2), streams=("ensemble",))
    # Only the last 40 species are ever confused, each with its neighbour.
    probabilities = np.eye(size)
    probabilities[-40:] = np.roll(np.eye(size)[-40:], 1, axis=0)
    inputs["scored"]["ensemble"] = probabilities
    photos: EvaluatedPhotos = _evaluated(
        *(inputs[k] for k in ("scored", "truth", "herbarium_only", "observation", "species", "photo_ids"))
    )
    chosen, tested = _confused_species(photos)
    assert (len(chosen), tested) == (MOST_SPECIES, size)
    assert set(range(size - 40, size)) <= set(chosen.tolist())
    hidden = np.array([s % 2 == 0 for s in chosen])
    assert not hidden[: np.argmax(hidden)].any()
    assert hidden[np.argmax(hidden) :].all()


def test_no_photos_is_an_error_that_names_the_remedy(tmp_path):
    inputs = report_inputs()
    with pytest.raises(InsufficientData, match="Import photos with split 'test'"):
        write_report(tmp_path / "report", **(inputs | {"photo_ids": []}))
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth": np.zeros(2, int)}, "truth has shape"),
        ({"species": []}, "specialist has shape"),
        ({"figures": {}}, "but probabilities of"),
        ({"herbarium_only": np.arange(18) % 2 == 0}, "not both"),
    ],
)
def test_inputs_that_do_not_fit_each_other_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        write_report(tmp_path / "report", **(report_inputs() | change))
