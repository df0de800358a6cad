"""`voucher compare`: recipes on the same splits, in one table."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indexer import console
from models.errors import InvalidConfig, VoucherError

if TYPE_CHECKING:
    from indexer.compare_report import ComparisonTable
    from indexer.recipes import Recipe


def compare_command(
    recipes: Annotated[
        list[str] | None, typer.Argument(help="Names of recipes, or run configs in TOML; none: all by name.")
    ] = None,
    home: Annotated[
        Path, typer.Option("--home", envvar="VOUCHER_HOME", help="Folder that everything lives in.")
    ] = Path("voucher-home"),
    seeds: Annotated[str, typer.Option(help="Of splits, weights and batches, with commas.")] = "0",
    folds: Annotated[bool, typer.Option("--folds", help="Score the rotating folds of the training data too.")] = False,
    no_test: Annotated[bool, typer.Option("--no-test", help="Leave the test photos unread.")] = False,
    small: Annotated[bool, typer.Option("--small", help="Take the recipes' settings for a small network.")] = False,
    weights: Annotated[
        list[str] | None, typer.Option(help="Local weights for pre-trained networks; NAME=PATH: for that one alone.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE for all recipes, RECIPE:KEY=VALUE for one.")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="What the others are measured against.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the tables; none: below comparisons/.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda:N.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Train, index and score RECIPES on the same splits; a second call goes on where the first one stopped."""
    from indexer.compare import Comparison, catalogue_facts, compare
    from indexer.compare_report import tabulate, write_comparison
    from indexer.recipes import known_recipes
    from models.catalogue import Catalogue
    from models.compute import Compute

    where = console.home_of(home)
    chosen = read_recipes(recipes or known_recipes(), small, settings or [], weights or [])
    with Catalogue.open(where) as catalogue:
        comparison = Comparison(where, chosen, parse_seeds(seeds), catalogue_facts(catalogue))
        tabulate(comparison, [], baseline)  # a baseline that is not there is told at once
        try:
            records = compare(
                comparison,
                catalogue,
                Compute.resolve(device),
                test=not no_test,
                folds=folds,
                progress=console.progress_bars,
            )
        except KeyboardInterrupt:
            raise VoucherError("the comparison was interrupted; the same command continues it") from None
    table = tabulate(comparison, records, baseline)
    paths = write_comparison(output or comparison.folder, table)
    if as_json:
        console.show_json(table.to_json())
    else:
        _show(table, paths)
    if table.failures:
        raise typer.Exit(1)


def parse_seeds(text: str) -> list[int]:
    """``"0,1,2"`` as numbers. Raises `InvalidConfig`."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InvalidConfig(f"--seeds takes whole numbers with commas, such as 0,1,2; got {text!r}") from error


def parse_setting(text: str) -> tuple[str | None, str, Any]:
    """Recipe (None: all), dotted key and value of ``[RECIPE:]KEY=VALUE``; the value is TOML, else a text.

    Raises `InvalidConfig` without a key.
    """
    name, equals, value = text.partition("=")
    recipe, colon, key = name.rpartition(":")
    if not equals or not key or (colon and not recipe):
        raise InvalidConfig(f"--set takes KEY=VALUE or RECIPE:KEY=VALUE, such as optimizer.epochs=5; got {text!r}")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    return recipe or None, key, parsed


def parse_weights(text: str) -> tuple[str | None, Path]:
    """Backbone (None: every pre-trained one) and file of ``[NAME=]PATH``."""
    network, equals, path = text.partition("=")
    plain = not equals or Path(text).is_file()
    return (None, _absolute(text)) if plain else (network, _absolute(path))


def read_recipes(
    names: Sequence[str], small: bool, settings: Sequence[str] = (), weights: Sequence[str] = ()
) -> "list[Recipe]":
    """The recipes of `names` with `settings` (``[RECIPE:]KEY=VALUE``) and `weights` (``[NAME=]PATH``) on top.

    Weights without a name go to the recipes that start from a pre-trained network. Raises `InvalidConfig`, also for a
    setting or weights that none of the recipes takes.
    """
    from indexer.recipes import read_recipe

    parsed, files = [parse_setting(text) for text in settings], [parse_weights(text) for text in weights]
    chosen, taken = [], set()
    for name in names:
        own = read_recipe(name, small).name
        overrides = {key: value for recipe, key, value in parsed if recipe in (None, own)}
        backbone = read_recipe(name, small, overrides).config.backbone
        for network, path in sorted(files, key=lambda item: item[0] is not None):
            if network == backbone.name if network else backbone.pretrained:
                overrides["backbone.weights"] = path
                taken.add((network, path))
        chosen.append(read_recipe(name, small, overrides))
    present = [recipe.name for recipe in chosen]
    if strange := [recipe for recipe, _, _ in parsed if recipe is not None and recipe not in present]:
        raise InvalidConfig(f"--set names {strange[0]}, which is not compared; compared are {', '.join(present)}")
    if left := [item for item in files if item not in taken]:
        backbones = ", ".join(sorted({recipe.config.backbone.name for recipe in chosen}))
        raise InvalidConfig(f"no recipe takes the weights {left[0][1]}; the networks are {backbones}")
    return chosen


def _absolute(path: str) -> Path:
    return Path(path).expanduser().absolute()


def _show(table: "ComparisonTable", paths: Sequence[Path]) -> None:
    from indexer.compare_report import console_rows, heading

    for source in table.rows:
        columns, rows = console_rows(table, source)
        console.show_table(heading(table, source), columns, rows)
    for record in table.failures:
        console.errors.print(f"{record.recipe}, seed {record.seed} failed: {record.error}", markup=False)
    console.output.print(f"Tables and plot: {paths[0].parent}", markup=False, soft_wrap=True)
