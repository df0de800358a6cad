"""The tables of an evaluation report: figures as JSON and Markdown, and the CSV files."""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.metrics import GROUPS, GroupFigures, PairedDifference, ScoredPhotos, confusion_counts
from models.taxonomy import Species

GROUP_NAMES = {"overall": "overall", "with_photos": "with field photos", "herbarium_only": "herbarium only"}
"""How a group is called in a table or plot."""

TOP = 5
"""Answers listed for each photo."""

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

Figures = Mapping[str, Mapping[str, GroupFigures]]
"""Stream name → group name → figures."""


@dataclass(frozen=True)
class EvaluatedPhotos:
    """The photos that were scored, and what every stream made of them.

    `herbarium_only`, `observation` and `photo_ids` have one entry a photo; `streams` maps a stream's
    name to its places and confidences; `best` holds the `TOP` positions of each photo, ``(N, k)``, and
    `best_probability` their probabilities, for the stream `main`.
    """

    species: Sequence[Species]
    herbarium_only: NDArray[np.bool_]
    observation: NDArray[np.generic]
    photo_ids: Sequence[str]
    streams: Mapping[str, ScoredPhotos]
    main: str
    best: NDArray[np.intp]
    best_probability: NDArray[np.float64]

    @property
    def truth(self) -> NDArray[np.intp]:
        """``(N,)`` position of the true species."""
        return self.streams[self.main].truth

    def rows(self, group: str) -> NDArray[np.bool_]:
        """``(N,)`` which photos belong to a group of the protocol."""
        if group == "overall":
            return np.ones(len(self.photo_ids), bool)
        return self.herbarium_only if group == "herbarium_only" else ~self.herbarium_only


