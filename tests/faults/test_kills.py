"""Whatever is killed at whatever moment: what was acknowledged is there, and what answers is whole.

`VOUCHER_TEST_KILLS` sets how often; `make faults` takes 200.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx2 as httpx
import numpy as np
import pytest
from fault_processes import Processes, species_of, wait_until_it_answers
from tests_support import picture_bytes

from models.artifacts import INDEX_KIND, active_artifact_id, list_artifacts, list_incomplete, read
from models.bundle import load_bundle
from models.bundle_history import list_bundles
from models.catalogue import Catalogue
from models.compute import Compute
from models.durable import remove_stale_staging
from models.errors import BundleError
from models.home import Home
from models.job_values import BuildRequest, JobState
from models.jobs import JobQueue

KILLS = int(os.environ.get("VOUCHER_TEST_KILLS", "4"))
CPU = Compute.resolve("cpu", precision="float32")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

Expected = frozenset[int]


class Traffic:
    """Clients that go on whatever happens to the service, and remember every answer."""

    def __init__(self, address: str, species: list[str], *, filler_pixels: int = 0) -> None:
        self._address, self._species = address, species
        self._filler_pixels = filler_pixels
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.added: set[str] = set()
        self.removed: set[str] = set()
        self.answering: list[str] = []
        self.statuses: list[tuple[str, int, str]] = []
        self.failures: list[BaseException] = []

    def start(self, *jobs: Callable[[httpx.Client, np.random.Generator], None]) -> None:
        for number, job in enumerate(jobs):
            thread = threading.Thread(target=self._repeat, args=(job, np.random.default_rng(number)))
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self.failures:
            raise self.failures[0]

    def count(self, path: str, *statuses: int) -> int:
        return sum(1 for asked, status, _ in self.statuses if asked == path and (not statuses or status in statuses))

    def _repeat(self, job: Callable[[httpx.Client, np.random.Generator], None], generator: np.random.Generator) -> None:
        with httpx.Client(base_url=self._address, timeout=60.0) as client:
            while not self._stop.is_set():
                try:
                    job(client, generator)
                except httpx.TransportError:
                    time.sleep(0.02)  # the server was just killed
                except BaseException as error:  # noqa: BLE001 (told to the test when it ends)
                    self.failures.append(error)
                    return

    def _note(self, path: str, response: httpx.Response) -> httpx.Response:
        self.statuses.append((path, response.status_code, response.text[:300] if response.status_code >= 400 else ""))
        return response

    def identify(self, client: httpx.Client, generator: np.random.Generator) -> None:
        photo = picture_bytes(int(generator.integers(50)))
        answer = self._note("identify", client.post("/v1/identifications", files={"photos": ("x", photo)}))
        if answer.status_code == 200:
            self.answering.append(answer.json()["bundle_id"])

    def add(self, client: httpx.Client, generator: np.random.Generator) -> None:
        species = self._species[int(generator.integers(len(self._species)))]
        seeds = [int(s) for s in generator.integers(1 << 30, size=int(generator.integers(1, 4)))]
        files = [("images", ("x", picture_bytes(seed, self._filler_pixels))) for seed in seeds]
        response = self._note("add", client.post("/v1/sheets", files=files, data={"species_id": species}))
        if response.status_code == 201:
            self.added |= {sheet["sheet_id"] for sheet in response.json()["sheets"]}

    def remove(self, client: httpx.Client, generator: np.random.Generator) -> None:
        time.sleep(0.2)
        open_to_choice = sorted(self.added - self.removed)
        if len(open_to_choice) > 5:
            chosen = open_to_choice[int(generator.integers(len(open_to_choice)))]
            # Counted before: whether a removal that was never acknowledged took place is anybody's guess.
            self.removed.add(chosen)
            self._note("remove", client.delete(f"/v1/sheets/{chosen}"))

    def build(self, client: httpx.Client, generator: np.random.Generator) -> None:
        listed = client.get("/v1/jobs")
        if listed.status_code != 200:
            self._note("jobs", listed)  # a full disk: the queue's library writes to read
            time.sleep(0.2)
            return
        jobs = listed.json()["jobs"]
        if sum(job["state"] in ("queued", "running") for job in jobs) < 2:
            self._note("build", client.post("/v1/index-builds"))
        time.sleep(0.1)

    def roll_back(self, client: httpx.Client, generator: np.random.Generator) -> None:
        time.sleep(0.5)
        bundles = [b["bundle_id"] for b in client.get("/v1/bundles").json()["bundles"] if b["fault"] is None]
        chosen = bundles[int(generator.integers(min(4, len(bundles))))]
        self._note("activate", client.post(f"/v1/bundles/{chosen}/activate"))


def wait_for_all_jobs(home: Home) -> None:
    with JobQueue(home) as jobs:
        deadline = time.monotonic() + 120
        while left := jobs.list(unfinished=True):
            assert time.monotonic() < deadline, f"these jobs hang: {left}"
            time.sleep(0.1)
        for job in jobs.list(limit=1000):
            assert job.state.is_final
            assert job.state is not JobState.FAILED or job.reason


def check_everything(home: Home, traffic: Traffic) -> None:
    """After the last kill: what was acknowledged is there, every bundle is whole, and none else ever answered."""
    remove_stale_staging(home.indexes)
    whole = set(list_artifacts(home.indexes))
    for bundle_id in whole:
        read(home.indexes / bundle_id, kind=INDEX_KIND)
        load_bundle(home, CPU, bundle_id)
    assert list_incomplete(home.indexes) == []
    assert set(traffic.answering) <= whole
    assert active_artifact_id(home) in whole
    with Catalogue.open(home) as catalogue:
        sheets = {sheet.sheet_id: sheet for sheet in catalogue.sheets()}
        assert traffic.added - traffic.removed <= sheets.keys()
        for sheet_id in traffic.added - traffic.removed:
            assert sheets[sheet_id].image in catalogue.image_store


def build_once_more(home: Home) -> None:
    """Everything that was acknowledged is found in a last index."""
    with JobQueue(home) as jobs:
        job_id = jobs.enqueue_build(BuildRequest()).job_id
        deadline = time.monotonic() + 120
        while not (job := jobs.get(job_id)).state.is_final:
            assert time.monotonic() < deadline, f"it hangs: {job}"
            time.sleep(0.1)
    assert job.state is JobState.SUCCEEDED, job.reason
    table = load_bundle(home, CPU, job.result["bundle_id"]).gallery.sheet_columns()
    with Catalogue.open(home) as catalogue:
        assert sorted(table["sheet_id"].to_pylist()) == sorted(s.sheet_id for s in catalogue.sheets())


def test_kills_at_random_moments_lose_nothing_and_tear_nothing(living_home: Home, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    with Processes(living_home.root, tmp_path / "log", living_home.database_url) as processes:
        processes.start("server")
        processes.start("worker")
        wait_until_it_answers(processes.address)
        traffic = Traffic(processes.address, species_of(living_home))
        traffic.start(traffic.identify, traffic.identify, traffic.add, traffic.remove, traffic.build, traffic.roll_back)
        for _ in range(KILLS):
            name = "worker" if generator.random() < 0.6 else "server"
            time.sleep(float(generator.uniform(0.02, 1.5)))
            processes.kill(name)
            processes.start(name)
            if name == "server":
                wait_until_it_answers(processes.address)
        time.sleep(2.0)
        traffic.stop()
        wait_for_all_jobs(living_home)
        check_everything(living_home, traffic)
        build_once_more(living_home)
    refused = [entry for entry in traffic.statuses if entry[1] >= 500]
    assert refused == [], (tmp_path / "log").read_text()[-4000:]
    counts = {path: traffic.count(path) for path in ("identify", "add", "remove", "build", "activate")}
    assert min(counts.values()) > 0, counts
    # A few kills may leave no time for a build and a swap between them.
    assert len(set(traffic.answering)) > 1 or KILLS < 50
    bundles = len(list_bundles(living_home))
    sys.stdout.write(f"{KILLS} kills, answers {counts}, {len(traffic.added)} sheets added, {bundles} bundles\n")


def test_a_full_disk_loses_nothing_and_the_last_good_bundle_answers(
    tiny_home: Home, small_disk: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_home.root, small_disk / "home")
    home = Home(small_disk / "home")
    generator = np.random.default_rng(1)
    with Processes(home.root, tmp_path / "log") as processes:
        processes.start("server")
        processes.start("worker")
        wait_until_it_answers(processes.address)
        traffic = Traffic(processes.address, species_of(home), filler_pixels=150_000)
        traffic.start(traffic.identify, traffic.add, traffic.build, traffic.roll_back)
        deadline = time.monotonic() + 120
        while traffic.count("add", 507) < 5:
            assert time.monotonic() < deadline, "the disk never filled up"
            time.sleep(0.1)
        for _ in range(max(3, KILLS // 4)):
            time.sleep(float(generator.uniform(0.1, 1.0)))
            name = "worker" if generator.random() < 0.5 else "server"
            processes.kill(name)
            processes.start(name)
            if name == "server":
                wait_until_it_answers(processes.address)
        answered = traffic.count("identify", 200)
        time.sleep(2.0)
        assert traffic.count("identify", 200) > answered
        traffic.stop()
        subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
        # One that found no room when it started has ended; the service would have started another by now.
        processes.kill("worker")
        processes.start("worker")
        wait_for_all_jobs(home)
        check_everything(home, traffic)
        build_once_more(home)
    assert {status for path, status, _ in traffic.statuses if path == "identify"} == {200}
    assert {status for path, status, _ in traffic.statuses if path == "add"} == {201, 507}
    words = next(text for path, status, text in traffic.statuses if status == 507)
    assert "full" in words
    sys.stdout.write(f"{len(traffic.added)} sheets acknowledged, {traffic.count('add', 507)} refused on a full disk\n")


def test_a_corrupt_bundle_is_never_served(tiny_home: Home, tmp_path: Path) -> None:
    from indexer.build_gallery import build

    good = active_artifact_id(tiny_home)
    with Processes(tiny_home.root, tmp_path / "log") as processes:
        processes.start("server")
        wait_until_it_answers(processes.address)
        with Catalogue.open(tiny_home) as catalogue:
            bad = build(tiny_home, catalogue, CPU, activate_it=False).bundle_id
        prototypes = tiny_home.indexes / bad / "prototypes.npy"
        prototypes.chmod(0o644)
        content = bytearray(prototypes.read_bytes())
        content[-1] ^= 1
        prototypes.write_bytes(bytes(content))
        # Written by hand, past every check.
        pointer = tiny_home.active_pointer.read_text().replace(good, bad)
        tiny_home.active_pointer.write_text(pointer)
        deadline = time.monotonic() + 30
        while not (ready := httpx.get(f"{processes.address}/readyz").json())["complaint"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert ready["bundle_id"] == good
        assert "prototypes.npy" in ready["complaint"]
        with pytest.raises(BundleError):
            load_bundle(tiny_home, CPU)
