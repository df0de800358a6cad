"""`voucher identify` on folders, here and through a service; the service is a small server of the test."""

import csv
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests_support import picture_bytes
from typer.testing import CliRunner

from indexer import cli
from models.catalogue import Catalogue
from models.errors import InvalidConfig
from models.home import Home
from models.identifier import Identifier

runner = CliRunner()


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    """The command line configures logging; undo it, since other tests look at what is logged."""
    yield
    logging.getLogger().handlers = [h for h in logging.getLogger().handlers if type(h).__name__ != "RichHandler"]


def identify(*arguments: str | Path, **environment: str) -> Any:
    return runner.invoke(cli.app, ["identify", *[str(a) for a in arguments]], env=environment)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five photos in two folders, one of them no image, and what is no photo."""
    root = tmp_path / "trip"
    (root / "day 1").mkdir(parents=True)
    (root / "day 2" / ".cache").mkdir(parents=True)
    for n in range(4):
        (root / f"day {1 + n // 2}" / f"{n}.png").write_bytes(picture_bytes(n))
    (root / "day 2" / "torn.JPG").write_bytes(b"no image")
    (root / "notes.txt").write_text("rain")
    (root / "day 2" / ".cache" / "x.png").write_bytes(picture_bytes(9))
    return root


NAMES = ["day 1/0.png", "day 1/1.png", "day 2/2.png", "day 2/3.png", "day 2/torn.JPG"]


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_a_folder_becomes_a_table_and_a_second_run_adds_nothing(
    trained_home: Home, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rows.csv"
    options = ("--home", trained_home.root, "--device", "cpu", "--out", out, "--json", "--batch-size", "2")
    result = identify(folder, *options)
    assert result.exit_code == 3, result.output
    assert json.loads(result.stdout) == {"rows": 5, "failed": 1, "earlier": 0}
    rows = table(out)
    assert [row["file"] for row in rows] == NAMES
    assert rows[-1]["error"]
    assert not rows[-1]["species_id"]
    for row in rows[:-1]:
        assert 0 < float(row["probability"]) <= 1
        assert row["decision_source"] in ("specialist", "generalist", "fusion")
        assert row["bundle_id"] in row["identification_references"]
        assert row["model_id"] in row["identification_references"]
    before = out.read_bytes()
    again = identify(folder, *options)
    assert json.loads(again.stdout) == {"rows": 5, "failed": 1, "earlier": 5}
    assert out.read_bytes() == before


def test_rows_that_were_asked_for_otherwise_do_not_mix(trained_home: Home, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    options = ("--home", trained_home.root, "--device", "cpu", "--out", out)
    identify(folder, *options, "--top-k", "2")
    before = out.read_bytes()
    other = identify(folder, *options, "--top-k", "3", "--ignore-unlisted")
    assert isinstance(other.exception, InvalidConfig)
    assert "--top-k was 2, is 3" in str(other.exception)
    assert "--ignore-unlisted was False, is True" in str(other.exception)
    assert out.read_bytes() == before
    out.unlink()
    assert identify(folder, *options, "--top-k", "3").exit_code == 3
    assert identify(folder, *options, "--top-k", "3").exit_code == 3


def test_rows_are_the_answers_of_the_single_photos(trained_home: Home, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    identify(folder, "--home", trained_home.root, "--device", "cpu", "--out", out)
    rows = {row["file"]: row for row in map(json.loads, out.read_text().splitlines())}
    one = json.loads(
        identify(folder / "day 1" / "1.png", "--home", trained_home.root, "--device", "cpu", "--json").stdout
    )
    answer = rows["day 1/1.png"]["answer"]
    assert [c["species_id"] for c in answer["candidates"]] == [c["species_id"] for c in one["candidates"]]
    for mine, other in zip(answer["candidates"], one["candidates"], strict=True):
        assert mine["probability"] == pytest.approx(other["probability"], abs=1e-3)


def test_photos_of_a_folder_can_be_one_plant(trained_home: Home, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    identify(folder, "--home", trained_home.root, "--device", "cpu", "--out", out, "--folders-are-plants")
    assert [(row["file"], row["photo_count"]) for row in table(out)] == [("day 1", "2"), ("day 2", "")]
    assert table(out)[1]["error"].startswith("photo 3: ")


def test_answers_are_restricted_to_a_list_a_genus_and_a_family(
    trained_home: Home, folder: Path, tmp_path: Path
) -> None:
    with Catalogue.open(trained_home) as catalogue:
        species = catalogue.species()
    listed = tmp_path / "checklist.csv"
    listed.write_text("species_id,name\n" + "".join(f"{s.species_id},{s.scientific_name}\n" for s in species[:3]))
    photo, options = folder / "day 1" / "0.png", ("--home", trained_home.root, "--device", "cpu", "--json")
    values = json.loads(identify(photo, "--species-list", listed, *options).stdout)
    assert {c["species_id"] for c in values["candidates"]} == {s.species_id for s in species[:3]}
    values = json.loads(identify(photo, "--genus", str(species[0].genus), *options).stdout)
    assert {c["genus"] for c in values["candidates"]} == {species[0].genus}
    assert values["probability_outside"] > 0
    from models.errors import InvalidCandidateFilter

    wrong = identify(photo, "--family", "Nonexistaceae", *options)
    assert isinstance(wrong.exception, InvalidCandidateFilter)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{folder}"], "--out"),
        (["{folder}", "{folder}", "--out", "x.csv"], "by itself"),
        (["{folder}/day 1/0.png", "--out", "x.csv"], "--out is for"),
        (["{folder}", "--out", "{folder}/x.txt"], ".csv or .jsonl"),
        (["{folder}/day 2/.cache/none", "--url", "http://x"], "no such file"),
        (["{folder}/day 1/0.png", "--url", "x:8000"], "expected the address"),
        (["{folder}", "--out", "x.csv", "--species-list", "absent.txt"], "absent.txt"),
    ],
)
def test_what_does_not_go_together_is_said_so(folder: Path, arguments: list[str], message: str) -> None:
    result = identify(*[a.format(folder=folder) for a in arguments], "--home", str(folder))
    assert message in str(result.exception)


SLOW = """
import sys, time
from indexer import cli, identify_many
real = identify_many._answers
def slow(*given):
    time.sleep(0.3)
    return real(*given)
