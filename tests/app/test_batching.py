import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any

import numpy as np
import pytest

from app.batching import Batcher, Outputs
from models.encoder import Encoded

Make = Callable[..., Batcher]


class Net:
    """Doubles what it gets; `hold` keeps a batch in work, a batch with a negative pixel fails."""

    def __init__(self, encoder: object | None = None) -> None:
        self.encoder = encoder or self
        self.hold = threading.Event()
        self.hold.set()
        self.entered = threading.Semaphore(0)
        self.batches: list[int] = []

    def encode(self, pixels: np.ndarray) -> Encoded:
        self.batches.append(len(pixels))
        self.entered.release()
        assert self.hold.wait(10)
        if pixels.min() < 0:
            raise FloatingPointError("negative")
        means = pixels.mean(axis=(1, 2, 3))[:, None]
        return Encoded(2 * means, means)


class Watch:
    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.depths: list[int] = []

    def batch(self, size: int) -> None:
        self.sizes.append(size)

    def depth(self, waiting: int) -> None:
        self.depths.append(waiting)


def photos(value: float, count: int = 1) -> np.ndarray:
    return np.full((count, 3, 2, 2), value, np.float32)


def waited(outputs: Outputs) -> float:
    return outputs.began - outputs.since


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def make(watch: Watch) -> Iterator[Make]:
    made: list[Batcher] = []

    def make(max_batch: int = 4, max_wait_seconds: float = 0.0, **more: Any) -> Batcher:
        made.append(Batcher(max_batch=max_batch, max_wait_seconds=max_wait_seconds, observer=watch, **more))
        return made[-1]

    yield make
    for batcher in made:
        batcher.close()


def busy(batcher: Batcher, net: Net) -> None:
    """One request is in work, so that those that follow wait."""
    net.hold.clear()
    batcher.submit(net, photos(0))
    assert net.entered.acquire(timeout=10)


def rests(batcher: Batcher) -> None:
    """Returns when no lane is at work: an answer is there a moment before its lane is free."""
    deadline = time.monotonic() + 10
    while batcher.busy_seconds:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_what_waits_shares_a_batch_and_each_gets_its_own(make: Make, watch: Watch) -> None:
    batcher, net = make(), Net()
    busy(batcher, net)
    waiting = [batcher.submit(net, photos(value, count)) for value, count in ((1, 1), (2, 2), (3, 1), (4, 1))]
    net.hold.set()
    outputs = [future.result(10) for future in waiting]
    assert [o.encoded.logits.ravel().tolist() for o in outputs] == [[2], [4, 4], [6], [8]]
    assert net.batches == watch.sizes == [1, 4, 1]
    assert watch.depths == [0, 1, 0]


def test_photos_of_one_request_are_never_parted(make: Make) -> None:
    batcher, net = make(max_batch=3), Net()
    busy(batcher, net)
    waiting = [batcher.submit(net, photos(1, count)) for count in (2, 2, 1, 5)]
    net.hold.set()
    for future in waiting:
        future.result(10)
    assert net.batches == [1, 3, 2, 5]


def test_networks_do_not_share_a_batch_but_bundles_of_one_network_do(make: Make) -> None:
    batcher, net = make(), Net()
    sibling, stranger = Net(net), Net()
    busy(batcher, net)
    waiting = [batcher.submit(n, photos(1)) for n in (net, stranger, sibling)]
    net.hold.set()
    for future in waiting:
        future.result(10)
    assert (net.batches, sibling.batches, stranger.batches) == ([1, 2], [], [1])


def test_a_cancelled_request_leaves_the_batch(make: Make) -> None:
    batcher, net = make(), Net()
    busy(batcher, net)
    gone, stays = batcher.submit(net, photos(1)), batcher.submit(net, photos(2))
    assert gone.cancel()
    net.hold.set()
    assert stays.result(10).encoded.logits.tolist() == [[4]]
    assert net.batches == [1, 1]


def test_one_bad_request_spoils_no_other(make: Make) -> None:
    batcher, net = make(), Net()
    busy(batcher, net)
    good, bad, other = (batcher.submit(net, photos(value)) for value in (1, -1, 3))
    net.hold.set()
    assert good.result(10).encoded.logits.tolist() == [[2]]
    assert other.result(10).encoded.logits.tolist() == [[6]]
    with pytest.raises(FloatingPointError):
        bad.result(10)
    assert batcher.submit(net, photos(5)).result(10).encoded.logits.tolist() == [[10]]


def test_a_lone_request_does_not_wait_for_others(make: Make) -> None:
    batcher, net = make(max_wait_seconds=60.0), Net()
    assert waited(batcher.submit(net, photos(1)).result(10)) < 10


