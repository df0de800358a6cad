"""What is sent again and what is not; the service is a function."""

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from indexer.client import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    Retries,
    ServiceError,
    ServiceUnavailable,
    ServiceUnreachable,
    TooManyRequests,
    VoucherClient,
)
from models.errors import InvalidConfig, UnreadableImage

BUNDLES = {"bundles": []}
JOB = {
    "job_id": "build-1",
    "kind": "build-index",
    "state": "queued",
    "created_at": "",
    "started_at": None,
    "finished_at": None,
    "requested_by": "",
    "progress": None,
    "result": None,
    "reason": None,
}

Reply = httpx2.Response | Exception


def problem(status: int, slug: str, **headers: str) -> httpx2.Response:
    document = {
        "type": f"urn:voucher:problem:{slug}",
        "title": "a title",
        "status": status,
        "detail": "what to do",
        "request_id": "req-1",
    }
    return httpx2.Response(status, json=document, headers=headers)


class Rig:
    """A client whose service gives the replies one after the other, and whose pauses are noted."""

    def __init__(self, *replies: Reply, **options: Any) -> None:
        self.requests: list[httpx2.Request] = []
        self.pauses: list[float] = []
        self._replies = list(replies)
        self.client = VoucherClient("http://flora.example/sub", transport=httpx2.MockTransport(self._reply), **options)
        self.client._transport._sleep = self.pauses.append

    def _reply(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        self.requests.append(request)
        reply = self._replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


def ok(values: dict[str, Any] = BUNDLES) -> httpx2.Response:
    return httpx2.Response(200, json=values)


def lost() -> httpx2.ReadError:
    return httpx2.ReadError("the connection was lost")


READ: Callable[[VoucherClient], Any] = lambda client: client.bundles()  # noqa: E731
BUILD: Callable[[VoucherClient], Any] = lambda client: client.start_build()  # noqa: E731


@pytest.mark.parametrize(
    ("call", "reply", "answer"),
    [
        (READ, problem(503, "overloaded"), ok()),
        (READ, problem(503, "answer-timeout"), ok()),
        (READ, problem(429, "rate-exceeded"), ok()),
        (READ, httpx2.Response(502, text="proxy"), ok()),
        (READ, lost(), ok()),
        (BUILD, problem(503, "overloaded"), ok(JOB)),
        (BUILD, problem(503, "catalogue-busy"), ok(JOB)),
        (BUILD, problem(429, "rate-exceeded"), ok(JOB)),
        (BUILD, httpx2.ConnectError("refused"), ok(JOB)),
    ],
)
def test_what_does_no_harm_is_sent_again(call: Callable[..., Any], reply: Reply, answer: httpx2.Response) -> None:
    rig = Rig(reply, answer)
    call(rig.client)
    assert len(rig.requests) == 2
    assert len(rig.pauses) == 1


@pytest.mark.parametrize(
    ("call", "reply", "error"),
    [
        (BUILD, lost(), ServiceUnreachable),
        (BUILD, problem(503, "answer-timeout"), ServiceUnavailable),
        (BUILD, httpx2.Response(502, text="proxy"), ServiceError),
        (READ, problem(500, "internal-error"), ServiceError),
        (READ, problem(404, "unknown-job"), NotFound),
        (READ, problem(507, "storage-full"), ServiceError),
        (READ, problem(429, "quota-spent", **{"Retry-After": "40000"}), TooManyRequests),
        (READ, httpx2.Response(302, headers={"Location": "http://elsewhere.example"}), ServiceError),
    ],
)
def test_what_might_do_harm_or_does_not_help_is_not(
    call: Callable[..., Any], reply: Reply, error: type[Exception]
) -> None:
    rig = Rig(reply, ok())
    with pytest.raises(error):
        call(rig.client)
    assert len(rig.requests) == 1


def test_pauses_grow_and_the_last_refusal_is_told() -> None:
    rig = Rig(*[problem(503, "overloaded") for _ in range(4)], retries=Retries(attempts=4, first_pause_seconds=1.0))
    with pytest.raises(ServiceUnavailable, match="what to do"):
        rig.client.bundles()
    assert len(rig.requests) == 4
    assert [0.5 <= rig.pauses[0] <= 1, 1 <= rig.pauses[1] <= 2, 2 <= rig.pauses[2] <= 4] == [True] * 3


@pytest.mark.parametrize("value", ["7", "Wed, 21 Oct 2065 07:28:00 GMT"])
def test_the_service_says_when_to_come_again(value: str) -> None:
    rig = Rig(problem(503, "overloaded", **{"Retry-After": value}), ok(), retries=Retries(longest_pause_seconds=4e9))
    rig.client.bundles()
    assert rig.pauses[0] >= 7


@pytest.mark.parametrize("value", ["", "soon", "-5", "1e3"])
def test_a_strange_time_to_come_again_is_passed_over(value: str) -> None:
    rig = Rig(problem(503, "overloaded", **{"Retry-After": value}), ok())
    rig.client.bundles()
    assert rig.pauses[0] <= 0.5


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, Forbidden),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (413, InvalidRequest),
        (422, InvalidRequest),
    ],
)
def test_a_problem_is_an_exception_with_its_parts(status: int, error: type[ServiceError]) -> None:
    with pytest.raises(error) as caught:
        Rig(problem(status, "some-kind")).client.bundles()
    found = caught.value
    assert (found.status, found.kind, found.title) == (status, "some-kind", "a title")
    assert (found.detail, found.request_id) == ("what to do", "req-1")
    assert "what to do" in str(found)
    assert "req-1" in str(found)


