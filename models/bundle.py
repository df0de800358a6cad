"""What the model and index artifacts hold, and the bundle of one index with its model."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from models.artifacts import INDEX_KIND, MODEL_KIND, Artifact, active_artifact_id, folder_of, read
from models.compute import Compute
from models.encoder import Encoder
from models.errors import BundleCorrupt, EmbeddingSpaceMismatch, InvalidConfig
from models.gallery import Gallery
from models.gate import Gate, gate_from_json
from models.home import Home
from models.preprocess import Preprocessing
from models.reliability import Reliability
from models.retrieval import FloatArray
from models.taxonomy import Species, Taxonomy
from models.two_stream import NetworkShape, TwoStreamNetwork, embedding_space_id

_WEIGHTS = "weights.safetensors"
_SPECIES = "species.json"
_CALIBRATION = "calibration.safetensors"
_GATE = "gate.json"
_RELIABILITY = "reliability.json"


@dataclass(frozen=True)
class CalibrationSet:
    """Answers to M photos by networks that had not seen them, for fitting gates.

    `logits` and `similarities` are ``(M, C)`` over the model's taxonomy, `truth` ``(M,)`` class indices. `hidden`
    ``(M,)`` says that all field photos of the photo's species had been hidden, which stands for a herbarium-only
    species; `has_field_photos` ``(M, C)`` which species had photos in that photo's network.
    """

    logits: FloatArray
    similarities: FloatArray
    truth: NDArray[np.int64]
    hidden: NDArray[np.bool_]
    has_field_photos: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.truth)

    @classmethod
    def empty(cls, classes: int) -> "CalibrationSet":
        """No photos."""
        nothing = np.zeros((0, classes), dtype=np.float32)
        flags = np.zeros((0, classes), dtype=bool)
        return cls(nothing, nothing, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool), flags)

    @classmethod
    def join(cls, parts: "list[CalibrationSet]") -> "CalibrationSet":
        """One set of several over the same taxonomy."""
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in cls.__dataclass_fields__))

    def at(self, rows: NDArray[np.bool_] | NDArray[np.intp] | slice) -> "CalibrationSet":
        """The answers to the photos in `rows`."""
        return CalibrationSet(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By name, for a file."""
        return {name: np.ascontiguousarray(getattr(self, name)) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class TrainedModel:
    """A model artifact in memory, but for the calibration answers, which only a build needs."""

    model_id: str
    encoder: Encoder
    taxonomy: Taxonomy
    has_field_photos: NDArray[np.bool_]
    metadata: dict[str, Any]
    artifact: Artifact

    def calibration(self) -> CalibrationSet:
        """The calibration answers, read from the verified artifact. Raises `BundleCorrupt`."""
        try:
            return CalibrationSet(**load_arrays(self.artifact.path(_CALIBRATION)))
        except (TypeError, ValueError, OSError, SafetensorError) as error:
            raise _unreadable(self.artifact, error) from error


def write_model_files(
    folder: Path,
    network: TwoStreamNetwork,
    taxonomy: Taxonomy,
    has_field_photos: NDArray[np.bool_],
    calibration: CalibrationSet,
) -> None:
    """Put weights, class list and calibration answers into the folder of a new model artifact."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, folder / _WEIGHTS)
    species = [
        {**asdict(s), "has_field_photos": bool(flag)} for s, flag in zip(taxonomy, has_field_photos, strict=True)
    ]
    (folder / _SPECIES).write_text(json.dumps(species, ensure_ascii=False), encoding="utf-8")
    save_arrays(calibration.arrays(), folder / _CALIBRATION)


def model_metadata(network: TwoStreamNetwork, preprocessing: Preprocessing, taxonomy: Taxonomy) -> dict[str, Any]:
    """What `load_model` needs of a model artifact's manifest."""
    return {
        "network": asdict(network.shape),
        "preprocessing": preprocessing.to_json(),
        "space_id": embedding_space_id(network, preprocessing.digest),
        "taxonomy_digest": taxonomy.digest,
    }


def load_model(home: Home, model_id: str, compute: Compute) -> TrainedModel:
    """A verified model. Raises `BundleMissing`, or `BundleCorrupt` for whatever does not fit together."""
    artifact = read(folder_of(home.models, model_id), kind=MODEL_KIND)
    try:
        shape = NetworkShape(**artifact.metadata["network"])
        preprocessing = Preprocessing.from_json(artifact.metadata["preprocessing"])
        space_id = str(artifact.metadata["space_id"])
        records = json.loads(artifact.path(_SPECIES).read_text(encoding="utf-8"))
        flags = np.array([bool(r.pop("has_field_photos")) for r in records], dtype=bool)
        taxonomy = Taxonomy(tuple(Species(**r) for r in records))
        network = TwoStreamNetwork(shape)
        network.load_state_dict(load_file(artifact.path(_WEIGHTS)), strict=True)
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError, InvalidConfig) as error:
        raise _unreadable(artifact, error) from error
    if taxonomy.digest != artifact.metadata["taxonomy_digest"] or len(taxonomy) != shape.classes:
        raise _unreadable(artifact, ValueError("the class list is not the one it was trained on"))
    if embedding_space_id(network, preprocessing.digest) != space_id:
        raise EmbeddingSpaceMismatch(
            f"model {model_id}: weights and preprocessing do not give its space id {space_id}; train again"
        )
    encoder = Encoder(network, preprocessing, space_id, compute)
    return TrainedModel(model_id, encoder, taxonomy, flags, artifact.metadata, artifact)


