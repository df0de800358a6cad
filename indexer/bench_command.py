"""`voucher bench`: measurements as commands."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from indexer import console
from indexer.options import DEFAULT_HOME, HomeOption
from models.errors import InsufficientData, InvalidConfig

bench_app = typer.Typer(no_args_is_help=True, help="Measure voucher against plainer ways of doing the same.")

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")


@bench_app.callback()
def _group() -> None:
    """Measure voucher against plainer ways of doing the same."""


@bench_app.command("embed")
def bench_embed_command(
    path: Annotated[Path, typer.Argument(help="Folder with images.")],
    backbone: Annotated[str, typer.Option(help="timm model name.")] = "deit_tiny_patch16_224",
    weights: Annotated[Path | None, typer.Option(help="Local weights; none: random ones.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels; none: the network's own.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of both, in turn; the best of each counts.")] = 3,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Files to unit vectors: voucher's pipeline beside the plain loop and the machine's matrix products."""
    from indexer.bench import bench_embed
    from models.compute import Compute

    compute = Compute.resolve(device, precision=precision)  # type: ignore[arg-type]
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES)
    if len(files) < 16:
        raise InsufficientData(f"expected a folder with at least 16 images, found {len(files)} in {path}")
    result = bench_embed(files, backbone, weights, image_size, rounds, compute)
    _show(f"{backbone} on {compute.describe()}", asdict(result), as_json)


