"""The plots of an evaluation report. Figures are drawn off screen and without pyplot's global state."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from indexer.metrics import GROUPS, GroupFigures, confusion_counts, reliability_bins, risk_coverage
from indexer.report_tables import GROUP_NAMES, EvaluatedPhotos, Figures

# Okabe and Ito's palette, told apart with every common colour blindness and in grey.
STREAM_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
GROUP_COLOURS = {"with_photos": "#0072B2", "herbarium_only": "#D55E00"}

MOST_SPECIES = 60
"""Rows that stay readable on one page; beyond, the most telling species are shown."""

_DPI = 130
_MOST_MARKS = 2000
_NAME_LENGTH = 34


def plot_figures(path: Path, figures: Figures) -> None:
    """Draws top-1 and top-5 by group and stream as bars with their 95 % intervals."""
    figure = Figure(figsize=(12, 5.2), layout="constrained")
    titles = {"top1": "Top-1: the true species comes first", "top5": "Top-5: it is among the first five"}
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
        _bars(axes, figures, name)
        axes.set_title(title, fontsize=12)
    panels[0].set_ylabel("share of test photos")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    n = next(iter(figures.values()))["overall"].n
    figure.suptitle(f"Identification of {n} test photos (bars: 95 % bootstrap interval over plants)", fontsize=13)
    _save(figure, path)


def plot_confusion(path: Path, photos: EvaluatedPhotos) -> None:
    """Draws the main stream's confusion as a heat map, herbarium-only species below the others."""
    chosen, tested = _confused_species(photos)
    scored = photos.streams[photos.main]
    confusion = confusion_counts(scored.truth, scored.predicted, len(photos.species))
    column = np.full(len(photos.species), len(chosen))
    column[chosen] = np.arange(len(chosen))
    counts = np.zeros((len(chosen), len(chosen) + 1), int)
    shown = column[confusion.truth] < len(chosen)
    np.add.at(counts, (column[confusion.truth[shown]], column[confusion.predicted[shown]]), confusion.count[shown])
    names = [_short(photos.species[s].scientific_name) for s in chosen]
    answered = [*names, "any other species"]
    if not counts[:, -1].any():
        counts, answered = counts[:, :-1], names
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    size = 5.5 + 0.22 * len(chosen)
    figure = Figure(figsize=(size + 1.0, size), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    bar = figure.colorbar(picture, ax=axes, shrink=0.6, format=PercentFormatter(1.0))
    bar.set_label("share of the true species' photos")
    if len(chosen) <= 30:
        for i, j in zip(*np.nonzero(counts), strict=True):
            tone = "white" if shares[i, j] > 0.55 else "black"
            axes.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=8, color=tone)
    _name_ticks(axes, "y", names)
    _name_ticks(axes, "x", answered)
    hidden = _herbarium_only_species(photos)
    for axis_labels, species in ((axes.get_yticklabels(), chosen), (axes.get_xticklabels(), chosen)):
        for text, s in zip(axis_labels, species, strict=False):
            text.set_color(GROUP_COLOURS["herbarium_only" if hidden[s] else "with_photos"])
    boundary = int((~hidden[chosen]).sum()) - 0.5
    if 0 < boundary < len(chosen) - 1:
        axes.axhline(boundary, color="0.4", linewidth=1)
        axes.axvline(boundary, color="0.4", linewidth=1)
    axes.set_ylabel("true species")
    axes.set_xlabel("answered species")
    which = (
        f"{len(chosen)} species" if len(chosen) == tested else f"the {len(chosen)} most confused of {tested} species"
    )
    axes.set_title(
        f"Answers of the {photos.main}: {which}, {int(counts.sum())} photos\n"
        "blue names: with field photos in training; red names: herbarium only",
        fontsize=12 + len(chosen) // 10,
    )
    _save(figure, path)


