import csv
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests_support import noise_picture

from indexer import build_content, build_gallery
from indexer.answer_lines import answer_lines
from indexer.build_gallery import build, describe, latest_model
from indexer.embed import embed_images, run_batches
from indexer.embedding_store import EmbeddingStore
from indexer.evaluate import accuracy_lines, evaluate
from indexer.identify_files import answer_to_json, identify_files
from indexer.import_dataset import import_dataset
from models.artifacts import active_artifact_id, list_artifacts
from models.bundle import load_bundle, load_model
from models.catalogue import Catalogue
from models.compute import Compute
from models.encoder import Encoded
from models.errors import BundleMissing, InsufficientData, UnreadableImage
from models.home import Home
from models.identifier import Identifier
from models.specimens import Role, Split

CPU = Compute("cpu", None)


def unit_rows(count: int, dimensions: int = 4, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dimensions)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_embeddings_are_found_again_by_content(tmp_path: Path) -> None:
    home = Home(tmp_path)
    store = EmbeddingStore(home, "space", 4)
    first, second = unit_rows(3), unit_rows(2, seed=1)
    store.add(["a", "b", "c"], first)
    store.add(["d", "e"], second)
    for reopened in (store, EmbeddingStore(home, "space", 4)):
        assert len(reopened) == 5
        assert "d" in reopened
        np.testing.assert_array_equal(reopened.vectors(["e", "a"]), np.stack([second[1], first[0]]))
    assert len(EmbeddingStore(home, "another space", 4)) == 0
    with pytest.raises(KeyError):
        store.vectors(["unknown"])
    with pytest.raises(ValueError, match="expected"):
        store.add(["x"], unit_rows(2))


