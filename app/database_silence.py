"""Asks a database that may not answer at all: a server that hangs says nothing, and lets nobody go.

A database that is down is an error within seconds. One whose machine is stopped, or cut off, keeps whoever asks it;
here they wait for a moment, and then nobody asks for a while.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from queue import SimpleQueue
from typing import Any, TypeVar

from models.errors import CatalogueError

ANSWER_SECONDS = 3.0
PAUSE_SECONDS = 5.0
_THREADS = 8

T = TypeVar("T")


class DatabaseSilent(CatalogueError):
    """The database has not answered in time, or had not a moment ago."""


class SilenceGuard:
    """Threads of their own for one kind of question. Any thread, and the event loop, may ask."""

    def __init__(
        self,
        name: str,
        *,
        answer_seconds: float = ANSWER_SECONDS,
        pause_seconds: float = PAUSE_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._answer_seconds, self._pause_seconds, self._now = answer_seconds, pause_seconds, now
        self._name = name
        self._lock = threading.Lock()
        self._asked: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._threads = self._idle = 0
        self._silent_until = float("-inf")

    async def ask(self, what: Callable[[], T]) -> T:
        """What `what` returns. Raises `DatabaseSilent`, and what it raises."""
        asked = self._submit(what)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(asked), self._answer_seconds)
        except TimeoutError:
            raise self._silence() from None

    def ask_and_wait(self, what: Callable[[], T]) -> T:
        """As `ask`, for threads."""
        asked = self._submit(what)
        try:
            return asked.result(self._answer_seconds)
        except FutureTimeout:
            if asked.done() and not asked.cancelled():
                return asked.result()
            asked.cancel()
            raise self._silence() from None

    def close(self) -> None:
        """Ask no more; a thread that a silent database keeps is left behind, and does not hold up the process's end."""
        with self._lock:
            for _ in range(self._threads):
                self._asked.put(None)

    def _submit(self, what: Callable[[], T]) -> "Future[T]":
        if self._now() < self._silent_until:
            raise DatabaseSilent("the database has not answered a moment ago, and is asked again in some seconds")
        asked: Future[T] = Future()
        with self._lock:
            if self._idle == 0 and self._threads < _THREADS:
                self._threads += 1
                # Those of the library are waited for when the process ends.
                threading.Thread(target=self._work, name=f"database-{self._name}", daemon=True).start()
            self._asked.put((asked, what))
        return asked

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            found = self._asked.get()
            with self._lock:
                self._idle -= 1
            if found is None:
                return
            asked, what = found
            if not asked.set_running_or_notify_cancel():
                continue
            try:
                asked.set_result(what())
            except Exception as error:  # noqa: BLE001 (handed on to whoever asks)
                asked.set_exception(error)
            del asked, what, found

    def _silence(self) -> DatabaseSilent:
        with self._lock:
            self._silent_until = self._now() + self._pause_seconds
        return DatabaseSilent(f"the database has not answered for {self._answer_seconds:.0f} seconds")