def plot_per_species(path: Path, photos: EvaluatedPhotos) -> None:
    """Draws top-1 and top-5 of each species for the main stream, the hardest species first."""
    scored = photos.streams[photos.main]
    hidden = _herbarium_only_species(photos)
    n = np.bincount(scored.truth, minlength=len(photos.species))
    top1, top5 = (
        np.bincount(scored.truth[scored.truth_position <= k], minlength=len(n)) / np.maximum(n, 1) for k in (1, 5)
    )
    groups = []
    for group in ("with_photos", "herbarium_only"):
        members = np.flatnonzero((n > 0) & (hidden == (group == "herbarium_only")))
        # Hardest first; among equals the species with more photos says more.
        ordered = members[np.lexsort((members, -n[members], top5[members], top1[members]))]
        groups.append((group, ordered[:MOST_SPECIES], len(members)))
    height = 2.2 + 0.21 * max(len(ordered) for _, ordered, _ in groups)
    figure = Figure(figsize=(13, max(height, 3.5)), layout="constrained")
    for axes, (group, ordered, total) in zip(figure.subplots(1, 2), groups, strict=True):
        kept = "" if len(ordered) == total else f"the hardest {len(ordered)} of "
        axes.set_title(
            f"{GROUP_NAMES[group].capitalize()}: {kept}{total} species, {int(n[ordered].sum())} photos",
            fontsize=12,
        )
        _species_dots(axes, photos, ordered, top1, top5, n, GROUP_COLOURS[group])
    keys = [
        Line2D([], [], linestyle="", marker="o", markersize=7, markeredgecolor="0.3", markerfacecolor=face)
        for face in ("0.3", "white")
    ]
    figure.legend(keys, ["first answer", "among the first five"], loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(f"Each species' photos that the {photos.main} named rightly", fontsize=13)
    _save(figure, path)


def plot_risk_coverage(path: Path, photos: EvaluatedPhotos, figures: Figures) -> None:
    """Draws, by group, the share of wrong answers when only the most confident ones are given."""
    figure = Figure(figsize=(14, 4.8), layout="constrained")
    for axes, group in zip(figure.subplots(1, 3, sharey=True), GROUPS, strict=True):
        rows = photos.rows(group)
        axes.set_title(f"{GROUP_NAMES[group].capitalize()}, {int(rows.sum())} photos", fontsize=12)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="share of photos answered, most confident first")
        _percent_axis(axes, "x")
        _percent_axis(axes, "y")
        if not rows.any():
            _say_empty(axes)
            continue
        for (name, scored), colour in zip(photos.streams.items(), STREAM_COLOURS, strict=False):
            coverage, risk = risk_coverage(scored.confidence[rows], scored.correct[rows])
            area = figures[name][group].aurc
            axes.plot(coverage, risk, color=colour, linewidth=2, label=f"{name} (area {area:.3f})")
        axes.legend(frameon=False, fontsize=9, loc="upper left")
    figure.axes[0].set_ylabel("share of wrong answers among them")
    figure.suptitle("Risk and coverage: what abstaining when unsure would buy", fontsize=13)
    _save(figure, path)


