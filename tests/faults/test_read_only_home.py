"""A home on a disk that may not be written to: plants are named, everything else is refused with the reason."""

import shutil
import subprocess
import sys
from pathlib import Path

import httpx2 as httpx
import pytest
from fault_processes import Processes, species_of, wait_until_it_answers
from tests_support import picture_bytes

from models.api_keys import NewKey, Scope
from models.api_keys_store import KeyStore
from models.catalogue import Catalogue
from models.errors import StorageReadOnly
from models.home import Home
from models.taxonomy import SpeciesId

PHOTO = {"photos": ("x", picture_bytes(1))}


@pytest.fixture
def home(tiny_home: Home, small_disk: Path) -> Home:
    """Not read-only yet."""
    shutil.copytree(tiny_home.root, small_disk / "home")
    return Home(small_disk / "home")


def make_read_only(home: Home) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(home.root.parent)], check=True)


def voucher(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from indexer.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)


def added(address: str, species: str, **headers: str) -> httpx.Response:
    sheet = {"images": ("x", picture_bytes(2))}
    return httpx.post(f"{address}/v1/sheets", files=sheet, data={"species_id": species}, headers=headers)


def test_the_catalogue_is_read_and_not_changed(home: Home) -> None:
    with Catalogue.open(home) as catalogue:
        before = [species.scientific_name for species in catalogue.species()]
    make_read_only(home)
    with Catalogue.open(home) as catalogue:
        assert [species.scientific_name for species in catalogue.species()] == before
        assert len(list(catalogue.sheets(SpeciesId(species_of(home)[0])))) > 0
    with pytest.raises(StorageReadOnly, match="can be read but not changed"), KeyStore.open(home) as keys:
        keys.create(NewKey("nobody", frozenset({Scope.IDENTIFY})))


def test_what_is_written_later_is_read_then(home: Home) -> None:
    make_read_only(home)
    with Catalogue.open(home) as catalogue:
        before = catalogue.revision()
        subprocess.run(["mount", "-o", "remount,rw", str(home.root.parent)], check=True)
        with KeyStore.open(home) as keys:
            keys.create(NewKey("somebody", frozenset({Scope.IDENTIFY})))
            assert keys.exist()
        assert catalogue.revision() == before
        assert voucher("sheets", "remove", next(catalogue.sheets()).sheet_id, "--home", home.root).returncode == 0
        assert catalogue.revision() != before


def test_changes_that_the_file_lacks_are_not_passed_over(home: Home) -> None:
    with KeyStore.open(home) as keys:
        keys.create(NewKey("somebody", frozenset({Scope.IDENTIFY})))
        log = home.catalogue_file.with_name(f"{home.catalogue_file.name}-wal")
        unfinished = log.read_bytes()
    assert unfinished
    # As a killed process on a disk that was then mounted for reading leaves it.
    log.write_bytes(unfinished)
    make_read_only(home)
    result = voucher("species", "--home", home.root)
    assert result.returncode == 2
    assert "unable to open" in result.stderr


@pytest.mark.timeout(600)
def test_a_service_starts_on_it_and_says_what_does_not_go(home: Home, tmp_path: Path) -> None:
    with KeyStore.open(home) as keys:
        _, text = keys.create(NewKey("app", frozenset(Scope), daily_quota=100))
    species = species_of(home)[0]
    make_read_only(home)
    key = {"authorization": f"Bearer {text}"}
    with Processes(home.root, tmp_path / "log") as processes:
        processes.start("server")
        wait_until_it_answers(processes.address)
        for _ in range(2):
            answer = httpx.post(f"{processes.address}/v1/identifications", files=PHOTO, headers=key)
            assert answer.status_code == 200
            assert answer.json()["candidates"][0]["sheets"]
        refused = added(processes.address, species, **key)
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:voucher:problem:read-only")
        assert str(home.root) not in refused.text
        batch = httpx.post(f"{processes.address}/v1/batches", files=PHOTO, headers=key)
        assert (batch.status_code, batch.json()["type"]) == (503, "urn:voucher:problem:read-only")
        ready = httpx.get(f"{processes.address}/readyz").json()
        disk = next(check for check in ready["checks"] if check["name"] == "disk")
        assert disk["state"] == "warning"
        assert "plants are identified" in disk["detail"]


def test_a_service_goes_on_when_its_disk_becomes_read_only(home: Home, tmp_path: Path) -> None:
    # Not asked for keys, nor for its readiness: a database that is open keeps the system from changing the disk.
    with Processes(home.root, tmp_path / "log", access="open") as processes:
        processes.start("server")
        wait_until_it_answers(processes.address, "/healthz")
        species = species_of(home)[0]
        make_read_only(home)
        for _ in range(2):
            assert httpx.post(f"{processes.address}/v1/identifications", files=PHOTO).status_code == 200
            assert added(processes.address, species).status_code == 503


def test_commands_say_it_in_one_line(home: Home) -> None:
    make_read_only(home)
    worker = voucher("worker", "--home", home.root)
    assert worker.returncode == 2
    assert len(worker.stderr.strip().splitlines()) == 1
    assert "Read-only file system" in worker.stderr
    doctor = voucher("doctor", "--home", home.root)
    assert doctor.stdout.count("cannot be written as voucher writes") == 1
    assert "backup" not in doctor.stdout
