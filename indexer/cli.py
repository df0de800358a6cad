"""The command `voucher`: options to a config, one call, a report."""

import importlib.metadata
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from indexer import console
from indexer.identify_command import identify_command
from indexer.options import DEFAULT_HOME, ByOption, DeviceOption, HomeOption, JsonOption, who
from indexer.sources import Layout
from models.errors import VoucherError

logger = logging.getLogger(__name__)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Names plants from field photos, with herbarium sheets as evidence.",
)


@app.callback()
def _options(verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell more.")] = False) -> None:
    console.configure_logging(verbose=verbose)


@app.command("import")
def import_command(
    path: Annotated[
        Path, typer.Argument(help="A PlantCLEF folder, a CSV manifest or its folder, or sheet/ and field/.")
    ],
    home: HomeOption = DEFAULT_HOME,
    layout: Annotated[Layout | None, typer.Option(help="What PATH is; detected if left out.")] = None,
    on_conflict: Annotated[str, typer.Option(help="error, or skip images listed under two species.")] = "error",
    as_json: JsonOption = False,
) -> None:
    """Take sheets and field photos into the catalogue."""
    from indexer.import_dataset import import_dataset
    from indexer.import_summary import summary_lines
    from indexer.progress import of_stage

    if on_conflict not in ("error", "skip"):
        raise typer.BadParameter("must be error or skip", param_hint="--on-conflict")
    with console.progress_bars() as report:
        result = import_dataset(
            path,
            console.home_of(home, may_be_new=True),
            layout=layout,
            on_conflict="skip" if on_conflict == "skip" else "error",
            on_progress=of_stage(report, "checking images"),
            actor=who(None),
        )
    if as_json:
        console.show_json(result.to_json())
        return
    for line in summary_lines(result):
        console.output.print(line, markup=False)


@app.command()
def train(
    home: HomeOption = DEFAULT_HOME,
    config: Annotated[Path | None, typer.Option(help="Run config in TOML.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe by name, in place of a run config.")] = None,
    small: Annotated[bool, typer.Option("--small", help="The recipe's settings for a small network.")] = False,
    backbone: Annotated[str | None, typer.Option(help="timm model name.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Local .safetensors or checkpoint; none: the timm hub.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    last_blocks: Annotated[int | None, typer.Option(help="Blocks that are fine-tuned.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of splits, weights and batches.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the last unfinished run.")] = False,
    device: DeviceOption = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Fine-tune both streams on the catalogue's images."""
    from indexer.recipes import load_recipe
    from indexer.run_config import RunConfig
    from indexer.run_folder import TrainingRun
    from indexer.training_run import best_figures
    from indexer.training_run import train as run_training
    from models.catalogue import Catalogue
    from models.errors import InvalidConfig

    where = console.home_of(home)
    with Catalogue.open(where) as catalogue:
        overrides: dict[str, Any] = {
            "backbone.name": backbone,
            "backbone.weights": weights,
            "backbone.image_size": image_size,
            "backbone.last_blocks": last_blocks,
            "optimizer.epochs": epochs,
            "seed": seed,
        }
        if config is not None and recipe is not None:
            raise InvalidConfig("--config and --recipe both say how the run goes; give one of them")
        if small and recipe is None:
            raise InvalidConfig("--small belongs to a recipe; name one with --recipe")
        if resume:
            if config is not None or recipe is not None or any(value is not None for value in overrides.values()):
                raise InvalidConfig("--resume continues a run as it began; leave the other options of the run out")
            unfinished = TrainingRun.unfinished(where)
            if unfinished is None:
                raise InvalidConfig(f"there is no unfinished run in {where.runs}; train without --resume")
            run = unfinished
        else:
            resolved = load_recipe(recipe, small, overrides) if recipe else RunConfig.read(config, overrides)
            run = TrainingRun.start(where, catalogue, resolved)
        compute = _compute(device, precision)
        logger.info("run %s on %s", run.run_id, compute.describe())
        try:
            with console.progress_bars() as report:
                result = run_training(where, catalogue, run, compute, report=report)
        except KeyboardInterrupt:
            raise VoucherError(f"run {run.run_id} was interrupted; continue it with `voucher train --resume`") from None
    if as_json:
        console.show_json(
            {
                "model_id": result.model_id,
                "run_id": result.run_id,
                "epochs": len(result.history),
                "validation": best_figures(list(result.history)),
            }
        )
    else:
        console.output.print(f"{result.model_id}: learnt from {result.summary}", markup=False)


@app.command()
def build(
    home: HomeOption = DEFAULT_HOME,
    model: Annotated[str | None, typer.Option(help="Model id; none: the latest.")] = None,
    gate: Annotated[str | None, typer.Option(help="auto, distance or fusion; none: as the run's config says.")] = None,
    from_nothing: Annotated[
        bool, typer.Option("--from-nothing", help="Do not continue the latest index of the model.")
    ] = False,
    activate: Annotated[bool, typer.Option("--activate/--no-activate", help="Put it into service.")] = True,
    most_fall: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Share of top-1 on validation photos that may be lost without asking."),
    ] = 0.02,
    by: ByOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Embed what is new among the sheets and put a new index into service.

    Where nothing has changed since the index that is served was built, that one stays; --from-nothing builds all the
    same.
    """
    from indexer.build_gallery import build as run_build
    from indexer.build_gallery import describe, served_and_up_to_date
    from indexer.calibrate_gate import gate_kind
    from models.catalogue import Catalogue

    where, compute = console.home_of(home), _compute(device)
    with Catalogue.open(where) as catalogue, console.progress_bars() as report:
        if gate is None and activate and not from_nothing:
            present = served_and_up_to_date(where, catalogue, model)
            if present is not None:
                if as_json:
                    console.show_json({"bundle_id": present, "built": False})
                else:
                    console.output.print(
                        f"Nothing has changed since {present} was built, which stays in service.", markup=False
                    )
                return
        built = run_build(
            where,
            catalogue,
            compute,
            model_id=model,
            gate_kind=gate_kind(gate),
            activate_it=activate,
            from_nothing=from_nothing,
            most_fall=most_fall,
            built_by=who(by),
            report=report,
        )
    if as_json:
        console.show_json({**built.to_json(), "built": True})
    else:
        console.output.print(describe(built), markup=False, soft_wrap=True)


@app.command()
def evaluate(
    home: HomeOption = DEFAULT_HOME,
    unknown: Annotated[
        Path | None, typer.Option(help="Photos of species not in the index, to be told from the known: folder or CSV.")
    ] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Score the test photos with the active bundle."""
    from indexer.evaluate import accuracy_lines
    from indexer.evaluate import evaluate as run_evaluation
    from indexer.report_reliability import reliability_summary
    from models.catalogue import Catalogue
    from models.identifier import Identifier

    where = console.home_of(home)
    with Catalogue.open(where) as catalogue, console.progress_bars() as report:
        identifier = Identifier.load(where, _compute(device))
        result = run_evaluation(where, catalogue, identifier, unknown=unknown, report=report)
    if as_json:
        console.show_json(result.to_json())
        return
    console.show_table(
        f"{result.bundle_id}, 95 % intervals in brackets",
        ["stream", "test photos", "top-1", "top-5"],
        accuracy_lines(result.to_json()),
    )
    for line in reliability_summary(result.reliability):
        console.output.print(line, markup=False, soft_wrap=True)
    if result.skipped_unknown:
        console.output.print(f"{result.skipped_unknown} test photos are of species that the bundle does not know.")
    console.output.print(f"Plots, confusion and species tables: {result.report}", markup=False, soft_wrap=True)


app.command("identify")(identify_command)


def _compute(device: str, precision: str = "auto") -> Any:
    from models.compute import Compute

    return Compute.resolve(device, precision=precision)  # type: ignore[arg-type]


def assemble() -> typer.Typer:
    """The whole command: what stands in this file and the groups beside it, and the commands of other packages.

    Those, such as `serve`, are found as they are installed and not imported by name, so that the layers stay apart.
    """
    from indexer.bench_command import bench_app
    from indexer.bundles_command import bundles_app
    from indexer.compare_command import compare_command
    from indexer.demo import demo_command
    from indexer.doctor import doctor_command
    from indexer.garbage_command import gc_command
    from indexer.jobs_command import jobs_app
    from indexer.keys_command import keys_app
    from indexer.sheets_command import sheets_app
    from indexer.species_command import species_command
    from indexer.worker_command import worker_command

    app.command("demo")(demo_command)
    app.command("compare")(compare_command)
    app.command("worker")(worker_command)
    app.command("gc")(gc_command)
    app.command("doctor")(doctor_command)
    app.add_typer(bundles_app, name="bundles")
    app.add_typer(jobs_app, name="jobs")
    app.add_typer(keys_app, name="keys")
    app.command("species")(species_command)
    app.add_typer(sheets_app, name="sheets")
    app.add_typer(bench_app, name="bench")
    for entry in importlib.metadata.entry_points(group="voucher.commands"):
        app.command(entry.name)(entry.load())
    return app


def main() -> None:
    """Entry point of the console script; an expected error is one line and exit status 2."""
    # Read when torch is loaded. Threads that wait for the network's next product look for it for some 50 microseconds,
    # about as long as a layer of a small network leaves them idle, and then sleep: they leave their cores to the
    # decoding of the next pictures. Sleeping at once doubled the time for a single photo, GNU's 3 ms starve decoding.
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    command = assemble()
    try:
        command()
    except VoucherError as error:
        console.errors.print(f"voucher: {error}", markup=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        console.errors.print("voucher: interrupted", markup=False)
        sys.exit(130)
    except OSError as error:
        # A full or read-only disk, a lost mount: nothing that a traceback would help to mend.
        logger.debug("failed", exc_info=True)
        console.errors.print(f"voucher: {_in_words(error)}", markup=False, soft_wrap=True)
        sys.exit(1)


def _in_words(error: OSError) -> str:
    """The system's words and the file, without numbers and the names of Python's errors."""
    if error.strerror is None:
        return str(error)
    return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
