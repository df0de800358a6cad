"""The protocol: test photos, read once, answered by the same `Identifier` that the service answers with."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexer.metrics import GroupFigures, protocol_figures
from indexer.progress import Report, silent
from indexer.reliability_figures import ServedAnswers, reliability_figures, several_photos_figures
from indexer.report import write_report
from indexer.scoring import Scores, score_files
from indexer.splits import Splits
from indexer.unknown_photos import UnknownPhotos, UnknownScores, list_unknown, score_unknown, unknown_figures
from models.artifacts import folder_of
from models.catalogue import Catalogue
from models.errors import InsufficientData
from models.home import Home
from models.identifier import Identifier
from models.specimens import FieldPhoto, Split

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """Figures by stream (specialist, generalist, ensemble) and group, and where the report lies.

    `reliability` tells what the ensemble's probabilities are worth, by section.
    """

    bundle_id: str
    figures: dict[str, dict[str, GroupFigures]]
    reliability: dict[str, Any]
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
            "reliability": self.reliability,
            "bundle_id": self.bundle_id,
            "report": str(self.report),
            "photos_of_unknown_species": self.skipped_unknown,
            "decisions": self.decisions,
        }


def evaluate(
    home: Home, catalogue: Catalogue, identifier: Identifier, *, unknown: Path | None = None, report: Report = silent
) -> Evaluation:
    """Score the test photos with the identifier's bundle and write the report beside the run.

    Photos of species that the bundle does not know cannot be named by it; they are counted and left out. `unknown` is
    a folder or manifest of photos of other species, which are to be told from the test photos; they are read where they
    lie. Raises `InsufficientData` when there is nothing to test on.
    """
    strangers = list_unknown(unknown, identifier.species_ids) if unknown else None
    photos, skipped = read_test_photos(home, catalogue, identifier)
    position = {s: i for i, s in enumerate(identifier.species_ids)}
    truth = np.array([position[p.species_id] for p in photos], dtype=np.int64)
    observation = np.array([p.observation_key for p in photos])
    store = catalogue.image_store
    plants = [(p.observation_key, int(t)) for p, t in zip(photos, truth, strict=True)]
    scores = score_files(identifier, [store.path(p.image) for p in photos], plants, report)
    herbarium_only = ~identifier.has_field_photos[truth]
    figures = {n: protocol_figures(p, truth, herbarium_only, observation) for n, p in scores.streams.items()}
    reliability = _reliability(identifier, scores, truth, observation)
    if strangers:
        reliability["unknown_species"] = _unknown_species(identifier, strangers, scores, observation, report)
    folder = home.runs / str(identifier.bundle.model.metadata["run_id"]) / f"evaluation-{identifier.bundle_id}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_report(
        folder,
        figures=figures,
        scored=scores.streams,
        truth=truth,
        herbarium_only=herbarium_only,
        observation=observation,
        species=identifier.species,
        photo_ids=[p.photo_id for p in photos],
        run=_of_run(identifier, scores),
        reliability=reliability,
    )
    return Evaluation(identifier.bundle_id, figures, reliability, folder, skipped, scores.decisions)


def read_test_photos(home: Home, catalogue: Catalogue, identifier: Identifier) -> tuple[list[FieldPhoto], int]:
    """The test photos of known species, and how many there are of others. Raises `InsufficientData`."""
    splits = Splits.load(folder_of(home.models, identifier.model_id) / "splits.parquet")
    known = set(identifier.species_ids)
    tested = [p for p in catalogue.field_photos() if splits.split_of.get(p.photo_id, p.split) is Split.TEST]
    photos = [p for p in tested if p.species_id in known]
    if not photos:
        raise InsufficientData(
            "there are no test photos of known species: mark some with split 'test' in the manifest, or train with "
            "split.test_fraction above 0"
        )
    return photos, len(tested) - len(photos)


def _reliability(
    identifier: Identifier, scores: Scores, truth: np.ndarray[Any, Any], observation: np.ndarray[Any, Any]
) -> dict[str, Any]:
    """What the ensemble's probabilities are worth."""
    served = scores.streams["ensemble"]
    answers = ServedAnswers(
        served, scores.gate_confidence, truth, identifier.has_field_photos, observation, scores.unknown_scores
    )
    several = several_photos_figures(served, truth, scores.combined.probabilities, scores.combined.rows)
    return {
        **reliability_figures(answers, identifier.bundle.reliability, identifier.higher_taxa),
        "several_photos": several,
    }


def _unknown_species(
    identifier: Identifier, strangers: UnknownPhotos, scores: Scores, observation: np.ndarray[Any, Any], report: Report
) -> dict[str, Any]:
    """How well photos of unknown species are told from the test photos."""
    of_unknown, unreadable = score_unknown(identifier, strangers.files, report)
    of_known = UnknownScores.of(scores.streams["ensemble"].max(axis=1), scores.nearest, scores.unknown_scores)
    return {
        **unknown_figures(of_known, of_unknown, observation, identifier.bundle.reliability.novelty),
        "unreadable": unreadable,
        "left_out_of_known_species": strangers.of_known_species,
    }


def _of_run(identifier: Identifier, scores: Scores) -> dict[str, object]:
    """What was evaluated, for the report."""
    metadata = identifier.bundle.model.metadata
    return {
        "bundle_id": identifier.bundle_id,
        "model_id": identifier.model_id,
        "gate": identifier.bundle.gate.to_json(),
        "reliability": identifier.bundle.reliability.to_json(),
        "config": metadata["config"],
        "hidden_species": metadata["hidden_species"],
        "decisions": scores.decisions,
    }


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
