"""The way of one request through the threads, without an event loop: each part hands on to the next by itself."""

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

import pytest

from app.batching import Batcher
from app.inference import Unobserved
from app.passage import Looked, Passage, Question, Threads
from models.errors import UnreadableImage

Encode = Callable[..., bytes]
PATIENCE = 10


class Counted(Batcher):
    """Notes how many requests it is told to expect."""

    expected = 0

    def expect(self, requests: int) -> None:
        super().expect(requests)
        self.expected += requests
        assert self.expected >= 0


@pytest.fixture
def threads() -> Iterator[Threads]:
    batcher = Counted(max_batch=4, max_wait_seconds=0.005, observer=Unobserved())
    made = Threads(ThreadPoolExecutor(2), batcher, ThreadPoolExecutor(2))
    yield made
    for executor in (made.decoders, made.answers):
        executor.shutdown(wait=True, cancel_futures=True)
    batcher.close()


@pytest.fixture
def begin(threads: Threads, identifier: Any) -> Callable[..., tuple[Passage[Any], Future[Any]]]:
    def begin(*photos: bytes, then: Callable[[Looked], Any] = lambda looked: looked) -> Any:
        passage = Passage(Question(identifier, photos, then, 50_000), threads)
        return passage, passage.begin()

    return begin


def test_the_photos_of_a_plant_are_looked_at_together_and_in_their_order(begin, threads, encode: Encode) -> None:
    _, answered = begin(*(encode(seed, "PNG", size=(width, 60)) for seed, width in enumerate((40, 50, 60))))
    looked = answered.result(PATIENCE)
    assert looked.sizes == ((40, 60), (50, 60), (60, 60))
    assert len(looked.pixels) == len(looked.encoded.logits) == 3
    assert threads.batcher.expected == 0


def test_the_stages_follow_each_other(begin, encode: Encode) -> None:
    passage, answered = begin(encode(1))
    answered.result(PATIENCE)
    assert [stage.name for stage in passage.stages] == ["decode", "wait", "network", "answer"]
    moments = [moment for stage in passage.stages for moment in (stage.began, stage.ended)]
    assert moments == sorted(moments)


def test_one_bad_photo_ends_it_and_the_network_sees_nothing(begin, threads, identifier, encode: Encode) -> None:
    _, answered = begin(encode(1), encode(2)[:600], encode(3))
    with pytest.raises(UnreadableImage, match=r"^photo 2: "):
        answered.result(PATIENCE)
    threads.decoders.shutdown(wait=True)
    assert not identifier.entered.is_set()
    assert threads.batcher.expected == 0


@pytest.mark.parametrize("part", ["preprocess", "encode", "then"])
def test_whatever_goes_wrong_in_a_thread_is_told(part: str, begin, threads, identifier, encode: Encode) -> None:
    def fail(*_: object) -> None:
        raise FloatingPointError(part)

    if part != "then":
        setattr(identifier, part, fail)
    _, answered = begin(encode(1), then=fail if part == "then" else len)
    with pytest.raises(FloatingPointError, match=part):
        answered.result(PATIENCE)
    assert threads.batcher.expected == 0


@pytest.mark.parametrize("part", ["decode", "then"])
def test_what_would_end_a_loop_is_told_as_an_error(part: str, begin, threads, identifier, encode: Encode) -> None:
    def leave(*_: object, **__: object) -> None:
        raise SystemExit(part)

    if part == "decode":
        identifier.decode = leave
    _, answered = begin(encode(1), then=leave if part == "then" else len)
    with pytest.raises(RuntimeError, match=f"SystemExit\\('{part}'\\)"):
        answered.result(PATIENCE)
    assert threads.batcher.expected == 0


def test_what_is_given_up_goes_no_further(begin, threads, identifier, encode: Encode) -> None:
    identifier.hold.clear()
    made: list[Looked] = []
    passage, answered = begin(encode(1), then=made.append)
    assert identifier.entered.wait(PATIENCE)
    behind, _ = begin(encode(2), then=made.append)
    for each in (passage, behind):
        each.give_up()
    identifier.hold.set()
    assert len(begin(encode(3))[1].result(PATIENCE).sizes) == 1
    threads.answers.shutdown(wait=True)
    assert made == []
    assert not answered.done()
    assert threads.batcher.expected == 0


def test_what_waits_for_a_decoder_keeps_nothing_once_it_is_given_up(threads: Threads, identifier) -> None:
    class Kept:
        def __call__(self, looked: Looked) -> None: ...

    hold = threading.Event()
    blocked = [threads.decoders.submit(hold.wait, PATIENCE) for _ in range(2)]
    then = Kept()
    kept = weakref.ref(then)
    passage = Passage(Question(identifier, [b"", b""], then, 50_000), threads)
    passage.begin()
    del then
    gc.collect()
    assert kept() is not None
    passage.give_up()
    gc.collect()
    assert kept() is None
    hold.set()
    assert all(each.result(PATIENCE) for each in blocked)


def test_who_nobody_waits_for_any_more_is_no_fault(begin, identifier, encode: Encode) -> None:
    identifier.hold.clear()
    _, answered = begin(encode(1))
    assert identifier.entered.wait(PATIENCE)
    assert answered.cancel()
    identifier.hold.set()
    # The next one is answered all the same: no thread has ended of it.
    assert begin(encode(2))[1].result(PATIENCE)


@pytest.mark.parametrize("which", ["decoders", "batcher", "answers"])
def test_threads_that_are_shut_down_leave_nobody_waiting(
    which: str, begin, threads, identifier, encode: Encode
) -> None:
    hold = threading.Event()
    blocked: list[Future[Any]] = []
    if which == "batcher":
        identifier.hold.clear()
        _, first = begin(encode(9))
        assert identifier.entered.wait(PATIENCE)
        passage, answered = begin(encode(1))
        wait_until(lambda: [stage.name for stage in passage.stages] == ["decode"])
        closing = threading.Thread(target=threads.batcher.close)
        closing.start()
    else:
        executor = getattr(threads, which)
        blocked = [executor.submit(hold.wait, PATIENCE) for _ in range(2)]
        passage, answered = begin(encode(1))
        if which == "answers":
            wait_until(lambda: len(passage.stages) == 3)
            wait_until(lambda: executor._work_queue.qsize() > 0)
        executor.shutdown(wait=False, cancel_futures=True)
    with pytest.raises(CancelledError):
        answered.result(PATIENCE)
    hold.set()
    identifier.hold.set()
    if which == "batcher":
        closing.join()
        assert first.result(PATIENCE)
    assert all(each.result(PATIENCE) for each in blocked)
    assert threads.batcher.expected == 0


def test_none_begins_when_the_threads_are_gone(threads: Threads, identifier, encode: Encode) -> None:
    threads.decoders.shutdown()
    passage = Passage(Question(identifier, [encode(1)], len, 50_000), threads)
    with pytest.raises(RuntimeError):
        passage.begin()
    passage.give_up()
    assert threads.batcher.expected == 0


def wait_until(what: Callable[[], bool]) -> None:
    for _ in range(1000):
        if what():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never came")
