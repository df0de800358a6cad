"""What a service refuses, and a service that cannot be reached."""

import json
from typing import Any

import httpx2

from models.errors import VoucherError


class ServiceUnreachable(VoucherError):
    """The service could not be reached, or went away before it had answered."""


class ServiceError(VoucherError):
    """The service has answered with a problem (RFC 9457).

    `status` is that of HTTP, `kind` the problem's stable identifier such as ``overloaded``, `request_id` finds it in
    the service's log; `retry_after_seconds` is when to come again, where the service has said so.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        title: str,
        detail: str,
        request_id: str = "",
        retry_after_seconds: float | None = None,
    ) -> None:
        named = f" (request {request_id})" if request_id else ""
        super().__init__(f"the service answers {status}, {title}: {detail}{named}")
        self.status = status
        self.kind = kind
        self.title = title
        self.detail = detail
        self.request_id = request_id
        self.retry_after_seconds = retry_after_seconds


class InvalidRequest(ServiceError):
    """400, 408, 411, 413, 415, 422: what was sent cannot be used."""


class Forbidden(ServiceError):
    """401, 403: without a key that opens this, it stays shut."""


class NotFound(ServiceError):
    """404: there is no such thing, or no longer."""


class Conflict(ServiceError):
    """409: it contradicts what the service holds, or comes too early."""


class TooManyRequests(ServiceError):
    """429: the key's rate or its day is spent."""


class ServiceUnavailable(ServiceError):
    """503: the service is busy, or has nothing to answer from."""


_KINDS: dict[int, type[ServiceError]] = {
    400: InvalidRequest,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    408: InvalidRequest,
    409: Conflict,
    411: InvalidRequest,
    413: InvalidRequest,
    415: InvalidRequest,
    422: InvalidRequest,
    429: TooManyRequests,
    503: ServiceUnavailable,
}
_PREFIX = "urn:voucher:problem:"


def error_of(response: httpx2.Response, retry_after_seconds: float | None) -> ServiceError:
    """The problem that a response of status 300 or more tells, also one of a proxy in front of the service."""
    try:
        document: Any = json.loads(response.content)
    except ValueError:
        document = None
    values: dict[str, Any] = document if isinstance(document, dict) else {}
    kind = _KINDS.get(response.status_code, ServiceError)
    return kind(
        response.status_code,
        str(values.get("type", "")).removeprefix(_PREFIX),
        str(values.get("title") or response.reason_phrase or "no title"),
        str(values.get("detail") or "no problem document came with it; is there a proxy, or another service?"),
        str(values.get("request_id") or response.headers.get("x-request-id", "")),
        retry_after_seconds,
    )
