import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.artifacts import INDEX_KIND, MODEL_KIND, activate, active_artifact_id, list_artifacts, read, writing
from models.bundle import CalibrationSet, load_bundle, load_model, write_index_files
from models.catalogue import Catalogue
from models.compute import Compute
from models.encoder import Encoded
from models.errors import BundleCorrupt, BundleMissing, EmbeddingSpaceMismatch, InvalidImage
from models.gallery import Gallery
from models.gate import DistanceGate
from models.home import Home
from models.identifier import Identifier
from models.reliability import Reliability
from models.retrieval import EmbeddingBatch
from models.specimens import Role
from models.taxonomy import Species, SpeciesId, Taxonomy

CPU = Compute("cpu", None)


@pytest.fixture(scope="module")
def identifier(trained_home: Home) -> Identifier:
    return Identifier.load(trained_home, CPU)


@pytest.fixture(scope="module")
def photos(trained_home: Home) -> list[Path]:
    with Catalogue.open(trained_home) as catalogue:
        return [catalogue.image_store.path(p.image) for p in catalogue.field_photos()]


def decoded(identifier: Identifier, paths: list[Path]) -> list[Image.Image]:
    return [identifier.decode(path, max_pixels=10**7) for path in paths]


def test_an_answer_is_complete(identifier: Identifier, photos: list[Path], trained_home: Home) -> None:
    answer = identifier.identify(decoded(identifier, photos[:1]), top_k=4, sheets_per_candidate=2)
    assert answer.bundle_id == active_artifact_id(trained_home)
    assert answer.photo_count == 1
    assert len(answer.candidates) == 4
    assert answer.decision.reason.endswith(".")
    for candidate in answer.candidates:
        assert candidate.in_classifier
        assert candidate.similarity is not None
        assert len(candidate.sheets) == 2
        assert {match.species_id for match in candidate.sheets} == {candidate.species.species_id}
        assert candidate.species.genus
        assert candidate.species.family


def test_all_species_together_have_probability_one(identifier: Identifier, photos: list[Path]) -> None:
    answer = identifier.identify(decoded(identifier, photos[:1]), top_k=1000, sheets_per_candidate=0)
    assert len(answer.candidates) == len(identifier.species_ids) == 6
    assert sum(c.probability for c in answer.candidates) == pytest.approx(1.0, abs=1e-4)
    assert all(c.sheets == () for c in answer.candidates)
    assert sum(not c.has_field_photos for c in answer.candidates) == 2


def test_the_same_photo_twice_is_the_same_answer(identifier: Identifier, photos: list[Path]) -> None:
    once = identifier.identify(decoded(identifier, photos[:1]))
    twice = identifier.identify(decoded(identifier, [photos[0], photos[0]]))
    assert [c.species for c in once.candidates] == [c.species for c in twice.candidates]
    for a, b in zip(once.candidates, twice.candidates, strict=True):
        assert a.probability == pytest.approx(b.probability, abs=1e-4)


def test_the_order_of_photos_does_not_matter(identifier: Identifier, photos: list[Path]) -> None:
    images = decoded(identifier, photos[:3])
    one, other = identifier.identify(images), identifier.identify(images[::-1])
    assert [c.species for c in one.candidates] == [c.species for c in other.candidates]
    assert one.photo_count == 3


def test_a_batch_gives_what_single_photos_give(identifier: Identifier, photos: list[Path]) -> None:
    pixels = np.stack([identifier.preprocess(image) for image in decoded(identifier, photos[:5])])
    batch = identifier.encode(pixels)
    for i in range(5):
        alone = identifier.encode(pixels[i : i + 1])
        np.testing.assert_allclose(alone.logits[0], batch.logits[i], atol=1e-4)
        np.testing.assert_allclose(alone.embeddings[0], batch.embeddings[i], atol=1e-5)


def test_photos_and_sheets_are_embedded_alike_and_told_apart_by_the_metric(
    identifier: Identifier, photos: list[Path]
) -> None:
    encoder, metric = identifier.bundle.model.encoder, identifier.bundle.gallery.metric
    pixels = np.stack([identifier.preprocess(image) for image in decoded(identifier, photos[:5])])
    embedded = encoder.embed(pixels)
    np.testing.assert_allclose(encoder.encode(pixels).embeddings, embedded, atol=1e-5)
    as_photos, as_sheets = metric.apply(embedded, Role.FIELD), metric.apply(embedded, Role.SHEET)
    np.testing.assert_allclose(np.linalg.norm(as_sheets, axis=1), 1.0, atol=1e-5)
    assert float(np.abs(as_photos - as_sheets).max()) > 0.01


