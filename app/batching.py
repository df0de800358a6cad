"""One thread that runs the network, for as many waiting requests at a time as fit in a batch."""

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
    """Is told what the network does; called from its thread."""

    def batch(self, size: int) -> None:
        """A batch of `size` photos begins."""

    def depth(self, waiting: int) -> None:
        """So many requests wait for the network."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """The network's outputs for one request, and the seconds that it waited and that its batch took."""

    encoded: Encoded
    wait_seconds: float
    network_seconds: float


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


class Batcher:
    """Runs the network in a thread of its own.

    A batch begins when the network is free: with what waits by then, the longest waiting first, up to `max_batch`
    photos of requests that share a network (the photos of one request are never parted). While other requests'
    photos are being decoded it waits for them, at most `max_wait_seconds`; a lone request never waits. Requests that
    were cancelled are dropped before their batch begins. A batch that fails is run again request by request, so that
    one bad request spoils no other's answer.
    """

    def __init__(
        self,
        *,
        max_batch: int,
        max_wait_seconds: float,
        observer: BatchObserver,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        """`prepare` is called once by the thread, before its first batch."""
        self._max_batch = max_batch
        self._max_wait_seconds = max_wait_seconds
        self._observer = observer
        self._prepare = prepare
        self._waiting: deque[_Waiting] = deque()
        self._tasks: deque[_Task] = deque()
        self._arriving = 0
        self._closed = False
        self._task_was_last = False
        self._has_complained = False
        self._busy_since: float | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def busy_seconds(self) -> float:
        """How long the thread has been at its present batch or task; 0 while it waits for one."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def observe(self, observer: BatchObserver) -> None:
        """Tell `observer` from now on."""
        self._observer = observer

    def expect(self, requests: int) -> None:
        """So many more requests (fewer when negative) are about to be submitted."""
        with self._changed:
            self._arriving += requests
            self._changed.notify()

    def submit(self, network: Network, pixels: Pixels) -> "Future[Outputs]":
        """Outputs for the ``(P, 3, H, W)`` photos of one request; cancel the future to drop it."""
        waiting = _Waiting(network, pixels)
        with self._changed:
            if self._can_take(waiting.future):
                self._waiting.append(waiting)
        return waiting.future

    def run(self, work: Callable[[], T]) -> "Future[T]":
        """What `work` returns, called between two batches."""
        task = _Task(work)
        with self._changed:
            if self._can_take(task.future):
                self._tasks.append(task)
        return task.future

    def _can_take(self, future: "Future[Any]") -> bool:
        """Whether there is a thread, woken, that will look at the queues; called with the lock held."""
        if self._closed:
            future.cancel()
            return False
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="network", daemon=True)
            self._thread.start()
        self._changed.notify()
        return True

    def close(self) -> None:
        """Drop what has not begun and wait for what has."""
        with self._changed:
            self._closed = True
            for waiting in self._waiting:
                waiting.future.cancel()
            for task in self._tasks:
                task.future.cancel()
            self._waiting.clear()
            self._tasks.clear()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        if self._prepare is not None:
            self._prepare()
        while (found := self._next()) is not None:
            self._busy_since = time.monotonic()
            if isinstance(found, _Task):
                _run_task(found)
            else:
                self._run_batch(found)
            # A request's pixels, and the bundle that answers it, are not kept until the next one comes.
            del found
            self._busy_since = None

    def _next(self) -> "_Task | list[_Waiting] | None":
        """What to do next; None when closed. Where there are both, tasks and batches take turns."""
        with self._changed:
            while not self._closed:
                if self._tasks and not (self._task_was_last and self._waiting):
                    self._task_was_last = True
                    return self._tasks.popleft()
                batch = self._take()
                self._task_was_last = False
                if batch:
                    self._tell(self._observer.depth, len(self._waiting))
                    return batch
                # A task may have come while a request was waited for that is gone now.
                if not self._waiting and not self._tasks:
                    self._changed.wait()
            return None

    def _take(self) -> list[_Waiting]:
        """The next batch, waited for; empty when there is none (yet)."""
        while self._waiting and not self._closed:
            first = self._waiting[0]
            if first.future.cancelled():
                self._waiting.popleft()
                continue
            chosen = self._companions(first)
            left = first.since + self._max_wait_seconds - time.monotonic()
            is_full = sum(len(c.pixels) for c in chosen) >= self._max_batch
            if not is_full and self._arriving > 0 and left > 0:
                self._changed.wait(left)
                continue
            taken = set(map(id, chosen))
            self._waiting = deque(w for w in self._waiting if id(w) not in taken)
            return [w for w in chosen if w.future.set_running_or_notify_cancel()]
        return []

    def _companions(self, first: _Waiting) -> list[_Waiting]:
        """`first` and those after it that share its network, as many as fit."""
        chosen, photos = [first], len(first.pixels)
        for other in list(self._waiting)[1:]:
            if photos >= self._max_batch:
                break
            if other.future.cancelled() or other.network.encoder is not first.network.encoder:
                continue
            if photos + len(other.pixels) <= self._max_batch:
                chosen.append(other)
                photos += len(other.pixels)
        return chosen

    def _run_batch(self, batch: list[_Waiting]) -> None:
        pixels = batch[0].pixels if len(batch) == 1 else np.concatenate([w.pixels for w in batch])
        self._tell(self._observer.batch, len(pixels))
        began = time.monotonic()
        try:
            encoded = batch[0].network.encode(pixels)
        except Exception as error:  # noqa: BLE001 - handed on to those who wait
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            for waiting in batch:
                self._run_batch([waiting])
            return
        seconds = time.monotonic() - began
        start = 0
        for waiting in batch:
            rows = slice(start, start := start + len(waiting.pixels))
            part = Encoded(encoded.logits[rows], encoded.embeddings[rows])
            waiting.future.set_result(Outputs(part, began - waiting.since, seconds))

    def _tell(self, what: Callable[[int], None], count: int) -> None:
        """Counting may fail, for example on a full disk; this thread must not, since nothing is answered without it."""
        try:
            what(count)
        except Exception:
            if not self._has_complained:
                logger.exception("what the network does cannot be counted")
            self._has_complained = True


def _run_task(task: _Task) -> None:
    if not task.future.set_running_or_notify_cancel():
        return
    try:
        task.future.set_result(task.work())
    except Exception as error:  # noqa: BLE001 - handed on to whoever waits
        task.future.set_exception(error)
