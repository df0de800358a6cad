"""Error responses as OpenAPI tells them."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.error_responses import PROBLEM_MEDIA_TYPE
from app.schemas import Problem


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route that may answer with problem documents of `statuses`; 500 is added."""
    return {status: {"model": Problem, "description": HTTPStatus(status).phrase} for status in (*statuses, 500)}


def openapi_of(app: FastAPI) -> dict[str, Any]:
    """OpenAPI description of `app`, its errors told as the problem documents that they are.

    FastAPI knows one media type for all answers of a route.
    """
    description = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    content = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}}
    for operations in description["paths"].values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if int(status) >= HTTPStatus.BAD_REQUEST:
                    response["content"] = content
    for unused in ("HTTPValidationError", "ValidationError"):
        description["components"]["schemas"].pop(unused, None)
    return description
