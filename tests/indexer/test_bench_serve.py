import http.server
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from python_multipart.multipart import parse_options_header
from tests_support import encoded_picture, noise_picture

from indexer.bench_load import Load, LoadOrder, run_load
from indexer.bench_one_client import (
    BarePipelineEnded,
    NotAnswered,
    bare_pipeline,
    in_turns,
    median_milliseconds,
    one_after_the_other,
    one_client,
)
from indexer.bench_serve import ServiceDidNotStart, _middle, bench_serve, describe
from models.errors import InsufficientData
from models.home import Home


class Answering(http.server.BaseHTTPRequestHandler):
    """Refuses every fourth request, and notes what it got."""

    protocol_version = "HTTP/1.1"
    bodies: list[bytes] = []  # noqa: RUF012
    lock = threading.Lock()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.lock:
            self.bodies.append(body)
            number = len(self.bodies)
        assert parse_options_header(self.headers["Content-Type"])[0] == b"multipart/form-data"
        time.sleep(0.02)
        self.send_response(200 if number % 4 else 503)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def answering() -> Iterator[str]:
    Answering.bodies.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/identifications"
        server.shutdown()
        thread.join()


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"{n}.png" for n in range(3)]
    for n, file in enumerate(files):
        noise_picture(n).save(file)
    return files


def test_clients_ask_in_turn_and_only_answers_count(answering: str, photos: list[Path]) -> None:
    order = LoadOrder(answering, "photos", [str(p) for p in photos], clients=3, seconds=1.0, warm_up_seconds=0.2)
    load = run_load(order)
    assert set(load.statuses) == {"200", "503"}
    assert load.answers == load.statuses["200"]
    assert load.answers_per_second == pytest.approx(load.answers)
    # Each client waits for its answer: three of them with a fiftieth of a second each.
    assert 20 < load.answers + load.statuses["503"] <= 150
    assert 20 <= load.p50_milliseconds <= load.p95_milliseconds <= load.p99_milliseconds
    sent = {content for content in (p.read_bytes() for p in photos) if any(content in b for b in Answering.bodies)}
    assert len(sent) == 3


def test_a_service_that_is_not_there_is_counted_and_not_timed(photos: list[Path]) -> None:
    order = LoadOrder("http://127.0.0.1:9/", "photos", [str(photos[0])], 1, seconds=0.1, warm_up_seconds=0.0)
    load = run_load(order)
    assert load.answers == 0
    assert math.isnan(load.p50_milliseconds)
    assert set(load.statuses) == {"0"}


def load_of(clients: int, rate: float, p50: float) -> Load:
    return Load(clients, 10, rate, p50, p50, p50, {"200": 10}, 0.1)


def test_the_middle_round_counts() -> None:
    rounds = [[load_of(1, rate, p50), load_of(8, 2 * rate, p50)] for rate, p50 in ((10, 110), (30, 33), (20, 60))]
    assert [(load.clients, load.answers_per_second) for load in _middle(rounds)] == [(1, 20), (8, 40)]


def test_overhead_is_within_a_turn_whatever_the_machine_does_between_turns() -> None:
    found = one_client([[20.0 * slow, 22.0 * slow + late] for slow in (1.0, 2.0, 4.0) for late in (-0.2, 0.0, 0.4)])
    assert found.turns == 9
    assert found.overhead == pytest.approx(0.1)
    assert (found.bare_milliseconds, found.served_milliseconds) == (40.0, 44.0)
    # The second and the eighth of nine ranks: what nine coins show is within them in 96 of 100 cases.
    low, high = found.overhead_interval
    assert (low, high) == pytest.approx((0.095, 0.11))


def test_of_few_turns_the_interval_is_their_range() -> None:
    found = one_client([[10.0, 10.0], [10.0, 12.0], [10.0, 11.0]])
    assert found.overhead == pytest.approx(0.1)
    assert found.overhead_interval == pytest.approx((0.0, 0.2))


def test_the_first_of_a_turn_alternates() -> None:
    asked: list[tuple[str, float, int]] = []

    def measuring(name: str, milliseconds: float) -> Callable[[float, int], float]:
        def measure(seconds: float, first: int) -> float:
            asked.append((name, seconds, first))
            return milliseconds

        return measure

    assert in_turns(measuring("bare", 10.0), measuring("served", 11.0), 4.0) == [[10.0, 11.0]] * 4
    assert [name for name, _, _ in asked] == ["bare", "served", "served", "bare"] * 2
    assert {seconds for _, seconds, _ in asked} == {1.0}
    assert [first for _, _, first in asked] == [0, 0, 7, 7, 14, 14, 21, 21]


def test_a_turn_tells_of_some_photos_however_short_it_is() -> None:
    asked: list[int] = []

    def ask(number: int) -> None:
        asked.append(number)
        time.sleep(0.005 if number >= 7 else 0.05)  # those before are to warm up

    assert 5 <= median_milliseconds(ask, 0.0, 7) < 50
    assert asked == list(range(2, 17))


def test_an_answer_that_is_none_ends_the_measurement(answering: str, photos: list[Path]) -> None:
    with one_after_the_other(answering, "photos", photos) as served, pytest.raises(NotAnswered, match="503"):
        served(0.1, 0)


def test_a_pipeline_that_ends_tells_why(tmp_path: Path) -> None:
    with (
        pytest.raises(BarePipelineEnded, match="nothing"),
        bare_pipeline([str(tmp_path / "nothing"), "cpu", "--", "a.jpg"]),
    ):
        pass


def test_without_photos_there_is_nothing_to_measure(tmp_path: Path) -> None:
    with pytest.raises(InsufficientData):
        bench_serve(Home(tmp_path), [])


def test_what_the_measured_part_said_is_told(tmp_path: Path, photos: list[Path]) -> None:
    with pytest.raises(ServiceDidNotStart, match="voucher"):
        bench_serve(Home(tmp_path / "nothing"), photos, seconds=0.1, rounds=1, with_litserve=False)


@pytest.mark.slow
def test_service_and_bare_pipeline_are_measured(trained_home: Home, tmp_path: Path) -> None:
    files = [tmp_path / f"{n}.jpg" for n in range(4)]
    for n, file in enumerate(files):
        file.write_bytes(encoded_picture(n))
    bench = bench_serve(trained_home, files, clients=[1, 4], seconds=0.6, rounds=1, with_litserve=False)
    assert [load.clients for load in bench.service] == [1, 4]
    assert all(set(load.statuses) == {"200"} for load in bench.service)
    assert set(bench.bare.in_turn) == set(bench.bare.overlapped) == {"1", "2", "4", "8", "16"}
    assert bench.throughput == pytest.approx(bench.service[1].answers_per_second / bench.bare.best_rate)
    assert bench.one_client is not None
    assert bench.one_client.turns == 3
    assert min(bench.one_client.bare_milliseconds, bench.one_client.served_milliseconds) > 0
    assert "one client in turn with the bare pipeline" in describe(bench)