def write_index_files(
    folder: Path, gallery: Gallery, gate: Gate, catalogued: Taxonomy, reliability: Reliability
) -> None:
    """Put vectors, gate, its reliability and the names of the species into the folder of a new index artifact."""
    gallery.save(folder)
    (folder / _RELIABILITY).write_text(json.dumps(reliability.to_json(), indent=1), encoding="utf-8")
    (folder / _GATE).write_text(json.dumps(gate.to_json(), indent=1), encoding="utf-8")
    names = [asdict(s) for s in catalogued]
    (folder / _SPECIES).write_text(json.dumps(names, ensure_ascii=False), encoding="utf-8")


@dataclass(frozen=True)
class Bundle:
    """One index with the model that it belongs to. `species` are those in the index by their current names."""

    bundle_id: str
    model: TrainedModel
    gallery: Gallery
    gate: Gate
    reliability: Reliability
    species: Taxonomy
    metadata: dict[str, Any]


def load_bundle(
    home: Home, compute: Compute, bundle_id: str | None = None, *, model: TrainedModel | None = None
) -> Bundle:
    """A verified bundle; the active one if none is named.

    `model` is one that is in memory already; it is taken if the bundle belongs to it, and not loaded a second time.

    Raises `BundleMissing`, `BundleCorrupt`, or `EmbeddingSpaceMismatch` if index and model do not belong together.
    """
    chosen = bundle_id or active_artifact_id(home)
    artifact = read(folder_of(home.indexes, chosen), kind=INDEX_KIND)
    try:
        model_id = str(artifact.metadata["model_id"])
        gate = gate_from_json(json.loads(artifact.path(_GATE).read_text(encoding="utf-8")))
        reliability = Reliability.from_json(json.loads(artifact.path(_RELIABILITY).read_text(encoding="utf-8")))
        names = json.loads(artifact.path(_SPECIES).read_text(encoding="utf-8"))
        species = Taxonomy(tuple(Species(**record) for record in names))
    except (KeyError, TypeError, ValueError, InvalidConfig) as error:
        raise _unreadable(artifact, error) from error
    if model is None or model.model_id != model_id:
        model = load_model(home, model_id, compute)
    gallery = Gallery.load(artifact.root, expected_space_id=model.encoder.space_id, compute=compute)
    unnamed = [s for s in gallery.species_ids if s not in species]
    if unnamed:
        raise _unreadable(artifact, ValueError(f"species {unnamed[0]} has sheets but no name"))
    return Bundle(chosen, model, gallery, gate, reliability, species, artifact.metadata)


def _unreadable(artifact: Artifact, error: Exception) -> BundleCorrupt:
    remedy = "run `voucher build`" if artifact.kind == INDEX_KIND else "run `voucher train` and `voucher build`"
    return BundleCorrupt(f"{artifact.kind} {artifact.artifact_id} does not hold what it should: {error}; {remedy}")