def test_a_proxys_page_is_a_problem_without_parts() -> None:
    with pytest.raises(ServiceError, match="proxy") as caught:
        Rig(httpx2.Response(500, text="<html>oops</html>")).client.bundles()
    assert caught.value.kind == ""


@pytest.mark.parametrize("reply", [httpx2.Response(200, text="<html>"), httpx2.Response(200, json={"bundles": [1]})])
def test_another_service_at_the_address_is_noticed(reply: httpx2.Response) -> None:
    with pytest.raises(ServiceError, match=r"another service|do not fit"):
        Rig(reply).client.bundles()


def test_the_key_is_a_header_and_never_part_of_a_message() -> None:
    rig = Rig(problem(403, "scope-missing"), api_key="vk_secret")
    with pytest.raises(Forbidden) as caught:
        rig.client.bundles()
    (request,) = rig.requests
    assert request.headers["authorization"] == "Bearer vk_secret"
    assert "secret" not in str(request.url)
    assert "secret" not in str(caught.value)


def test_a_password_in_the_address_is_not_told() -> None:
    transport = httpx2.MockTransport(lambda _: (_ for _ in ()).throw(httpx2.ConnectError("refused")))
    client = VoucherClient("http://ada:secret@flora.example:81", transport=transport, retries=Retries(attempts=1))
    with pytest.raises(ServiceUnreachable, match=r"http://flora\.example:81") as caught:
        client.bundles()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("address", ["flora.example", "ftp://flora.example", "http://", ""])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(InvalidConfig, match="expected the address"):
        VoucherClient(address)


def test_files_are_read_again_for_each_attempt_and_their_names_kept_back(tmp_path: Any) -> None:
    photo = tmp_path / "my-garden.jpg"
    photo.write_bytes(b"pixels of a rose")
    rig = Rig(problem(503, "overloaded"), problem(422, "unreadable-image"))
    with pytest.raises(InvalidRequest):
        rig.client.identify(photo, genera=["Rosa", "Viola"])
    for request in rig.requests:
        assert b"pixels of a rose" in request.content
        assert b"my-garden" not in request.content
        assert b"Rosa,Viola" in request.content
    with pytest.raises(UnreadableImage, match=r"absent\.jpg"):
        rig.client.identify(tmp_path / "absent.jpg")


def test_identifiers_are_one_part_of_an_address() -> None:
    rig = Rig(ok(JOB), problem(404, "unknown-species"))
    rig.client.get_job("a/../b?c")
    assert rig.requests[0].url.raw_path == b"/sub/v1/jobs/a%2F..%2Fb%3Fc"
    with pytest.raises(NotFound):
        rig.client.get_species("a/b é")
    assert rig.requests[1].url.raw_path.startswith(b"/sub/v1/species/a/b%20%C3%A9")


def test_only_addresses_of_the_service_are_fetched() -> None:
    rig = Rig(httpx2.Response(200, content=b"png"))
    assert rig.client.fetch("/v1/sheets/1/image") == b"png"
    for address in ("http://elsewhere.example/x", "//elsewhere.example/x", "x"):
        with pytest.raises(InvalidConfig):
            rig.client.fetch(address)


def test_lists_are_read_page_by_page() -> None:
    def page(first: int, count: int) -> httpx2.Response:
        species = [
            {"species_id": str(n), "scientific_name": f"Rosa {n}", "sheet_count": 1, "field_photo_count": 0}
            for n in range(first, first + count)
        ]
        return ok({"total": 450, "limit": 200, "offset": first, "species": species})

    rig = Rig(page(0, 200), page(200, 200), page(400, 50))
    assert [s.species_id for s in rig.client.species("rosa")] == [str(n) for n in range(450)]
    assert [dict(r.url.params)["offset"] for r in rig.requests] == ["0", "200", "400"]


def test_a_list_that_shrinks_meanwhile_ends() -> None:
    rig = Rig(ok({"total": 450, "limit": 200, "offset": 0, "species": []}))
    assert list(rig.client.species()) == []


def test_a_wait_has_an_end() -> None:
    rig = Rig(*[ok(JOB) for _ in range(50)])
    with pytest.raises(TimeoutError, match="still queued"):
        rig.client.wait_for_job("build-1", timeout_seconds=0.05, poll_seconds=0.02)


def test_rows_of_a_batch_come_as_they_are_read() -> None:
    rows = [{"position": n, "file": f"{n}.jpg", "error": "torn", "answer": None} for n in range(3)]
    rig = Rig(httpx2.Response(200, text="".join(json.dumps(row) + "\n" for row in rows)))
    assert [(r.position, r.file, r.error) for r in rig.client.batch_results("b")] == [
        (0, "0.jpg", "torn"),
        (1, "1.jpg", "torn"),
        (2, "2.jpg", "torn"),
    ]
    with pytest.raises(NotFound):
        list(Rig(problem(404, "unknown-batch")).client.batch_results("b"))


def test_a_batch_is_photos_or_an_archive_with_names_below_their_folder(tmp_path: Any) -> None:
    (tmp_path / "a").mkdir()
    photos = [tmp_path / "a" / "1.jpg", tmp_path / "2.jpg"]
    for photo in photos:
        photo.write_bytes(b"x")
    rig = Rig(problem(422, "invalid-form"))
    with pytest.raises(InvalidRequest):
        rig.client.submit_batch(photos)
    assert b'filename="a/1.jpg"' in rig.requests[0].content
    assert b'filename="2.jpg"' in rig.requests[0].content
    assert str(tmp_path).encode() not in rig.requests[0].content
    with pytest.raises(InvalidConfig):
        rig.client.submit_batch()
