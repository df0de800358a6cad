"""Everything at the same time: photos, wrong uploads, clients that hang up, curation, builds and changes of keys.

`VOUCHER_TEST_LOAD_SECONDS` sets how long; `make soak` takes half an hour.
"""

import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx2 as httpx
import numpy as np
import pytest
from fault_processes import Processes, resident_bytes
from malformed import Upload, malformed_uploads
from tests_support import encoded_picture, picture_bytes

from models.api_keys import NewKey, Scope
from models.api_keys_store import KeyStore
from models.catalogue import Catalogue
from models.home import Home

SECONDS = float(os.environ.get("VOUCHER_TEST_LOAD_SECONDS", "10"))
WARM_UP_SHARE = 0.3
MEBIBYTE = 1024 * 1024
GROWTH_LIMIT_BYTES = (48 if SECONDS >= 120 else 256) * MEBIBYTE
"""From the end of the warm-up to the end; a short run is all warm-up. Of half an hour a leaked upload in each thirty
seconds would show."""
REVOKED_WITHIN_SECONDS = 3.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(SECONDS * 2 + 300),
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to see the memory of a process"),
]

Job = Callable[[httpx.Client, np.random.Generator], None]


class Load:
    """Clients of one service, each repeating one thing; every answer that was not expected is kept."""

    def __init__(self, address: str, home: Home, key: str) -> None:
        self._address, self._home, self._key = address, home, key
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.answers: Counter[tuple[str, int]] = Counter()
        self.unexpected: list[tuple[str, object, str]] = []
        with Catalogue.open(home) as catalogue:
            self._species = [s.species_id for s in catalogue.species()]
        self._uploads = malformed_uploads(encoded_picture, 500)

    def run(self, seconds: float, *jobs: Job) -> None:
        for number, job in enumerate(jobs):
            thread = threading.Thread(target=self._repeat, args=(job, np.random.default_rng(number)))
            thread.start()
            self._threads.append(thread)
        self._stop.wait(seconds)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, job: Job, generator: np.random.Generator) -> None:
        headers = {"Authorization": f"Bearer {self._key}"}
        with httpx.Client(base_url=self._address, timeout=60.0, headers=headers) as client:
            while not self._stop.is_set():
                try:
                    job(client, generator)
                except Exception as error:  # noqa: BLE001 (told to the test when it ends)
                    self.unexpected.append((job.__name__, type(error).__name__, str(error)))
                    time.sleep(0.1)

    def _expect(self, what: str, answer: httpx.Response, *statuses: int) -> httpx.Response:
        self.answers[what, answer.status_code] += 1
        if answer.status_code not in statuses:
            self.unexpected.append((what, answer.status_code, answer.text[:300]))
        return answer

    def identify(self, client: httpx.Client, generator: np.random.Generator) -> None:
        photos = [picture_bytes(int(seed)) for seed in generator.integers(50, size=int(generator.integers(1, 4)))]
        answer = client.post("/v1/identifications", files=[("photos", ("x", photo)) for photo in photos])
        self._expect("identify", answer, 200)

    def explain(self, client: httpx.Client, generator: np.random.Generator) -> None:
        """What the page does when somebody wants to see what matches; and other ways to the network."""
        photo = picture_bytes(int(generator.integers(50)))
        body = self._expect(
            "identify", client.post("/v1/identifications", files={"photos": ("x", photo)}, data={"top_k": 2}), 200
        ).json()
        sheets = [sheet["sheet_id"] for candidate in body["candidates"] for sheet in candidate["sheets"][:1]]
        if sheets:
            # One that a build took out meanwhile is none of the service's faults.
            asked = client.post("/v1/explanations", files={"photos": ("x", photo)}, data={"sheet_ids": sheets})
            if self._expect("explain", asked, 200, 404).status_code == 200:
                for each in asked.json()["explanations"]:
                    if each["explanation"] is not None:
                        self._expect("heat map", client.get(each["explanation"]["sheet_heat_map_url"]), 200)
        self._expect("embed", client.post("/v1/embeddings", files={"photos": ("x", photo)}), 200)
        self._expect("plantnet", client.post("/v2/identify/all", files={"images": ("x", photo)}), 200, 404)
        time.sleep(0.2)

    def send_batch(self, client: httpx.Client, generator: np.random.Generator) -> None:
        photos = [("photos", (f"{n}.png", picture_bytes(int(generator.integers(50))))) for n in range(6)]
        batch = self._expect("batch", client.post("/v1/batches", files=photos), 202).json()["batch_id"]
        deadline = time.monotonic() + 60
        while not self._stop.is_set() and time.monotonic() < deadline:
            state = self._expect("batch", client.get(f"/v1/batches/{batch}"), 200).json()["state"]
            if state in ("succeeded", "failed", "cancelled"):
                if state != "succeeded":
                    self.unexpected.append(("batch", state, batch))
                rows = self._expect("batch", client.get(f"/v1/batches/{batch}/results?format=jsonl"), 200).text
                if len(rows.splitlines()) != len(photos):
                    self.unexpected.append(("batch", "rows", rows[:300]))
                self._expect("batch", client.delete(f"/v1/batches/{batch}"), 204)
                return
            time.sleep(0.2)

    def send_nonsense(self, client: httpx.Client, generator: np.random.Generator) -> None:
        upload: Upload = self._uploads[int(generator.integers(len(self._uploads)))]
        if upload.half_close:
            return  # waits for the service's patience: the malformed uploads' own test has them
        head, _, rest = upload.request.partition(b"\r\n")
        keyed = head + b"\r\nAuthorization: Bearer " + self._key.encode() + b"\r\n" + rest
        status = self._raw(keyed)
        self.answers["nonsense", status] += 1
        if status >= 500 or (status == 0 and not upload.framing):
            self.unexpected.append(("nonsense", status, upload.kind))

    def hang_up(self, client: httpx.Client, generator: np.random.Generator) -> None:
        """In the middle of the upload, or before the answer."""
        photo = picture_bytes(int(generator.integers(50)))
        request = client.build_request("POST", "/v1/identifications", files={"photos": ("x", photo)})
        body = request.read()
        lines = [f"{name}: {value}" for name, value in request.headers.items()]
        content = "\r\n".join(["POST /v1/identifications HTTP/1.1", *lines, "", ""]).encode() + body
        cut = len(content) if generator.random() < 0.5 else int(generator.integers(1, len(content)))
        with self._connected() as connection:
            connection.sendall(content[:cut])
        self.answers["hang up", 0] += 1
        time.sleep(0.02)

    def curate(self, client: httpx.Client, generator: np.random.Generator) -> None:
        species = self._species[int(generator.integers(len(self._species)))]
        photo = picture_bytes(int(generator.integers(1 << 30)))
        added = client.post("/v1/sheets", files={"images": ("x", photo)}, data={"species_id": species})
        if self._expect("add", added, 201).status_code == 201 and generator.random() < 0.8:
            sheet = added.json()["sheets"][0]["sheet_id"]
            self._expect("remove", client.delete(f"/v1/sheets/{sheet}"), 200)
        time.sleep(0.3)

    def build(self, client: httpx.Client, generator: np.random.Generator) -> None:
        job = self._expect("build", client.post("/v1/index-builds"), 202).json()["job_id"]
        deadline = time.monotonic() + 60
        while not self._stop.is_set() and time.monotonic() < deadline:
            state = self._expect("job", client.get(f"/v1/jobs/{job}"), 200).json()["state"]
            if state in ("succeeded", "failed", "cancelled"):
                if state != "succeeded":
                    self.unexpected.append(("build", state, job))
                return
            time.sleep(0.2)

    def look(self, client: httpx.Client, generator: np.random.Generator) -> None:
        for path in ("/healthz", "/readyz", "/v1/species", "/v1/bundles", "/v1/changes", "/", "/openapi.json"):
            self._expect("look", client.get(path), 200)
        page = self._expect(
            "look", client.get("/v1/sheets", params={"species_id": self._species[0], "limit": 5}), 200
        ).json()
        for sheet in page["sheets"]:
            # One that was purged meanwhile is none of the service's faults.
            self._expect("look", client.get(sheet["thumbnail_url"]), 200, 404)
        self._expect("look", client.get("/v1/species/none"), 404)
        time.sleep(0.1)

    def change_keys(self, client: httpx.Client, generator: np.random.Generator) -> None:
        with KeyStore.open(self._home) as store:
            made, text = store.create(NewKey("for a moment", daily_quota=2))
        own = {"Authorization": f"Bearer {text}"}
        photo = {"photos": ("x", picture_bytes(1))}
        for status in (200, 200, 429):
            self._expect("own key", client.post("/v1/identifications", files=photo, headers=own), status)
        self._expect("own key", client.post("/v1/index-builds", headers=own), 403)
        with KeyStore.open(self._home) as store:
            store.revoke(made.key_id)
        time.sleep(REVOKED_WITHIN_SECONDS)
        self._expect("revoked key", client.post("/v1/identifications", files=photo, headers=own), 401)

    def _connected(self) -> socket.socket:
        parts = urlsplit(self._address)
        return socket.create_connection((parts.hostname, parts.port), timeout=60)

    def _raw(self, content: bytes) -> int:
        """Status of the answer, 0 when the service closed the connection without one."""
        received = b""
        with self._connected() as connection:
            try:
                connection.sendall(content)
                while piece := connection.recv(65536):
                    received += piece
            except (BrokenPipeError, ConnectionResetError):
                pass
        return int(received[9:12]) if received.startswith(b"HTTP/1.1 ") else 0


