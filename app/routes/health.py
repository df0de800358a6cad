"""Is the process alive, and can it identify plants?"""

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from app.dependencies import ProbeDependency, ServingDependency
from app.error_responses import TABLE, note_problem, problem, request_id_of
from app.readiness import Check, State
from app.refusals import NotReady
from app.routes.documented_errors import problems
from app.schemas.service import Health, Readiness, ReadinessCheck

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Is the process alive?")
async def healthz() -> Health:
    """Always 200 while the process answers."""
    return Health(status="alive")


@router.get("/readyz", summary="Can the service identify plants?", response_model=Readiness, responses=problems(503))
async def readyz(request: Request, serving: ServingDependency, probe: ProbeDependency) -> Readiness | JSONResponse:
    """The bundle that answers, or 503 with what is missing and how to mend it.

    `checks` tells of everything that was looked at. A warning says that plants are identified all the same, and that
    somebody should look after it.
    """
    checks = [_body(check) for check in await run_in_threadpool(probe.look)]
    faults = [check.detail or check.name for check in checks if check.state == State.FAULT.value]
    identifier = serving.identifier_or_none
    if faults or identifier is None:
        return _not_ready(request, "; ".join(faults) or "the service is starting", checks)
    return Readiness(
        status="ready",
        bundle_id=identifier.bundle_id,
        model_id=identifier.model_id,
        species_count=len(identifier.species_ids),
        complaint=serving.complaint,
        checks=checks,
    )


def _body(check: Check) -> ReadinessCheck:
    return ReadinessCheck(name=check.name, state=check.state.value, detail=check.detail)


def _not_ready(request: Request, detail: str, checks: list[ReadinessCheck]) -> JSONResponse:
    row = TABLE[NotReady]
    note_problem(request.scope, row)
    return problem(
        row.status,
        row.slug,
        row.title,
        detail,
        request_id_of(request),
        {"Retry-After": str(row.retry_after_seconds)},
        checks=[check.model_dump() for check in checks],
    )
