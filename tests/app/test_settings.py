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


def test_hosts_of_images_are_names_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOUCHER_REMOTE_IMAGE_HOSTS", " Images.Example.org., b.example ,")
    monkeypatch.setenv("VOUCHER_PLANTNET_PROJECTS", "weurope,k-southern-europe")
    settings = load_settings()
    assert settings.remote_image_hosts == ("images.example.org", "b.example")
    assert settings.plantnet_projects == ("weurope", "k-southern-europe")
    assert load_settings(remote_image_hosts="").remote_image_hosts == ()


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "0x7f.1", "1.2.3.0x4", "[::1]", "::1", "http://a.b", "a.b/c", "a.b:80", "*.a.b", "a b", "-a.b"],
)
def test_what_is_no_host_name_is_refused_as_a_host_of_images(host: str) -> None:
    with pytest.raises(InvalidConfig, match="VOUCHER_REMOTE_IMAGE_HOSTS"):
        load_settings(remote_image_hosts=host)


def test_the_public_address_has_a_scheme_and_no_query() -> None:
    assert load_settings(public_url="https://plants.example.org/flora").public_url
    for wrong in ("plants.example.org", "ftp://a.b", "https://a.b/?x", "https://a.b/#x", "https://a b"):
        with pytest.raises(InvalidConfig, match="VOUCHER_PUBLIC_URL"):
            load_settings(public_url=wrong)