def plain_cell(value: object) -> object:
    """`value` as a spreadsheet may safely read it.

    A text that a spreadsheet would run as a formula gets an apostrophe in front (names and ids come
    from imported files, which anyone may have written); floats get six digits, None an empty cell.
    """
    if value is None:
        return ""
    if isinstance(value, float | np.floating):
        return f"{value:.6g}"
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return "'" + value
    return value


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes UTF-8 with a byte order mark, without which Excel garbles ``×`` and accents in names."""
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([plain_cell(value) for value in row] for row in rows)


def write_figures_json(
    path: Path,
    figures: Figures,
    differences: Mapping[str, Mapping[str, PairedDifference]],
    run: Mapping[str, object],
    reliability: Mapping[str, object] | None = None,
) -> None:
    """Writes the figures by stream and group, beside "run", "differences" and, if given, "reliability"."""
    content: dict[str, object] = {
        stream: {group: f.to_json() for group, f in groups.items()} for stream, groups in figures.items()
    }
    content["differences"] = {
        name: {group: d.to_json() for group, d in groups.items()} for name, groups in differences.items()
    }
    if reliability is not None:
        content["reliability"] = _finite(reliability)
    content["run"] = _finite(run)
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    path.write_text(text + "\n", encoding="utf-8")


def figures_markdown(
    figures: Figures,
    differences: Mapping[str, Mapping[str, PairedDifference]],
    run: Mapping[str, object],
    more: Sequence[str] = (),
) -> str:
    """The figures as Markdown tables, shares in percent with 95 % intervals; `more` lines go before the run."""
    header = "| stream | group | photos | species | top-1 | top-5 | MRR | macro P / R / F1 | balanced | ECE | AURC |"
    lines = ["# Evaluation", "", header, "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"]
    for stream, groups in figures.items():
        for group in (g for g in GROUPS if g in groups):
            lines.append(f"| {_escaped(stream)} | {GROUP_NAMES[group]} | {_figure_cells(groups[group])} |")
    lines += [
        "",
        "Top-1, top-5, macro precision, recall, F1 and balanced accuracy in percent, with 95 % bootstrap "
        "intervals that draw whole plants. MRR: mean reciprocal rank of the true species. ECE: expected "
        "calibration error; AURC: area under the risk–coverage curve (both: lower is better).",
    ]
    if differences:
        lines += [
            "",
            "## Differences on the same photos",
            "",
            "| compared | group | photos | difference in top-1, points | only first right | only second right "
            "| p (McNemar) |",
            "|---|---|--:|--:|--:|--:|--:|",
        ]
        for name, by_group in differences.items():
            for group, d in by_group.items():
                low, high = (f"{100 * bound:+.1f}" for bound in d.interval)
                lines.append(
                    f"| {_escaped(name)} | {GROUP_NAMES[group]} | {d.n} | {100 * d.difference:+.1f} "
                    f"({low} to {high}) | {d.only_a} | {d.only_b} | {d.p_value:.3g} |"
                )
    lines += more
    if run:
        lines += ["", "## Run", "", "| | |", "|---|---|"]
        lines += [f"| {_escaped(key)} | {_escaped(value)} |" for key, value in _flat(run)]
    return "\n".join(lines) + "\n"


def write_confusion(path: Path, photos: EvaluatedPhotos) -> None:
    """Writes which species was answered for which by the main stream; only pairs that occur."""
    confusion = confusion_counts(photos.truth, photos.streams[photos.main].predicted, len(photos.species))
    write_csv(
        path,
        ("true_species_id", "true_name", "predicted_species_id", "predicted_name", "count"),
        (
            (*_named(photos.species[t]), *_named(photos.species[p]), int(n))
            for t, p, n in zip(confusion.truth, confusion.predicted, confusion.count, strict=True)
        ),
    )


def write_per_species(path: Path, photos: EvaluatedPhotos) -> None:
    """Writes one row for each stream and species; figures are empty for a species without photos."""
    header = (
        "stream", "species_id", "scientific_name", "group", "n", "top1", "top5", "mrr",
        "mean_probability_of_truth", "times_predicted", "most_frequent_wrong_id",
        "most_frequent_wrong_name", "most_frequent_wrong_count",
    )  # fmt: skip
    rows = ((stream, *row) for stream, scored in photos.streams.items() for row in _species_rows(photos, scored))
    write_csv(path, header, rows)


def write_predictions(path: Path, photos: EvaluatedPhotos) -> None:
    """Writes one row a photo: the truth, the main stream's best answers, the other streams' first."""
    width = photos.best.shape[1]
    others = [name for name in photos.streams if name != photos.main]
    header = ["photo_id", "observation", "group", "true_species_id", "true_name", "truth_position"]
    header.append("truth_probability")
    header += [f"{column}_{k + 1}" for k in range(width) for column in ("species_id", "probability")]
    header += [f"{name}_{column}" for name in others for column in ("species_id", "probability")]
    main = photos.streams[photos.main]

    def row(i: int) -> list[object]:
        cells: list[object] = [photos.photo_ids[i], str(photos.observation[i])]
        cells.append("herbarium_only" if photos.herbarium_only[i] else "with_photos")
        cells += [*_named(photos.species[main.truth[i]]), int(main.truth_position[i])]
        cells.append(main.truth_probability[i])
        for position, probability in zip(photos.best[i], photos.best_probability[i], strict=True):
            cells += [photos.species[position].species_id, probability]
        for name in others:
            other = photos.streams[name]
            cells += [photos.species[other.predicted[i]].species_id, other.confidence[i]]
        return cells

    write_csv(path, header, (row(i) for i in range(len(main))))


def _species_rows(photos: EvaluatedPhotos, scored: ScoredPhotos) -> Iterable[tuple[object, ...]]:
    """The cells of each species after the stream's name, in the order of the class list."""
    size = len(photos.species)
    n = np.bincount(scored.truth, minlength=size)
    predicted = np.bincount(scored.predicted, minlength=size)
    group = np.full(size, "", dtype=object)
    group[scored.truth] = np.where(photos.herbarium_only, "herbarium_only", "with_photos")

    def mean(values: NDArray[np.generic]) -> NDArray[np.float64]:
        sums = np.bincount(scored.truth, weights=values.astype(np.float64), minlength=size)
        return np.asarray(sums / np.maximum(n, 1))

    columns = [
        mean(scored.correct),
        mean(scored.truth_position <= TOP),
        mean(1.0 / scored.truth_position),
        mean(scored.truth_probability),
    ]
    wrong = confusion_counts(scored.truth[~scored.correct], scored.predicted[~scored.correct], size)
    # By falling count, then class list: the first one met for a species is its most frequent.
    worst: dict[int, tuple[int, int]] = {}
    for k in np.lexsort((wrong.predicted, -wrong.count)):
        worst.setdefault(int(wrong.truth[k]), (int(wrong.predicted[k]), int(wrong.count[k])))
    for s, one in enumerate(photos.species):
        measured = [c[s] for c in columns] if n[s] else [None] * len(columns)
        mistaken: tuple[object, ...] = (None, None, None)
        if s in worst:
            mistaken = (*_named(photos.species[worst[s][0]]), worst[s][1])
        yield *_named(one), group[s], int(n[s]), *measured, int(predicted[s]), *mistaken


def _named(species: Species) -> tuple[str, str]:
    return species.species_id, species.scientific_name


def _figure_cells(f: GroupFigures) -> str:
    if f.top1 is None:
        return f"{f.n} | {f.species} | – | – | – | – | – | – | –"
    macro = " / ".join(_percent(v) for v in (f.macro_precision, f.macro_recall, f.macro_f1))
    return (
        f"{f.n} | {f.species} | {_percent(f.top1, f.top1_interval)} | {_percent(f.top5, f.top5_interval)} "
        f"| {f.mrr:.3f} | {macro} | {_percent(f.balanced_accuracy, f.balanced_accuracy_interval)} "
        f"| {f.ece:.3f} | {f.aurc:.3f} |".removesuffix(" |")
    )


def _percent(share: float | None, interval: tuple[float, float] | None = None) -> str:
    if share is None:
        return "–"
    text = f"{100 * share:.1f}"
    return text if interval is None else f"{text} ({100 * interval[0]:.1f}–{100 * interval[1]:.1f})"


def _finite(value: object) -> object:
    """`value` for JSON, which knows no NaN or infinity: those become texts."""
    if isinstance(value, Mapping):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Every single value of nested `values` under its dotted name, long ones cut."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            yield f"{prefix}{key}", text if len(text) <= 200 else text[:199] + "…"


def _escaped(text: str) -> str:
    """`text` as one cell of a Markdown table."""
    return " ".join(text.replace("|", "\\|").split())
