"""Fetches images from addresses that a client names: from listed hosts alone, and never from inside the network.

A host is resolved once for each request; every address that its name has must be public, and the connection goes to
one of these addresses, not to the name: what a second look at the name would give does not matter. Each redirect is
checked like the first address. TLS still verifies the name.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx2

from app.refusals import RemoteImageRefused, UnsupportedUpload
from app.remote_addresses import RemoteAddress, is_public, read_address
from app.uploads import UploadShare
from models.errors import ImageTooLarge, InvalidImage, UnreadableImage
from models.metadata_removal import ImageFormat, detect_format

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""IP addresses of a host name, at least one. Raises `OSError`."""

MEBIBYTE = 1024 * 1024
MAX_REDIRECTS = 3
MAX_CONNECTIONS = 16
CONNECT_SECONDS = 3.0
"""For one of a host's addresses, before the next is tried."""

REDIRECTS = frozenset({301, 302, 303, 307, 308})
MEDIA_TYPES = frozenset({"image/jpeg", "image/jpg", "image/png"})
FORMATS = frozenset({ImageFormat.JPEG, ImageFormat.PNG})

# No compression is offered, so that no answer grows when it is unpacked; no connection is kept: one that was opened
# for a host must not serve another with the same address.
HEADERS = {
    "Accept": "image/jpeg, image/png",
    "Accept-Encoding": "identity",
    "Connection": "close",
    "User-Agent": "voucher",
}


