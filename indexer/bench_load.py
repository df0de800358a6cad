"""Clients of a service, as many as are asked for, each with one request at a time: a process of its own.

``python -m indexer.bench_load`` reads the order as JSON from standard input and writes what it measured to standard
output. It prepares all requests beforehand and reads of an answer what it must, so that it takes little from a service
on the same machine.
"""

import json
import socket
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

_BOUNDARY = "voucher-bench"
_MEBIBYTE = 1024 * 1024
_PATIENCE_SECONDS = 120.0


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


class Client:
    """One connection; opened again when the service closes it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._socket: socket.socket | None = None

    def ask(self, request: bytes) -> int:
        """Status of the answer. Raises `OSError`."""
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=_PATIENCE_SECONDS)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(request)
        received = self._receive(b"")
        while b"\r\n\r\n" not in received:
            received = self._receive(received)
        head, _, body = received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").lower().split("\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith("content-length:"))
        while len(body) < length:
            body = self._receive(body)
        if "connection: close" in lines:
            self.close()
        return int(lines[0].split(" ", 2)[1])

    def _receive(self, before: bytes) -> bytes:
        assert self._socket is not None
        piece = self._socket.recv(_MEBIBYTE)
        if not piece:
            raise ConnectionError("the service closed the connection")
        return before + piece

    def close(self) -> None:
        """Until the next request."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def run_load(order: LoadOrder) -> Load:
    """Let the clients, a thread each, ask one photo after the other until the time is over."""
    requests = [request_bytes(order.url, order.field, Path(p).read_bytes()) for p in order.photos]
    begin = time.perf_counter() + order.warm_up_seconds
    end = begin + order.seconds
    latencies: list[float] = []
    statuses: Counter[str] = Counter()
    counting = threading.Lock()

    def client(number: int) -> None:
        connection = Client(order.url)
        turn = number
        while (started := time.perf_counter()) < end:
            try:
                status = connection.ask(requests[turn % len(requests)])
            except OSError:
                connection.close()
                status = 0
            turn += order.clients
            finished = time.perf_counter()
            # Answers count that came in the time measured, however long before it they were asked for.
            if begin <= finished <= end:
                with counting:
                    statuses[str(status)] += 1
                    if status == 200:
                        latencies.append(finished - started)
        connection.close()

    clients = [threading.Thread(target=client, args=(number,)) for number in range(order.clients)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    latencies.sort()
    return Load(
        clients=order.clients,
        answers=len(latencies),
        answers_per_second=len(latencies) / order.seconds,
        p50_milliseconds=1000 * _quantile(latencies, 0.50),
        p95_milliseconds=1000 * _quantile(latencies, 0.95),
        p99_milliseconds=1000 * _quantile(latencies, 0.99),
        statuses=dict(statuses),
        processor_seconds=time.process_time(),
    )


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


if __name__ == "__main__":
    json.dump(asdict(run_load(LoadOrder(**json.load(sys.stdin)))), sys.stdout)