def test_pixels_of_another_shape_or_type_are_refused(identifier: Identifier) -> None:
    for bad in (np.zeros((1, 3, 20, 20), np.float32), np.zeros((3, 48, 48), np.float32), np.zeros((1, 3, 48, 48))):
        with pytest.raises(ValueError, match="float32"):
            identifier.encode(bad)


def test_unreadable_photos_are_told_apart_from_bugs(identifier: Identifier) -> None:
    with pytest.raises(InvalidImage):
        identifier.decode(b"no image", max_pixels=10**6)


def publish_index(home: Home, gallery: Gallery, names: Taxonomy, model_id: str, name: str = "other") -> None:
    metadata = {"model_id": model_id}
    with writing(home.indexes, kind=INDEX_KIND, artifact_id=name, metadata=metadata) as folder:
        write_index_files(folder, gallery, DistanceGate(0.5), names, Reliability())


def small_gallery(space_id: str, species: list[str], dimensions: int = 24) -> Gallery:
    vectors = np.eye(dimensions, dtype=np.float32)[: len(species)]
    batch = EmbeddingBatch(vectors, tuple(f"sheet{i}" for i in range(len(species))), space_id)
    return Gallery.build(batch, [SpeciesId(s) for s in species])


def test_a_species_added_after_training_is_found_through_its_sheets(tiny_home: Home) -> None:
    model = load_bundle(tiny_home, CPU).model
    known = model.taxonomy.at(0)  # type: ignore[arg-type]
    gallery = small_gallery(model.encoder.space_id, [known.species_id, "new"])
    names = Taxonomy.of([known, Species(SpeciesId("new"), "Nova planta")])
    publish_index(tiny_home, gallery, names, model.model_id)
    identifier = Identifier.load(tiny_home, CPU, "other")
    assert len(identifier.species_ids) == 7
    (vector,) = gallery.vectors_for(["sheet1"])
    answer = identifier.answer(Encoded(np.zeros((1, 6), np.float32), vector[None]), top_k=7)
    by_id = {c.species.species_id: c for c in answer.candidates}
    new = by_id[SpeciesId("new")]
    assert not new.in_classifier
    assert not new.has_field_photos
    assert new.similarity == pytest.approx(1.0)
    assert new.species.scientific_name == "Nova planta"
    without_sheets = [c for c in answer.candidates if c.similarity is None]
    assert len(without_sheets) == 5
    assert all(c.sheets == () for c in without_sheets)


def test_what_is_known_of_a_species_is_what_its_candidates_say(identifier: Identifier, photos: list[Path]) -> None:
    answer = identifier.identify(decoded(identifier, photos[:1]), top_k=1000, sheets_per_candidate=1)
    for candidate in answer.candidates:
        known = identifier.knowledge(candidate.species.species_id)
        assert known is not None
        assert (known.in_classifier, known.has_field_photos) == (candidate.in_classifier, candidate.has_field_photos)
        assert known.has_sheets == bool(candidate.sheets)
    assert {candidate.has_field_photos for candidate in answer.candidates} == {True, False}
    assert identifier.knowledge(SpeciesId("none")) is None


def test_nothing_built_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(BundleMissing, match="voucher build"):
        Identifier.load(Home(tmp_path), CPU)


def test_an_index_of_another_space_is_refused(tiny_home: Home) -> None:
    model = load_bundle(tiny_home, CPU).model
    gallery = small_gallery("another space", [model.taxonomy.species[0].species_id])
    publish_index(tiny_home, gallery, model.taxonomy, model.model_id)
    with pytest.raises(EmbeddingSpaceMismatch):
        load_bundle(tiny_home, CPU, "other")


def test_an_index_without_its_model_is_refused(tiny_home: Home) -> None:
    shutil.rmtree(tiny_home.models)
    with pytest.raises(BundleMissing):
        load_bundle(tiny_home, CPU)


def test_an_index_with_unnamed_species_is_refused(tiny_home: Home) -> None:
    model = load_bundle(tiny_home, CPU).model
    gallery = small_gallery(model.encoder.space_id, ["nameless"])
    publish_index(tiny_home, gallery, model.taxonomy, model.model_id)
    with pytest.raises(BundleCorrupt, match="nameless has sheets but no name"):
        load_bundle(tiny_home, CPU, "other")


