"""Test photos answered by an identifier, as arrays for the figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.embed import run_batches
from indexer.progress import Report
from models.encoder import Encoded
from models.gate import DistanceGate, FusionGate, StreamGate, stream_probabilities
from models.identifier import Identifier
from models.reliability import Float64Array, novelty_features
from models.retrieval import DecisionSource, FloatArray

STREAMS = ("specialist", "generalist", "ensemble")


@dataclass(frozen=True)
class CombinedAnswers:
    """Answers to K plants with several photos each: probabilities ``(K, S)`` and, for each, the rows of its photos."""

    probabilities: FloatArray
    rows: tuple[NDArray[np.intp], ...]


@dataclass(frozen=True)
class Scores:
    """What an identifier made of N photos.

    `streams`: probabilities ``(N, S)`` of each; those of "ensemble" are calibrated, as served. `gate_confidence`
    ``(N,)``: the first species' before calibration. `unknown_scores` ``(N,)``: of the novelty model, None without one.
    `nearest` ``(N,)``: the largest similarity to a prototype. `decisions`: how often which source decided.
    """

    streams: dict[str, FloatArray]
    gate_confidence: FloatArray
    unknown_scores: Float64Array | None
    nearest: Float64Array
    decisions: dict[str, int]
    combined: CombinedAnswers


def score_files(
    identifier: Identifier, files: Sequence[Path], plants: Sequence[tuple[str, int]], report: Report
) -> Scores:
    """Scores of stored photos; `plants` names the plant of each, by observation and true species.

    Plants of several photos are answered once more from all of them.
    """
    gate, novelty = identifier.bundle.gate, identifier.bundle.reliability.novelty
    temperatures = (
        (gate.specialist_temperature, gate.generalist_temperature)
        if isinstance(gate, DistanceGate | FusionGate | StreamGate)
        else (1.0, 0.05)
    )
    count = len(files)
    streams = {name: np.empty((count, len(identifier.species)), dtype=np.float32) for name in STREAMS}
    gate_confidence = np.empty(count, dtype=np.float32)
    unknown_scores, nearest = np.empty(count), np.empty(count)
    decisions = {source.value: 0 for source in DecisionSource}
    several = _several_photos(plants)
    wanted = set(np.concatenate(several).tolist()) if several else set()
    kept: dict[int, tuple[FloatArray, FloatArray]] = {}
    preprocessing = identifier.bundle.model.encoder.preprocessing
    for rows, encoded in run_batches(enumerate(files), preprocessing, identifier.encode):
        evidence = identifier.evidence(encoded.logits, encoded.embeddings)
        streams["specialist"][rows] = stream_probabilities(evidence, DecisionSource.SPECIALIST, temperatures[0])
        streams["generalist"][rows] = stream_probabilities(evidence, DecisionSource.GENERALIST, temperatures[1])
        streams["ensemble"][rows] = probabilities = identifier.probabilities(evidence)
        gate_confidence[rows] = gate.probabilities(evidence).max(axis=1)
        features = novelty_features(evidence, probabilities)
        nearest[rows] = features[:, 1]
        unknown_scores[rows] = novelty.unknown_scores(features) if novelty else np.nan
        for i, row in enumerate(rows):
            decisions[gate.decide(evidence.at(i), 0).source.value] += 1
            if row in wanted:
                kept[row] = (encoded.logits[i], encoded.embeddings[i])
        report("scoring test photos", int(rows[-1]) + 1, count)
    combined = CombinedAnswers(_combine(identifier, kept, several), tuple(several))
    return Scores(streams, gate_confidence, unknown_scores if novelty else None, nearest, decisions, combined)


def _several_photos(plants: Sequence[tuple[str, int]]) -> list[NDArray[np.intp]]:
    """The rows of each plant that has more than one."""
    rows_of: dict[tuple[str, int], list[int]] = {}
    for row, plant in enumerate(plants):
        rows_of.setdefault(plant, []).append(row)
    return [np.array(rows, dtype=np.intp) for rows in rows_of.values() if len(rows) > 1]


def _combine(
    identifier: Identifier, outputs: dict[int, tuple[FloatArray, FloatArray]], plants: list[NDArray[np.intp]]
) -> FloatArray:
    """Probabilities ``(K, S)`` of K plants from the network's outputs for all photos of each."""
    probabilities = np.empty((len(plants), len(identifier.species)), dtype=np.float32)
    for number, rows in enumerate(plants):
        logits, embeddings = (np.stack(parts) for parts in zip(*(outputs[int(r)] for r in rows), strict=True))
        probabilities[number] = identifier.combine(Encoded(logits, embeddings))[1][0]
    return probabilities