def test_it_waits_for_photos_that_are_being_decoded(make: Make) -> None:
    batcher, net = make(max_wait_seconds=60.0), Net()
    batcher.expect(1)
    first = batcher.submit(net, photos(1))
    assert not net.entered.acquire(timeout=0.1)
    second = batcher.submit(net, photos(2))
    batcher.expect(-1)
    first.result(10)
    second.result(10)
    assert net.batches == [2]


def test_but_no_longer_than_it_may(make: Make) -> None:
    batcher, net = make(max_wait_seconds=0.05), Net()
    batcher.expect(1)
    assert waited(batcher.submit(net, photos(1)).result(10)) >= 0.05
    assert net.batches == [1]


def test_a_full_batch_does_not_wait(make: Make) -> None:
    batcher, net = make(max_batch=2, max_wait_seconds=60.0), Net()
    batcher.expect(1)
    waiting = [batcher.submit(net, photos(1)) for _ in range(2)]
    for future in waiting:
        future.result(10)
    assert net.batches == [2]


def test_other_work_runs_between_batches_in_the_same_thread(make: Make) -> None:
    batcher, net = make(), Net()
    busy(batcher, net)
    name = batcher.run(lambda: threading.current_thread().name)
    failing = batcher.run(lambda: 1 // 0)
    waiting = batcher.submit(net, photos(1))
    net.hold.set()
    assert name.result(10) == "network"
    with pytest.raises(ZeroDivisionError):
        failing.result(10)
    waiting.result(10)


def test_batches_and_other_work_take_turns(make: Make) -> None:
    batcher, net = make(max_batch=1), Net()
    busy(batcher, net)
    order: list[str] = []

    def note(what: str) -> Callable[[object], None]:
        return lambda _: order.append(what)

    waiting: list[Future[object]] = []
    for number in range(3):
        waiting += [batcher.run(lambda: None), batcher.submit(net, photos(number))]
        waiting[-2].add_done_callback(note("work"))
        waiting[-1].add_done_callback(note("batch"))
    net.hold.set()
    for future in waiting:
        future.result(10)
    assert order == ["work", "batch"] * 3


def test_work_that_comes_while_a_request_is_waited_for_that_is_gone_then_is_done(make: Make) -> None:
    batcher, net = make(max_wait_seconds=60.0), Net()
    batcher.expect(1)
    waiting = batcher.submit(net, photos(1))
    assert not net.entered.acquire(timeout=0.1)
    with batcher._lock:  # the thread gets to see both at once
        assert waiting.cancel()
        work = batcher.run(lambda: "done")
    assert work.result(10) == "done"


@pytest.mark.parametrize("lanes", [1, 3])
def test_no_request_is_lost_however_the_threads_are_interleaved(make: Make, lanes: int) -> None:
    """Requests come in at the very moment at which a batch is taken."""
    batcher, net = make(lanes=lanes), Net()
    answered: list[int] = []

    def ask() -> None:
        for number in range(200):
            batcher.submit(net, photos(number)).result(5)
        answered.append(200)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        clients = [threading.Thread(target=ask) for _ in range(6)]
        for client in clients:
            client.start()
        for client in clients:
            client.join(60)
    finally:
        sys.setswitchinterval(before)
    assert answered == [200] * 6


def test_a_batch_that_cannot_be_put_together_is_run_one_by_one(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    batcher, net = make(), Net()
    busy(batcher, net)
    waiting = [batcher.submit(net, photos(value)) for value in (1, 2)]
    monkeypatch.setattr(np, "concatenate", fail)
    net.hold.set()
    assert [future.result(10).encoded.logits.item() for future in waiting] == [2, 4]


def test_a_lane_that_cannot_be_prepared_works_all_the_same(make: Make) -> None:
    def fail(is_alone: bool) -> None:
        raise OSError("no more threads")

    assert make(prepare=fail).submit(Net(), photos(1)).result(10).encoded.logits.item() == 2


def test_counting_that_fails_stops_nothing(make: Make, watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(count: int) -> None:
        raise OSError("no space left on device")

    batcher, net = make(), Net()
    watch.batch = watch.depth = fail
    for value in (1, 2):
        assert batcher.submit(net, photos(value)).result(10).encoded.logits.tolist() == [[2 * value]]
    assert [record.message for record in caplog.records] == ["what the network does cannot be counted or prepared"]


def test_closing_drops_what_has_not_begun_and_ends_what_has(make: Make) -> None:
    batcher, net = make(), Net()
    net.hold.clear()
    begun = batcher.submit(net, photos(1))
    assert net.entered.acquire(timeout=10)
    waiting, task = batcher.submit(net, photos(2)), batcher.run(lambda: None)
    closing = threading.Thread(target=batcher.close)
    closing.start()
    for future in (waiting, task):
        with pytest.raises(CancelledError):
            future.result(10)
    net.hold.set()
    closing.join(10)
    assert begun.result(10).encoded.logits.tolist() == [[2]]
    assert batcher.submit(net, photos(3)).cancelled()


class Prepared:
    """Notes what lanes are told, by thread."""

    def __init__(self) -> None:
        self.told: list[tuple[int, bool]] = []

    def __call__(self, is_alone: bool) -> None:
        assert threading.current_thread().name == "network"
        self.told.append((threading.get_ident(), is_alone))


def test_a_lane_is_prepared_when_it_becomes_the_only_one_and_when_it_no_longer_is(make: Make) -> None:
    prepared = Prepared()
    batcher, net = make(lanes=2, prepare=prepared), Net()
    for value in (1, 2):
        batcher.submit(net, photos(value)).result(10)
        rests(batcher)
    (first, _), *_ = prepared.told
    assert prepared.told == [(first, True)]
    other = Net()
    busy(batcher, other)
    beside = batcher.submit(other, photos(3))
    assert other.entered.acquire(timeout=10)
    (second,) = {lane for lane, _ in prepared.told} - {first}
    assert prepared.told == [(first, True), (second, False)]
    other.hold.set()
    beside.result(10)
    rests(batcher)
    batcher.submit(other, photos(4)).result(10)
    assert prepared.told == [(first, True), (second, False)]


def test_a_lane_of_one_counts_others_that_wait(make: Make) -> None:
    prepared = Prepared()
    batcher, net = make(max_batch=1, prepare=prepared), Net()
    busy(batcher, net)
    waiting = [batcher.submit(net, photos(1)) for _ in range(2)]
    net.hold.set()
    for future in waiting:
        future.result(10)
    assert [is_alone for _, is_alone in prepared.told] == [True, False, True]


def test_lanes_share_what_waits_and_work_at_the_same_time(make: Make, watch: Watch) -> None:
    batcher, net = make(max_batch=8, lanes=2), Net()
    net.hold.clear()
    with batcher._lock:  # both lanes get to see all of them
        waiting = [batcher.submit(net, photos(value)) for value in range(6)]
    for _ in range(2):
        assert net.entered.acquire(timeout=10)
    assert batcher.busy_seconds > 0
    assert net.batches == [3, 3]
    net.hold.set()
    assert [future.result(10).encoded.logits.item() for future in waiting] == [2 * value for value in range(6)]


def test_all_lanes_together_hold_no_more_photos_than_a_batch_may(make: Make) -> None:
    batcher, net = make(max_batch=8, lanes=2), Net()
    net.hold.clear()
    with batcher._lock:
        waiting = [batcher.submit(net, photos(1)) for _ in range(20)]
    for _ in range(2):
        assert net.entered.acquire(timeout=10)
    assert net.batches == [4, 4]
    net.hold.set()
    for future in waiting:
        future.result(10)
    assert max(net.batches) == 4


def test_a_second_lane_rests_while_the_first_is_free(make: Make) -> None:
    batcher, net = make(lanes=2), Net()
    threads: set[int] = set()

    def note(is_alone: bool) -> None:
        threads.add(threading.get_ident())

    batcher._prepare = note
    for value in range(20):
        batcher.submit(net, photos(value)).result(10)
        rests(batcher)
    assert len(threads) == 1


def test_only_one_lane_does_other_work(make: Make) -> None:
    batcher, net = make(lanes=2), Net()
    running, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        net.entered.acquire(timeout=0.02)
        with lock:
            running -= 1

    for future in [batcher.run(work) for _ in range(5)]:
        future.result(10)
    assert most == 1
    assert batcher.submit(net, photos(1)).result(10).encoded.logits.tolist() == [[2]]


def test_work_that_waits_for_other_work_is_done_by_whichever_lane_is_free_then(make: Make) -> None:
    batcher, net, hold = make(lanes=2), Net(), threading.Event()
    busy(batcher, net)
    running = threading.Event()

    def work() -> None:
        running.set()
        assert hold.wait(10)

    first = batcher.run(work)
    assert running.wait(10)
    second = batcher.run(lambda: "done")
    net.hold.set()
    deadline = time.monotonic() + 10
    while batcher._lanes[0].busy_since is not None:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    hold.set()
    first.result(10)
    assert second.result(10) == "done"