class SystemResolver:
    """Resolves names as the system does, in threads of its own: a slow name server holds up nothing else."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="resolve")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """IP addresses of `host`. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _getaddrinfo, host, port)
        return list(dict.fromkeys(found))

    def close(self) -> None:
        """Drop what has not begun."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _getaddrinfo(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except UnicodeError as error:
        raise OSError("not a host name") from error
    return [str(address[4][0]) for address in found]


def direct_transport() -> httpx2.AsyncHTTPTransport:
    """Connections with verified certificates, without proxies or anything else that the environment names."""
    limits = httpx2.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=0)
    return httpx2.AsyncHTTPTransport(verify=True, trust_env=False, retries=0, limits=limits)


class RemoteImages:
    """Images of listed hosts; off without any. Keeps no cookies and follows no redirect unseen."""

    def __init__(
        self,
        hosts: Sequence[str],
        *,
        max_bytes: int,
        max_bytes_together: int,
        timeout_seconds: float,
        resolve: Resolve | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._hosts = frozenset(hosts)
        self._max_bytes = max_bytes
        self._max_bytes_together = max_bytes_together
        self._timeout_seconds = timeout_seconds
        self._system_resolver = SystemResolver()
        self._resolve = resolve or self._system_resolver
        self._transport = transport or (direct_transport() if self._hosts else None)

    async def fetch(self, addresses: Sequence[str], share: UploadShare) -> list[bytes]:
        """JPEG and PNG files, in the order of their addresses; what they weigh is taken from `share`.

        Raises `RemoteImageRefused`, `ImageTooLarge`, `UnsupportedUpload` and `ServiceOverloaded`, naming the image by
        its position from 1.
        """
        if not self._hosts:
            raise RemoteImageRefused(
                "this service fetches no images from other hosts; send the images themselves with POST"
            )
        counted = _Counted(share, self._max_bytes, self._max_bytes_together)
        # Read before anything is asked: a bad address costs no connection.
        parsed = [self._located(n, text) for n, text in enumerate(addresses, start=1)]
        try:
            async with asyncio.timeout(self._timeout_seconds), asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._named(n, each, counted)) for n, each in enumerate(parsed, start=1)]
        except TimeoutError:
            raise RemoteImageRefused(
                f"expected the images within {self._timeout_seconds:.0f} seconds; send them with POST"
            ) from None
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in tasks]

    async def close(self) -> None:
        """Close what is open."""
        self._system_resolver.close()
        if self._transport is not None:
            await self._transport.aclose()

    def _located(self, position: int, text: str) -> RemoteAddress:
        try:
            return read_address(text, self._hosts)
        except RemoteImageRefused as error:
            raise RemoteImageRefused(f"image {position}: {error}") from None

    async def _named(self, position: int, address: RemoteAddress, counted: "_Counted") -> bytes:
        """One image; errors tell which."""
        try:
            return await self._fetch(address, counted)
        except (RemoteImageRefused, ImageTooLarge, UnsupportedUpload) as error:
            raise type(error)(f"image {position}: {error}") from None
        except (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL, OSError):
            # Which of these it was would tell about the network behind this service.
            raise RemoteImageRefused(f"image {position}: it could not be fetched") from None

    async def _fetch(self, address: RemoteAddress, counted: "_Counted") -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._ask(address)
            try:
                if response.status_code not in REDIRECTS:
                    return await _content(response, counted)
                address = address.joined(response.headers.get("location", ""), self._hosts)
            finally:
                await response.aclose()
        raise RemoteImageRefused(f"expected at most {MAX_REDIRECTS} redirects, found more")

    async def _ask(self, address: RemoteAddress) -> httpx2.Response:
        """The beginning of the answer, from the first public address of the host that can be reached."""
        assert self._transport is not None
        found = await self._resolve(address.host, address.port)
        if not found or not all(is_public(each) for each in found):
            raise RemoteImageRefused("its host is not on the public internet")
        failure: httpx2.HTTPError | None = None
        for each in found:
            try:
                return await self._transport.handle_async_request(_request(address, each))
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                failure = error
        assert failure is not None
        raise failure


def _request(address: RemoteAddress, ip_address: str) -> httpx2.Request:
    """A request that connects to `ip_address`, and names the host in its head and to TLS."""
    url = httpx2.URL(scheme=address.scheme, host=ip_address, raw_path=address.target)
    timeout = {"connect": CONNECT_SECONDS, "read": None, "write": CONNECT_SECONDS, "pool": None}
    return httpx2.Request(
        "GET",
        url,
        headers={"Host": address.host, **HEADERS},
        extensions={"timeout": timeout, "sni_hostname": address.host},
    )


async def _content(response: httpx2.Response, counted: "_Counted") -> bytes:
    """The image in an answer, counted as it comes; nothing is unpacked."""
    if response.status_code != 200:
        raise RemoteImageRefused(f"its server answered with status {response.status_code}")
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in MEDIA_TYPES:
        raise UnsupportedUpload("expected image/jpeg or image/png, found another type")
    if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise RemoteImageRefused("its server sent it compressed, which was not asked for")
    length = response.headers.get("content-length", "0")
    counted.refuse_announced(int(length) if length.isascii() and length.isdecimal() else 0)
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        counted.take(len(chunk), size)
        chunks.append(chunk)
    content = b"".join(chunks)
    refuse_other_formats(content)
    return content


def refuse_other_formats(content: bytes) -> None:
    """Raises `UnsupportedUpload` when a file is neither JPEG nor PNG by its first bytes."""
    try:
        found = detect_format(content)
    except UnreadableImage:
        raise UnsupportedUpload("expected a JPEG or PNG file") from None
    if found not in FORMATS:
        raise UnsupportedUpload(f"expected a JPEG or PNG file, found {found}")


class _Counted:
    """Bytes of all images of one request."""

    def __init__(self, share: UploadShare, max_bytes: int, max_bytes_together: int) -> None:
        self._share = share
        self._max_bytes = max_bytes
        self._max_bytes_together = max_bytes_together
        self._together = 0

    def refuse_announced(self, size: int) -> None:
        """Raises `ImageTooLarge` for an image that is known to be too large before it is read."""
        if size > self._max_bytes:
            raise self._too_large()

    def take(self, count: int, size: int) -> None:
        """Hold `count` bytes more of an image that now has `size`. Raises `ImageTooLarge` and `ServiceOverloaded`."""
        self._together += count
        if size > self._max_bytes or self._together > self._max_bytes_together:
            raise self._too_large()
        self._share.take(count)

    def _too_large(self) -> InvalidImage:
        return ImageTooLarge(
            f"expected at most {self._max_bytes / MEBIBYTE:.0f} MiB, and {self._max_bytes_together / MEBIBYTE:.0f} MiB "
            "for all images, found more"
        )
