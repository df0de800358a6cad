from pathlib import Path

import numpy as np
import pytest

from indexer.compare import CatalogueFacts, Comparison
from indexer.compare_record import AnsweredPhotos, InferenceCost, PairRecord, Scored
from indexer.compare_report import (
    ComparisonTable,
    comparison_markdown,
    console_rows,
    heading,
    network_of,
    tabulate,
    write_comparison,
)
from indexer.recipes import Recipe
from indexer.run_config import RunConfig
from models.errors import InvalidConfig
from models.home import Home

NAMES = ("dual-stream", "mine")


def scored(first_right: int) -> Scored:
    """Ten photos of ten plants, the last four herbarium-only; the first so many are named rightly."""
    names = tuple(map(str, range(10)))
    positions = np.where(np.arange(10) < first_right, 1, 7)
    return Scored(AnsweredPhotos(names, names, np.arange(10) >= 6, positions), dict.fromkeys(_GROUPS, 0.125))


_GROUPS = ("overall", "with_photos", "herbarium_only")


def record(recipe: str, seed: int, right: int) -> PairRecord:
    cost = InferenceCost(12.34, 1.5, 2_500_000)
    return PairRecord(recipe, seed, "run", 1, 1, 90.0 + 20 * seed, "cpu (AVX2)", "m", "b", cost, scored(right))


def table(
    records: list[PairRecord], baseline: str | None = None, *, invented: bool = False, names: tuple[str, ...] = NAMES
) -> ComparisonTable:
    facts = CatalogueFacts("d", 5, 50, 30, invented)
    recipes = [Recipe(name, RunConfig()) for name in names]
    return tabulate(Comparison(Home(Path("home")), recipes, [0, 1], facts), records, baseline)


RECORDS = [record("dual-stream", 0, 5), record("dual-stream", 1, 5), record("mine", 0, 8), record("mine", 1, 8)]


def test_the_markdown_table_gives_figures_differences_and_costs() -> None:
    text = comparison_markdown(table(RECORDS))
    header = next(line for line in text.splitlines() if line.startswith("| recipe | overall"))
    assert "overall (20 photos of 10 plants)" in header
    assert "herbarium only (8 photos of 4 plants)" in header
    assert "against dual-stream" in header
    mine = next(line for line in text.splitlines() if line.startswith("| mine | 80.0 ("))
    assert "+30.0 (" in mine
    assert mine.rstrip(" |").endswith("0.125")
    assert "| dual-stream | 50.0 (" in text
    assert "| 100 | 12.3 | 1.50 | 2.50 |" in text
    assert "on cpu (AVX2)" in text
    assert "invented" not in text


def test_invented_plants_are_called_so_everywhere() -> None:
    shown = table(RECORDS, invented=True)
    assert "**The plants are invented" in comparison_markdown(shown)
    assert "invented" in heading(shown, "test")
    assert shown.to_json()["catalogue"]["invented"] is True


def test_missing_seeds_failures_and_unknown_times_are_told() -> None:
    broken = PairRecord("mine", 1, "run", error="no | memory\nleft")
    killed = record("dual-stream", 1, 5)
    killed.attempts = 2
    shown = table([RECORDS[0], killed, RECORDS[2], broken])
    text = comparison_markdown(shown)
    assert "| mine (1 of 2 seeds) | 80.0" in text
    assert "- mine, seed 1: no \\| memory left" in text
    assert "| ≥ 100 |" in text
    assert [r.recipe for r in shown.failures] == ["mine"]
    rows = console_rows(shown, "test")[1]
    assert [row[0] for row in rows] == ["dual-stream", "mine (1 of 2 seeds)"]
    assert rows[0][-2] == "≥ 100"


def test_the_baseline_is_the_named_one_or_dual_stream_or_none() -> None:
    named = table(RECORDS, "mine").rows["test"]["dual-stream"]["overall"].difference
    assert named is not None
    assert named.difference == pytest.approx(-0.3)
    assert table(RECORDS).baseline == "dual-stream"
    alone = table(RECORDS[2:], names=("mine",))
    assert alone.baseline is None
    assert alone.rows["test"]["mine"]["overall"].difference is None
    with pytest.raises(InvalidConfig, match="compared recipes"):
        table(RECORDS, "absent")


def test_the_folds_show_no_figure_over_both_groups() -> None:
    records = [record("mine", seed, 8) for seed in (0, 1)]
    for one in records:
        one.test, one.folds = None, one.test
    shown = table(records, names=("mine",))
    assert list(shown.rows) == ["folds"]
    columns, _ = console_rows(shown, "folds")
    assert not [column for column in columns if column.startswith("overall")]
    assert "| overall" not in comparison_markdown(shown)


def test_a_comparison_in_which_everything_failed_has_tables_and_no_plot(tmp_path: Path) -> None:
    shown = table([PairRecord("mine", seed, "run", error="no") for seed in (0, 1)], names=("mine",))
    assert [path.name for path in write_comparison(tmp_path, shown)] == ["comparison.json", "comparison.md"]
    assert "no device yet" in (tmp_path / "comparison.md").read_text()


@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        ({"name": "net", "weights": "/a/b/w.pth", "image_size": 96}, "net at 96 px, from w.pth"),
        ({"name": "net"}, "net, pre-trained"),
        ({"name": "net", "pretrained": False}, "net, from random weights"),
    ],
)
def test_networks_are_put_in_words(backbone: dict[str, object], words: str) -> None:
    assert network_of(RunConfig.model_validate({"backbone": backbone})) == words
