"""`voucher keys` at the command line."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from indexer.cli import assemble
from models.api_keys import KEY_PATTERN, Scope, fits
from models.api_keys_store import KeyStore
from models.errors import UnknownKey
from models.home import Home


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "home"


def run(root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(assemble(), ["keys", *arguments, "--home", str(root)])


def test_a_key_is_shown_once_and_alone_on_the_output(root: Path) -> None:
    options = ["--scope", "identify", "--scope", "curate", "--daily-quota", "500", "--per-minute", "30"]
    made = run(root, "create", "--name", "Ada", *options, "--expires", "7")
    assert made.exit_code == 0, made.output
    text = made.stdout.strip()
    assert KEY_PATTERN.fullmatch(text)
    assert "cannot be shown again" in made.stderr
    with KeyStore.open(Home(root)) as store:
        (kept,) = store.all_keys()
    assert fits(text, kept)
    assert kept.scopes == {Scope.IDENTIFY, Scope.CURATE}
    assert (kept.daily_quota, kept.per_minute) == (500, 30)
    assert kept.expires_at is not None
    assert (kept.expires_at - kept.created_at).days == 7
    listed = run(root, "list")
    assert kept.key_id in listed.stdout
    assert "0 of 500" in listed.stdout
    assert text.rsplit("_", 1)[1] not in listed.output + run(root, "list", "--json").output
    assert kept.digest not in listed.output + run(root, "list", "--json").output


def test_a_script_makes_lists_and_revokes(root: Path) -> None:
    made = json.loads(run(root, "create", "--name", "Ada", "--json").stdout)
    assert KEY_PATTERN.fullmatch(made.pop("key"))
    assert (made["scopes"], made["state"], made["daily_quota"], made["expires_at"]) == (
        ["identify"],
        "active",
        None,
        None,
    )
    assert json.loads(run(root, "list", "--json").stdout) == [made]
    revoked = json.loads(run(root, "revoke", made["key_id"], "--json").stdout)
    assert revoked["state"] == "revoked"
    assert json.loads(run(root, "list", "--json").stdout) == [revoked]
    assert "is revoked" in run(root, "revoke", made["key_id"]).stdout


def test_what_is_wrong_is_said(root: Path) -> None:
    run(root, "create", "--name", "Ada")
    assert isinstance(run(root, "revoke", "none").exception, UnknownKey)
    assert run(root, "create").exit_code == 2
    for wrong in (["--scope", "everything"], ["--daily-quota", "0"], ["--per-minute", "x"], ["--expires", "-1"]):
        assert run(root, "create", "--name", "Bob", *wrong).exit_code == 2
    with KeyStore.open(Home(root)) as store:
        assert [key.name for key in store.all_keys()] == ["Ada"]
