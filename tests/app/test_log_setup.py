"""Lines of the log: text or JSON, with the request's id, without keys."""

import json
import logging
import sys
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from app.log_setup import RequestJsonFormatter, RequestTextFormatter, request_id_in_work, set_up_logging
from app.settings import Settings
from models.api_keys import NewKey


def record(message: str, *arguments: object, error: Exception | None = None) -> logging.LogRecord:
    info = None
    if error is not None:
        try:
            raise error
        except type(error):
            info = sys.exc_info()
    return logging.LogRecord("app.here", logging.WARNING, __file__, 1, message, arguments, info)  # type: ignore[arg-type]


def test_a_line_of_json_holds_everything() -> None:
    named = request_id_in_work.set("r-1")
    try:
        line = RequestJsonFormatter().format(record("Blätter: %d\n", 3, error=ValueError("no leaf")))
    finally:
        request_id_in_work.reset(named)
    assert "\n" not in line
    told = json.loads(line)
    assert (told["level"], told["logger"], told["message"], told["request_id"]) == (
        *("WARNING", "app.here", "Blätter: 3\n", "r-1"),
    )
    assert told["time"].endswith("+00:00")
    assert told["exception"].endswith("ValueError: no leaf")
    assert "request_id" not in json.loads(RequestJsonFormatter().format(record("x")))


def test_a_line_of_text_names_its_request_once() -> None:
    assert RequestTextFormatter().format(record("hello")).endswith("WARNING app.here hello")
    named = request_id_in_work.set("r-1")
    try:
        assert RequestTextFormatter().format(record("hello")).endswith("app.here [r-1] hello")
        assert RequestTextFormatter().format(record("request_id=r-1 done")).endswith("app.here request_id=r-1 done")
    finally:
        request_id_in_work.reset(named)


@pytest.mark.parametrize("formatter", [RequestJsonFormatter(), RequestTextFormatter()])
def test_keys_are_taken_out_of_messages_and_tracebacks(formatter: logging.Formatter) -> None:
    kept, text = NewKey("Ada").make()
    line = formatter.format(record("asked with %s", text, error=ValueError(f"/v2?api-key={text}")))
    assert text.rsplit("_", 1)[1] not in line
    assert line.count(kept.key_id) == 2


def test_the_format_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[logging.Handler] = []
    monkeypatch.setattr(logging, "basicConfig", lambda **options: given.extend(options["handlers"]))
    set_up_logging(Settings(log_format="json"))
    set_up_logging(Settings())
    assert [type(handler.formatter) for handler in given] == [RequestJsonFormatter, RequestTextFormatter]


def test_what_is_logged_in_a_request_has_its_id(
    make_client: Callable[..., TestClient], encode: Callable[..., bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    caplog.handler.setFormatter(RequestJsonFormatter())
    client = make_client()
    photo = [("photos", ("holiday.jpg", encode(5), "image/jpeg"))]
    client.post("/v1/identifications", files=photo, headers={"x-request-id": "trace-7"})
    lines = [json.loads(line) for line in caplog.text.splitlines()]
    (line,) = [line for line in lines if line["message"].startswith("identification ")]
    assert line["request_id"] == "trace-7"
    assert "holiday" not in caplog.text
    assert "testclient" not in caplog.text
    assert request_id_in_work.get() is None
