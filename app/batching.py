"""Threads that run the network, each for as many waiting requests at a time as are its share."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.encoder import Encoded

logger = logging.getLogger(__name__)

Pixels = NDArray[np.float32]
T = TypeVar("T")


class Network(Protocol):
    """What runs: pixels ``(N, 3, H, W)`` float32 in, both streams' outputs out."""

    @property
    def encoder(self) -> object:
        """The network itself: two that share it can share a batch."""

    def encode(self, pixels: Pixels) -> Encoded:
        """Outputs for N photos; a photo's do not depend on the others."""


class BatchObserver(Protocol):
    """Is told what the network does; called from its threads."""

    def batch(self, size: int) -> None:
        """A batch of `size` photos begins."""

    def depth(self, waiting: int) -> None:
        """So many requests wait for the network."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """The network's outputs for one request.

    It waited from `since` until its batch `began`, which `ended` later; in seconds of `time.monotonic`.
    """

    encoded: Encoded
    since: float
    began: float
    ended: float


@dataclass(slots=True)
class _Waiting:
    """A request whose photos are ready for the network."""

    network: Network
    pixels: Pixels
    future: "Future[Outputs]" = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class _Task:
    """Something else that needs the network's thread."""

    work: Callable[[], Any]
    future: "Future[Any]" = field(default_factory=Future)


@dataclass(slots=True)
class _Lane:
    """A thread that runs the network; `woken` shares the lock of all."""

    number: int
    woken: threading.Condition
    thread: threading.Thread | None = None
    busy_since: float | None = None
    is_alone: bool | None = None


