"""`voucher identify`: photos of one plant, or all photos below a folder; here, or by a service."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indexer import console
from indexer.options import DEFAULT_HOME, DeviceOption, HomeOption, JsonOption

if TYPE_CHECKING:
    from indexer.identify_folder import Summary
    from models.candidate_filter import CandidateFilter
    from models.identifier import Identifier

SOME_FAILED = 3
"""Exit status when some photos of a folder could not be identified; their rows say why."""


def identify_command(
    photos: Annotated[list[Path], typer.Argument(help="Photos of one plant, or one folder of photos.")],
    home: HomeOption = DEFAULT_HOME,
    url: Annotated[str | None, typer.Option(help="Ask the service at this address; no home is needed then.")] = None,
    key: Annotated[
        str | None,
        typer.Option(envvar="VOUCHER_API_KEY", help="Key for the service. Others on this machine can see options."),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, max=100, help="Candidates.")] = 5,
    species_list: Annotated[
        Path | None,
        typer.Option(help="Answer only with species of this file: an identifier or a name on each line."),
    ] = None,
    genus: Annotated[list[str] | None, typer.Option(help="Answer only with species of this genus; repeatable.")] = None,
    family: Annotated[
        list[str] | None, typer.Option(help="Answer only with species of this family; repeatable.")
    ] = None,
    ignore_unlisted: Annotated[
        bool, typer.Option("--ignore-unlisted", help="Pass over entries of these that the index does not hold.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="For a folder: where rows go, .csv or .jsonl; what is there is continued.")
    ] = None,
    explain: Annotated[
        Path | None,
        typer.Option(help="Folder for pictures of the photo beside the best sheets, marked where they are alike."),
    ] = None,
    folders_are_plants: Annotated[
        bool, typer.Option("--folders-are-plants", help="The photos of one folder are of one plant.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, max=1024, help="Photos that the network sees at one time.")] = 16,
    decoders: Annotated[
        int | None, typer.Option(min=1, max=256, help="Photos that are decoded at one time. [default: one a core]")
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Requests to the service at one time.")] = 4,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Name the plant that PHOTOS show, or all plants below a folder.

    A run over a folder that was stopped goes on where it stopped when it is called again. Exit status: 0 all is well,
    2 it could not begin or go on, 3 some photos could not be identified.
    """
    restricted = {**_restriction(species_list, genus, family), "ignore_unlisted": ignore_unlisted}
    asked = _Request(
        home, device, url, key, top_k, restricted, folders_are_plants, batch_size, decoders, parallel, explain
    )
    folder = _folder_among(photos, out)
    _check_explain(asked, folder)
    if folder is not None and out is not None:
        with _going_on(out):
            summary = _run_folder(folder, out, asked)
        if as_json:
            console.show_json(summary.to_json())
        else:
            line = f"{out}: {summary.rows} rows, {summary.failed} with an error, {summary.earlier} from before"
            console.output.print(line, markup=False, soft_wrap=True)
        if summary.failed:
            raise typer.Exit(SOME_FAILED)
        return
    _show(_ask_here(photos, asked) if url is None else _ask_service(photos, url, asked), as_json)


@dataclass(frozen=True, slots=True)
class _Request:
    """Where to ask, what, and how much at one time."""

    home: Path
    device: str
    url: str | None
    key: str | None
    top_k: int
    restricted: dict[str, Any]
    folders_are_plants: bool
    batch_size: int
    decoders: int | None
    parallel: int
    explain: Path | None = None

    def options(self) -> dict[str, Any]:
        """What the rows of a folder depend on, beside the index; as on the command line."""
        return {
            "--top-k": self.top_k,
            "--species-list": sorted(self.restricted["species_ids"]),
            "--genus": sorted(self.restricted["genera"]),
            "--family": sorted(self.restricted["families"]),
            "--ignore-unlisted": self.restricted["ignore_unlisted"],
            "--folders-are-plants": self.folders_are_plants,
            "--url": self.url,
        }


def _check_explain(asked: _Request, folder: Path | None) -> None:
    """Raises `InvalidConfig` for what --explain does not go together with."""
    from models.errors import InvalidConfig

    if asked.explain is not None and (asked.url is not None or folder is not None):
        raise InvalidConfig(
            "--explain draws pictures for the photos of one plant with the index of a home; leave --url and folders out"
        )


def _restriction(species_list: Path | None, genus: list[str] | None, family: list[str] | None) -> dict[str, list[str]]:
    from indexer.species_list import read_species_list

    return {
        "species_ids": [] if species_list is None else read_species_list(species_list),
        "genera": genus or [],
        "families": family or [],
    }