identify_many._answers = slow
sys.argv = ["voucher", *sys.argv[1:]]
cli.main()
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_without_losing_or_doubling_a_row(trained_home: Home, tmp_path: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "rows.csv"
    folder.mkdir()
    for n in range(40):
        (folder / f"{n:03}.png").write_bytes(picture_bytes(n))
    options = ["--home", str(trained_home.root), "--device", "cpu", "--out", str(out), "--batch-size", "2"]
    command = [sys.executable, "-c", SLOW, "identify", str(folder), *options]
    killed = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not out.exists() or out.read_bytes().count(b"\n") < 5:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    written = out.read_bytes().count(b"\n") - 1
    assert 4 <= written < 40
    result = identify(folder, *options, "--json")
    assert json.loads(result.stdout) == {"rows": 40, "failed": 0, "earlier": written}
    assert [row["file"] for row in table(out)] == [f"{n:03}.png" for n in range(40)]


class Service(BaseHTTPRequestHandler):
    """Answers as the real one does: its answers are of the network that the test has loaded."""

    answer: dict[str, Any]
    seen: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).seen.append({"path": self.path, "key": self.headers.get("Authorization"), "body": body})
        bad = b"no image" in body
        problem = {"type": "urn:voucher:problem:unreadable-image", "title": "bad", "status": 422, "detail": "torn"}
        content = json.dumps(problem if bad else type(self).answer).encode()
        self.send_response(422 if bad else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def service(trained_home: Home, folder: Path) -> Iterator[tuple[str, type[Service]]]:
    from indexer.identify_files import answer_to_json, identify_files
    from models.compute import Compute

    identifier = Identifier.load(trained_home, Compute.resolve("cpu"))
    with Catalogue.open(trained_home) as catalogue:
        found = identify_files(identifier, [folder / "day 1" / "0.png"])
        values = answer_to_json(found, catalogue, identifier.model_id)
    for candidate in values["candidates"]:
        for sheet in candidate["sheets"]:
            del sheet["image_path"]
    answer = {**values, "identification_id": "abc", "milliseconds": 5.0}
    handler = type("Handler", (Service,), {"answer": answer, "seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_service_gives_the_same_lines_as_the_home(
    service: tuple[str, type[Service]], trained_home: Home, folder: Path
) -> None:
    url, handler = service
    photo = folder / "day 1" / "0.png"
    here = identify(photo, "--home", trained_home.root, "--device", "cpu")
    there = identify(photo, "--url", url, "--genus", "Rosa", "--top-k", "3", VOUCHER_API_KEY="secret-key")
    assert there.exit_code == 0, there.output
    assert there.stdout == here.stdout
    (seen,) = handler.seen
    assert (seen["path"], seen["key"]) == ("/v1/identifications", "Bearer secret-key")
    assert b"0.png" not in seen["body"]
    assert b"Rosa" in seen["body"]


def test_a_service_fills_a_table_too(service: tuple[str, type[Service]], folder: Path, tmp_path: Path) -> None:
    url, handler = service
    out = tmp_path / "rows.csv"
    result = identify(folder, "--url", url, "--out", out, "--json", "--key", "k")
    assert result.exit_code == 3, result.output
    assert [row["file"] for row in table(out)] == NAMES
    assert table(out)[-1]["error"] == "torn"
    assert len(handler.seen) == 5
    shutil.copy(folder / "day 1" / "0.png", folder / "new.png")
    assert json.loads(identify(folder, "--url", url, "--out", out, "--json").stdout)["rows"] == 6
    assert len(handler.seen) == 6
