"""Requests that are sent again when that does no harm, with pauses that grow."""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from indexer.client.problems import ServiceError, ServiceUnreachable, error_of

_WITHOUT_WORK = frozenset({"overloaded", "not-ready", "bundle-error", "catalogue-busy", "queue-error"})
"""Problems of status 503 that are told before anything was changed."""

Body = Callable[[ExitStack], dict[str, Any]]
"""Makes the arguments of a request; asked again for each attempt, since a file is read once. Opens into the stack."""


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and how long to try again: pauses of `first_pause_seconds`, doubled each time, at random below that.

    A service that asks for a longer pause than `longest_pause_seconds` is not waited for.
    """

    attempts: int = 5
    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 60.0


class Transport:
    """A connection to one service. Threads may share it."""

    def __init__(
        self,
        client: httpx2.Client,
        retries: Retries,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client, self._retries, self._sleep = client, retries, sleep

    def request(
        self,
        method: str,
        path: str,
        *,
        repeatable: bool,
        query: Mapping[str, Any] | None = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """The response, of a status below 300. Raises `ServiceError` and `ServiceUnreachable`.

        What is not `repeatable` is sent again only when the service has refused it before it did anything.
        """
        return self._repeated(repeatable, lambda: self._once(method, path, query, body, headers))

    @contextmanager
    def lines(self, path: str, *, query: Mapping[str, Any]) -> Iterator[Iterator[str]]:
        """The lines of an answer as they come. Raises as `request`; an answer that breaks off is not sent for again."""
        with ExitStack() as stack:

            def begin() -> httpx2.Response:
                with ExitStack() as attempt:
                    context: AbstractContextManager[httpx2.Response] = self._client.stream("GET", path, params=query)
                    response = attempt.enter_context(context)
                    if response.status_code >= 300:
                        response.read()
                        raise error_of(response, _retry_after(response))
                    stack.push(attempt.pop_all())
                    return response

            response = self._repeated(True, begin)
            try:
                yield response.iter_lines()
            except httpx2.TransportError as error:
                raise _unreachable(self._client, error) from error

    def _repeated(self, repeatable: bool, attempt: Callable[[], httpx2.Response]) -> httpx2.Response:
        pause = self._retries.first_pause_seconds
        for left in range(self._retries.attempts - 1, -1, -1):
            wait = random.uniform(pause / 2, pause)
            try:
                return attempt()
            except ServiceError as error:
                refused = error.status == 429 or (error.status == 503 and error.kind in _WITHOUT_WORK)
                again = refused or (repeatable and error.status in (502, 503, 504))
                wait = max(wait, error.retry_after_seconds or 0.0)
                if not again or not left or wait > self._retries.longest_pause_seconds:
                    raise
            except httpx2.TransportError as error:
                # Nothing was sent where no connection came about.
                again = repeatable or isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
                if not again or not left:
                    raise _unreachable(self._client, error) from error
            self._sleep(wait)
            pause = min(2 * pause, self._retries.longest_pause_seconds)
        raise AssertionError("the last attempt returns or raises")

    def _once(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: Body | None,
        headers: Mapping[str, str] | None,
    ) -> httpx2.Response:
        with ExitStack() as stack:
            arguments = body(stack) if body is not None else {}
            response = self._client.request(method, path, params=query, headers=headers, **arguments)
        if response.status_code >= 300:
            raise error_of(response, _retry_after(response))
        return response


def _retry_after(response: httpx2.Response) -> float | None:
    """Seconds, of either form of the header (RFC 9110, section 10.2.3)."""
    value = response.headers.get("retry-after", "").strip()
    if value.isdecimal() and value.isascii():
        return float(value[:9])
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _unreachable(client: httpx2.Client, error: httpx2.TransportError) -> ServiceUnreachable:
    # Without what stands before the @ of an address, which can be a password.
    url = client.base_url
    where = f"{url.scheme}://{url.host}" + (f":{url.port}" if url.port else "")
    why = "it did not answer in time" if isinstance(error, httpx2.TimeoutException) else str(error) or "no connection"
    return ServiceUnreachable(
        f"the service at {where} cannot be reached: {why}; is it running, and is this its address?"
    )