@bench_app.command("explanations")
def bench_explanations_command(
    home: HomeOption = DEFAULT_HOME,
    pairs: Annotated[int, typer.Option(min=2, help="Field photos, each with its best sheet.")] = 100,
    plot: Annotated[Path | None, typer.Option(help="Draw the result into this PNG or SVG file.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the photos and of random places.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda:N.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Whether heat maps are right: how far the similarity falls when what they mark is greyed out."""
    from indexer.explanation_deletion import ORDERS, SHARES, deletion_test, plot_deletion
    from models.catalogue import Catalogue
    from models.compute import Compute
    from models.identifier import Identifier

    where = console.home_of(home)
    with Catalogue.open(where) as catalogue, console.progress_bars() as report:
        identifier = Identifier.load(where, Compute.resolve(device))
        result = deletion_test(identifier, catalogue, pairs=pairs, seed=seed, report=report)
    if plot is not None:
        plot_deletion(plot, [(identifier.bundle.model.metadata["network"]["backbone"], result)])
    if as_json:
        console.show_json(result.to_json())
        return
    console.show_table(
        f"Mean similarity of {result.pairs} pairs: {result.similarity:.3f}; by how much it falls",
        ["greyed out", *(f"{order} places" for order in ORDERS)],
        [
            (f"{share:.0%} of the {side}", *(f"{result.fall(side, share, order).mean:+.3f}" for order in ORDERS))
            for side in ("photo", "sheet")
            for share in SHARES
        ],
    )


@bench_app.command("train")
def bench_train_command(
    path: Annotated[Path, typer.Argument(help="Dataset as of `voucher import`, or a home, which is only read.")],
    backbone: Annotated[str, typer.Option(help="timm model name.")] = "deit_tiny_patch16_224",
    weights: Annotated[Path | None, typer.Option(help="Local weights; none: random ones.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels; none: the network's own.")] = None,
    last_blocks: Annotated[int, typer.Option(min=1, help="Blocks that are fine-tuned.")] = 5,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of both ways.")] = 12,
    views: Annotated[int, typer.Option(min=1, help="Random views of each image.")] = 4,
    images: Annotated[int, typer.Option(min=4, help="Training images, evenly from all species.")] = 200,
    plain_epochs: Annotated[
        int | None, typer.Option(min=1, help="Stop the plain loop after so many and multiply its time up.")
    ] = None,
    apart: Annotated[
        bool, typer.Option("--apart", help="Train the two plain networks one after the other, as two scripts would.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of images, weights and batches.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Cached, shared trunk beside a plain loop with two networks, to the same losses."""
    from indexer.bench_train import bench_train
    from models.compute import Compute

    more = {"optimizer.epochs": epochs, "augmentation.views": views}
    config = _config(backbone, weights, image_size, last_blocks, seed, more)
    compute = Compute.resolve(device, precision=precision)  # type: ignore[arg-type]
    with console.progress_bars() as report:
        result = bench_train(
            path, config, compute, images=images, plain_epochs=plain_epochs, apart=apart, report=report
        )
    _show(f"{backbone} on {result.device}", asdict(result), as_json)


@bench_app.command("identify")
def bench_identify_command(
    backbone: Annotated[str, typer.Option(help="timm model name.")] = "deit_tiny_patch16_224",
    weights: Annotated[Path | None, typer.Option(help="Local weights; none: random ones.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels; none: the network's own.")] = None,
    last_blocks: Annotated[int, typer.Option(min=1, help="Blocks that are fine-tuned.")] = 5,
    species: Annotated[int, typer.Option(min=2, help="Species that the classifier tells apart.")] = 1000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of both, in turn; the best of each counts.")] = 20,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Networks of an identification: one trunk with two tails beside two whole networks."""
    from indexer.bench_identify import bench_identify
    from models.compute import Compute

    config = _config(backbone, weights, image_size, last_blocks, 0, {})
    compute = Compute.resolve(device, precision=precision)  # type: ignore[arg-type]
    result = bench_identify(config, species=species, rounds=rounds, compute=compute)
    _show(f"{backbone} on {result.device}", asdict(result), as_json)


@bench_app.command("index")
def bench_index_command(
    rows: Annotated[list[int], typer.Option(min=100, help="Sheets; several times for several sizes.")] = [  # noqa: B006
        10_000,
        100_000,
        1_000_000,
    ],
    dimensions: Annotated[int, typer.Option(min=8, help="Length of a vector.")] = 384,
    kinds: Annotated[list[str], typer.Option(help="flat, hnsw, ivf-sq8 or binary; several times; none: all.")] = [],  # noqa: B006
    added: Annotated[int, typer.Option(min=1, help="Sheets to add to the largest index.")] = 1_000,
    seconds: Annotated[float, typer.Option(min=0.0, help="For each latency.")] = 3.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the vectors.")] = 0,
    only: Annotated[str | None, typer.Option(help="kinds or update; none: both.")] = None,
    folder: Annotated[Path | None, typer.Option(help="For files of up to 4 GB at a million rows of 384.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Kinds of sheet index on synthetic vectors; adding sheets to the largest, and its swap under questions."""
    from indexer.bench_index import bench_index, checked_kinds, rows_of_table
    from indexer.bench_index_update import bench_update

    if only not in (None, "kinds", "update"):
        raise InvalidConfig(f"--only takes kinds or update, not {only!r}")
    chosen = checked_kinds(kinds)
    with console.progress_bars() as report:
        more = {"seconds": seconds, "seed": seed, "folder": folder, "report": report}
        sizes = [] if only == "update" else bench_index(rows, dimensions, chosen, **more)  # type: ignore[arg-type]
        updated = None if only == "kinds" else bench_update(max(rows), dimensions, added=added, **more)  # type: ignore[arg-type]
    if as_json:
        console.show_json({"kinds": [asdict(s) for s in sizes], "update": None if updated is None else asdict(updated)})
        return
    if sizes:
        console.show_table(f"Kinds of index, {dimensions} dimensions", *rows_of_table(sizes))
    if updated is not None:
        _show(f"{added} sheets more", asdict(updated), as_json=False)


@bench_app.command("growth")
def bench_growth_command(
    work: Annotated[Path, typer.Argument(help="Folder to work in, which must not exist yet.")],
    home: HomeOption = DEFAULT_HOME,
    left_out: Annotated[int, typer.Option(min=1, help="Species that come after training.")] = 5,
    recipe: Annotated[str, typer.Option(help="Recipe to train with.")] = "voucher",
    small: Annotated[bool, typer.Option("--small", help="The recipe's settings for a small network.")] = False,
    weights: Annotated[Path | None, typer.Option(help="Local weights; none: the timm hub.")] = None,
    config: Annotated[Path | None, typer.Option(help="Run config in TOML, in place of a recipe.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the species, splits and weights.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda:N.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Species that come after training: how well they are found, and what they cost those that were there."""
    from indexer.bench_growth import bench_growth
    from indexer.recipes import load_recipe
    from indexer.run_config import RunConfig
    from models.compute import Compute
    from models.home import Home

    given = {"seed": seed, "backbone.weights": weights}
    chosen = RunConfig.read(config, given) if config else load_recipe(recipe, small, given)
    with console.progress_bars() as report:
        result = bench_growth(
            console.home_of(home),
            Home(work),
            chosen,
            Compute.resolve(device),
            left_out=left_out,
            seed=seed,
            report=report,
        )
    if as_json:
        console.show_json(result.to_json())
        return
    rows = []
    for name, figures in result.groups.items():
        before, after = ("–" if f is None else _top1(f.to_json()) for f in (figures.before, figures.after))
        rows.append((name, str(figures.after.n), before, after))
    title = f"{result.new_species} species added to {result.old_species}, {result.added_sheets} sheets, no training"
    console.show_table(title, ["species", "photos", "top-1 before", "top-1 after"], rows)
    rows = [(name.replace("_", ", "), str(f["sheets"]), "", _top1(f)) for name, f in result.retrieval.items()]
    console.show_table("Sheets that find their species, leave-one-out", ["species", "sheets", "", "top-1"], rows)
    console.output.print(f"{result.lost} photos of old species are named as a new one now and were right before.")


def _top1(figures: dict[str, Any]) -> str:
    if figures["top1"] is None:
        return "–"
    interval = figures["top1_interval"]
    return f"{figures['top1']:.1%}" + (f" ({interval[0]:.0%}–{interval[1]:.0%})" if interval else "")


@bench_app.command("serve")
def bench_serve_command(
    path: Annotated[Path, typer.Argument(help="Folder with photos that clients send.")],
    home: HomeOption = DEFAULT_HOME,
    clients: Annotated[
        list[int], typer.Option(min=1, help="Clients at one time; several times, each is measured in turn.")
    ] = [1, 8, 32],  # noqa: B006
    seconds: Annotated[float, typer.Option(min=1, help="Of each measurement.")] = 10.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of all, in turn; the middle one counts.")] = 3,
    workers: Annotated[int, typer.Option(min=1, help="Serving processes.")] = 1,
    photos: Annotated[int, typer.Option(min=1, help="At most so many photos, in the order of their names.")] = 64,
    litserve: Annotated[bool, typer.Option(help="Measure LitServe too.")] = True,
    device: Annotated[str, typer.Option(help="cpu or cuda:N.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """The running service beside the same pipeline without one, and behind LitServe."""
    from indexer.bench_serve import bench_serve, describe

    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES)[:photos]
    with console.progress_bars() as report:
        result = bench_serve(
            console.home_of(home),
            files,
            device=device,
            clients=clients,
            seconds=seconds,
            rounds=rounds,
            workers=workers,
            with_litserve=litserve,
            report=report,
        )
    if as_json:
        console.show_json(result.to_json())
    else:
        typer.echo(describe(result))


def _config(
    backbone: str, weights: Path | None, image_size: int | None, last_blocks: int, seed: int, more: dict[str, Any]
) -> Any:
    """The run config of a benchmark: the defaults, with a network that needs no download."""
    from indexer.run_config import RunConfig

    return RunConfig.read(
        None,
        {
            "seed": seed,
            "backbone.name": backbone,
            "backbone.weights": weights,
            "backbone.pretrained": False,
            "backbone.image_size": image_size,
            "backbone.last_blocks": last_blocks,
            "specialist.kind": "tuned",
            "generalist.kind": "tuned",
            "split.validation_fraction": 0.0,
            **more,
        },
    )


def _show(title: str, figures: dict[str, Any], as_json: bool) -> None:
    """One JSON document, or a table of figures by name."""
    if as_json:
        console.show_json(figures)
        return
    rows: list[tuple[str, ...]] = []
    for name, value in _flat("", figures):
        rows.append((name.replace("_", " "), f"{value:.4g}" if isinstance(value, float) else f"{value}"))
    console.show_table(title, ["figure", "value"], rows)


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Names and values of nested figures; the members of a list are told apart by their first figure."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from _flat(f"{prefix} {name}".strip(), member)
    elif isinstance(value, tuple):
        for member in value:
            (name, first), *rest = member.items()
            yield from _flat(f"{prefix} of {first} {name}", dict(rest))
    else:
        yield prefix, value
