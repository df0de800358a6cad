"""Nothing below /v1 is left undescribed, and every example is what its schema says."""

from typing import Any

import jsonschema_rs
import pytest

from app.main import create_app
from app.settings import Settings

METHODS = ("get", "post", "put", "patch", "delete")
PICTURES = ("image/", "application/octet-stream")


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return create_app(Settings(home=tmp_path_factory.mktemp("home"))).openapi()


@pytest.fixture(scope="module")
def operations(description: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in description["paths"].items()
        if path.startswith("/v1/")
        for method, operation in methods.items()
        if method in METHODS
    }


def fault(description: dict[str, Any], schema: dict[str, Any], example: Any) -> str | None:
    whole = {**schema, "components": description["components"]}
    found = next(jsonschema_rs.Draft202012Validator(whole).iter_errors(example), None)
    return None if found is None else found.message


def examples_of(content: dict[str, Any]) -> list[Any]:
    many = [each["value"] for each in content.get("examples", {}).values()]
    return [content["example"], *many] if "example" in content else many


def test_every_operation_says_what_it_does(operations: dict[str, dict[str, Any]]) -> None:
    assert len(operations) >= 25
    for name, operation in operations.items():
        assert operation.get("summary"), name
        assert operation.get("description"), name
        assert operation.get("tags"), name
        assert "500" in operation["responses"], name


def test_every_body_has_a_schema_and_examples_that_fit_it(
    description: dict[str, Any], operations: dict[str, dict[str, Any]]
) -> None:
    for name, operation in operations.items():
        bodies = [("request", operation.get("requestBody", {}))]
        bodies += [(status, response) for status, response in operation["responses"].items()]
        for where, body in bodies:
            assert body.get("content") or where in ("request", "204", "304"), f"{name} {where}"
            for media_type, content in body.get("content", {}).items():
                if media_type.startswith(PICTURES):
                    continue
                examples = examples_of(content)
                assert content.get("schema"), f"{name} {where} {media_type}: no schema"
                assert examples or _in_schema(description, content), f"{name} {where} {media_type}: no example"
                for example in examples:
                    assert fault(description, content["schema"], example) is None, f"{name} {where} {media_type}"


def _in_schema(description: dict[str, Any], content: dict[str, Any]) -> bool:
    """Whether the schema that is referred to brings an example itself; it is checked where schemas are."""
    name = str(content["schema"].get("$ref", "")).rpartition("/")[2]
    return "example" in description["components"]["schemas"].get(name, {})


def test_examples_of_schemas_fit_them(description: dict[str, Any]) -> None:
    found = 0
    for name, schema in description["components"]["schemas"].items():
        if "example" in schema:
            found += 1
            assert fault(description, schema, schema["example"]) is None, name
    assert found >= 2


def test_every_parameter_has_an_example_or_a_default(
    description: dict[str, Any], operations: dict[str, dict[str, Any]]
) -> None:
    for name, operation in operations.items():
        for parameter in operation.get("parameters", []):
            schema = parameter["schema"]
            if "example" in parameter:
                assert fault(description, schema, parameter["example"]) is None, f"{name} {parameter['name']}"
            else:
                assert "default" in schema or "enum" in schema, f"{name} {parameter['name']}"


def test_errors_are_problem_documents_of_their_status(operations: dict[str, dict[str, Any]]) -> None:
    for name, operation in operations.items():
        for status, response in operation["responses"].items():
            if int(status) < 400:
                continue
            assert list(response["content"]) == ["application/problem+json"], f"{name} {status}"
            problems = examples_of(response["content"]["application/problem+json"])
            assert problems, f"{name} {status}"
            assert {problem["status"] for problem in problems} == {int(status)}, name
