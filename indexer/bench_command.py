"""`voucher bench`: measurements as commands."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from indexer import console
from models.errors import InsufficientData

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
    if as_json:
        console.show_json(asdict(result))
        return
    rows: list[tuple[str, ...]] = [
        (name.replace("_", " "), f"{value}" if not isinstance(value, float) else f"{value:.4g}")
        for name, value in asdict(result).items()
    ]
    console.show_table(f"{backbone} on {compute.describe()}", ["figure", "value"], rows)
