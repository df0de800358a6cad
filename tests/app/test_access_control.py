"""Whether a service may start, and what it says when it may not."""

import contextlib
import logging
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from app import command
from app import serve as serve_module
from app.access_control import check_start
from app.serve import serve
from app.settings import Settings
from models.api_keys import NewKey
from models.api_keys_store import KeyStore
from models.errors import InvalidConfig
from models.home import Home


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
@pytest.mark.parametrize("access", ["auto", "keys", "open"])
def test_on_this_machine_it_always_starts(tmp_path: Path, host: str, access: str) -> None:
    check_start(Settings(home=tmp_path / "none", host=host, access=access))  # type: ignore[arg-type]
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("access", ["auto", "keys"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "plants.example"])
def test_for_others_it_needs_a_key(empty_home: Home, host: str, access: str) -> None:
    url = empty_home.database_url
    settings = Settings(home=empty_home.root, database_url=url, host=host, access=access)  # type: ignore[arg-type]
    for _ in ("without a catalogue", "with an empty one"):
        with pytest.raises(InvalidConfig) as caught:
            check_start(settings)
        for words in (host, "voucher keys create", str(empty_home.root), "VOUCHER_ACCESS=open"):
            assert words in str(caught.value)
        KeyStore.open(empty_home, create=True).close()
    with KeyStore.open(empty_home) as store:
        store.create(NewKey("Ada"))
    check_start(settings)


def test_for_others_without_keys_it_says_so_when_it_is_told_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    check_start(Settings(home=tmp_path, host="0.0.0.0", access="open"))
    assert "without a key" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


def test_the_command_refuses_before_it_loads_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_module, "load_with_worker", pytest.fail)
    application = typer.Typer()
    application.command()(command.serve_command)
    for arguments in (["--host", "0.0.0.0"], ["--host", "0.0.0.0", "--workers", "2"]):
        result = CliRunner().invoke(application, ["--home", str(tmp_path), *arguments])
        assert result.exit_code == 2, result.output
        assert "voucher keys create" in result.output
        assert "Traceback" not in result.output


def test_one_of_several_processes_does_not_ask_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Settings] = []

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(serve_module, "check_start", asked.append)
    monkeypatch.setattr(serve_module, "build_server", stop)
    monkeypatch.setattr(serve_module, "end_with_parent", lambda: None)
    monkeypatch.setattr("app.serve.socket.socket", lambda **_: contextlib.nullcontext())
    monkeypatch.setattr(serve_module, "listening_sockets", lambda *_: [])
    for listening, count in ((None, 1), (99, 1)):
        with pytest.raises(KeyboardInterrupt):
            serve(Settings(home=tmp_path), announce=lambda _: None, listening=listening)
        assert len(asked) == count