def plot_reliability(path: Path, photos: EvaluatedPhotos, figures: Figures) -> None:
    """Draws, by stream, how often answers of a given probability were right."""
    names = list(photos.streams)
    figure = Figure(figsize=(1.0 + 4.5 * len(names), 5.2), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name, colour in zip(panels, names, STREAM_COLOURS, strict=False):
        scored = photos.streams[name]
        # Fifteen bins as in the figure, fewer where a bin would hold less than ten photos.
        bins = max(1, min(15, len(scored) // 10))
        table = reliability_bins(scored.confidence, scored.correct, bins)
        axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1.2, label="as probable as stated")
        spread = 1.96 * np.sqrt(table[:, 2] * (1 - table[:, 2]) / table[:, 0])
        axes.errorbar(
            table[:, 1], table[:, 2], yerr=_within_unit(table[:, 2], spread), color=colour, marker="o",
            markersize=6, linewidth=1.8, elinewidth=1, capsize=2, label=f"about {int(table[0, 0])} photos a point",
        )  # fmt: skip
        ticks = axes.get_xaxis_transform()
        for right, base in ((True, 1.0), (False, 0.0)):
            values = scored.confidence[scored.correct == right]
            values = values[:: 1 + len(values) // _MOST_MARKS]
            if not len(values):  # an empty artist has no extent and upsets the layout
                continue
            axes.plot(
                values, np.full(len(values), base), "|", color=colour, alpha=0.25, markersize=9,
                transform=ticks, clip_on=False,
            )  # fmt: skip
        ece = figures[name]["overall"].ece
        axes.set(xlim=(0, 1.02), ylim=(-0.02, 1.02), xlabel="stated probability of the first species")
        axes.set_title(f"{name}: calibration error {ece:.3f}", fontsize=12, pad=12)
        _percent_axis(axes, "x")
        _percent_axis(axes, "y")
        axes.legend(frameon=False, fontsize=9, loc="lower right" if table[:, 2].mean() > 0.5 else "upper left")
    figure.axes[0].set_ylabel("share of answers that were right")
    figure.suptitle(
        f"Reliability over {len(photos.photo_ids)} test photos (marks: single photos, right above, wrong below)",
        fontsize=13,
    )
    _save(figure, path)


def _bars(axes: Axes, figures: Figures, name: str) -> None:
    """One cluster of bars a group, one bar a stream, from the figure `name` and its interval."""
    width = 0.8 / len(figures)
    for k, (stream, colour) in enumerate(zip(figures, STREAM_COLOURS, strict=False)):
        for position, group in enumerate(GROUPS):
            share: float | None = getattr(figures[stream][group], name)
            x = position + (k - (len(figures) - 1) / 2) * width
            label = stream if position == 0 else None
            if share is None:
                axes.bar(x, 0, width * 0.92, color=colour, label=label)
                continue
            low, high = getattr(figures[stream][group], f"{name}_interval")
            axes.bar(x, share, width * 0.92, color=colour, label=label)
            axes.errorbar(x, share, [[max(share - low, 0)], [max(high - share, 0)]], color="0.15", capsize=4)
            # At the foot of the bar the figure never meets the interval.
            axes.text(
                x, 0.015, f"{100 * share:.0f}", ha="center", va="bottom", fontsize=10, fontweight="bold",
                color="black", bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"},
            )  # fmt: skip
    axes.set_xticks(range(len(GROUPS)), [_group_tick(g, next(iter(figures.values()))[g]) for g in GROUPS])
    axes.set_ylim(0, 1.03)
    axes.grid(axis="y", color="0.88")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _species_dots(
    axes: Axes,
    photos: EvaluatedPhotos,
    ordered: NDArray[np.intp],
    top1: NDArray[np.float64],
    top5: NDArray[np.float64],
    n: NDArray[np.intp],
    colour: str,
) -> None:
    if not len(ordered):
        axes.set(xticks=[], yticks=[])
        _say_empty(axes)
        return
    y = np.arange(len(ordered))
    axes.hlines(y, top1[ordered], top5[ordered], color="0.75", linewidth=2)
    hollow, full = (
        axes.plot(shares[ordered], y, "o", color=colour, markersize=7, clip_on=False)[0] for shares in (top5, top1)
    )
    hollow.set_markerfacecolor("white")
    full.set_zorder(hollow.get_zorder() + 1)
    _name_ticks(axes, "y", [f"{_short(photos.species[s].scientific_name)}  ({n[s]})" for s in ordered])
    axes.set(xlim=(-0.02, 1.02), xlabel="share of the species' photos (number of photos after the name)")
    axes.set_ylim(len(ordered) - 0.4, -0.6)
    _percent_axis(axes, "x")


def _confused_species(photos: EvaluatedPhotos) -> tuple[NDArray[np.intp], int]:
    """Species to show, those with photos first, and how many were tested."""
    scored = photos.streams[photos.main]
    size = len(photos.species)
    tested = np.unique(scored.truth)
    chosen = tested
    if len(tested) > MOST_SPECIES:
        wrong = ~scored.correct
        involved = np.bincount(scored.truth[wrong], minlength=size) + np.bincount(
            scored.predicted[wrong], minlength=size
        )
        chosen = tested[np.lexsort((tested, -involved[tested]))][:MOST_SPECIES]
    hidden = _herbarium_only_species(photos)
    return chosen[np.lexsort((chosen, hidden[chosen]))], len(tested)


def _herbarium_only_species(photos: EvaluatedPhotos) -> NDArray[np.bool_]:
    """``(S,)`` which of the tested species are herbarium-only."""
    hidden = np.zeros(len(photos.species), bool)
    hidden[photos.truth[photos.herbarium_only]] = True
    return hidden


def _name_ticks(axes: Axes, which: str, names: Sequence[str]) -> None:
    """Species names as tick labels; a ``$`` in a name is no formula."""
    if which == "y":
        axes.set_yticks(range(len(names)), names, fontsize=9, parse_math=False)
    else:
        axes.set_xticks(range(len(names)), names, fontsize=9, rotation=90, parse_math=False)


def _percent_axis(axes: Axes, which: str) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _say_empty(axes: Axes) -> None:
    axes.text(0.5, 0.5, "no photos in this group", ha="center", va="center", transform=axes.transAxes)


def _group_tick(group: str, figures: GroupFigures) -> str:
    return f"{GROUP_NAMES[group]}\n{figures.n} photos, {figures.species} species"


def _within_unit(share: NDArray[np.float64], spread: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(2, B)`` error bars that stay within 0 … 1."""
    return np.stack([np.minimum(spread, share), np.minimum(spread, 1 - share)])


def _short(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "…"


def _save(figure: Figure, path: Path) -> None:
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; that is no reason to lose a report.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(path, dpi=_DPI, metadata={"Software": None})
