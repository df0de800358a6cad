"""Asks a database that may not answer at all: a server that hangs says nothing, and lets nobody go.

A database that is down is an error within seconds. One whose machine is stopped, or cut off, keeps whoever asks it;
here they wait for a moment, and then nobody asks for a while.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, TypeVar, cast

from models.errors import CatalogueError

ANSWER_SECONDS = 3.0
PAUSE_SECONDS = 5.0
_THREADS = 8

T = TypeVar("T")


class DatabaseSilent(CatalogueError):
    """The database has not answered in time, or had not a moment ago."""


@dataclass(slots=True)
class _Question:
    what: Callable[[], Any]
    answer: "Future[Any]" = field(default_factory=Future)
    taken_at: float | None = None
    """When a thread began with it; waiting for one is no silence of the database."""


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
        self._asked: SimpleQueue[_Question | None] = SimpleQueue()
        self._answered_at = time.monotonic()
        self._threads = self._idle = 0
        self._silent_until = float("-inf")

    async def ask(self, what: Callable[[], T]) -> T:
        """What `what` returns. Raises `DatabaseSilent`, and what it raises."""
        asked = self._submit(what)
        answer: asyncio.Future[T] = asyncio.wrap_future(asked.answer)
        try:
            while not answer.done():
                await asyncio.wait([answer], timeout=self._answer_seconds)
                if not answer.done():
                    self._give_up_when_silent(asked)
            return answer.result()
        finally:
            answer.cancel()

    def ask_and_wait(self, what: Callable[[], T]) -> T:
        """As `ask`, for threads."""
        asked = self._submit(what)
        while not wait([asked.answer], self._answer_seconds).done:
            self._give_up_when_silent(asked)
        return cast(T, asked.answer.result())

    def close(self) -> None:
        """Ask no more; a thread that a silent database keeps is left behind, and does not hold up the process's end."""
        with self._lock:
            for _ in range(self._threads):
                self._asked.put(None)

    def _give_up_when_silent(self, asked: _Question) -> None:
        """Raises `DatabaseSilent`, but not while others are answered and the turn has not come."""
        since = self._answered_at if asked.taken_at is None else asked.taken_at
        if time.monotonic() - since < self._answer_seconds:
            return
        asked.answer.cancel()
        with self._lock:
            self._silent_until = self._now() + self._pause_seconds
        raise DatabaseSilent(f"the database has not answered for {self._answer_seconds:.0f} seconds")

    def _submit(self, what: Callable[[], Any]) -> _Question:
        if self._now() < self._silent_until:
            raise DatabaseSilent("the database has not answered a moment ago, and is asked again in some seconds")
        asked = _Question(what)
        with self._lock:
            if self._idle == 0 and self._threads < _THREADS:
                self._threads += 1
                # Those of the library are waited for when the process ends.
                threading.Thread(target=self._work, name=f"database-{self._name}", daemon=True).start()
            self._asked.put(asked)
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
            found.taken_at = time.monotonic()
            if not found.answer.set_running_or_notify_cancel():
                continue
            try:
                found.answer.set_result(found.what())
            except Exception as error:  # noqa: BLE001 (handed on to whoever asks)
                found.answer.set_exception(error)
            self._answered_at = time.monotonic()
            del found
