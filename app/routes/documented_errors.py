"""Error responses as OpenAPI tells them."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.access_offer import COOKIE, KEY_PARAMETER, SECURE_COOKIE
from app.error_responses import PROBLEM_MEDIA_TYPE
from app.openapi_examples import add_examples
from app.plantnet.errors import is_below as is_plantnet
from app.schemas.wire import Problem


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route that may answer with problem documents of `statuses`; 500 is added."""
    return {status: {"model": Problem, "description": HTTPStatus(status).phrase} for status in (*statuses, 500)}


def access_problems() -> dict[int | str, dict[str, Any]]:
    """`responses` of all routes that may need a key."""
    return problems(401, 403, 429, 503)


_WAYS_TO_SHOW_A_KEY: dict[str, dict[str, str]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "an API key, as `voucher keys create` shows it"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "cookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": f"set by `POST /v1/session`, for the service's own page; by https its name is {SECURE_COOKIE}",
    },
    "parameter": {"type": "apiKey", "in": "query", "name": KEY_PARAMETER, "description": "below /v2 alone"},
}

_OF_ANY_BODY = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
"""A body may be no JSON, too slow or too large, whatever the route."""


def openapi_of(app: FastAPI) -> dict[str, Any]:
    """OpenAPI description of `app`, its errors told as the problem documents that they are.

    FastAPI knows one media type for all answers of a route.
    """
    description = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    content = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}}
    for path, operations in description["paths"].items():
        for operation in operations.values():
            if is_plantnet(path):
                # Its errors are described where it is; bad parameters are among its 400.
                operation["responses"].pop("422", None)
                continue
            if "application/json" in operation.get("requestBody", {}).get("content", {}):
                for refused in _OF_ANY_BODY:
                    operation["responses"].setdefault(str(refused.value), {"description": refused.phrase})
            for status, response in operation["responses"].items():
                if int(status) >= HTTPStatus.BAD_REQUEST:
                    response["content"] = content
    add_examples(description)
    for unused in ("HTTPValidationError", "ValidationError"):
        description["components"]["schemas"].pop(unused, None)
    description["components"]["securitySchemes"] = _WAYS_TO_SHOW_A_KEY
    # None is enough where the service needs no keys, and for what is public.
    description["security"] = [{}, *({name: []} for name in _WAYS_TO_SHOW_A_KEY)]
    return description