def _folder_among(photos: list[Path], out: Path | None) -> Path | None:
    """The folder, if that is what was given. Raises `InvalidConfig` for what cannot go together."""
    from indexer.result_rows import check_format
    from models.errors import InvalidConfig

    folders = [path for path in photos if path.is_dir()]
    if not folders:
        if out is not None:
            for path in photos:
                if not path.exists():
                    raise InvalidConfig(f"there is no folder {path}")
            raise InvalidConfig("--out is for the photos of a folder; name one folder, or leave --out out")
        return None
    if len(photos) > 1:
        raise InvalidConfig("a folder is identified by itself; name one folder, or the photos of one plant")
    if out is None:
        raise InvalidConfig(f"{folders[0]} is a folder: say with --out results.csv (or .jsonl) where its rows go")
    check_format(out)
    return folders[0]


@contextmanager
def _going_on(out: Path) -> Iterator[None]:
    """Say what is to be done after Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        if out.exists():
            line = f"{out} holds what was answered so far; the same command goes on from there"
            console.errors.print(line, markup=False, soft_wrap=True)
        raise


def _run_folder(folder: Path, out: Path, asked: _Request) -> "Summary":
    from indexer.identify_folder import find_plants, identify_folder, local_answers, remote_answers

    plants = find_plants(folder, folders_are_plants=asked.folders_are_plants)
    if asked.url is not None:
        from indexer.client import VoucherClient

        arguments = {"top_k": asked.top_k, "sheets_per_candidate": 0, **asked.restricted}
        with _asking(asked.url), VoucherClient(asked.url, asked.key) as client, console.progress_bars() as report:
            answer = remote_answers(client, arguments, parallel=asked.parallel)
            return identify_folder(plants, out, answer, asked.options(), report=report)
    from indexer.identify_many import Asked

    identifier = _identifier(asked)
    what = Asked(top_k=asked.top_k, within=_filter(asked))
    answer = local_answers(identifier, what, batch_size=asked.batch_size, decoders=asked.decoders)
    with console.progress_bars() as report:
        return identify_folder(plants, out, answer, asked.options(), report=report)


@contextmanager
def _asking(url: str) -> Iterator[None]:
    """Say where a key goes when the service asks for one."""
    from indexer.client import Forbidden
    from models.errors import InvalidConfig

    try:
        yield
    except Forbidden as error:
        if error.kind != "key-missing":
            raise
        raise InvalidConfig(f"{url} asks for a key: put one into VOUCHER_API_KEY, or give --key") from error


def _ask_service(photos: list[Path], url: str, asked: _Request) -> dict[str, Any]:
    from indexer.client import VoucherClient
    from indexer.photo_arguments import check_photos

    check_photos(photos)
    with _asking(url), VoucherClient(url, asked.key) as client:
        arguments: dict[str, Any] = {"top_k": asked.top_k, **asked.restricted}
        answer = client.identify(photos, **arguments)
    return answer.model_dump(mode="json")


def _ask_here(photos: list[Path], asked: _Request) -> dict[str, Any]:
    from indexer.identify_files import answer_to_json, identify_files
    from indexer.photo_arguments import check_photos
    from models.catalogue import Catalogue

    check_photos(photos)
    identifier = _identifier(asked)
    within = _filter(asked)
    answer = identify_files(identifier, photos, top_k=asked.top_k, within=within)
    with Catalogue.open(console.home_of(asked.home)) as catalogue:
        if asked.explain is not None:
            from indexer.explain_files import write_explanations

            written = write_explanations(identifier, catalogue, photos, answer, asked.explain)
            console.errors.print(f"{len(written)} pictures are in {asked.explain}", markup=False, soft_wrap=True)
        values = answer_to_json(answer, catalogue, identifier.model_id)
    if within is not None and (passed_over := within.passed_over(identifier.species)) is not None:
        values["ignored"] = passed_over
    return values


def _identifier(asked: _Request) -> "Identifier":
    from models.compute import Compute
    from models.identifier import Identifier

    return Identifier.load(console.home_of(asked.home), Compute.resolve(asked.device))


def _filter(asked: _Request) -> "CandidateFilter | None":
    from models.candidate_filter import CandidateFilter

    entries = {name: value for name, value in asked.restricted.items() if name != "ignore_unlisted"}
    return CandidateFilter.of(**entries, ignores_unlisted=asked.restricted["ignore_unlisted"])


def _show(values: dict[str, Any], as_json: bool) -> None:
    from indexer.answer_lines import answer_lines

    if as_json:
        console.show_json(values)
        return
    for line in answer_lines(values):
        console.output.print(line, markup=False, soft_wrap=True)
