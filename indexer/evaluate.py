"""The protocol: test photos, read once, answered by the same `Identifier` that the service answers with."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexer.embed import run_batches
from indexer.metrics import GroupFigures, protocol_figures
from indexer.progress import Report, silent
from indexer.report import write_report
from indexer.splits import Splits
from models.artifacts import folder_of
from models.catalogue import Catalogue
from models.errors import InsufficientData
from models.gate import DistanceGate, FusionGate, stream_probabilities
from models.home import Home
from models.identifier import Identifier
from models.retrieval import DecisionSource, FloatArray
from models.specimens import FieldPhoto, Split

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """Figures by stream (specialist, generalist, ensemble) and group, and where the report lies."""

    bundle_id: str
    figures: dict[str, dict[str, GroupFigures]]
    report: Path
    skipped_unknown: int
    decisions: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Stream → group → figures, and what they are of."""
        values: dict[str, Any] = {
            stream: {group: figures.to_json() for group, figures in groups.items()}
            for stream, groups in self.figures.items()
        }
        return {
            **values,
            "bundle_id": self.bundle_id,
            "report": str(self.report),
            "photos_of_unknown_species": self.skipped_unknown,
            "decisions": self.decisions,
        }


def evaluate(home: Home, catalogue: Catalogue, identifier: Identifier, *, report: Report = silent) -> Evaluation:
    """Score the test photos with the identifier's bundle and write the report beside the run.

    Photos of species that the bundle does not know cannot be named by it; they are counted and left out.
    Raises `InsufficientData` when there is nothing to test on.
    """
    splits = Splits.load(folder_of(home.models, identifier.model_id) / "splits.parquet")
    position = {s: i for i, s in enumerate(identifier.species_ids)}
    tested = [p for p in catalogue.field_photos() if splits.split_of.get(p.photo_id, p.split) is Split.TEST]
    photos = [p for p in tested if p.species_id in position]
    if not photos:
        raise InsufficientData(
            "there are no test photos of known species: mark some with split 'test' in the manifest, or train with "
            "split.test_fraction above 0"
        )
    truth = np.array([position[p.species_id] for p in photos], dtype=np.int64)
    scored, decisions = _score(catalogue, identifier, photos, report)
    herbarium_only = ~identifier.has_field_photos[truth]
    observation = np.array([p.observation_key for p in photos])
    figures = {name: protocol_figures(p, truth, herbarium_only, observation) for name, p in scored.items()}
    folder = home.runs / str(identifier.bundle.model.metadata["run_id"]) / f"evaluation-{identifier.bundle_id}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_report(
        folder,
        figures=figures,
        scored=scored,
        truth=truth,
        herbarium_only=herbarium_only,
        observation=observation,
        species=identifier.species,
        photo_ids=[p.photo_id for p in photos],
        run={
            "bundle_id": identifier.bundle_id,
            "model_id": identifier.model_id,
            "gate": identifier.bundle.gate.to_json(),
            "config": identifier.bundle.model.metadata["config"],
            "hidden_species": identifier.bundle.model.metadata["hidden_species"],
            "decisions": decisions,
        },
    )
    return Evaluation(identifier.bundle_id, figures, folder, len(tested) - len(photos), decisions)


def _score(
    catalogue: Catalogue, identifier: Identifier, photos: list[FieldPhoto], report: Report
) -> tuple[dict[str, FloatArray], dict[str, int]]:
    """Probabilities ``(N, S)`` of each stream, and how often which source decided."""
    gate = identifier.bundle.gate
    temperatures = (
        (gate.specialist_temperature, gate.generalist_temperature)
        if isinstance(gate, DistanceGate | FusionGate)
        else (1.0, 0.05)
    )
    store = catalogue.image_store
    files = ((i, store.path(photo.image)) for i, photo in enumerate(photos))
    shape = (len(photos), len(identifier.species))
    scored = {name: np.empty(shape, dtype=np.float32) for name in ("specialist", "generalist", "ensemble")}
    decisions = {source.value: 0 for source in DecisionSource}
    preprocessing = identifier.bundle.model.encoder.preprocessing
    for rows, encoded in run_batches(files, preprocessing, identifier.encode):
        evidence = identifier.evidence(encoded.logits, encoded.embeddings)
        scored["specialist"][rows] = stream_probabilities(evidence, DecisionSource.SPECIALIST, temperatures[0])
        scored["generalist"][rows] = stream_probabilities(evidence, DecisionSource.GENERALIST, temperatures[1])
        scored["ensemble"][rows] = gate.probabilities(evidence)
        for row in range(len(rows)):
            decisions[gate.decide(evidence.at(row), 0).source.value] += 1
        report("scoring test photos", int(rows[-1]) + 1, len(photos))
    return scored, decisions


def accuracy_lines(evaluation: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Stream, group with its count, top-1 and top-5 with their intervals, of `Evaluation.to_json`, for a table."""
    return [
        (stream, f"{group} (n={figures['n']})", _percent(figures, "top1"), _percent(figures, "top5"))
        for stream in ("specialist", "generalist", "ensemble")
        for group, figures in evaluation[stream].items()
    ]


def _percent(figures: dict[str, Any], name: str) -> str:
    if figures[name] is None:
        return "–"
    low, high = figures[f"{name}_interval"]
    return f"{figures[name]:.1%} ({low:.0%}–{high:.0%})"
