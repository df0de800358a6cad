"""Exceptions become RFC 9457 problem documents here, and nowhere else: one table."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Scope

from app.refusals import (
    AddressTooLong,
    AnswerTimeout,
    BatchUnfinished,
    BodyTimeout,
    ClientGone,
    CurationOff,
    ExplanationsOff,
    ForeignPage,
    KeyMissing,
    KeyWrong,
    MalformedRequest,
    MetricsRefused,
    NoKnownPlant,
    NotReady,
    QuotaSpent,
    RateExceeded,
    RemoteImageRefused,
    RequestTooLarge,
    ScopeMissing,
    ShuttingDown,
    TooManyFailures,
    UnacceptableForm,
    UnknownExplanation,
    UnknownProject,
    UnsupportedUpload,
)
from models.errors import (
    BundleError,
    CatalogueBusy,
    CatalogueError,
    ImageTooLarge,
    InvalidBatch,
    InvalidCandidateFilter,
    InvalidImage,
    InvalidSheetDetails,
    JobQueueError,
    ServiceOverloaded,
    SheetConflict,
    SpeciesConflict,
    StorageFull,
    StorageReadOnly,
    UnknownBatch,
    UnknownBundle,
    UnknownJob,
    UnknownSheet,
    UnknownSpecies,
    VoucherError,
)

logger = logging.getLogger(__name__)

PROBLEM_MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Row:
    """How one kind of exception is answered; `tells` says whether its message goes to the client."""

    status: int
    slug: str
    title: str
    tells: bool = True
    retry_after_seconds: int | None = None
    """Unless the exception knows better."""
    headers: Mapping[str, str] = field(default_factory=dict)
    instead: str | None = None
    """Told to the client in place of the message, which names what is none of its business, and is logged."""


_BEARER = 'Bearer realm="voucher"'

TABLE: dict[type[Exception], Row] = {
    MalformedRequest: Row(400, "malformed-request", "The request cannot be read"),
    RemoteImageRefused: Row(400, "remote-image", "The image cannot be fetched from there"),
    KeyMissing: Row(401, "key-missing", "An API key is needed", headers={"WWW-Authenticate": _BEARER}),
    KeyWrong: Row(
        401, "key-wrong", "The API key is not right", headers={"WWW-Authenticate": f'{_BEARER}, error="invalid_token"'}
    ),
    ScopeMissing: Row(
        403,
        "scope-missing",
        "The API key is for other things",
        headers={"WWW-Authenticate": f'{_BEARER}, error="insufficient_scope"'},
    ),
    CurationOff: Row(403, "curation-off", "The collection cannot be changed here"),
    ExplanationsOff: Row(403, "explanations-off", "Heat maps are switched off here"),
    ForeignPage: Row(403, "foreign-page", "Another site's page may not change the collection"),
    MetricsRefused: Row(403, "metrics-refused", "The metrics may not be read"),
    UnknownSpecies: Row(404, "unknown-species", "There is no such species"),
    UnknownSheet: Row(404, "unknown-sheet", "There is no such sheet"),
    UnknownJob: Row(404, "unknown-job", "There is no such job"),
    UnknownBatch: Row(404, "unknown-batch", "There is no such batch"),
    UnknownProject: Row(404, "unknown-project", "There is no such flora"),
    NoKnownPlant: Row(404, "no-known-plant", "The photos show no known plant"),
    UnknownBundle: Row(404, "unknown-bundle", "There is no such version of the index"),
    UnknownExplanation: Row(404, "unknown-explanation", "There is no such heat map"),
    BodyTimeout: Row(408, "upload-too-slow", "The upload took too long"),
    BatchUnfinished: Row(409, "batch-unfinished", "The batch is not done"),
    SheetConflict: Row(409, "sheet-conflict", "The sheet contradicts the collection"),
    SpeciesConflict: Row(409, "species-conflict", "The species contradicts the collection"),
    RequestTooLarge: Row(413, "request-too-large", "The upload is too large"),
    ImageTooLarge: Row(413, "image-too-large", "The photo is too large"),
    AddressTooLong: Row(414, "address-too-long", "The request's address is too long"),
    UnsupportedUpload: Row(415, "unsupported-upload", "The upload is not of an accepted type"),
    InvalidImage: Row(422, "unreadable-image", "The photo cannot be used"),
    InvalidSheetDetails: Row(422, "invalid-details", "What is said about the sheet or species cannot be used"),
    InvalidCandidateFilter: Row(422, "invalid-candidates", "The candidates cannot be restricted so"),
    InvalidBatch: Row(422, "invalid-batch", "The photos cannot be taken as a batch"),
    UnacceptableForm: Row(422, "invalid-form", "The form is not as expected"),
    TooManyFailures: Row(429, "too-many-failures", "Too many wrong keys", retry_after_seconds=60),
    RateExceeded: Row(429, "rate-exceeded", "The key asks too often", retry_after_seconds=60),
    QuotaSpent: Row(429, "quota-spent", "The key's day is used up", retry_after_seconds=3600),
    # Nobody reads this answer; the number (nginx's) is for the log of a proxy.
    ClientGone: Row(499, "client-gone", "The client closed the connection"),
    CatalogueError: Row(500, "catalogue-error", "The catalogue cannot be read", tells=False),
    StorageFull: Row(
        507,
        "storage-full",
        "The disk is full",
        instead="nothing was changed; whoever runs the service has to free some space, for example with `voucher gc`",
    ),
    StorageReadOnly: Row(
        503,
        "read-only",
        "Nothing can be changed here now",
        retry_after_seconds=300,
        instead="the disk of the collection cannot be written to at the moment; nothing was changed, and plants are "
        "identified as before. Whoever runs the service has to mend that",
    ),
    ShuttingDown: Row(503, "shutting-down", "The service is stopping", retry_after_seconds=5),
    NotReady: Row(503, "not-ready", "The service is not ready", retry_after_seconds=30),
    BundleError: Row(503, "bundle-error", "The service cannot identify plants now", retry_after_seconds=30),
    ServiceOverloaded: Row(503, "overloaded", "The service is busy", retry_after_seconds=2),
    CatalogueBusy: Row(
        503,
        "catalogue-busy",
        "The collection is being changed",
        retry_after_seconds=30,
        instead="another change of the collection, such as a large import, takes long; nothing was changed here. Try "
        "again when that is done",
    ),
    JobQueueError: Row(503, "queue-error", "The queue of jobs cannot be used", tells=False, retry_after_seconds=30),
    AnswerTimeout: Row(503, "answer-timeout", "The answer took too long", retry_after_seconds=5),
}
"""Looked up along the exception's classes, the closest first."""

