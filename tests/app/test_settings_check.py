"""What `voucher doctor` learns of the service's settings."""

import http.server
import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import settings_check
from app.settings_check import check_settings
from models.api_keys import NewKey, Scope
from models.api_keys_store import KeyStore
from models.findings import Finding, Severity
from models.home import Home


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith(("VOUCHER_", "OTEL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("VOUCHER_PORT", "0")


def look(home: Path) -> list[Finding]:
    return list(check_settings(home, os.environ))


def bad(findings: list[Finding]) -> list[tuple[str, str]]:
    found = [finding for finding in findings if finding.severity is not Severity.OK]
    assert all(finding.remedy for finding in found)
    return [(finding.name, finding.severity.value) for finding in found]


def test_defaults_are_sound(tmp_path: Path) -> None:
    findings = look(tmp_path)
    assert bad(findings) == []
    assert "VOUCHER_PORT" in findings[0].what


@pytest.mark.parametrize(("name", "value"), [("VOUCHER_PROT", "1"), ("VOUCHER_QUEUE_LIMIT", "many")])
def test_a_variable_that_does_not_exist_or_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    findings = look(tmp_path)
    assert bad(findings) == [("settings", "fault")]
    assert name in findings[0].what


def test_no_keys_where_others_can_reach_the_service(collection_home: Home, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("VOUCHER_HOST", "0.0.0.0")
    assert bad(look(tmp_path)) == [("keys", "fault")]
    monkeypatch.setenv("VOUCHER_ACCESS", "open")
    assert bad(look(tmp_path)) == [("keys", "warning")]
    monkeypatch.delenv("VOUCHER_ACCESS")
    home = Home(tmp_path / "home")
    with KeyStore.open(home, create=True) as store:
        store.create(NewKey("a client"))
    assert bad(look(home.root)) == []


def test_metrics_that_everybody_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOUCHER_METRICS", "open")
    assert bad(look(tmp_path)) == []
    monkeypatch.setenv("VOUCHER_HOST", "0.0.0.0")
    monkeypatch.setenv("VOUCHER_ACCESS", "open")
    assert ("metrics", "warning") in bad(look(tmp_path))


def test_traces_that_cannot_be_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    assert bad(look(tmp_path)) == []
    monkeypatch.setattr(settings_check.importlib.util, "find_spec", lambda name: None)
    assert bad(look(tmp_path)) == [("traces", "fault")]


def test_a_package_that_is_missing_altogether(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    assert bad(look(tmp_path)) == [("traces", "fault")]


@pytest.fixture
def other_program() -> Iterator[int]:
    """Port of a web server that is no voucher."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"status": "something else"}')

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_port_that_another_program_has(other_program: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOUCHER_PORT", str(other_program))
    assert bad(look(tmp_path)) == [("port", "fault")]


def test_a_port_that_nobody_answers_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_check, "_ASK_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("VOUCHER_PORT", str(silent.getsockname()[1]))
        assert bad(look(tmp_path)) == [("port", "fault")]


def test_a_port_at_which_a_voucher_answers(serve_in_thread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOUCHER_PORT", str(serve_in_thread()))
    findings = look(tmp_path)
    assert bad(findings) == []
    assert "a voucher answers" in findings[-1].what


def test_an_address_that_is_not_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOUCHER_HOST", "203.0.113.1")
    monkeypatch.setenv("VOUCHER_ACCESS", "open")
    monkeypatch.setenv("VOUCHER_PORT", "8000")
    monkeypatch.setattr(settings_check, "_ASK_SECONDS", 0.1)
    assert ("port", "fault") in bad(look(tmp_path))


def test_keys_that_are_asked_for_and_not_there(
    collection_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOUCHER_ACCESS", "keys")
    home = Home(shutil.copytree(collection_home.root, tmp_path / "home"))
    (found,) = [finding for finding in look(home.root) if finding.name == "keys"]
    assert found.severity is Severity.WARNING
    assert "every request is refused" in found.what
    with KeyStore.open(home) as store:
        kept, _ = store.create(NewKey("Ada", frozenset({Scope.IDENTIFY})))
        (found,) = [finding for finding in look(home.root) if finding.name == "keys"]
        assert (found.severity, "1 key opens" in found.what) == (Severity.OK, True)
        store.revoke(kept.key_id)
    (found,) = [finding for finding in look(home.root) if finding.name == "keys"]
    assert found.severity is Severity.WARNING
