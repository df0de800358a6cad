"""What is charged stays charged when the work was done, and is given back when it was not."""

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.types import Message

from app.access import note_of
from app.access_answers import AccessAnswers
from app.access_control import Quota
from app.error_responses import TABLE, InvalidImage
from app.refusals import ClientGone, NoKnownPlant, NotReady, UnknownProject
from models.api_keys import NewKey
from models.api_keys_usage import Charge


class Control:
    """Notes what is given back."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.given_back: list[Charge] = []
        self._failure = failure

    async def give_back(self, quota: int | None, charge: Charge) -> Quota | None:
        if self._failure is not None:
            raise self._failure
        self.given_back.append(charge)
        return None if quota is None else Quota(quota, quota, 60)


def answered(
    status: int, slug: str | None = None, *, body_arrives: bool = True, failure: Exception | None = None
) -> tuple[Control, dict[bytes, bytes]]:
    """What becomes of two charges of a request that is answered so."""
    control = Control(failure)
    key, _ = NewKey("Ada", daily_quota=10).make()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        note = note_of(scope)
        note.key, note.quota = key, Quota(10, 8, 60)
        note.charges += [Charge(key.key_id, datetime.now(UTC).date(), 1, used, True) for used in (1, 2)]
        if slug is not None:
            scope["state"]["problem"] = slug
        await send({"type": "http.response.start", "status": status, "headers": []})

    async def receive() -> Message:
        if not body_arrives:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": b"", "more_body": False}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    application = SimpleNamespace(state=SimpleNamespace(access=control))
    scope = {"type": "http", "app": application, "headers": [], "method": "POST", "path": "/"}
    asyncio.run(AccessAnswers(app)(scope, receive, send))
    return control, dict(sent[0]["headers"])


@pytest.mark.parametrize(
    ("status", "slug", "body_arrives"),
    [
        (200, None, True),
        (202, None, True),
        (304, None, True),
        (404, TABLE[NoKnownPlant].slug, True),
        (499, TABLE[ClientGone].slug, True),
    ],
)
def test_an_answer_is_charged(status: int, slug: str | None, body_arrives: bool) -> None:
    control, headers = answered(status, slug, body_arrives=body_arrives)
    assert control.given_back == []
    assert headers[b"ratelimit"] == b'"day";r=8;t=60'


@pytest.mark.parametrize(
    ("status", "slug", "body_arrives"),
    [
        (404, TABLE[UnknownProject].slug, True),
        (422, TABLE[InvalidImage].slug, True),
        (499, TABLE[ClientGone].slug, False),
        (500, None, True),
        (503, TABLE[NotReady].slug, True),
    ],
)
def test_a_refusal_or_a_failure_is_not(status: int, slug: str | None, body_arrives: bool) -> None:
    control, headers = answered(status, slug, body_arrives=body_arrives)
    assert [charge.used for charge in control.given_back] == [2, 1]
    assert headers[b"ratelimit"] == b'"day";r=10;t=60'
    assert headers[b"ratelimit-policy"] == b'"day";q=10;w=86400'


def test_an_answer_goes_out_though_nothing_can_be_given_back(caplog: pytest.LogCaptureFixture) -> None:
    _, headers = answered(500, failure=NotReady("the disk is gone"))
    assert b"ratelimit" in headers
    assert "stays charged" in caplog.text
