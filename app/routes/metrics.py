"""`GET /metrics`: what Prometheus reads."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from app.dependencies import SettingsDependency, StateFiguresDependency
from app.metrics import ServiceMetrics
from app.metrics_access import check_metrics
from app.routes.documented_errors import problems

router = APIRouter(tags=["health"])

OPENMETRICS: dict[int | str, dict[str, Any]] = {200: {"content": {"application/openmetrics-text": {}}}}


@router.get("/metrics", summary="Figures for Prometheus", response_class=PlainTextResponse, responses=problems(403))
def metrics(request: Request, settings: SettingsDependency, state: StateFiguresDependency) -> Response:
    """Counts, times and the state of the service, in Prometheus' text format or OpenMetrics.

    Several processes that serve at one port are told of together. Only programs of this machine may ask, and those that
    show VOUCHER_METRICS_TOKEN as a bearer token, unless VOUCHER_METRICS says otherwise.
    """
    check_metrics(settings, request)
    counts: ServiceMetrics = request.app.state.metrics
    content, media_type = counts.exposition(request.headers.get("accept", ""), state)
    return Response(content, media_type=media_type, headers={"Cache-Control": "no-store"})
