"""Writes what an evaluation found as files that a curator can open: tables, CSV and plots."""

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.intervals import PairedDifference, paired_difference
from indexer.metrics import GROUPS, score_photos
from indexer.report_plots import (
    plot_confusion,
    plot_figures,
    plot_per_species,
    plot_reliability,
    plot_risk_coverage,
)
from indexer.report_reliability import reliability_markdown
from indexer.report_tables import (
    TOP,
    EvaluatedPhotos,
    Figures,
    figures_markdown,
    write_confusion,
    write_figures_json,
    write_per_species,
    write_predictions,
)
from models.errors import InsufficientData
from models.taxonomy import Species

MAIN_STREAM = "ensemble"
"""The stream that the confusion, the predictions and the per-species plot are about."""

FILES = (
    "figures.md",
    "figures.png",
    "confusion.csv",
    "confusion.png",
    "per_species.csv",
    "per_species.png",
    "predictions.csv",
    "risk_coverage.png",
    "reliability.png",
    "figures.json",
)
"""The files of a report; figures.json is put in place last, so that it stands for a whole report."""


def write_report(
    folder: Path,
    *,
    figures: Figures,
    scored: Mapping[str, NDArray[np.floating]],
    truth: NDArray[np.integer],
    herbarium_only: NDArray[np.bool_],
    observation: NDArray[np.generic],
    species: Sequence[Species],
    photo_ids: Sequence[str],
    run: Mapping[str, object],
    reliability: Mapping[str, object] | None = None,
) -> list[Path]:
    """Paths of the files written to `folder`, in the order of `FILES`.

    `figures` and `scored` have the same streams: figures by group, and probabilities ``(N, S)`` over
    `species`. `truth` ``(N,)`` holds positions among `species`, `herbarium_only` ``(N,)`` tells whether
    the true species had no field photos in training, `observation` ``(N,)`` and `photo_ids` name plant
    and photo. `run` is put into figures.json and figures.md as it is, `reliability` (what the probabilities are worth)
    under its name and as tables.

    The files appear whole or not at all: they are written beside `folder` and renamed; other files in
    an existing `folder` stay. Raises `InsufficientData` without photos, `ValueError` when the inputs do
    not fit each other.
    """
    photos = _evaluated(scored, truth, herbarium_only, observation, species, photo_ids)
    if set(figures) != set(scored):
        raise ValueError(f"figures of {sorted(figures)} but probabilities of {sorted(scored)}")
    differences = _differences(photos)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        write_figures_json(staged / "figures.json", figures, differences, run, reliability)
        tables = figures_markdown(figures, differences, run, reliability_markdown(reliability or {}))
        (staged / "figures.md").write_text(tables, encoding="utf-8")
        write_confusion(staged / "confusion.csv", photos)
        write_per_species(staged / "per_species.csv", photos)
        write_predictions(staged / "predictions.csv", photos)
        plot_figures(staged / "figures.png", figures)
        plot_confusion(staged / "confusion.png", photos)
        plot_per_species(staged / "per_species.png", photos)
        plot_risk_coverage(staged / "risk_coverage.png", photos, figures)
        plot_reliability(staged / "reliability.png", photos, figures)
        _publish(staged, folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return [folder / name for name in FILES]


def _evaluated(
    scored: Mapping[str, NDArray[np.floating]],
    truth: NDArray[np.integer],
    herbarium_only: NDArray[np.bool_],
    observation: NDArray[np.generic],
    species: Sequence[Species],
    photo_ids: Sequence[str],
) -> EvaluatedPhotos:
    n = len(photo_ids)
    if not n or not scored:
        raise InsufficientData(
            "a report needs at least one test photo of a known species and one stream; found "
            f"{n} photos and {len(scored)} streams. Import photos with split 'test' and evaluate again."
        )
    for name, column in (("truth", truth), ("herbarium_only", herbarium_only), ("observation", observation)):
        if column.shape != (n,):
            raise ValueError(f"{name} has shape {column.shape}, expected one entry for each of {n} photos")
    for stream, probabilities in scored.items():
        if probabilities.shape != (n, len(species)):
            raise ValueError(f"{stream} has shape {probabilities.shape}, expected {(n, len(species))}")
    if set(truth[herbarium_only].tolist()) & set(truth[~herbarium_only].tolist()):
        raise ValueError("a species is either herbarium-only or has field photos, not both")
    main = MAIN_STREAM if MAIN_STREAM in scored else list(scored)[-1]
    best, best_probability = best_answers(scored[main], TOP)
    streams = {name: score_photos(probabilities, truth) for name, probabilities in scored.items()}
    return EvaluatedPhotos(species, herbarium_only, observation, photo_ids, streams, main, best, best_probability)


def best_answers(probabilities: NDArray[np.floating], k: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Positions ``(N, min(k, S))`` of the most probable species, best first, and their probabilities.

    Equal probabilities keep the order of the class list, as in `score_photos`.
    """
    n, size = probabilities.shape
    k = min(k, size)
    best = np.zeros((n, k), np.intp)
    # A few passes of argmax keep ties in order, which argpartition does not, and S is sorted by neither.
    step = max(1, 4_000_000 // max(1, size))
    for start in range(0, n, step):
        rest = probabilities[start : start + step].copy()
        rows = np.arange(len(rest))
        for place in range(k):
            best[start : start + step, place] = rest.argmax(axis=1)
            rest[rows, best[start : start + step, place]] = -1.0
    return best, np.take_along_axis(probabilities, best, axis=1).astype(np.float64)


def _differences(photos: EvaluatedPhotos) -> dict[str, dict[str, PairedDifference]]:
    """The main stream against each other one, by group; empty groups are left out."""
    main = photos.streams[photos.main]
    return {
        f"{photos.main} - {name}": {
            group: paired_difference(main.correct[rows], other.correct[rows], photos.observation[rows])
            for group in GROUPS
            if (rows := photos.rows(group)).any()
        }
        for name, other in photos.streams.items()
        if name != photos.main
    }


def _publish(staged: Path, folder: Path) -> None:
    """Moves a finished report into place: as a whole into a new folder, else file by file."""
    for name in FILES:
        with (staged / name).open("rb+") as file:
            os.fsync(file.fileno())
    if not folder.exists():
        staged.chmod(0o755)  # mkdtemp made it private
        staged.rename(folder)
        return
    for name in FILES:
        (staged / name).replace(folder / name)
