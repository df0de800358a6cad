"""Requests a second and latencies of the running service, beside the same pipeline without one and behind LitServe."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from indexer.bench_load import Load, LoadOrder
from indexer.bench_one_client import OneClient, bare_pipeline, in_turns, one_after_the_other, one_client
from indexer.progress import Report, silent
from models.decoding import decode_image
from models.errors import InsufficientData, InvalidImage, UnreadableImage, VoucherError
from models.home import Home

CLIENTS = (1, 8, 32)
BATCHES = (1, 2, 4, 8, 16)

_START_SECONDS = 180.0
_STOP_SECONDS = 30.0
_WARM_UP_SECONDS = 2.0
_SHOWN_BYTES = 1000
_QUEUE = {"VOUCHER_QUEUE_LIMIT": "256", "VOUCHER_ACCESS": "open"}


class ServiceDidNotStart(VoucherError):
    """A service that is to be measured does not answer."""


@dataclass(frozen=True)
class BareFigures:
    """The pipeline without a service: photos a second by size of batch, decoding in turn with the network or beside."""

    in_turn: dict[str, float]
    overlapped: dict[str, float]

    @property
    def best_rate(self) -> float:
        """Photos a second of the plain loop, at its best size of batch."""
        return max(self.in_turn.values())


@dataclass(frozen=True)
class ServeBench:
    """What was measured, the middle one of the rounds of each, but of `one_client` the turns of all rounds.

    `throughput` is the service's answers a second with the most clients over the bare pipeline's photos a second at its
    best size of batch. `one_client` is None unless one client was among those asked for.
    """

    photos: int
    mean_photo_kilobytes: float
    rounds: int
    seconds: float
    workers: int
    bare: BareFigures
    service: tuple[Load, ...]
    litserve: tuple[Load, ...]
    one_client: OneClient | None
    throughput: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def bench_serve(
    home: Home,
    photos: Sequence[Path],
    *,
    device: str = "cpu",
    clients: Sequence[int] = CLIENTS,
    seconds: float = 10.0,
    rounds: int = 3,
    workers: int = 1,
    with_litserve: bool = True,
    report: Report = silent,
) -> ServeBench:
    """Measure all three in turn within every round, each in processes of its own, while the others rest.

    Raises `InsufficientData` without photos and `ServiceDidNotStart`.
    """
    if not photos:
        raise InsufficientData("expected a folder with photos, found none")
    for photo in photos:
        try:
            decode_image(photo.read_bytes())
        except InvalidImage as error:
            raise UnreadableImage(f"{photo}: {error}; leave it out of the folder") from error
    files = [str(p.resolve()) for p in photos]
    port, lit_port = _free_port(), _free_port()
    serve = ["serve", "--home", str(home.root), "--port", str(port), "--device", device, "--no-worker"]
    lit = [str(home.root), device, str(lit_port), "16", "0.005"]
    bare: list[BareFigures] = []
    ours: list[list[Load]] = []
    pairs: list[list[float]] = []
    theirs: list[list[Load]] = []
    for round_ in range(rounds):
        report("rounds", round_, rounds)
        bare.append(_bare(home, device, seconds, files))
        with _running(_voucher([*serve, "--workers", str(workers)]), f"http://127.0.0.1:{port}/readyz", _QUEUE):
            url = f"http://127.0.0.1:{port}/v1/identifications"
            ours.append([_load(LoadOrder(url, "photos", files, n, seconds, _WARM_UP_SECONDS)) for n in clients])
            if 1 in clients:
                with (
                    bare_pipeline([str(home.root), device, "--", *files]) as alone,
                    one_after_the_other(url, "photos", photos) as served,
                ):
                    pairs += in_turns(alone, served, seconds, report)
        if with_litserve:
            with _running(
                [sys.executable, "-m", "indexer.bench_litserve", *lit], f"http://127.0.0.1:{lit_port}/health"
            ):
                url = f"http://127.0.0.1:{lit_port}/predict"
                theirs.append([_load(LoadOrder(url, "photos", files, n, seconds, _WARM_UP_SECONDS)) for n in clients])
    report("rounds", rounds, rounds)
    middle = sorted(bare, key=lambda b: b.best_rate)[len(bare) // 2]
    service = _middle(ours)
    return ServeBench(
        photos=len(photos),
        mean_photo_kilobytes=sum(p.stat().st_size for p in photos) / len(photos) / 1000,
        rounds=rounds,
        seconds=seconds,
        workers=workers,
        bare=middle,
        service=service,
        litserve=_middle(theirs),
        one_client=one_client(pairs) if pairs else None,
        throughput=max(load.answers_per_second for load in service if load.clients == max(clients)) / middle.best_rate,
    )


def _middle(rounds: list[list[Load]]) -> tuple[Load, ...]:
    """For each number of clients the round with the middle rate."""
    return tuple(
        sorted(loads, key=lambda load: load.answers_per_second)[len(loads) // 2] for loads in zip(*rounds, strict=True)
    )


def _bare(home: Home, device: str, seconds: float, files: list[str]) -> BareFigures:
    arguments = [str(home.root), device, str(seconds / 2), *map(str, BATCHES), "--", *files]
    return BareFigures(**_json_of([sys.executable, "-m", "indexer.bench_bare", *arguments]))


def _load(order: LoadOrder) -> Load:
    return Load(**_json_of([sys.executable, "-m", "indexer.bench_load"], json.dumps(asdict(order))))


def _json_of(command: list[str], given: str = "") -> Any:
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServiceDidNotStart(f"a part of the measurement failed: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout)


def _voucher(arguments: list[str]) -> list[str]:
    start = "import sys; from indexer.cli import main; sys.argv[0] = 'voucher'; main()"
    return [sys.executable, "-c", start, *arguments]


@contextmanager
def _running(command: list[str], health: str, environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """A service, until the block ends; all its processes end with it."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            if not _answers(health, process):
                log.seek(0)
                said = log.read()[-_SHOWN_BYTES:].decode(errors="replace").strip()
                raise ServiceDidNotStart(f"nothing answers at {health}; the service said: {said}")
            yield
        finally:
            _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(health: str, process: "subprocess.Popen[bytes]") -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(health, timeout=2) as answer:
                if answer.status == 200:
                    return True
        except OSError:
            time.sleep(0.2)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def describe(bench: ServeBench) -> str:
    """A table for people."""
    lines = [
        f"{bench.photos} photos of {bench.mean_photo_kilobytes:.0f} kB on average, {bench.rounds} rounds of "
        f"{bench.seconds:.0f} s each, {bench.workers} serving process(es)",
        "",
        "bare pipeline, photos/s by batch:",
    ]
    for name, rates in (("decoding in turn", bench.bare.in_turn), ("decoding beside", bench.bare.overlapped)):
        lines.append(f"  {name:18}" + "  ".join(f"{batch}: {rate:.1f}" for batch, rate in rates.items()))
    for name, loads in (("voucher", bench.service), ("LitServe", bench.litserve)):
        lines += [f"{name:9}{_row(load)}" for load in loads]
    lines.append("")
    if (alone := bench.one_client) is not None:
        low, high = alone.overhead_interval
        lines.append(
            f"one client in turn with the bare pipeline: {alone.served_milliseconds:.1f} and "
            f"{alone.bare_milliseconds:.1f} ms; overhead {100 * alone.overhead:+.1f} % "
            f"(95 % interval {100 * low:+.1f} to {100 * high:+.1f} %, {alone.turns} turns)"
        )
    lines.append(f"throughput with the most clients {bench.throughput:.2f} of the bare pipeline's best")
    return "\n".join(lines)


def _row(load: Load) -> str:
    failed = sum(count for status, count in load.statuses.items() if status != "200")
    quantiles = (("p50", load.p50_milliseconds), ("p95", load.p95_milliseconds), ("p99", load.p99_milliseconds))
    shown = "   ".join(f"{name} {milliseconds:7.1f}" for name, milliseconds in quantiles)
    return f"{load.clients:3} clients: {load.answers_per_second:7.1f} /s   {shown} ms   {failed} not answered"