@pytest.mark.parametrize("damage", ["flip", "truncate", "norm"])
def test_a_damaged_shard_is_set_aside(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    home = Home(tmp_path)
    EmbeddingStore(home, "space", 4).add(["a"], unit_rows(1) * (2 if damage == "norm" else 1))
    (shard,) = (home.embeddings / "space").iterdir()
    content = bytearray(shard.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    elif damage == "truncate":
        content = content[:-9]
    shard.write_bytes(bytes(content))
    with caplog.at_level(logging.WARNING):
        assert "a" not in EmbeddingStore(home, "space", 4)
    assert "embedded again" in caplog.text
    assert len(EmbeddingStore(home, "space", 4)) == 0


def test_a_second_build_embeds_nothing(tiny_home: Home) -> None:
    with Catalogue.open(tiny_home) as catalogue:
        built = build(tiny_home, catalogue, CPU)
    assert (built.embedded, built.reused, built.sheets, built.species) == (0, 24, 24, 6)
    assert active_artifact_id(tiny_home) == built.bundle_id
    assert "0 embedded, 24 reused" in describe(built)


def test_only_new_sheets_are_embedded_and_new_species_are_answered(tiny_home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "more" / "sheet" / "Nova planta"
    folder.mkdir(parents=True)
    for i in range(3):
        noise_picture(100 + i).save(folder / f"{i}.png")
    import_dataset(tmp_path / "more", tiny_home)
    with Catalogue.open(tiny_home) as catalogue:
        built = build(tiny_home, catalogue, CPU)
        assert (built.embedded, built.reused, built.species) == (3, 24, 7)
        identifier = Identifier.load(tiny_home, CPU)
        answer = identify_files(identifier, [folder / "1.png"], top_k=7)
        new = next(c for c in answer.candidates if c.species.scientific_name == "Nova planta")
        assert not new.in_classifier
        assert len(new.sheets) == 3
        gallery = identifier.bundle.gallery
        _, vectors = gallery.vectors_of(new.species.species_id)
        found = identifier.answer(Encoded(np.zeros((1, 6), np.float32), vectors[:1]), top_k=7)
        itself = next(c for c in found.candidates if c.species == new.species)
        as_photo = gallery.metric.apply(vectors[:1], Role.FIELD)[0]
        as_sheets = gallery.metric.apply(vectors, Role.SHEET)
        assert itself.sheets[0].similarity == pytest.approx(float((as_sheets @ as_photo).max()), abs=1e-5)
        lines = list(answer_lines(answer_to_json(answer, catalogue, identifier.model_id)))
        assert any("known from herbarium sheets only" in line for line in lines)


def test_a_build_from_nothing_equals_one_that_reuses(tiny_home: Home) -> None:
    with Catalogue.open(tiny_home) as catalogue:
        build(tiny_home, catalogue, CPU)
        reused = load_bundle(tiny_home, CPU).gallery
        for shard in tiny_home.embeddings.rglob("*.parquet"):
            shard.unlink()
        assert build(tiny_home, catalogue, CPU, from_nothing=True).embedded == 24
        fresh = load_bundle(tiny_home, CPU).gallery
    # Whitening magnifies what differs between two runs of a network: other batches, another machine's kernels.
    np.testing.assert_allclose(fresh.prototype_matrix(), reused.prototype_matrix(), atol=2e-5)
    assert fresh.sheet_columns() == reused.sheet_columns()
    sheets = fresh.sheet_columns()["sheet_id"].to_pylist()
    np.testing.assert_allclose(fresh.vectors_for(sheets), reused.vectors_for(sheets), atol=2e-5)


def test_a_killed_build_keeps_its_embeddings_and_the_active_bundle(
    tiny_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = active_artifact_id(tiny_home)
    for shard in tiny_home.embeddings.rglob("*.parquet"):
        shard.unlink()
    monkeypatch.setattr(build_content, "_SHARD", 10)

    def die(stage: str, done: int, total: int) -> None:
        if stage == "embedding images" and done > 0:
            raise KeyboardInterrupt

    with Catalogue.open(tiny_home) as catalogue:
        with pytest.raises(KeyboardInterrupt):
            build(tiny_home, catalogue, CPU, from_nothing=True, report=die)
        assert active_artifact_id(tiny_home) == before
        built = build(tiny_home, catalogue, CPU, from_nothing=True)
    assert built.reused >= 10


def test_an_index_that_cannot_be_served_is_not_activated(tiny_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    before = active_artifact_id(tiny_home)

    def broken(*_: Any, **__: Any) -> None:
        raise BundleMissing("cannot be read back")

    monkeypatch.setattr(build_gallery, "load_bundle", broken)
    with Catalogue.open(tiny_home) as catalogue, pytest.raises(BundleMissing):
        build(tiny_home, catalogue, CPU)
    assert active_artifact_id(tiny_home) == before


@pytest.mark.parametrize("kind", ["distance", "fusion"])
def test_the_gate_can_be_named(tiny_home: Home, kind: Any) -> None:
    with Catalogue.open(tiny_home) as catalogue:
        assert build(tiny_home, catalogue, CPU, gate_kind=kind).gate["kind"] == kind


def test_building_without_model_or_sheets_says_what_is_missing(tiny_home: Home, tmp_path: Path) -> None:
    with pytest.raises(BundleMissing, match="voucher train"):
        latest_model(Home(tmp_path))


def test_batches_come_in_order_and_memory_is_bounded(tiny_home: Home) -> None:
    encoder = load_model(tiny_home, list_artifacts(tiny_home.models)[0], CPU).encoder
    with Catalogue.open(tiny_home) as catalogue:
        files = [(s.sheet_id, catalogue.image_store.path(s.image)) for s in catalogue.sheets()]
    taken = 0

    def source() -> Any:
        nonlocal taken
        for item in files:
            taken += 1
            yield item

    keys: list[str] = []
    for number, (part, vectors) in enumerate(embed_images(source(), encoder, batch=4, workers=2)):
        keys += part
        assert vectors.shape == (4, 24)
        assert taken <= 4 * (number + 4)
    assert keys == [key for key, _ in files]
    assert list(embed_images(iter([]), encoder)) == []


def test_an_unreadable_file_stops_the_batches_with_its_reason(tmp_path: Path, tiny_home: Home) -> None:
    preprocessing = load_bundle(tiny_home, CPU).model.encoder.preprocessing
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff torn")
    with pytest.raises(UnreadableImage):
        list(run_batches([(0, tmp_path / "torn.jpg")], preprocessing, lambda pixels: pixels))


def test_figures_are_of_the_test_split_by_group(tiny_home: Home) -> None:
    with Catalogue.open(tiny_home) as catalogue:
        identifier = Identifier.load(tiny_home, CPU)
        result = evaluate(tiny_home, catalogue, identifier)
        tested = [p for p in catalogue.field_photos() if p.split is Split.TEST]
        answers = {p.photo_id: identify_files(identifier, [catalogue.image_store.path(p.image)]) for p in tested}
    values = result.to_json()
    json.dumps(values, allow_nan=False)
    assert set(values) >= {"specialist", "generalist", "ensemble"}
    for stream in ("specialist", "generalist", "ensemble"):
        assert [values[stream][g]["n"] for g in ("overall", "with_photos", "herbarium_only")] == [12, 8, 4]
    right = sum(answers[p.photo_id].candidates[0].species.species_id == p.species_id for p in tested)
    assert values["ensemble"]["overall"]["top1"] == pytest.approx(right / 12)
    assert sum(values["decisions"].values()) == 12
    with (result.report / "predictions.csv").open(encoding="utf-8-sig") as file:
        assert len({row["photo_id"] for row in csv.DictReader(file)}) == 12
    assert any("n=4" in line[1] for line in accuracy_lines(values))


def test_photos_of_unknown_species_are_counted_and_left_out(tiny_home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "more" / "test" / "field" / "Ignota"
    folder.mkdir(parents=True)
    noise_picture(7).save(folder / "1.png")
    sheets = tmp_path / "more" / "field" / "Ignota"
    sheets.mkdir(parents=True)
    noise_picture(8).save(sheets / "1.png")
    import_dataset(tmp_path / "more", tiny_home)
    with Catalogue.open(tiny_home) as catalogue:
        result = evaluate(tiny_home, catalogue, Identifier.load(tiny_home, CPU))
    assert result.skipped_unknown == 1
    assert result.figures["ensemble"]["overall"].n == 12


def test_nothing_to_test_on_is_said_so(tiny_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with Catalogue.open(tiny_home) as catalogue:
        monkeypatch.setattr(catalogue, "field_photos", lambda: iter([]))
        with pytest.raises(InsufficientData, match="no test photos"):
            evaluate(tiny_home, catalogue, Identifier.load(tiny_home, CPU))


def test_answers_cite_sheets_even_after_they_are_gone(tiny_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from models.errors import UnknownSheet

    identifier = Identifier.load(tiny_home, CPU)
    with Catalogue.open(tiny_home) as catalogue:
        photo = next(iter(catalogue.field_photos()))
        answer = identify_files(identifier, [catalogue.image_store.path(photo.image)])
        values = answer_to_json(answer, catalogue, "model")
        assert values["candidates"][0]["sheets"][0]["image_path"]

        def gone(_: str) -> None:
            raise UnknownSheet("gone")

        monkeypatch.setattr(catalogue, "get_sheet", gone)
        values = answer_to_json(answer, catalogue, "model")
        assert values["candidates"][0]["sheets"][0]["image_path"] is None
        assert any("vouched for by sheet" in line for line in answer_lines(values))


@pytest.mark.parametrize(("name", "message"), [("absent.jpg", "no such file"), ("torn.jpg", "torn.jpg")])
def test_photos_that_cannot_be_read_are_named(tiny_home: Home, tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "torn.jpg").write_bytes(b"no photo")
    with pytest.raises(UnreadableImage, match=message):
        identify_files(Identifier.load(tiny_home, CPU), [tmp_path / name])