def test_under_mixed_load_there_are_no_errors_and_memory_stays(tiny_home: Home, tmp_path: Path) -> None:
    with KeyStore.open(tiny_home, create=True) as store:
        _, key = store.create(NewKey("load", frozenset({Scope.IDENTIFY, Scope.CURATE})))
    log = tmp_path / "log"
    with Processes(tiny_home.root, log) as processes:
        processes.start("server")
        processes.start("worker")
        load = Load(processes.address, tiny_home, key)
        wait_until_it_answers(processes.address)
        server = processes.pid("server")
        curve: list[tuple[float, int, int]] = []
        started = time.monotonic()

        def watch(client: httpx.Client, generator: np.random.Generator) -> None:
            files = len(list(Path(f"/proc/{server}/fd").iterdir()))
            curve.append((time.monotonic() - started, resident_bytes(server), files))
            time.sleep(min(1.0, SECONDS / 60))

        jobs = [load.identify] * 3 + [
            load.send_nonsense,
            load.hang_up,
            load.curate,
            load.build,
            load.look,
            load.explain,
        ]
        jobs.append(load.send_batch)
        try:
            load.run(SECONDS, *jobs, load.change_keys, watch)
        finally:
            load.stop()
        figures = report(curve, load)
        sys.stdout.write(f"{figures}\n")
        assert load.unexpected == [], figures
        for what in ("identify", "nonsense", "hang up", "add", "build", "look", "own key", "explain", "batch"):
            assert any(asked == what for asked, _ in load.answers), f"{what} was never asked"
        assert growth(curve) < GROWTH_LIMIT_BYTES, figures
        open_files = [files for _, _, files in curve]
        assert max(open_files[-5:]) < max(open_files[: len(open_files) // 2]) + 20, figures
        assert "Traceback" not in log.read_text()


def growth(curve: list[tuple[float, int, int]]) -> float:
    """Bytes that a straight line through the memory after the warm-up rises by."""
    settled = [(t, b) for t, b, _ in curve if t >= WARM_UP_SHARE * curve[-1][0]]
    times, memory = np.array(settled, dtype=float).T
    slope, _ = np.polyfit(times, memory, 1)
    return float(slope * (times[-1] - times[0]))


def report(curve: list[tuple[float, int, int]], load: Load) -> str:
    """What happened, for people."""
    memory = [b / MEBIBYTE for _, b, _ in curve]
    asked = ", ".join(f"{what} {status}: {count}" for (what, status), count in sorted(load.answers.items()))
    return (
        f"{curve[-1][0]:.0f} s; memory {memory[0]:.0f} MiB at the start, {memory[len(memory) // 3]:.0f} after a third, "
        f"{memory[-1]:.0f} at the end, rise {growth(curve) / MEBIBYTE:.1f} MiB; {asked}; "
        f"{len(load.unexpected)} unexpected: {load.unexpected[:5]}"
    )


def wait_until_it_answers(address: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{address}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError("the service does not answer")
