"""What holds for every request: ids, headers, problem documents, the description, the page's files."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.error_responses import TABLE, UNEXPECTED, problem_for, row_for
from app.request_context import RequestContext
from models.errors import UnknownSheet, UnreadableImage, VoucherError


def test_a_plain_request_id_is_kept(client: TestClient) -> None:
    assert client.get("/healthz", headers={"x-request-id": "trace-1.A_b"}).headers["x-request-id"] == "trace-1.A_b"


@pytest.mark.parametrize("offered", ["", "x" * 65, "a b", "-a", "a\tb", "<script>", "${jndi}"])
def test_any_other_request_id_is_replaced(client: TestClient, offered: str) -> None:
    given = client.get("/healthz", headers={"x-request-id": offered}).headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{32}", given)


@pytest.mark.parametrize("path", ["/", "/healthz", "/nowhere", "/static/style.css", "/v1/species?limit=0"])
def test_every_answer_has_the_security_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", "/static/none.js", 404), ("GET", "/v1/identifications", 405),
     ("DELETE", "/v1/species", 405), ("GET", "/static/../main.py", 404), ("GET", "/static/%2e%2e/main.py", 404)],
)  # fmt: skip
def test_errors_of_the_framework_are_problem_documents(client: TestClient, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status
    assert body["request_id"] == response.headers["x-request-id"]
    assert set(body) == {"type", "title", "status", "detail", "request_id"}


def test_a_405_names_what_is_possible(client: TestClient) -> None:
    assert client.get("/v1/identifications").headers["allow"] == "POST"


@pytest.mark.parametrize("kind", list(TABLE))
def test_every_row_of_the_table_is_a_problem_with_its_status(kind: type[Exception]) -> None:
    response = problem_for(kind("what went wrong"), "r1")
    row = TABLE[kind]
    assert response.status_code == row.status
    assert response.media_type == "application/problem+json"
    assert (b"what went wrong" in response.body) == (row.tells and row.instead is None)
    assert row.instead is None or row.instead.encode() in response.body
    assert (b"retry-after" in dict(response.raw_headers)) == (row.status in (429, 503))


def test_the_closest_class_decides_and_the_unknown_is_unexpected() -> None:
    assert row_for(UnreadableImage("")).status == 422
    assert row_for(UnknownSheet("")).status == 404
    assert row_for(VoucherError("")) is row_for(ValueError("")) is UNEXPECTED
    assert UNEXPECTED.status == 500
    assert not UNEXPECTED.tells


def test_an_error_after_the_answer_has_begun_is_raised_not_answered_twice() -> None:
    sent: list[str] = []

    async def app(scope: object, receive: object, send: Callable) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("in the middle")

    async def send(message: dict) -> None:
        sent.append(message["type"])

    with pytest.raises(RuntimeError, match="in the middle"):
        asyncio.run(RequestContext(app)({"type": "http", "headers": []}, None, send))
    assert sent == ["http.response.start"]


def test_the_description_tells_every_route_and_its_errors(client: TestClient) -> None:
    api = client.get("/openapi.json").json()
    sheet, job, bundle = "/v1/sheets/{sheet_id}", "/v1/jobs/{job_id}", "/v1/bundles/{bundle_id}"
    batch = "/v1/batches/{batch_id}"
    assert set(api["paths"]) == {
        *("/healthz", "/readyz", "/metrics", "/v1/session"),
        *("/v1/identifications", "/v1/species", "/v1/species/{species_id}", "/v1/changes"),
        *("/v1/sheets", sheet, f"{sheet}/image", f"{sheet}/thumbnail", f"{sheet}/restore"),
        *("/v1/index-builds", "/v1/jobs", job, f"{job}/cancel", f"{job}/events"),
        *("/v1/bundles", bundle, f"{bundle}/changes", f"{bundle}/activate"),
        *("/v1/embeddings", "/v1/batches", batch, f"{batch}/results"),
        *("/v1/explanations", "/v1/explanations/{explanation_id}/{name}.png"),
        *("/v2/identify/{project}", "/v2/projects", "/v2/projects/{project}/species", "/v2/species"),
        *("/v2/languages", "/v2/quota/daily", "/v2/quota/history", "/v2/_status"),
    }
    post = api["paths"]["/v1/identifications"]["post"]
    form = post["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) == {
        *("photos", "organs", "top_k", "include_sheets", "sheets_per_candidate"),
        *("species_ids", "genera", "families", "ignore_unlisted", "explain", "explained_candidates"),
    }
    assert {"200", "400", "401", "403", "408", "413", "415", "422", "429", "500", "503"} == set(post["responses"])
    assert set(api["components"]["securitySchemes"]) == {"bearer", "header", "cookie", "parameter"}
    assert {} in api["security"]
    for path, operations in api["paths"].items():
        for operation in () if path.startswith("/v2/") else operations.values():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert set(response["content"]) == {"application/problem+json"}, (path, status)
    assert "HTTPValidationError" not in api["components"]["schemas"]


def test_the_page_knows_the_limits_and_names_only_its_own_files(
    make_client: Callable[..., TestClient], static_folder: Path
) -> None:
    html = make_client(max_photos=3, max_upload_bytes=123_456).get("/").text
    assert 'data-max-photos="3"' in html
    assert 'data-max-upload-bytes="123456"' in html
    named = re.findall(r'(?:src|href)="(/static/[^"]+)"', html)
    assert len(named) > 3
    for path in named:
        assert (static_folder / path.removeprefix("/static/")).is_file()


def test_no_file_of_the_page_names_another_host_or_brings_inline_code(static_folder: Path) -> None:
    files = [path for path in static_folder.rglob("*") if path.is_file()]
    assert len(files) >= 8
    for path in files:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//[a-z0-9-]+\.[a-z]", text), path
        if path.suffix == ".html":
            assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", text), path


def test_files_of_the_page_are_checked_with_each_use(client: TestClient) -> None:
    response = client.get("/static/page.js")
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["content-type"].startswith("text/javascript")
    again = client.get("/static/page.js", headers={"if-none-match": response.headers["etag"]})
    assert again.status_code == 304


def test_no_two_schemas_of_the_description_have_one_name(client: TestClient) -> None:
    """Their modules would become part of their names, which programs write clients from."""
    assert [name for name in client.get("/openapi.json").json()["components"]["schemas"] if "__" in name] == []
