"""The table of a comparison: JSON, Markdown, a plot, and lines for people."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexer.compare import Comparison
from indexer.compare_figures import GroupRow, Share, Source, group_rows
from indexer.compare_plot import comparison_png
from indexer.compare_record import PairRecord
from indexer.metrics import GROUPS
from indexer.report_tables import GROUP_NAMES
from indexer.run_config import RunConfig
from models.durable import make_folder, replace_file
from models.errors import InvalidConfig

FILES = ("comparison.json", "comparison.md", "comparison.png")
"""The files of a report."""

DEFAULT_BASELINE = "dual-stream"

_TITLES: dict[Source, str] = {
    "test": "Test photos",
    "folds": "Rotating folds (training data alone, gate fitted on the other folds)",
}
_MAIN: dict[Source, str] = {"test": "overall", "folds": "herbarium_only"}
"""The group whose difference to the baseline a terminal has room for."""

_INVENTED = "The plants are invented: drawn by voucher itself. These figures say nothing about real plants."
_NOTES = """\
Top-1 and top-5 in percent, means over the seeds; brackets: 95 % intervals by bootstrap over plants, photos of one
plant drawn together, also across seeds. In the folds every photo counts as a plant of its own. Difference: top-1 less
that of the baseline, in points, on the same photos; p is McNemar's exact test, which takes photos as independent, so
that with several photos of a plant, or several seeds, the interval is the better guide. ECE: expected calibration
error (mean over seeds). Cost: of one photo that is decoded and scaled already; a multiply-add counts as two
operations; parameters are all stored numbers. Training: everything from images to model, the refits of the folds
included."""


@dataclass(frozen=True)
class ComparisonTable:
    """What is to be shown: figures by source, recipe and group, costs by recipe, and failures."""

    comparison: Comparison
    records: tuple[PairRecord, ...]
    baseline: str | None
    rows: dict[Source, dict[str, dict[str, GroupRow]]]

    @property
    def failures(self) -> list[PairRecord]:
        """Recipes and seeds that gave an error."""
        return [record for record in self.records if record.error is not None]

    def of_recipe(self, name: str) -> list[PairRecord]:
        """The records of one recipe, by seed."""
        return [record for record in self.records if record.recipe == name]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        comparison = self.comparison
        return {
            "comparison_id": comparison.comparison_id,
            "seeds": list(comparison.seeds),
            "baseline": self.baseline,
            "catalogue": vars(comparison.facts),
            "devices": self.devices,
            "networks": {recipe.name: network_of(recipe.config) for recipe in comparison.recipes},
            "figures": {
                source: {name: {g: row.to_json() for g, row in groups.items()} for name, groups in recipes.items()}
                for source, recipes in self.rows.items()
            },
            "costs": {recipe.name: self.cost(recipe.name) for recipe in comparison.recipes},
            "runs": [
                {"recipe": r.recipe, "seed": r.seed, "model_id": r.model_id, "bundle_id": r.bundle_id, "error": r.error}
                for r in self.records
            ],
            "configs": {recipe.name: recipe.config.to_json() for recipe in comparison.recipes},
        }

    @property
    def devices(self) -> list[str]:
        """What was trained on."""
        return sorted({record.device for record in self.records if record.device})

    def label(self, name: str, source: Source) -> str:
        """A recipe's name, with its number of seeds where some are missing."""
        scored = sum((r.test if source == "test" else r.folds) is not None for r in self.of_recipe(name))
        asked = len(self.comparison.seeds)
        return name if scored == asked else f"{name} ({scored} of {asked} seeds)"

    def cost(self, name: str) -> dict[str, Any]:
        """Means over the seeds; None where nothing was measured."""
        trained = [r for r in self.of_recipe(name) if r.model_id is not None]
        costs = [r.cost for r in trained if r.cost is not None]
        return {
            "training_seconds": _average([r.training_seconds for r in trained]),
            "training_seconds_by_seed": {r.seed: r.training_seconds for r in trained},
            "training_seconds_are_a_lower_bound": not all(r.knows_all_seconds for r in trained),
            "inference_milliseconds": _average([c.milliseconds for c in costs]),
            "gigaflops": _average([c.gigaflops for c in costs]),
            "parameters": _average([c.parameters for c in costs]),
        }


def tabulate(comparison: Comparison, records: Sequence[PairRecord], baseline: str | None = None) -> ComparisonTable:
    """The table of `records`; without `baseline`, ``dual-stream`` is it if it was compared, else there is none.

    Raises `InvalidConfig` for a baseline that was not compared.
    """
    names = [recipe.name for recipe in comparison.recipes]
    if baseline is not None and baseline not in names:
        raise InvalidConfig(f"the baseline must be one of the compared recipes ({', '.join(names)}), not {baseline!r}")
    chosen = baseline or (DEFAULT_BASELINE if DEFAULT_BASELINE in names else None)
    by_name = {name: [r for r in records if r.recipe == name] for name in names}
    sources: list[Source] = []
    if any(r.test for r in records):
        sources.append("test")
    if any(r.folds for r in records):
        sources.append("folds")
    rows: dict[Source, dict[str, dict[str, GroupRow]]] = {}
    for source in sources:
        rows[source] = {
            name: group_rows(of, source, by_name[chosen] if chosen is not None and name != chosen else None)
            for name, of in by_name.items()
        }
    return ComparisonTable(comparison, tuple(records), chosen, rows)


