"""Is the process alive, and can it identify plants?"""

from fastapi import APIRouter

from app.dependencies import ServingDependency
from app.routes.documented_errors import problems
from app.schemas import Health, Readiness

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Is the process alive?")
async def healthz() -> Health:
    """Always 200 while the process answers."""
    return Health(status="alive")


@router.get("/readyz", summary="Can the service identify plants?", responses=problems(503))
async def readyz(serving: ServingDependency) -> Readiness:
    """The bundle that answers, or 503 with what is missing and how to mend it."""
    identifier = serving.identifier
    return Readiness(
        status="ready",
        bundle_id=identifier.bundle_id,
        model_id=identifier.model_id,
        species_count=len(identifier.species_ids),
        complaint=serving.complaint,
    )
