"""Fetching from named hosts, against a server that misbehaves and name servers that lie."""

import asyncio
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from app.refusals import RemoteImageRefused, UnsupportedUpload
from app.remote_images import MAX_REDIRECTS, RemoteImages, SystemResolver, direct_transport
from app.uploads import UploadBudget
from models.errors import ImageTooLarge, ServiceOverloaded

HOST = "images.example.org"
OTHER = "other.example.org"
PUBLIC = "93.184.216.34"
ALSO_PUBLIC = "2606:4700::1111"

Answer = Callable[[str, dict[str, str], asyncio.StreamWriter], Awaitable[None]]


def head(status: str, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def whole(content: bytes, content_type: str = "image/jpeg", **headers: str) -> bytes:
    return head("200 OK", Content_Type=content_type, Content_Length=str(len(content)), **headers) + content


class Server:
    """Answers each path as it was told; keeps what it was asked."""

    def __init__(self, answers: dict[str, bytes | Answer]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, dict[str, str]]] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            path = request[0].split(" ")[1]
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in request[1:])}
            self.asked.append((path, headers))
            answer = self.answers[path]
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(path, headers, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


class Detour(httpx2.AsyncBaseTransport):
    """Leads every connection to the local server, and keeps where it would have gone."""

    def __init__(self, port: int, verify: ssl.SSLContext | bool = True) -> None:
        limits = httpx2.Limits(max_keepalive_connections=0)
        self._inner = httpx2.AsyncHTTPTransport(verify=verify, trust_env=False, limits=limits)
        self._port = port
        self.addresses: list[str] = []
        self.unreachable: set[str] = set()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.addresses.append(request.url.host)
        if request.url.host in self.unreachable:
            raise httpx2.ConnectError("no route")
        assert request.url.port is None
        url = request.url.copy_with(host="127.0.0.1", port=self._port)
        return await self._inner.handle_async_request(
            httpx2.Request(request.method, url, headers=request.headers, extensions=request.extensions)
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


class Names:
    """A name server that answers from lists, one answer after the other; the last for ever."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self._answers = {host: list(given) for host, given in answers.items()} or {HOST: [[PUBLIC]], OTHER: [[PUBLIC]]}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        answers = self._answers.get(host) or self._answers["any"]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if not answer:
            raise OSError("no such host")
        return answer


class Rig:
    """A server, a way to it, and what fetches from it."""

    def __init__(self, server: Server, detour: Detour, names: Names, images: RemoteImages) -> None:
        self.server, self.detour, self.names, self.images = server, detour, names, images
        self.budget = UploadBudget(1_000_000)

    async def fetch(self, *paths: str, scheme: str = "http") -> list[bytes]:
        addresses = [path if "://" in path else f"{scheme}://{HOST}{path}" for path in paths]
        with self.budget.share() as share:
            return await self.images.fetch(addresses, share)


@asynccontextmanager
async def rig(
    answers: dict[str, bytes | Answer],
    names: Names | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    verify: ssl.SSLContext | bool = True,
    **limits: float,
) -> AsyncIterator[Rig]:
    server = Server(answers)
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0, ssl=tls)
    detour = Detour(listening.sockets[0].getsockname()[1], verify)
    names = names or Names()
    given = {"max_bytes": 20_000, "max_bytes_together": 30_000, "timeout_seconds": 5.0} | limits
    images = RemoteImages((HOST, OTHER), resolve=names, transport=detour, **given)
    try:
        yield Rig(server, detour, names, images)
    finally:
        await images.close()
        listening.close()


def refused(run: Callable[[], Awaitable[object]], kind: type[Exception] = RemoteImageRefused) -> str:
    with pytest.raises(kind) as caught:
        asyncio.run(run())
    return str(caught.value)


@pytest.fixture(scope="session")
def jpeg(encode: Callable[..., bytes]) -> bytes:
    return encode(1)


def test_images_come_in_the_order_of_their_addresses(jpeg: bytes, encode: Callable[..., bytes]) -> None:
    png = encode(2, "PNG")

    async def run() -> None:
        async with rig({"/a.jpg?size=1": whole(jpeg), "/b.png": whole(png, "image/png; charset=binary")}) as at:
            assert await at.fetch("/a.jpg?size=1", "/b.png", f"http://{OTHER}/a.jpg?size=1") == [jpeg, png, jpeg]
            assert at.budget.held_bytes == 0

    asyncio.run(run())


def test_the_connection_goes_to_the_checked_address_and_names_the_host_in_its_head(jpeg: bytes) -> None:
    async def run() -> None:
        async with rig({"/a.jpg": whole(jpeg)}) as at:
            await at.fetch("/a.jpg")
            assert at.detour.addresses == [PUBLIC]
            [(_, headers)] = at.server.asked
            assert headers["host"] == HOST
            assert headers["accept-encoding"] == "identity"
            assert headers["connection"] == "close"
            assert not {"cookie", "authorization", "referer", "x-forwarded-for"} & set(headers)

    asyncio.run(run())


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["::1"],
        ["10.0.0.1"],
        ["169.254.169.254"],
        ["::ffff:10.0.0.1"],
        ["64:ff9b::a00:1"],
        ["2002:a00:1::"],
        ["2001:0:4136:e378:8000:63bf:3fff:fdd2"],
        ["fe80::1%eth0"],
        ["100.64.0.1"],
        [PUBLIC, "127.0.0.1"],
        ["127.0.0.1", PUBLIC],
        [ALSO_PUBLIC, "fd00::1"],
    ],
)
def test_a_name_that_leads_inside_is_refused_before_anything_connects(jpeg: bytes, addresses: list[str]) -> None:
    async def run() -> None:
        async with rig({"/a.jpg": whole(jpeg)}, Names(any=[addresses])) as at:
            try:
                await at.fetch("/a.jpg")
            finally:
                assert at.detour.addresses == []

    assert "public internet" in refused(run)


def test_a_name_that_leads_elsewhere_the_second_time_is_asked_once(jpeg: bytes) -> None:
    async def run() -> None:
        names = Names(any=[[PUBLIC], ["127.0.0.1"]])
        async with rig({"/a.jpg": whole(jpeg)}, names) as at:
            assert await at.fetch("/a.jpg") == [jpeg]
            assert at.names.asked == [HOST]
            assert at.detour.addresses == [PUBLIC]
            with pytest.raises(RemoteImageRefused):
                await at.fetch("/a.jpg")
            assert at.detour.addresses == [PUBLIC]

    asyncio.run(run())


def test_the_next_address_is_tried_when_one_cannot_be_reached(jpeg: bytes) -> None:
    async def run() -> None:
        async with rig({"/a.jpg": whole(jpeg)}, Names(any=[[ALSO_PUBLIC, PUBLIC]])) as at:
            at.detour.unreachable = {ALSO_PUBLIC}
            assert await at.fetch("/a.jpg") == [jpeg]
            assert at.detour.addresses == [ALSO_PUBLIC, PUBLIC]
            at.detour.unreachable = {ALSO_PUBLIC, PUBLIC}
            with pytest.raises(RemoteImageRefused, match="could not be fetched"):
                await at.fetch("/a.jpg")

    asyncio.run(run())


def test_a_name_that_nobody_knows_is_refused(jpeg: bytes) -> None:
    async def run() -> None:
        async with rig({"/a.jpg": whole(jpeg)}, Names(any=[[]])) as at:
            await at.fetch("/a.jpg")

    assert refused(run) == "image 1: it could not be fetched"


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Again", "308 For good"])
def test_redirects_between_listed_hosts_are_followed(jpeg: bytes, status: str) -> None:
    async def run() -> None:
        answers = {"/a": head(status, Location=f"http://{OTHER}/b"), "/b": whole(jpeg)}
        async with rig(answers) as at:
            assert await at.fetch("/a") == [jpeg]
            assert at.names.asked == [HOST, OTHER]
            assert [headers["host"] for _, headers in at.server.asked] == [HOST, OTHER]

    asyncio.run(run())


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://localhost/",
        "http://evil.example/",
        f"http://{HOST}:8080/",
        f"http://user:password@{HOST}/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/",
        "//127.0.0.1/",
        "",
    ],
)
def test_redirects_elsewhere_are_refused_before_anything_connects(location: str) -> None:
    async def run() -> None:
        async with rig({"/a": head("302 Found", Location=location)}) as at:
            try:
                await at.fetch("/a")
            finally:
                # An empty location leads to the same address again, until there were too many.
                assert set(at.detour.addresses) == {PUBLIC}
                assert {path for path, _ in at.server.asked} == {"/a"}

    refused(run)


def test_a_redirect_to_a_listed_host_that_leads_inside_is_refused(jpeg: bytes) -> None:
    async def run() -> None:
        answers = {"/a": head("302 Found", Location="/b"), "/b": whole(jpeg)}
        async with rig(answers, Names(any=[[PUBLIC], ["10.0.0.1"]])) as at:
            try:
                await at.fetch("/a")
            finally:
                assert at.detour.addresses == [PUBLIC]

    assert "public internet" in refused(run)


def test_redirects_are_counted(jpeg: bytes) -> None:
    def answers(count: int) -> dict[str, bytes | Answer]:
        steps = {f"/{n}": head("302 Found", Location=f"/{n + 1}") for n in range(count)}
        return steps | {f"/{count}": whole(jpeg)}

    async def run(count: int) -> list[bytes]:
        async with rig(answers(count)) as at:
            return await at.fetch("/0")

    assert asyncio.run(run(MAX_REDIRECTS)) == [jpeg]
    assert "redirects" in refused(lambda: run(MAX_REDIRECTS + 1))


def test_cookies_are_not_kept(jpeg: bytes) -> None:
    async def run() -> None:
        answers = {"/a": head("302 Found", Location="/b", Set_Cookie="a=b; Path=/"), "/b": whole(jpeg)}
        async with rig(answers) as at:
            await at.fetch("/a")
            await at.fetch("/b")
            assert all("cookie" not in headers for _, headers in at.server.asked)

    asyncio.run(run())


def test_proxies_and_passwords_of_the_environment_are_not_used(
    jpeg: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text(f"machine {HOST} login me password secret\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:9")

    async def run() -> None:
        async with rig({"/a.jpg": whole(jpeg)}) as at:
            assert await at.fetch("/a.jpg") == [jpeg]
            assert "authorization" not in at.server.asked[0][1]
        transport = direct_transport()
        assert type(transport._pool).__name__ == "AsyncConnectionPool"
        await transport.aclose()

    asyncio.run(run())


async def endless(path: str, headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
    writer.write(head("200 OK", Content_Type="image/jpeg") + b"\xff\xd8\xff")
    while True:
        writer.write(bytes(4096))
        await writer.drain()


async def dripping(path: str, headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
    writer.write(head("200 OK", Content_Type="image/jpeg") + b"\xff\xd8\xff")
    while True:
        writer.write(b"\0")
        await writer.drain()
        await asyncio.sleep(0.02)


async def dripping_head(path: str, headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: y\r\n")
        await writer.drain()
        await asyncio.sleep(0.02)


async def silent(path: str, headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


@pytest.mark.parametrize("answer", [dripping, dripping_head, silent])
def test_a_server_that_takes_long_is_given_up_however_it_does_so(answer: Answer) -> None:
    async def run() -> None:
        async with rig({"/a": answer}, timeout_seconds=0.3) as at:
            await at.fetch("/a")

    began = time.monotonic()
    assert "within" in refused(run)
    assert time.monotonic() - began < 3


def test_a_name_server_that_takes_long_is_given_up() -> None:
    async def never(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(30)
        return [PUBLIC]

    async def run() -> None:
        async with rig({}, never, timeout_seconds=0.2) as at:  # type: ignore[arg-type]
            await at.fetch("/a")

    assert "within" in refused(run)


def test_more_bytes_than_are_allowed_are_not_read(jpeg: bytes) -> None:
    async def run(path: str, **limits: float) -> list[bytes]:
        lying = head("200 OK", Content_Type="image/jpeg", Content_Length="999999999")
        answers = {"/endless": endless, "/announced": lying, "/a": whole(jpeg)}
        async with rig(answers, **limits) as at:
            return await at.fetch(path)

    assert refused(lambda: run("/endless"), ImageTooLarge).startswith("image 1: ")
    assert refused(lambda: run("/announced"), ImageTooLarge).startswith("image 1: ")
    assert asyncio.run(run("/a", max_bytes=len(jpeg))) == [jpeg]
    refused(lambda: run("/a", max_bytes=len(jpeg) - 1), ImageTooLarge)


def test_all_images_of_a_request_together_have_a_limit(jpeg: bytes) -> None:
    async def run(together: int) -> list[bytes]:
        async with rig({"/a": whole(jpeg)}, max_bytes_together=together) as at:
            return await at.fetch("/a", "/a")

    assert asyncio.run(run(2 * len(jpeg))) == [jpeg, jpeg]
    refused(lambda: run(2 * len(jpeg) - 1), ImageTooLarge)


def test_what_is_fetched_counts_as_upload(jpeg: bytes) -> None:
    async def run() -> None:
        async with rig({"/a": whole(jpeg)}) as at:
            at.budget = UploadBudget(len(jpeg) - 1)
            try:
                await at.fetch("/a")
            finally:
                assert at.budget.held_bytes == 0

    refused(run, ServiceOverloaded)


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("text/html", b"\xff\xd8\xff"),
        ("image/svg+xml", b"<svg/>"),
        ("image/webp", b"RIFF\0\0\0\0WEBP"),
        ("", b"\xff\xd8\xff"),
        ("image/jpeg", b"<html>secret of the intranet</html>"),
        ("image/png", b"RIFF\0\0\0\0WEBP"),
        ("image/png", b""),
    ],
)
def test_what_is_no_jpeg_or_png_by_word_and_by_first_bytes_is_refused(content_type: str, content: bytes) -> None:
    async def run() -> None:
        async with rig({"/a": whole(content, content_type)}) as at:
            await at.fetch("/a")

    assert "secret" not in refused(run, UnsupportedUpload)


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "identity, gzip"])
def test_a_compressed_answer_is_refused_and_not_unpacked(jpeg: bytes, encoding: str) -> None:
    async def run() -> None:
        async with rig({"/a": whole(jpeg, Content_Encoding=encoding)}) as at:
            await at.fetch("/a")

    assert "compressed" in refused(run)


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"])
def test_a_server_that_speaks_no_http_looks_like_one_that_is_not_there(answer: bytes) -> None:
    async def run() -> None:
        async with rig({"/a": answer}) as at:
            await at.fetch("/a")

    assert refused(run) == "image 1: it could not be fetched"


def test_a_connection_that_breaks_is_refused(jpeg: bytes) -> None:
    async def run() -> None:
        short = head("200 OK", Content_Type="image/jpeg", Content_Length="9999") + jpeg[:100]
        async with rig({"/a": short}) as at:
            await at.fetch("/a")

    assert refused(run) == "image 1: it could not be fetched"


@pytest.mark.parametrize("status", ["404 Not Found", "500 Broken", "204 Nothing", "206 Partly", "304 Same"])
def test_another_status_is_refused(status: str) -> None:
    async def run() -> None:
        async with rig({"/a": head(status, Content_Type="image/jpeg", Content_Length="0")}) as at:
            await at.fetch("/a")

    assert "answered with status" in refused(run)


def test_an_error_names_the_image_by_its_position_and_a_bad_address_costs_no_connection(jpeg: bytes) -> None:
    async def run(second: str) -> None:
        async with rig({"/a": whole(jpeg), "/404": head("404 Not Found")}) as at:
            try:
                await at.fetch("/a", second)
            finally:
                if "://" in second:
                    assert at.names.asked == []

    assert refused(lambda: run("/404")).startswith("image 2: ")
    assert refused(lambda: run("https://evil.example/x")).startswith("image 2: ")


def test_without_hosts_everything_is_refused_and_nothing_is_opened() -> None:
    async def run() -> None:
        images = RemoteImages((), max_bytes=1000, max_bytes_together=1000, timeout_seconds=1)
        assert images._transport is None
        try:
            with UploadBudget(1000).share() as share:
                await images.fetch([f"https://{HOST}/a.jpg"], share)
        finally:
            await images.close()

    assert "POST" in refused(run)


def test_the_system_is_asked_off_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(host: str, port: int, **options: object) -> list[tuple[object, ...]]:
        time.sleep(0.3)
        return [(0, 0, 0, "", (PUBLIC, port)), (0, 0, 0, "", (PUBLIC, port)), (0, 0, 0, "", (ALSO_PUBLIC, port, 0, 0))]

    async def run() -> None:
        resolver = SystemResolver()
        asking = asyncio.ensure_future(resolver(HOST, 443))
        ticks = 0
        while not asking.done():
            await asyncio.sleep(0.01)
            ticks += 1
        assert ticks > 5
        assert asking.result() == [PUBLIC, ALSO_PUBLIC]
        resolver.close()

    monkeypatch.setattr("app.remote_images.socket.getaddrinfo", slow)
    asyncio.run(run())


def test_a_name_that_cannot_be_asked_for_is_an_error_of_the_system() -> None:
    async def run() -> None:
        resolver = SystemResolver()
        try:
            await resolver("a" * 64 + ".example", 443)
        finally:
            resolver.close()

    with pytest.raises(OSError):  # noqa: PT011 (whatever the system says)
        asyncio.run(run())


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for `HOST` that signs itself."""
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem"), "-days", "2"]
    command += ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return folder


def test_tls_verifies_the_name_and_not_the_address(jpeg: bytes, certificates: Path) -> None:
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    trusting = ssl.create_default_context(cafile=str(certificates / "cert.pem"))

    async def run(address: str, verify: ssl.SSLContext | bool) -> list[bytes]:
        async with rig({"/a.jpg": whole(jpeg)}, tls=serving, verify=verify) as at:
            return await at.fetch(address)

    assert asyncio.run(run(f"https://{HOST}/a.jpg", trusting)) == [jpeg]
    assert "could not be fetched" in refused(lambda: run(f"https://{OTHER}/a.jpg", trusting))
    assert "could not be fetched" in refused(lambda: run(f"https://{HOST}/a.jpg", True))
