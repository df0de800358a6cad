"""Clients of a service, as many as are asked for, each with one request at a time: a process of its own.

``python -m indexer.bench_load`` reads the order as JSON from standard input and writes what it measured to standard
output. It prepares all requests beforehand and reads of an answer what it must, so that it takes little from a service
on the same machine.
"""

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

_BOUNDARY = "voucher-bench"
_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class LoadOrder:
    """Who is asked, with which photos, by how many clients, and for how long."""

    url: str
    field: str
    photos: list[str]
    clients: int
    seconds: float
    warm_up_seconds: float


@dataclass(frozen=True)
class Load:
    """What `clients` got: answers a second, and the latencies' quantiles in milliseconds.

    `statuses` counts the answers by status; only those with 200 are in the other figures. `processor_seconds` is what
    the clients themselves took.
    """

    clients: int
    answers: int
    answers_per_second: float
    p50_milliseconds: float
    p95_milliseconds: float
    p99_milliseconds: float
    statuses: dict[str, int]
    processor_seconds: float


def request_bytes(url: str, field: str, photo: bytes) -> bytes:
    """A whole POST request with one photo as a form."""
    parts = urlsplit(url)
    body = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="photo.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    ).encode() + photo
    body += f"\r\n--{_BOUNDARY}--\r\n".encode()
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Client:
    """One connection; opened again when the service closes it."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> int:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=_MEBIBYTE)
        reader, writer = self._streams
        writer.write(request)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = next(int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:"))
        await reader.readexactly(length)
        if "connection: close" in head:
            self.close()
        return int(head.split(" ", 2)[1])

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def run_load(order: LoadOrder) -> Load:
    """Let the clients ask one photo after the other until the time is over."""
    parts = urlsplit(order.url)
    requests = [request_bytes(order.url, order.field, Path(p).read_bytes()) for p in order.photos]
    begin = time.perf_counter() + order.warm_up_seconds
    end = begin + order.seconds
    latencies: list[float] = []
    statuses: dict[str, int] = {}

    async def client(number: int) -> None:
        connection = _Client(parts.hostname or "127.0.0.1", parts.port or 80)
        turn = number
        while (started := time.perf_counter()) < end:
            try:
                status = await connection.ask(requests[turn % len(requests)])
            except (OSError, asyncio.IncompleteReadError):
                connection.close()
                status = 0
            turn += order.clients
            finished = time.perf_counter()
            # Answers count that came in the time measured, however long before it they were asked for.
            if begin <= finished <= end:
                statuses[str(status)] = statuses.get(str(status), 0) + 1
                if status == 200:
                    latencies.append(finished - started)
        connection.close()

    await asyncio.gather(*(client(number) for number in range(order.clients)))
    latencies.sort()
    return Load(
        clients=order.clients,
        answers=len(latencies),
        answers_per_second=len(latencies) / order.seconds,
        p50_milliseconds=1000 * _quantile(latencies, 0.50),
        p95_milliseconds=1000 * _quantile(latencies, 0.95),
        p99_milliseconds=1000 * _quantile(latencies, 0.99),
        statuses=statuses,
        processor_seconds=time.process_time(),
    )


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


if __name__ == "__main__":
    json.dump(asdict(asyncio.run(run_load(LoadOrder(**json.load(sys.stdin))))), sys.stdout)