UNEXPECTED = Row(500, "internal-error", "Something went wrong in the service", tells=False)


def row_for(error: Exception) -> Row:
    """Row of the closest class of `error` in `TABLE`, or `UNEXPECTED`."""
    for kind in type(error).__mro__:
        if kind in TABLE:
            return TABLE[kind]
    return UNEXPECTED


def problem(
    status: int,
    slug: str,
    title: str,
    detail: str,
    request_id: str,
    headers: dict[str, str] | None = None,
    **members: Any,
) -> JSONResponse:
    """Problem document with `members` as its extension members."""
    content = {
        "type": f"urn:voucher:problem:{slug}",
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": request_id,
        **members,
    }
    return JSONResponse(content, status, headers=headers, media_type=PROBLEM_MEDIA_TYPE)


def note_problem(scope: Scope, row: Row) -> None:
    """Have the request's problem counted, and told in its trace."""
    scope.setdefault("state", {})["problem"] = row.slug


def request_id_of(request: Request) -> str:
    """Request id that the outermost middleware gave to this request."""
    return str(request.scope.get("state", {}).get("request_id", ""))


def problem_for(error: Exception, request_id: str) -> JSONResponse:
    """Problem document for any exception; a message that is not meant for the client goes to the log only."""
    row = row_for(error)
    if row.instead is not None:
        logger.warning("request %s: %s", request_id, error)
        detail = row.instead
    elif row.tells:
        detail = str(error)
    else:
        logger.error("request %s failed", request_id, exc_info=error)
        detail = f"The service has logged what happened. Name request {request_id} when you report it."
    headers = dict(row.headers)
    retry_after_seconds = getattr(error, "retry_after_seconds", None) or row.retry_after_seconds
    if retry_after_seconds is not None:
        headers["Retry-After"] = str(retry_after_seconds)
    return problem(row.status, row.slug, row.title, detail, request_id, headers)


async def _on_voucher_error(request: Request, error: Exception) -> JSONResponse:
    note_problem(request.scope, row_for(error))
    return problem_for(error, request_id_of(request))


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    """Starlette's own errors: no such address, wrong method."""
    assert isinstance(error, HTTPException)
    if error.status_code == 400:
        # What FastAPI raises for a body that it cannot take apart.
        return problem_for(
            MalformedRequest("expected a body of the type that its Content-Type announces, such as JSON in UTF-8"),
            request_id_of(request),
        )
    title = HTTPStatus(error.status_code).phrase
    details = {
        404: "There is nothing at this address.",
        405: f"The method {request.method} is not possible here.",
    }
    detail = details.get(error.status_code, str(error.detail))
    headers = dict(error.headers) if error.headers else None
    return problem(error.status_code, f"http-{error.status_code}", title, detail, request_id_of(request), headers)


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    """Path and query parameters that FastAPI refused; what was sent is not repeated."""
    assert isinstance(error, RequestValidationError)
    faults = [
        {"parameter": ".".join(str(part) for part in fault["loc"][1:]), "message": str(fault["msg"])}
        for fault in error.errors()
    ]
    detail = "; ".join(f"{fault['parameter']}: {fault['message']}" for fault in faults)
    return problem(422, "invalid-parameter", "A parameter is not valid", detail, request_id_of(request), errors=faults)


def add_error_handlers(app: FastAPI) -> None:
    """Make every expected error of `app` a problem document; `RequestContext` answers the unexpected."""
    app.add_exception_handler(VoucherError, _on_voucher_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