class Batcher:
    """Runs the network in threads of its own, `lanes` of them.

    A batch begins when a lane is free: with what waits by then, the longest waiting first, as far as requests share a
    network (the photos of one request are never parted). Lanes that are free at the same time share what waits; in all
    of them together there are at most `max_batch` photos, but for a request that has more. While other requests'
    photos are being decoded a lane waits for them, at most `max_wait_seconds`; a lone request never waits. Requests
    that were cancelled are dropped before their batch begins. A batch that fails is run again request by request, so
    that one bad request spoils no other's answer.

    Several lanes suit a CPU: a product that is split over its cores ends when the slowest of them is done, which
    decoding and answering delay, while lanes with a core each wait for nobody. A request that is alone has all cores.
    """

    def __init__(
        self,
        *,
        max_batch: int,
        max_wait_seconds: float,
        observer: BatchObserver,
        lanes: int = 1,
        prepare: Callable[[bool], None] | None = None,
    ) -> None:
        """`prepare` is called by a lane's thread with whether it is the only one at work, when that changes."""
        self._max_wait_seconds = max_wait_seconds
        self._most_photos = max(1, max_batch // lanes)
        self._observer = observer
        self._prepare = prepare
        # A lane takes something only when those before it are busy, so that the first one alone is ever alone: every
        # thread that has once computed on several cores keeps helpers for them.
        self._lock = threading.RLock()
        self._lanes = [_Lane(number, threading.Condition(self._lock)) for number in range(lanes)]
        self._waiting: deque[_Waiting] = deque()
        self._tasks: deque[_Task] = deque()
        self._arriving = 0
        self._closed = False
        self._task_was_last = False
        self._has_complained = False
        self._task_runs = False

    @property
    def busy_seconds(self) -> float:
        """How long a lane has been at its present batch or task, the longest of all; 0 while all wait for one."""
        begun = [lane.busy_since for lane in self._lanes if lane.busy_since is not None]
        return time.monotonic() - min(begun) if begun else 0.0

    def observe(self, observer: BatchObserver) -> None:
        """Tell `observer` from now on."""
        self._observer = observer

    def expect(self, requests: int) -> None:
        """So many more requests (fewer when negative) are about to be submitted."""
        with self._lock:
            self._arriving += requests
            if self._arriving == 0 and self._waiting:
                self._wake()  # what waits need wait for nothing more

    def submit(self, network: Network, pixels: Pixels) -> "Future[Outputs]":
        """Outputs for the ``(P, 3, H, W)`` photos of one request; cancel the future to drop it."""
        waiting = _Waiting(network, pixels)
        with self._lock:
            if self._can_take(waiting.future):
                self._waiting.append(waiting)
        return waiting.future

    def run(self, work: Callable[[], T]) -> "Future[T]":
        """What `work` returns, called between two batches."""
        task = _Task(work)
        with self._lock:
            if self._can_take(task.future):
                self._tasks.append(task)
        return task.future

    def _can_take(self, future: "Future[Any]") -> bool:
        """Whether there is a thread, woken, that will look at the queues; called with the lock held."""
        if self._closed:
            future.cancel()
            return False
        for lane in self._lanes:
            if lane.thread is None:
                lane.thread = threading.Thread(target=self._work, args=(lane,), name="network", daemon=True)
                lane.thread.start()
        self._wake()
        return True

    def _wake(self) -> None:
        """Have the lane look that is next, if any is free; the others have no business yet."""
        for lane in self._lanes:
            if lane.busy_since is None:
                lane.woken.notify()
                return

    def close(self) -> None:
        """Drop what has not begun and wait for what has."""
        with self._lock:
            self._closed = True
            for waiting in self._waiting:
                waiting.future.cancel()
            for task in self._tasks:
                task.future.cancel()
            self._waiting.clear()
            self._tasks.clear()
            for lane in self._lanes:
                lane.woken.notify()
        for lane in self._lanes:
            if lane.thread is not None:
                lane.thread.join()

    def _work(self, lane: _Lane) -> None:
        while (found := self._next(lane)) is not None:
            if isinstance(found, _Task):
                _run_task(found)
            else:
                self._run_batch(found)
            # A request's pixels, and the bundle that answers it, are not kept until the next one comes.
            is_task = isinstance(found, _Task)
            del found
            with self._lock:
                self._task_runs = self._task_runs and not is_task
                lane.busy_since = None
                if self._waiting or self._can_run_task:
                    self._wake()  # it may be the turn of a lane before this one

    def _next(self, lane: _Lane) -> "_Task | list[_Waiting] | None":
        """What the lane does next; None when closed. Where there are both, tasks and batches take turns."""
        with self._lock:
            while not self._closed:
                found = self._task_or_batch(lane) if self._is_next(lane) else None
                if found:
                    lane.busy_since = time.monotonic()
                    if self._waiting or self._can_run_task:
                        self._wake()  # the lane behind takes what is left
                    self._prepare_for(lane)
                    return found
                # Something may have come while a request was waited for that is gone now.
                if not self._is_next(lane) or not (self._waiting or self._can_run_task):
                    lane.woken.wait()
            return None

    def _prepare_for(self, lane: _Lane) -> None:
        others = any(each.busy_since is not None for each in self._lanes if each is not lane)
        is_alone = not (others or self._waiting or self._arriving)
        if is_alone != lane.is_alone and self._prepare is not None:
            self._survive(self._prepare, is_alone)
        lane.is_alone = is_alone

    def _is_next(self, lane: _Lane) -> bool:
        return all(before.busy_since is not None for before in self._lanes[: lane.number])

    @property
    def _can_run_task(self) -> bool:
        """One at a time: a task may need as much memory as a batch."""
        return bool(self._tasks) and not self._task_runs

    def _task_or_batch(self, lane: _Lane) -> "_Task | list[_Waiting] | None":
        if self._can_run_task and not (self._task_was_last and self._waiting):
            self._task_was_last = self._task_runs = True
            return self._tasks.popleft()
        batch = self._take(lane)
        self._task_was_last = False
        if batch:
            self._survive(self._observer.depth, len(self._waiting))
        return batch

    def _take(self, lane: _Lane) -> list[_Waiting]:
        """The next batch, waited for; empty when there is none (yet)."""
        while self._waiting and not self._closed:
            first = self._waiting[0]
            if first.future.cancelled():
                self._waiting.popleft()
                continue
            chosen = self._companions(first, self._most_photos)
            left = first.since + self._max_wait_seconds - time.monotonic()
            is_full = sum(len(c.pixels) for c in chosen) >= self._most_photos
            if not is_full and self._arriving > 0 and left > 0:
                lane.woken.wait(left)
                continue
            chosen = self._companions(first, self._share())
            taken = set(map(id, chosen))
            self._waiting = deque(w for w in self._waiting if id(w) not in taken)
            return [w for w in chosen if w.future.set_running_or_notify_cancel()]
        return []

    def _share(self) -> int:
        """Photos that one of the free lanes takes of all that wait."""
        free = sum(lane.busy_since is None for lane in self._lanes)
        waiting = sum(len(w.pixels) for w in self._waiting if not w.future.cancelled())
        return min(self._most_photos, -(-waiting // free))

    def _companions(self, first: _Waiting, most: int) -> list[_Waiting]:
        """`first` and those after it that share its network, up to `most` photos."""
        chosen, photos = [first], len(first.pixels)
        for other in list(self._waiting)[1:]:
            if photos >= most:
                break
            if other.future.cancelled() or other.network.encoder is not first.network.encoder:
                continue
            if photos + len(other.pixels) <= most:
                chosen.append(other)
                photos += len(other.pixels)
        return chosen

    def _run_batch(self, batch: list[_Waiting]) -> None:
        self._survive(self._observer.batch, sum(len(w.pixels) for w in batch))
        began = time.monotonic()
        try:
            pixels = batch[0].pixels if len(batch) == 1 else np.concatenate([w.pixels for w in batch])
            encoded = batch[0].network.encode(pixels)
        except Exception as error:  # noqa: BLE001 - handed on to those who wait
            # None stays in `batch`: the error keeps this frame, and would be kept by it.
            if len(batch) == 1:
                batch.pop().future.set_exception(error)
            while batch:
                self._run_batch([batch.pop(0)])
            return
        ended = time.monotonic()
        start = 0
        for waiting in batch:
            rows = slice(start, start := start + len(waiting.pixels))
            part = Encoded(encoded.logits[rows], encoded.embeddings[rows])
            waiting.future.set_result(Outputs(part, waiting.since, began, ended))

    def _survive(self, what: Callable[[Any], None], value: object) -> None:
        """What is beside the work may fail, such as counting it; this thread must not: nothing is answered without."""
        try:
            what(value)
        except Exception:
            if not self._has_complained:
                logger.exception("what the network does cannot be counted or prepared")
            self._has_complained = True


def _run_task(task: _Task) -> None:
    if not task.future.set_running_or_notify_cancel():
        return
    try:
        task.future.set_result(task.work())
    except Exception as error:  # noqa: BLE001 - handed on to whoever waits
        task.future.set_exception(error)
        del task  # the error keeps this frame, and would be kept by it
