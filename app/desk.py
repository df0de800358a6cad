"""Where an identification is asked for: what the routes that name plants need of the service."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.explanations import Explainer
from app.kept_photos import KeptPhotos
from app.metrics import ServiceMetrics
from app.serving import Serving
from app.settings import Settings
from app.uploads import UploadBudget


@dataclass(frozen=True, slots=True)
class Desk:
    """Taken with one dependency, as each takes its time."""

    request: Request
    settings: Settings
    serving: Serving
    budget: UploadBudget
    metrics: ServiceMetrics
    explainer: Explainer
    kept_photos: KeptPhotos | None


async def desk_of(request: Request) -> Desk:
    """Of the application that answers `request`."""
    state = request.app.state
    return Desk(
        request, state.settings, state.serving, state.upload_budget, state.metrics, state.explainer, state.kept_photos
    )


AtDesk = Annotated[Desk, Depends(desk_of)]