def republish(home: Home, kind: str, name: str, file: str, content: bytes | None = None, **metadata: object) -> None:
    """A copy of an artifact, with valid hashes, in which one file or some metadata are other."""
    parent = home.models if kind == MODEL_KIND else home.indexes
    old = read(parent / list_artifacts(parent)[0], kind=kind)
    with writing(parent, kind=kind, artifact_id=name, metadata={**old.metadata, **metadata}) as folder:
        # Without the modes: the files of an artifact are read-only.
        shutil.copytree(old.root, folder, copy_function=shutil.copyfile, dirs_exist_ok=True)
        (folder / "manifest.json").unlink()
        if content is not None:
            (folder / file).write_bytes(content)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("gate.json", b"{}"),
        ("gate.json", b"not json"),
        ("species.json", b"[1]"),
        ("species.json", b"[{}]"),
        ("prototypes.npy", b"no array"),
        ("gallery.json", b"[]"),
        ("reliability.json", b"{}"),
        ("reliability.json", b"not json"),
    ],
)
def test_index_files_that_hash_right_but_make_no_sense_are_refused(tiny_home: Home, file: str, content: bytes) -> None:
    republish(tiny_home, INDEX_KIND, "other", file, content)
    with pytest.raises(BundleCorrupt):
        load_bundle(tiny_home, CPU, "other")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("weights.safetensors", b"no weights"),
        ("species.json", b"[]"),
        ("species.json", b'[{"species_id": "a"}]'),
        ("calibration.safetensors", b""),
    ],
)
def test_model_files_that_hash_right_but_make_no_sense_are_refused(tiny_home: Home, file: str, content: bytes) -> None:
    republish(tiny_home, MODEL_KIND, "other", file, content)
    with pytest.raises(BundleCorrupt):
        load_model(tiny_home, "other", CPU).calibration()


def test_a_model_whose_preprocessing_was_changed_is_refused(tiny_home: Home) -> None:
    model_id = list_artifacts(tiny_home.models)[0]
    settings = read(tiny_home.models / model_id, kind=MODEL_KIND).metadata["preprocessing"]
    republish(tiny_home, MODEL_KIND, "other", "", preprocessing={**settings, "mean": [0.1, 0.2, 0.3]})
    with pytest.raises(EmbeddingSpaceMismatch, match="space id"):
        load_model(tiny_home, "other", CPU)


def test_a_model_of_another_class_list_is_refused(tiny_home: Home) -> None:
    model_id = list_artifacts(tiny_home.models)[0]
    path = tiny_home.models / model_id / "species.json"
    records = json.loads(path.read_text())
    records[0]["species_id"] = "exchanged"
    republish(tiny_home, MODEL_KIND, "other", "species.json", json.dumps(records).encode())
    with pytest.raises(BundleCorrupt, match="class list"):
        load_model(tiny_home, "other", CPU)


def test_a_flipped_byte_anywhere_in_the_bundle_is_refused(tiny_home: Home) -> None:
    bundle_id = active_artifact_id(tiny_home)
    model_id = list_artifacts(tiny_home.models)[0]
    for folder in (tiny_home.indexes / bundle_id, tiny_home.models / model_id):
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            path.chmod(0o644)
            content = path.read_bytes()
            position = len(content) // 2
            changed = content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
            path.write_bytes(changed)
            with pytest.raises(BundleCorrupt):
                load_bundle(tiny_home, CPU)
            path.write_bytes(content)
    assert load_bundle(tiny_home, CPU).bundle_id == bundle_id


def test_another_bundle_is_served_after_its_activation(tiny_home: Home) -> None:
    republish(tiny_home, INDEX_KIND, "other", "")
    activate(tiny_home, "other")
    assert Identifier.load(tiny_home, CPU).bundle_id == "other"


def test_calibration_sets_join_in_order() -> None:
    empty = CalibrationSet.empty(3)
    one = CalibrationSet(
        np.ones((2, 3), np.float32),
        np.zeros((2, 3), np.float32),
        np.array([1, 2]),
        np.array([True, False]),
        np.zeros((2, 3), bool),
    )
    joined = CalibrationSet.join([empty, one, one])
    assert len(joined) == 4
    np.testing.assert_array_equal(joined.truth, [1, 2, 1, 2])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_answers_as_the_cpu_does(trained_home: Home, photos: list[Path]) -> None:
    on_cpu, on_gpu = Identifier.load(trained_home, CPU), Identifier.load(trained_home, Compute("cuda:0", None))
    images = decoded(on_cpu, photos[:3])
    one, other = on_cpu.identify(images), on_gpu.identify(images)
    assert [c.species for c in one.candidates] == [c.species for c in other.candidates]
    for a, b in zip(one.candidates, other.candidates, strict=True):
        assert a.probability == pytest.approx(b.probability, abs=5e-3)
