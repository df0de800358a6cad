"""`voucher demo`: the whole way on an invented flora, from drawing to the web page, in a few minutes."""

import importlib.metadata
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from indexer import console
from indexer.progress import Report, of_stage
from models.errors import InvalidConfig
from models.home import Home


def demo_command(
    home: Annotated[Path, typer.Option("--home", help="Folder for the demonstration.")] = Path("demo-home"),
    no_serve: Annotated[bool, typer.Option("--no-serve", help="Stop before the web page is served.")] = False,
    port: Annotated[int, typer.Option(help="Port of the web page.")] = 8000,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Draw an invented flora, learn it, index it, measure it, name two of its photos and serve the page.

    The plants do not exist: the figures show that the parts work together and say nothing about real plants.
    """
    if os.environ.get(console.DATABASE_VARIABLE):
        raise InvalidConfig(
            f"the demonstration keeps its invented plants in a SQLite database of its own; unset "
            f"{console.DATABASE_VARIABLE}, which names another one, and try again"
        )
    with console.progress_bars() as report:
        result = run_demo(Home(home), report)
    if as_json:
        console.show_json(result)
    else:
        _show(result)
    if no_serve:
        console.errors.print(f"`voucher serve --home {home}` serves the page", markup=False, soft_wrap=True)
    else:
        serve = next(e for e in importlib.metadata.entry_points(group="voucher.commands") if e.name == "serve").load()
        serve(home=home, port=port)


def run_demo(home: Home, report: Report) -> dict[str, Any]:
    """Everything but the page; what each step gave, with its seconds."""
    from indexer.build_gallery import build
    from indexer.demo_flora import draw_flora
    from indexer.evaluate import evaluate
    from indexer.import_dataset import import_dataset
    from indexer.run_folder import TrainingRun
    from indexer.training_run import train
    from models.catalogue import Catalogue
    from models.compute import Compute
    from models.identifier import Identifier

    clock = _Clock()
    flora = home.root / "flora"
    draw_flora(flora, on_progress=of_stage(report, "drawing the flora"))
    clock.lap("draw")
    imported = import_dataset(flora, home, on_progress=of_stage(report, "checking images"))
    clock.lap("import")
    compute = Compute.resolve("auto")
    with Catalogue.open(home) as catalogue:
        run = TrainingRun.unfinished(home) or TrainingRun.start(home, catalogue, demo_config())
        trained = train(home, catalogue, run, compute, report=report)
        clock.lap("train")
        built = build(home, catalogue, compute, report=report)
        clock.lap("build")
        identifier = Identifier.load(home, compute)
        evaluation = evaluate(home, catalogue, identifier, report=report)
        clock.lap("evaluate")
        answers = _identify_one_of_each(identifier, catalogue)
        clock.lap("identify")
    return {
        "imported": imported.to_json()["added"],
        "model_id": trained.model_id,
        "build": built.to_json(),
        "evaluation": evaluation.to_json(),
        "identifications": answers,
        "chance_top1": 1.0 / len(identifier.species),
        "seconds": clock.seconds,
    }


def demo_config() -> Any:
    """The run config of the demonstration, from the file beside this one."""
    from indexer.run_config import RunConfig

    return RunConfig.read(Path(__file__).with_name("demo.toml"))


def _identify_one_of_each(identifier: Any, catalogue: Any) -> list[dict[str, Any]]:
    """The first test photo of a species with field photos and of a herbarium-only one, named."""
    from indexer.identify_files import answer_to_json, identify_files
    from models.specimens import Split

    position = {species: i for i, species in enumerate(identifier.species_ids)}
    answers: dict[bool, dict[str, Any]] = {}
    for photo in catalogue.field_photos():
        with_photos = bool(identifier.has_field_photos[position[photo.species_id]])
        if photo.split is Split.TEST and with_photos not in answers:
            path = catalogue.image_store.path(photo.image)
            answer = answer_to_json(identify_files(identifier, [path]), catalogue, identifier.model_id)
            answers[with_photos] = {
                "group": "with_photos" if with_photos else "herbarium_only",
                "photo": str(path),
                "true_species_id": photo.species_id,
                **answer,
            }
        if len(answers) == 2:
            break
    return list(answers.values())


def _show(result: dict[str, Any]) -> None:
    from indexer.evaluate import accuracy_lines

    evaluation = result["evaluation"]
    console.show_table(
        f"An invented flora (chance {result['chance_top1']:.1%}); no evidence about real plants; "
        "95 % intervals in brackets",
        ["stream", "test photos", "top-1", "top-5"],
        accuracy_lines(evaluation),
    )
    for answer in result["identifications"]:
        first = answer["candidates"][0]
        right = "right" if first["species_id"] == answer["true_species_id"] else "wrong"
        console.output.print(
            f"a photo of the group {answer['group']}: {first['scientific_name']} "
            f"({first['probability']:.0%}, {right}). {answer['decision']['reason']}",
            markup=False,
            soft_wrap=True,
        )
    spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result["seconds"].items())
    console.output.print(f"{spent}. Report: {evaluation['report']}", markup=False, soft_wrap=True)


class _Clock:
    """Seconds of each step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self._last = round(now - self._last, 1), now
