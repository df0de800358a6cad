"""What docs/api.md shows works: its Python runs, and its curl asks for what there is."""

import json
import re
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from app.main import create_app
from app.settings import Settings
from models.catalogue import Catalogue
from models.home import Home

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"
LOCAL = re.compile(r"http://127\.0\.0\.1:8000")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def curl_lines() -> list[str]:
    return [line for text in blocks("sh") for line in text.splitlines() if line.startswith("curl ")]


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return create_app(Settings(home=tmp_path_factory.mktemp("home"))).openapi()


def test_there_is_something_to_check() -> None:
    assert len(curl_lines()) >= 12
    assert len(blocks("python")) == 2


@pytest.mark.parametrize("code", blocks("python"))
def test_the_python_runs(
    code: str,
    service_with_worker: tuple[str, Home],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address, home = service_with_worker
    with Catalogue.open(home) as catalogue:
        photos = [catalogue.image_store.path(photo.image) for photo in catalogue.field_photos()]
    for name, photo in zip(("flower.jpg", "leaf.jpg"), photos, strict=False):
        (tmp_path / name).write_bytes(photo.read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(compile(LOCAL.sub(address.rstrip("/"), code), str(PAGE), "exec"), {})  # the page of this repository
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) >= 4
    assert "error" not in printed.lower()


@pytest.mark.parametrize("line", curl_lines())
def test_curl_asks_for_what_there_is(line: str, description: dict[str, Any]) -> None:
    words = shlex.split(line, comments=True)
    fields = [words[i + 1].partition("=")[0] for i, word in enumerate(words) if word == "-F"]
    address = next(word for word in words if word.startswith("$VOUCHER"))
    asked = urlsplit(address.removeprefix("$VOUCHER"))
    method = words[words.index("-X") + 1].lower() if "-X" in words else "post" if fields else "get"
    operation = _operation(description, asked.path, method)
    known = {p["name"] for p in operation.get("parameters", []) if p["in"] == "query"}
    assert set(parse_qs(asked.query)) <= known
    if fields:
        form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert set(fields) <= set(form["properties"])


def _operation(description: dict[str, Any], path: str, method: str) -> dict[str, Any]:
    for template, operations in description["paths"].items():
        if re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), path) and method in operations:
            found: dict[str, Any] = operations[method]
            return found
    raise AssertionError(f"there is no {method.upper()} {path}")


def test_the_problem_that_is_shown_is_one(description: dict[str, Any]) -> None:
    (shown,) = blocks("json")
    assert set(json.loads(shown)) == set(description["components"]["schemas"]["Problem"]["properties"])


def test_fields_of_the_form_are_all_told(description: dict[str, Any]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    for path in ("/v1/identifications", "/v1/batches", "/v1/embeddings", "/v1/explanations"):
        form = description["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
        for field in form["properties"]:
            assert f"`{field}`" in text, f"{path}: {field}"
