"""uvicorn's HTTP protocol with deadlines for the head of a request, and for clients that do not take their answer."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


def protocol_with_deadlines(*, head_seconds: float, reader_seconds: float) -> type[H11Protocol]:
    """H11 protocol that closes a connection whose request head is not complete after `head_seconds`.

    uvicorn waits for a head for ever: clients that send a byte now and then hold their connections
    until there are none left. The clock starts with the connection and with each further request; bytes
    that trickle in do not stop it. It waits for ever, too, for clients that ask and do not read: a connection that has
    taken nothing of its answer for `reader_seconds` is cut off, however much of it is left.
    """

    class DeadlineProtocol(H11Protocol):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self._head_timer: asyncio.TimerHandle | None = None
            self._reader_timer: asyncio.TimerHandle | None = None
            self._unread_bytes = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._start_timer()
            self._look_at_reader()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._stop_timer()
            elif self._head_timer is None:
                self._start_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            self._stop_reader_timer()
            super().connection_lost(exc)

        def _look_at_reader(self) -> None:
            """Again and again: what is unread when the connection is closed is waited for as well."""
            unread = self.transport.get_write_buffer_size()
            if unread and unread >= self._unread_bytes > 0:
                self.transport.abort()
                return
            self._unread_bytes = unread
            self._reader_timer = self.loop.call_later(reader_seconds, self._look_at_reader)

        def resume_writing(self) -> None:
            # Most of what was unread has been taken, though more may follow before the next look.
            self._unread_bytes = 0
            super().resume_writing()

        def _stop_reader_timer(self) -> None:
            if self._reader_timer is not None:
                self._reader_timer.cancel()
                self._reader_timer = None

        def _start_timer(self) -> None:
            self._head_timer = self.loop.call_later(head_seconds, self._on_timeout)

        def _stop_timer(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def _on_timeout(self) -> None:
            self._head_timer = None
            if not self.transport.is_closing() and self.conn.their_state is h11.IDLE:
                self.transport.close()

    return DeadlineProtocol