def write_comparison(folder: Path, table: ComparisonTable) -> list[Path]:
    """Paths of the files written to `folder`, each replaced in one step."""
    make_folder(folder)
    paths = [folder / name for name in FILES]
    text = json.dumps(table.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
    replace_file(paths[0], (text + "\n").encode())
    replace_file(paths[1], comparison_markdown(table).encode())
    if not table.rows:
        return paths[:2]
    source: Source = "test" if "test" in table.rows else "folds"
    title = _TITLES[source] + (" of invented plants" if table.comparison.facts.invented else "")
    rows = {table.label(name, source): groups for name, groups in table.rows[source].items()}
    replace_file(paths[2], comparison_png(title, rows, with_overall=source == "test"))
    return paths


def network_of(config: RunConfig) -> str:
    """A backbone in words."""
    backbone = config.backbone
    if backbone.weights is not None:
        start = f"from {backbone.weights.name}"
    else:
        start = "pre-trained" if backbone.pretrained else "from random weights"
    size = f" at {backbone.image_size} px" if backbone.image_size else ""
    return f"{backbone.name}{size}, {start}"


def comparison_markdown(table: ComparisonTable) -> str:
    """The whole table."""
    comparison, facts = table.comparison, table.comparison.facts
    seeds = ", ".join(map(str, comparison.seeds))
    lines = ["# Comparison of recipes", ""]
    if facts.invented:
        lines += [f"**{_INVENTED}**", ""]
    lines += [
        f"{facts.species} species, {facts.sheets} sheets, {facts.field_photos} field photos; seeds {seeds}; "
        f"on {'; '.join(table.devices) or 'no device yet'}. Comparison `{comparison.comparison_id}`.",
        "",
    ]
    for source in table.rows:
        lines += [f"## {_TITLES[source]}", "", *_markdown_rows(table, source), ""]
    lines += ["## Cost", "", *_markdown_costs(table), ""]
    if table.failures:
        lines += ["## Failed", ""]
        lines += [f"- {r.recipe}, seed {r.seed}: {_cell(str(r.error))}" for r in table.failures] + [""]
    return "\n".join([*lines, _NOTES, ""])


def console_rows(table: ComparisonTable, source: Source) -> tuple[list[str], list[tuple[str, ...]]]:
    """Columns and rows for a terminal."""
    groups = _groups(source)
    against = f"{GROUP_NAMES[_MAIN[source]]}, {_difference_title(table)}"
    columns = ["recipe", *(f"{GROUP_NAMES[g]} top-1" for g in groups), against, "ECE", "train s", "ms/photo"]
    rows = []
    for name, row in table.rows[source].items():
        cost = table.cost(name)
        rows.append(
            (
                table.label(name, source),
                *(_percent(row[g].top1) for g in groups),
                _difference(row[_MAIN[source]], name == table.baseline),
                _number(row["overall"].ece.value if row["overall"].ece else None, ".3f"),
                _seconds(cost),
                _number(cost["inference_milliseconds"], ".1f"),
            )
        )
    return columns, rows


def heading(table: ComparisonTable, source: Source) -> str:
    """The line over a table."""
    invented = f" {_INVENTED}" if table.comparison.facts.invented else ""
    return f"{_TITLES[source]}, 95 % intervals in brackets.{invented}"


def _markdown_rows(table: ComparisonTable, source: Source) -> list[str]:
    groups = _groups(source)
    largest = {g: max((row[g] for row in table.rows[source].values()), key=lambda row: row.n) for g in groups}
    counts = {
        g: f"{row.n} photos" + (f" of {row.plants} plants" if source == "test" else "") for g, row in largest.items()
    }
    columns = [f"{GROUP_NAMES[g]} ({counts[g]}): top-1 | top-5 | {_difference_title(table)}" for g in groups]
    lines = [f"| recipe | {' | '.join(columns)} | ECE |", "|---|" + "--:|" * (3 * len(groups) + 1)]
    for name, row in table.rows[source].items():
        cells = [
            f"{_percent(row[g].top1)} | {_percent(row[g].top5)} | {_difference(row[g], name == table.baseline)}"
            for g in groups
        ]
        error = row["overall"].ece
        lines.append(
            f"| {table.label(name, source)} | {' | '.join(cells)} | {_number(error.value if error else None, '.3f')} |"
        )
    return lines


def _markdown_costs(table: ComparisonTable) -> list[str]:
    lines = [
        "| recipe | network | training, s | inference, ms/photo | GFLOP/photo | parameters, million |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for recipe in table.comparison.recipes:
        cost = table.cost(recipe.name)
        millions = None if cost["parameters"] is None else cost["parameters"] / 1e6
        lines.append(
            f"| {recipe.name} | {_cell(network_of(recipe.config))} | {_seconds(cost)} "
            f"| {_number(cost['inference_milliseconds'], '.1f')} | {_number(cost['gigaflops'], '.2f')} "
            f"| {_number(millions, '.2f')} |"
        )
    return lines


def _groups(source: Source) -> tuple[str, ...]:
    """Groups that are shown. The folds ask about a photo up to twice, so both groups together are of no one flora."""
    return GROUPS if source == "test" else GROUPS[1:]


def _difference_title(table: ComparisonTable) -> str:
    return f"against {table.baseline}" if table.baseline else "difference"


def _difference(row: GroupRow, is_baseline: bool) -> str:
    if row.difference is None:
        return "baseline" if is_baseline else "–"
    low, high = (f"{100 * bound:+.1f}" for bound in row.difference.interval)
    return f"{100 * row.difference.difference:+.1f} ({low} to {high}), p = {row.difference.p_value:.2g}"


def _percent(share: Share | None) -> str:
    if share is None:
        return "–"
    return f"{100 * share.value:.1f} ({100 * share.interval[0]:.0f}–{100 * share.interval[1]:.0f})"


def _seconds(cost: dict[str, Any]) -> str:
    bound = "≥ " if cost["training_seconds_are_a_lower_bound"] else ""
    return bound + _number(cost["training_seconds"], ".0f")


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _average(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
