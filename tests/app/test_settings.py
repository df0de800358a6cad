from pathlib import Path

import pytest
from pydantic import ValidationError

from app.settings import load_settings
from models.errors import InvalidConfig


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.upper().startswith("VOUCHER_")]:
        monkeypatch.delenv(name)


def test_arguments_come_before_the_environment_and_that_before_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOUCHER_PORT", "9000")
    monkeypatch.setenv("VOUCHER_HOST", "0.0.0.0")
    settings = load_settings(home=Path("/tmp/h"), port=9001, device=None)
    assert (settings.home, settings.port, settings.host, settings.device) == (Path("/tmp/h"), 9001, "0.0.0.0", "auto")


def test_an_unknown_variable_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOUCHER_MAX_UPLOAD_BYTE", "1")
    with pytest.raises(InvalidConfig, match=r"VOUCHER_MAX_UPLOAD_BYTE;.*VOUCHER_MAX_UPLOAD_BYTES"):
        load_settings()


def test_a_value_out_of_range_is_refused_without_repeating_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOUCHER_QUEUE_LIMIT", "s3cret")
    with pytest.raises(InvalidConfig, match="VOUCHER_QUEUE_LIMIT: ") as caught:
        load_settings()
    assert "s3cret" not in str(caught.value)
    monkeypatch.delenv("VOUCHER_QUEUE_LIMIT")
    for name, value in (("port", 70_000), ("max_photos", 0), ("body_timeout_seconds", 0)):
        with pytest.raises(InvalidConfig, match=name.upper()):
            load_settings(**{name: value})


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="NO_SUCH"):
        load_settings(no_such=1)


def test_settings_do_not_change() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError):
        settings.port = 1
