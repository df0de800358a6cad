"""Each fault that `voucher doctor` knows is found where it is made, and a sound installation has none."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from findings_support import bad, told
from typer.testing import CliRunner

from indexer import cli, doctor
from models.findings import Finding
from models.home import Home


@pytest.fixture
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith(("VOUCHER_", "OTEL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("VOUCHER_PORT", "0")


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(cli.assemble(), ["doctor", *map(str, arguments)])


@pytest.mark.usefixtures("_no_variables")
class TestCommand:
    def test_a_sound_home_ends_with_0(self, trained_home: Home) -> None:
        result = run("--home", trained_home.root, "--device", "cpu", "--thorough")
        assert result.exit_code == 0, result.output
        assert "0 faults" in result.stdout
        for name in ("python", "faiss", "device", "clock", "home", "disk", "images", "active bundle", "jobs", "port"):
            assert f" {name}: " in result.stdout

    def test_faults_end_with_1_and_are_told_as_json(self, tmp_path: Path) -> None:
        result = run("--home", tmp_path / "nowhere", "--device", "cpu", "--json")
        assert result.exit_code == 1
        answer = json.loads(result.stdout)
        faults = [finding for finding in answer["findings"] if finding["severity"] == "fault"]
        assert answer["faults"] == len(faults) > 0
        assert {"home", "catalogue"} <= {finding["name"] for finding in faults}
        assert all(finding["remedy"] for finding in faults)
        assert not (tmp_path / "nowhere").exists()

    def test_the_services_settings_are_asked_for(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VOUCHER_PROT", "8000")
        result = run("--home", home.root, "--device", "cpu")
        assert result.exit_code == 1
        assert "VOUCHER_PROT" in result.stdout

    def test_an_installation_that_does_not_know_the_service(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(doctor, "SETTINGS_CHECKS", "no.such.group")
        assert bad(doctor._check_settings(home.root)) == [("settings", "warning")]

    def test_a_database_address_that_cannot_be_read(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VOUCHER_DATABASE_URL", "mysql://someone:s3cret@server/voucher")
        findings = list(doctor.examine(home.root, device="cpu"))
        assert ("database address", "fault") in bad(findings)
        assert "s3cret" not in told(findings)

    def test_a_check_that_fails_is_a_fault_and_the_others_go_on(self) -> None:
        def broken() -> Any:
            raise ZeroDivisionError("by nought")
            yield

        def sound() -> Any:
            yield Finding.ok("sound", "all is well")

        findings = list(doctor._all_of([("broken", broken), ("sound", sound)]))
        assert [(finding.name, finding.severity.value) for finding in findings] == [
            ("broken", "fault"),
            ("sound", "ok"),
        ]
        assert "by nought" in told(findings)
