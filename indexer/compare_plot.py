"""The plot of a comparison: top-1 and top-5 of each recipe by group, with intervals."""

import io
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from indexer.compare_figures import GroupRow
from indexer.metrics import GROUPS
from indexer.report_plots import GROUP_COLOURS
from indexer.report_tables import GROUP_NAMES

_DPI = 130
_OVERALL = "#333333"


def comparison_png(title: str, rows: Mapping[str, Mapping[str, GroupRow]], *, with_overall: bool) -> bytes:
    """A PNG with one panel a group and one line a recipe: top-1 full, top-5 hollow, 95 % intervals as bars."""
    groups = GROUPS if with_overall else GROUPS[1:]
    figure = Figure(figsize=(2.0 + 3.8 * len(groups), 1.8 + 0.5 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for axes, group in zip(panels, groups, strict=True):
        _panel(axes, {name: of_recipe[group] for name, of_recipe in rows.items()}, group)
    panels[0].set_yticks(range(len(rows)), list(rows), parse_math=False)
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    figure.suptitle(f"{title}\nfull: first answer, hollow: among the first five; bars: 95 % intervals", fontsize=11)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})
    return file.getvalue()


def _panel(axes: Axes, rows: Mapping[str, GroupRow], group: str) -> None:
    colour = GROUP_COLOURS.get(group, _OVERALL)
    for y, row in enumerate(rows.values()):
        for share, face, offset in ((row.top5, "white", 0.13), (row.top1, colour, -0.13)):
            if share is None:
                continue
            low, high = share.interval
            axes.errorbar(
                share.value, y + offset, xerr=[[max(share.value - low, 0.0)], [max(high - share.value, 0.0)]],
                color=colour, marker="o", markersize=7, markerfacecolor=face, elinewidth=1.3, capsize=3,
            )  # fmt: skip
    photos = max((row.n for row in rows.values()), default=0)
    axes.set_title(f"{GROUP_NAMES[group].capitalize()}, {photos} photos over all seeds", fontsize=11)
    axes.set(xlim=(-0.02, 1.02), xlabel="share of photos")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
