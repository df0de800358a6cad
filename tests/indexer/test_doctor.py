"""Each fault that `voucher doctor` knows is found where it is made, and a sound installation has none."""

import importlib.metadata
import json
import os
import shutil
import socket
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import old_catalogues
import pytest
from typer.testing import CliRunner

from indexer import cli, doctor, doctor_artifacts, doctor_catalogue, doctor_home, doctor_machine, doctor_packages
from indexer.doctor_artifacts import check_active_bundle, check_artifacts
from indexer.doctor_catalogue import check_catalogue, check_images
from indexer.doctor_home import check_disk, check_home, file_system_of
from indexer.doctor_jobs import check_jobs
from indexer.doctor_machine import check_clock, check_compute, check_machine, memory_bytes
from indexer.doctor_packages import check_packages
from indexer.doctor_weights import check_weights
from indexer.run_config import RunConfig
from indexer.worker_slots import WorkerSlots
from models import faiss_packages
from models.artifacts import list_artifacts
from models.catalogue import Catalogue
from models.findings import Finding, Severity
from models.home import Home
from models.jobs import BUILD_WORKFLOW, BuildRequest, Job, JobQueue, JobState


def bad(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    """Name and severity of what is not well; every one says how to mend it."""
    found = [finding for finding in findings if finding.severity is not Severity.OK]
    assert all(finding.remedy for finding in found)
    return [(finding.name, finding.severity.value) for finding in found]


def told(findings: Iterable[Finding]) -> str:
    return " ".join(f"{finding.what} {finding.where} {finding.remedy}" for finding in findings)


class TestPackages:
    def test_those_that_are_installed_here_are_sound(self) -> None:
        findings = list(check_packages())
        assert bad(findings) == []
        assert [finding.name for finding in findings] == ["python", "packages", "faiss", "torch"]

    @pytest.mark.parametrize("found", [[], ["faiss-cpu", "faiss-gpu"]])
    def test_none_or_two_packages_of_faiss(self, monkeypatch: pytest.MonkeyPatch, found: list[str]) -> None:
        monkeypatch.setattr(doctor_packages, "installed_faiss_packages", lambda: found)
        assert bad(check_packages()) == [("faiss", "fault")]

    def test_two_packages_of_faiss_are_noticed_by_their_metadata(self, monkeypatch: pytest.MonkeyPatch) -> None:
        installed = [SimpleNamespace(metadata={"Name": name}) for name in ("faiss_cpu", "faiss-gpu", "numpy")]
        monkeypatch.setattr(faiss_packages.importlib.metadata, "distributions", lambda: installed)
        assert "faiss-cpu and faiss-gpu" in told(check_packages())

    @pytest.mark.parametrize(
        ("versions", "name"),
        [
            ({"torchvision": None}, "torch"),
            ({"torch": "2.5.0", "torchvision": "0.20.0"}, "torch"),
            ({"torch": "TORCH+cu128", "torchvision": "VISION+cpu"}, "torch"),
            ({"numpy": "1.26.4"}, "packages"),
            ({"alembic": None}, "packages"),
        ],
    )
    def test_packages_that_are_missing_or_do_not_fit(
        self, monkeypatch: pytest.MonkeyPatch, versions: dict[str, str | None], name: str
    ) -> None:
        real = doctor_packages._version

        def version(package: str) -> str | None:
            given = versions.get(package, real(package))
            return given and given.replace("TORCH", str(real("torch"))).replace("VISION", str(real("torchvision")))

        monkeypatch.setattr(doctor_packages, "_version", version)
        assert (name, "fault") in bad(check_packages())

    def test_a_python_without_voucher(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def nowhere(name: str) -> str:
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(importlib.metadata, "version", nowhere)
        assert ("packages", "fault") in bad(check_packages())

    def test_windows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(doctor_packages.sys, "platform", "win32")
        assert bad(check_packages()) == [("python", "fault")]


class TestMachine:
    def test_one_core(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(doctor_machine, "available_cores", lambda: 1)
        assert ("cores", "warning") in bad(check_machine())

    @pytest.mark.parametrize(("total", "free"), [(1 << 30, 1 << 30), (8 << 30, 1 << 28)])
    def test_too_little_memory(self, monkeypatch: pytest.MonkeyPatch, total: int, free: int) -> None:
        monkeypatch.setattr(doctor_machine, "memory_bytes", lambda: (total, free))
        assert ("memory", "warning") in bad(check_machine())

    def test_the_memory_of_a_container_is_its_limit(self, tmp_path: Path) -> None:
        (tmp_path / "meminfo").write_text("MemTotal: 8000 kB\nMemFree: 1 kB\nMemAvailable: 6000 kB\n")
        limit = tmp_path / "memory.max"
        assert memory_bytes(tmp_path / "meminfo", limit) == (8_192_000, 6_144_000)
        limit.write_text("max\n")
        assert memory_bytes(tmp_path / "meminfo", limit) == (8_192_000, 6_144_000)
        limit.write_text("4000000\n")
        (tmp_path / "memory.current").write_text("1000000\n")
        assert memory_bytes(tmp_path / "meminfo", limit) == (4_000_000, 3_000_000)
        assert memory_bytes(tmp_path / "nothing", limit) == (None, None)

    @pytest.mark.parametrize("device", ["cuda:99", "gpu"])
    def test_a_device_that_is_not_there(self, device: str) -> None:
        assert bad(check_compute(device)) == [("device", "fault")]

    def test_a_gpu_that_torch_cannot_use(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(doctor_machine, "_DRIVER", tmp_path)
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        assert bad(check_compute("cpu")) == [("gpu", "warning")]

    def test_a_gpu_that_faiss_cannot_use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
        monkeypatch.setattr("torch.cuda.mem_get_info", lambda index: (1 << 30, 2 << 30))
        monkeypatch.setattr("torch.cuda.get_device_name", lambda index: "a GPU")
        monkeypatch.setattr("models.gpu_search.searchable_gpus", lambda: 0)
        findings = list(check_compute("cpu"))
        assert bad(findings) == [("faiss gpu", "warning")]
        assert "cuda:0 a GPU, 1024 of 2048 MiB free" in told(findings)
        monkeypatch.setattr("models.gpu_search.searchable_gpus", lambda: 1)
        assert bad(check_compute("cpu")) == []

    def test_a_clock_that_is_behind(self, trained_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        assert bad(check_clock(trained_home)) == []
        future = list(doctor_machine._times_of_artifacts(trained_home))[0]
        later = future.replace(year=future.year + 1)
        monkeypatch.setattr(doctor_machine, "_times_of_artifacts", lambda home: [later])
        assert bad(check_clock(trained_home)) == [("clock", "warning")]
        monkeypatch.setattr(doctor_machine, "_SINCE", later)
        assert bad(check_clock(trained_home)) == [("clock", "fault")]


class TestHome:
    def test_one_that_is_sound_is_left_as_it_was(self, home: Home) -> None:
        before = sorted(home.root.rglob("*"))
        assert bad(check_home(home)) == bad(check_disk(home)) == []
        assert sorted(home.root.rglob("*")) == before

    def test_one_that_does_not_exist_or_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for name in ("nowhere", "file"):
            assert bad(check_home(Home(tmp_path / name))) == [("home", "fault")]

    def test_one_that_cannot_be_written(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(descriptor: int) -> None:
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr(doctor_home.os, "fsync", fail)
        findings = list(check_home(home))
        assert set(bad(findings)) == {("home", "fault")}
        assert "Read-only file system" in told(findings)
        assert not list(home.root.rglob(".doctor-*"))

    def test_one_without_hard_links(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(source: Path, target: Path) -> None:
            raise OSError(1, "Operation not permitted")

        monkeypatch.setattr(doctor_home.os, "link", fail)
        assert set(bad(check_home(home))) == {("home", "warning")}

    def test_another_file_system_further_down(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        inner = next(path for path in home.images.iterdir() if path.is_dir())
        real = Path.stat

        def stat(path: Path, **given: Any) -> Any:
            found = real(path, **given)
            if path != inner:
                return found
            return SimpleNamespace(st_dev=found.st_dev + 1, st_mode=found.st_mode, st_mtime=found.st_mtime)

        monkeypatch.setattr(Path, "stat", stat)
        findings = list(check_home(home))
        assert bad(findings) == [("home", "fault")]
        assert str(inner) in told(findings)

    def test_sqlite_on_a_network_file_system(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(doctor_home, "file_system_of", lambda folder: "nfs4")
        assert bad(check_home(home)) == [("file system", "warning")]
        assert bad(check_home(Home(home.root, "postgresql://someone@server/voucher"))) == []

    def test_the_kind_of_a_file_system_is_that_of_the_closest_mount(self, tmp_path: Path) -> None:
        mounts = tmp_path / "mountinfo"
        mounts.write_text(
            "1 0 8:1 / / rw - ext4 /dev/sda rw\n"
            f"2 1 0:9 / {tmp_path} rw shared:1 - nfs4 server:/home rw\n"
            f"3 1 0:9 / {tmp_path}/b rw - tmpfs tmpfs rw\n"
        )
        assert file_system_of(tmp_path / "a", mounts) == "nfs4"
        assert file_system_of(tmp_path / "b" / "c", mounts) == "tmpfs"
        assert file_system_of(tmp_path.parent, mounts) == "ext4"
        assert file_system_of(tmp_path, tmp_path / "nothing") is None

    @pytest.mark.parametrize(("free", "severity"), [(1 << 20, "fault"), (1 << 29, "warning")])
    def test_a_disk_without_room(
        self, trained_home: Home, monkeypatch: pytest.MonkeyPatch, free: int, severity: str
    ) -> None:
        monkeypatch.setattr(doctor_home.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
        assert bad(check_disk(trained_home)) == [("disk", severity)]

    def test_a_disk_without_room_for_files(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(doctor_home.os, "statvfs", lambda path: SimpleNamespace(f_files=10, f_favail=3))
        assert bad(check_disk(home)) == [("disk", "warning")]


class TestCatalogue:
    @pytest.mark.parametrize("thorough", [False, True])
    def test_one_that_is_sound(self, home: Home, thorough: bool) -> None:
        findings = [*check_catalogue(home, thorough=thorough), *check_images(home, thorough=thorough)]
        assert bad(findings) == []
        looked_at = 60 if thorough else 24
        assert f"{looked_at} files are there" in told(findings)

    def test_none(self, tmp_path: Path) -> None:
        assert bad(check_catalogue(Home(tmp_path), thorough=False)) == [("catalogue", "fault")]
        assert list(check_images(Home(tmp_path), thorough=False)) == []
        assert not list(tmp_path.iterdir())

    def test_one_of_an_earlier_version_is_told_and_left_as_it_is(self, tmp_path: Path) -> None:
        home = Home(tmp_path)
        old_catalogues.write_sqlite(home, 1) if hasattr(old_catalogues, "write_sqlite") else _write_old(home)
        assert ("catalogue", "warning") in bad(check_catalogue(home, thorough=False))
        with closing(sqlite3.connect(home.catalogue_file)) as connection:
            assert connection.execute("SELECT version FROM schema_version").fetchall() == [(1,)]
        assert list(check_images(home, thorough=False)) == []

    def test_one_of_a_later_version(self, home: Home) -> None:
        with closing(sqlite3.connect(home.catalogue_file)) as connection, connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
        findings = list(check_catalogue(home, thorough=False))
        assert bad(findings) == [("catalogue", "fault")]
        assert "9999" in told(findings)

    def test_a_database_of_somebody_else(self, tmp_path: Path) -> None:
        with closing(sqlite3.connect(tmp_path / "catalogue.sqlite")) as connection, connection:
            connection.execute("CREATE TABLE songs (title TEXT)")
        assert ("catalogue", "fault") in bad(check_catalogue(Home(tmp_path), thorough=False))

    def test_a_file_that_is_no_database(self, tmp_path: Path) -> None:
        (tmp_path / "catalogue.sqlite").write_bytes(b"not a database" * 1000)
        assert bad(check_catalogue(Home(tmp_path), thorough=False)) == [("catalogue", "fault")]

    def test_a_file_that_is_damaged(self, home: Home) -> None:
        with closing(sqlite3.connect(home.catalogue_file)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            (page, size) = connection.execute(
                "SELECT rootpage, (SELECT page_size FROM pragma_page_size) FROM sqlite_master WHERE name = 'images'"
            ).fetchone()
        with home.catalogue_file.open("r+b") as file:
            file.seek((page - 1) * size + 8)
            file.write(os.urandom(200))
        assert any(severity == "fault" for _, severity in bad(check_catalogue(home, thorough=False)))

    def test_a_row_that_refers_to_nothing_is_found_by_a_thorough_look(self, home: Home) -> None:
        with closing(sqlite3.connect(home.catalogue_file)) as connection, connection:
            connection.execute("PRAGMA foreign_keys = OFF")
            connection.execute("DELETE FROM species WHERE species_id = (SELECT min(species_id) FROM sheets)")
        assert bad(check_catalogue(home, thorough=False)) == []
        assert bad(check_catalogue(home, thorough=True)) == [("catalogue file", "fault")]

    def test_no_sheets(self, tmp_path: Path) -> None:
        Catalogue.open(Home(tmp_path / "home"), create=True).close()
        assert bad(check_catalogue(Home(tmp_path / "home"), thorough=False)) == [("collection", "warning")]

    def test_a_server_that_is_not_there(self, tmp_path: Path) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        home = Home(tmp_path, f"postgresql://someone:s3cret@127.0.0.1:{port}/voucher")
        findings = list(check_catalogue(home, thorough=False))
        assert bad(findings) == [("catalogue", "fault")]
        assert "s3cret" not in told(findings)

    def test_a_server_that_is_sound_and_one_whose_pg_dump_is_missing_or_old(
        self, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        home = Home(tmp_path, postgres_url)
        assert ("catalogue", "fault") in bad(check_catalogue(home, thorough=False))
        Catalogue.open(home, create=True).close()
        monkeypatch.setattr(doctor_catalogue, "_pg_dump_major", lambda: 99)
        assert bad(check_catalogue(home, thorough=False)) == [("collection", "warning")]
        for version in (None, 9):
            monkeypatch.setattr(doctor_catalogue, "_pg_dump_major", lambda version=version: version)
            assert ("pg_dump", "warning") in bad(check_catalogue(home, thorough=False))
        monkeypatch.setattr(doctor_catalogue, "_MOST_SKEW_SECONDS", -1.0)
        assert ("clock", "warning") in bad(check_catalogue(home, thorough=False))

    def test_images_that_are_missing_or_were_changed(self, home: Home) -> None:
        with Catalogue.open(home) as catalogue:
            paths = [catalogue.image_store.path(sheet.image) for sheet in catalogue.sheets()]
            photo = next(catalogue.image_store.path(photo.image) for photo in catalogue.field_photos())
        paths[0].unlink()
        paths[1].chmod(0o644)
        paths[1].write_bytes(b"another picture")
        findings = list(check_images(home, thorough=False))
        assert bad(findings) == [("images", "fault"), ("images", "fault")]
        assert "1 of 24 files are missing" in told(findings)
        photo.unlink()
        assert "2 of 60 files are missing" in told(check_images(home, thorough=True))


def _write_old(home: Home) -> None:
    with closing(sqlite3.connect(home.catalogue_file)) as connection, connection:
        connection.executescript(old_catalogues._VERSION_1)


class TestArtifacts:
    def test_those_that_are_sound(self, trained_home: Home) -> None:
        assert bad(check_artifacts(trained_home, thorough=True)) == []
        findings = list(check_active_bundle(trained_home, "cpu"))
        assert bad(findings) == []
        assert "with 6 species loads in" in told(findings)

    def test_a_file_that_is_missing(self, tiny_home: Home) -> None:
        next(tiny_home.indexes.glob("*/gate.json")).unlink()
        assert bad(check_artifacts(tiny_home, thorough=False)) == [("index", "fault")]
        assert bad(check_active_bundle(tiny_home, "cpu")) == [("active bundle", "fault")]

    def test_a_byte_that_was_changed_is_found_where_all_are_read(self, tiny_home: Home) -> None:
        weights = next(tiny_home.models.glob("*/weights.safetensors"))
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.chmod(0o644)
        weights.write_bytes(content)
        assert bad(check_artifacts(tiny_home, thorough=False)) == []
        assert ("model", "fault") in bad(check_artifacts(tiny_home, thorough=True))
        assert bad(check_active_bundle(tiny_home, "cpu")) == [("active bundle", "fault")]

    def test_an_index_without_its_model(self, tiny_home: Home) -> None:
        shutil.rmtree(next(tiny_home.models.iterdir()))
        findings = list(check_artifacts(tiny_home, thorough=False))
        assert bad(findings) == [("index", "fault")]
        assert "is missing" in told(findings)

    def test_an_index_of_another_network(self, tiny_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(doctor_artifacts, "_space_of", lambda index: "another")
        assert bad(check_artifacts(tiny_home, thorough=False)) == [("index", "fault")]

    def test_the_space_of_an_index_is_read(self, trained_home: Home) -> None:
        index_id = list_artifacts(trained_home.indexes)[0]
        index = doctor_artifacts.read(trained_home.indexes / index_id, kind="index", verify=False)
        assert doctor_artifacts._space_of(index)

    def test_what_was_never_finished_is_told_after_a_day(self, tiny_home: Home) -> None:
        left = tiny_home.indexes / ".staging-index-1-0badcafe"
        left.mkdir()
        assert bad(check_artifacts(tiny_home, thorough=False)) == []
        os.utime(left, (time.time() - 100_000,) * 2)
        assert bad(check_artifacts(tiny_home, thorough=False)) == [("leftover", "warning")]

    def test_nothing_active_and_a_pointer_that_cannot_be_read(self, tiny_home: Home) -> None:
        tiny_home.active_pointer.write_text("{")
        assert bad(check_active_bundle(tiny_home, "cpu")) == [("active bundle", "fault")]
        tiny_home.active_pointer.unlink()
        findings = list(check_active_bundle(tiny_home, "cpu"))
        assert bad(findings) == [("active bundle", "fault")]
        assert "voucher build" in told(findings)


class TestWeights:
    def run_with(self, home: Home, *, finished: bool = False, **backbone: object) -> None:
        folder = home.runs / "run-1"
        folder.mkdir(parents=True)
        config = RunConfig.model_validate({"backbone": backbone})
        (folder / "config.json").write_text(json.dumps(config.to_json()))
        if finished:
            (folder / "model.json").write_text("{}")

    def test_those_of_a_trained_home(self, trained_home: Home) -> None:
        assert bad(check_weights(trained_home)) == []

    @pytest.mark.parametrize("finished", [False, True])
    def test_a_file_that_is_gone(self, tmp_path: Path, finished: bool) -> None:
        self.run_with(Home(tmp_path), finished=finished, weights=tmp_path / "gone.safetensors")
        findings = list(check_weights(Home(tmp_path)))
        assert bad(findings) == [("weights", "warning")]
        assert "gone.safetensors" in told(findings)

    def test_a_file_that_is_there(self, tmp_path: Path) -> None:
        (tmp_path / "there.safetensors").touch()
        self.run_with(Home(tmp_path), weights=tmp_path / "there.safetensors")
        assert bad(check_weights(Home(tmp_path))) == []

    def test_a_name_that_nobody_knows(self, tmp_path: Path) -> None:
        self.run_with(Home(tmp_path), name="no_such_network")
        assert bad(check_weights(Home(tmp_path))) == [("weights", "fault")]

    def test_a_name_that_has_to_be_downloaded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[str] = []

        def look(repository: str, file: str) -> str | None:
            asked.append(repository)
            return "/cache/model.safetensors" if answers else None

        monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", look)
        for answers in (False, True):
            expected = [] if answers else [("weights", "warning")]
            assert bad(check_weights(Home(tmp_path))) == expected
        assert set(asked) == {"timm/vit_base_patch14_reg4_dinov2.lvd142m"}

    def test_a_run_of_another_version_is_left_out(self, tmp_path: Path) -> None:
        self.run_with(Home(tmp_path), weights=tmp_path / "gone.safetensors")
        (tmp_path / "runs" / "run-1" / "config.json").write_text('{"no_such": 1}')
        assert "gone" not in told(check_weights(Home(tmp_path)))


class TestJobs:
    def test_a_job_that_waits_without_a_worker(self, home: Home) -> None:
        assert bad(check_jobs(home)) == []
        with JobQueue(home) as jobs:
            job = jobs.enqueue_build(BuildRequest())
        findings = list(check_jobs(home))
        assert bad(findings) == [("jobs", "fault")]
        assert job.job_id in told(findings)
        with WorkerSlots(home.workers).take():
            assert bad(check_jobs(home)) == []

    def test_a_build_that_failed(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        def job(state: JobState, minute: int) -> Job:
            ended = f"2026-01-01T00:{minute:02}:00"
            reason = "the disk is full" if state is JobState.FAILED else None
            return Job(f"build-{minute}", BUILD_WORKFLOW, state, ended, ended, ended, "", {}, None, None, reason)

        jobs = [job(JobState.CANCELLED, 3), job(JobState.FAILED, 2), job(JobState.SUCCEEDED, 1)]
        monkeypatch.setattr(JobQueue, "list", lambda self, **given: jobs)
        findings = list(check_jobs(home))
        assert bad(findings) == [("index build", "warning")]
        assert "the disk is full" in told(findings)
        jobs[1] = job(JobState.SUCCEEDED, 2)
        assert bad(check_jobs(home)) == []

    def test_a_queue_that_cannot_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "catalogue.sqlite").write_bytes(b"not a database" * 1000)
        assert bad(check_jobs(Home(tmp_path))) == [("jobs", "fault")]


@pytest.fixture
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith(("VOUCHER_", "OTEL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("VOUCHER_PORT", "0")


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(cli.assemble(), ["doctor", *map(str, arguments)])


@pytest.mark.usefixtures("_no_variables")
class TestCommand:
    def test_a_sound_home_ends_with_0(self, trained_home: Home) -> None:
        result = run("--home", trained_home.root, "--device", "cpu", "--thorough")
        assert result.exit_code == 0, result.output
        assert "0 faults" in result.stdout
        for name in ("python", "faiss", "device", "clock", "home", "disk", "images", "active bundle", "jobs", "port"):
            assert f" {name}: " in result.stdout

    def test_faults_end_with_1_and_are_told_as_json(self, tmp_path: Path) -> None:
        result = run("--home", tmp_path / "nowhere", "--device", "cpu", "--json")
        assert result.exit_code == 1
        answer = json.loads(result.stdout)
        faults = [finding for finding in answer["findings"] if finding["severity"] == "fault"]
        assert answer["faults"] == len(faults) > 0
        assert {"home", "catalogue"} <= {finding["name"] for finding in faults}
        assert all(finding["remedy"] for finding in faults)
        assert not (tmp_path / "nowhere").exists()

    def test_the_services_settings_are_asked_for(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VOUCHER_PROT", "8000")
        result = run("--home", home.root, "--device", "cpu")
        assert result.exit_code == 1
        assert "VOUCHER_PROT" in result.stdout

    def test_an_installation_that_does_not_know_the_service(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(doctor, "SETTINGS_CHECKS", "no.such.group")
        assert bad(doctor._check_settings(home.root)) == [("settings", "warning")]

    def test_a_database_address_that_cannot_be_read(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VOUCHER_DATABASE_URL", "mysql://someone:s3cret@server/voucher")
        findings = list(doctor.examine(home.root, device="cpu"))
        assert ("database address", "fault") in bad(findings)
        assert "s3cret" not in told(findings)

    def test_a_check_that_fails_is_a_fault_and_the_others_go_on(self) -> None:
        def broken() -> Any:
            raise ZeroDivisionError("by nought")
            yield

        def sound() -> Any:
            yield Finding.ok("sound", "all is well")

        findings = list(doctor._all_of([("broken", broken), ("sound", sound)]))
        assert [(finding.name, finding.severity.value) for finding in findings] == [
            ("broken", "fault"),
            ("sound", "ok"),
        ]
        assert "by nought" in told(findings)
