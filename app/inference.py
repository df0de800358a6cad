"""Takes photos off the event loop: a few threads decode, one or more run the network, a few work out answers."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Protocol, TypeVar

from app.batching import Batcher, BatchObserver
from app.passage import Looked, Passage, PhotoReader, Question, Stage, Threads
from app.refusals import AnswerTimeout, ClientGone
from models.errors import ServiceOverloaded

T = TypeVar("T")

_ANSWER_THREADS = 16
"""They work out answers in a moment, but wait for the catalogue when its database is slow or gone."""


class Observer(BatchObserver, Protocol):
    """Is told how long the parts of an identification took."""

    def stage(self, stage: Stage) -> None:
        """A part of an identification is over; called in the request's own context."""

    def queue_changed(self) -> None:
        """There are more or fewer requests in work or waiting."""


class Unobserved:
    """Nobody looks."""

    def stage(self, stage: Stage) -> None:
        """Nothing."""

    def queue_changed(self) -> None:
        """Nothing."""

    def batch(self, size: int) -> None:
        """Nothing."""

    def depth(self, waiting: int) -> None:
        """Nothing."""


class InferenceQueue:
    """Bounded way to the network.

    The identifier comes with each request, so that a request ends with the bundle that it began with while later ones
    are answered by another; the network's lanes serve them all, in batches (see `Batcher`). At most `queue_limit`
    requests are in work or wait; one more raises `ServiceOverloaded`. At most `decode_workers` photos exist as full
    images at one time, which bounds memory whatever is sent: what waits for the network is small, upright and already
    of the network's size.
    """

    def __init__(
        self,
        *,
        queue_limit: int,
        decode_workers: int,
        max_pixels: int,
        timeout_seconds: float,
        max_batch: int = 16,
        max_wait_seconds: float = 0.005,
        observer: Observer | None = None,
        lanes: int = 1,
        prepare: Callable[[bool], None] | None = None,
    ) -> None:
        """`lanes` and `prepare` as in `Batcher`."""
        self._queue_limit = queue_limit
        self._max_pixels = max_pixels
        self._timeout_seconds = timeout_seconds
        self._admitted = 0
        self._observer: Observer = observer or Unobserved()
        self._threads = Threads(
            decoders=ThreadPoolExecutor(decode_workers, thread_name_prefix="decode"),
            batcher=Batcher(
                max_batch=max_batch,
                max_wait_seconds=max_wait_seconds,
                observer=self._observer,
                lanes=lanes,
                prepare=prepare,
            ),
            answers=ThreadPoolExecutor(_ANSWER_THREADS, thread_name_prefix="answer"),
        )

    @property
    def admitted(self) -> int:
        """Requests in work or waiting."""
        return self._admitted

    @property
    def limit(self) -> int:
        """Requests that may be in work or wait at one time."""
        return self._queue_limit

    @property
    def busy_seconds(self) -> float:
        """How long the network has been at one batch; 0 while it waits for the next."""
        return self._threads.batcher.busy_seconds

    def observe(self, observer: Observer) -> None:
        """Tell `observer` from now on."""
        self._observer = observer
        self._threads.batcher.observe(observer)

    def refuse_when_full(self) -> None:
        """Raises `ServiceOverloaded` when one more request would be refused; before an upload is read."""
        if self._admitted >= self._queue_limit:
            raise ServiceOverloaded(f"{self._queue_limit} identifications are waiting already; try again in a moment")

    @contextmanager
    def place(self) -> Iterator[None]:
        """Counts one request from here to the end of the block. Raises `ServiceOverloaded` when the queue is full."""
        self.refuse_when_full()
        self._admitted += 1
        self._observer.queue_changed()
        try:
            yield
        finally:
            self._admitted -= 1
            self._observer.queue_changed()

    async def ask(
        self,
        identifier: PhotoReader,
        photos: Sequence[bytes],
        then: Callable[[Looked], T],
        *,
        client_gone: Callable[[], Awaitable[None]] | None = None,
        has_place: bool = False,
    ) -> T:
        """What `then` makes of the encoded `photos` of one plant, in a thread of its own.

        `client_gone` returns when nobody waits for the answer any more; what has not begun is then dropped. Who has a
        `place` already takes none here. Raises
        `InvalidImage` (naming the photo by its position from 1), `ServiceOverloaded`, `AnswerTimeout`, `ClientGone`,
        and what `then` raises.
        """
        with nullcontext() if has_place else self.place():
            passage = Passage(Question(identifier, photos, then, self._max_pixels), self._threads)
            try:
                return await self._in_time(unless_gone(client_gone, asyncio.wrap_future(passage.begin())))
            finally:
                passage.give_up()
                for stage in passage.stages:
                    self._observer.stage(stage)

    async def on_network(self, work: Callable[[], T]) -> T:
        """What `work` returns, called by a thread of the network between two batches; for those who have a `place`.

        Raises `AnswerTimeout`, and what `work` raises.
        """
        return await self._in_time(unless_gone(None, asyncio.wrap_future(self._threads.batcher.run(work))))

    async def _in_time(self, answer: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await answer
        except TimeoutError:
            raise AnswerTimeout(
                f"expected an answer within {self._timeout_seconds:.0f} seconds; try again in a moment"
            ) from None

    def close(self) -> None:
        """Drop what has not begun and wait for what has."""
        self._threads.decoders.shutdown(wait=True, cancel_futures=True)
        self._threads.batcher.close()
        self._threads.answers.shutdown(wait=True, cancel_futures=True)


async def unless_gone(client_gone: Callable[[], Awaitable[None]] | None, work: Awaitable[T]) -> T:
    """What `work` returns. Raises `ClientGone` as soon as the client is; the work is then given up."""
    working: asyncio.Future[T] = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(client_gone()) if client_gone else None
    is_gone = False

    def give_up(_: object) -> None:
        nonlocal is_gone
        is_gone = working.cancel()

    if watching is not None:
        watching.add_done_callback(give_up)
    try:
        return await working
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if is_gone and task is not None and not task.cancelling():
            raise ClientGone("the client closed the connection before its answer was ready") from None
        raise
    finally:
        if watching is not None:
            # Not waited for: it looks at the connection and at nothing else.
            watching.remove_done_callback(give_up)
            watching.cancel()
        # An error keeps the frames that it came through. Were it kept by one of them in turn, photos would stay in
        # memory until the next search for such circles.
        del work
        working = asyncio.Future()
