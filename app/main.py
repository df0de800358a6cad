"""The application: routes, middleware, and a lifespan that loads what is served."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache

from fastapi import Depends, FastAPI
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.access_answers import AccessAnswers
from app.access_control import AccessControl
from app.batch_door import BatchDoor
from app.body_limits import BodyLimit, BodyLimits
from app.bundle_watch import load_serving
from app.cross_origin import CrossOrigin
from app.dependencies import may_look_behind, may_read
from app.error_responses import add_error_handlers
from app.event_streams import EventStreams
from app.explanations import Explainer
from app.kept_photos import kept_photos_for
from app.plain_addresses import PlainAddresses
from app.plantnet.errors import PlantnetErrors
from app.remote_images import RemoteImages
from app.request_context import RequestContext, UnexpectedErrors
from app.routes import (
    batches,
    bundles,
    changes,
    curation,
    embeddings,
    explanations,
    health,
    identifications,
    jobs,
    metrics,
    page,
    plantnet,
    plantnet_lists,
    session,
    sheets,
    species,
)
from app.routes.documented_errors import access_problems, openapi_of
from app.serving import Serving
from app.settings import Settings, home_of
from app.telemetry import Telemetry
from app.tracing import Tracing
from app.uploads import UploadBudget
from models.jobs import JobQueue

FORM_PATHS = r"/v1/(identifications|embeddings|explanations|sheets)/?|/v2/identify/[^/]+/?"
"""Where files are sent to, beside batches: each reads its form itself, once it is known who asks."""

DESCRIPTION = """\
Names a plant from field photos, and shows the herbarium sheets that vouch for the answer.

Every error is an RFC 9457 problem document (`application/problem+json`), but those below `/v2`, which have the shape \
of Pl@ntNet's."""


def create_app(
    settings: Settings, load: Callable[[Settings], Serving] = load_serving, *, tracing: Tracing | None = None
) -> FastAPI:
    """The service over the home that `settings` names; `load` is called once, when it starts.

    Without a bundle the service starts all the same and says on `/readyz` what is missing. `tracing` gets a span for
    each request; it is closed with the application.
    """
    telemetry = Telemetry.of(settings, tracing)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        serving = await asyncio.to_thread(load, settings)
        app.state.serving = serving
        telemetry.attach(app, serving)
        serving.attach(app.state.explainer)
        if app.state.kept_photos is not None:
            serving.attach(app.state.kept_photos)
        serving.start()
        try:
            yield
        finally:
            await asyncio.to_thread(serving.close)
            await asyncio.to_thread(app.state.jobs.close)
            await asyncio.to_thread(app.state.access.close)
            await app.state.remote_images.close()
            await asyncio.to_thread(telemetry.close)

    # FastAPI's own documentation pages load scripts from another host; the description itself stays.
    app = FastAPI(
        title="voucher",
        version="1",
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # FastAPI's own would tell addresses, with the keys in them, and what was sent; see `app.tracing`.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.settings = settings
    app.state.jobs = JobQueue(home_of(settings))
    app.state.event_streams = EventStreams(settings.max_event_streams)
    app.state.batch_door = BatchDoor(settings)
    app.state.upload_budget = UploadBudget(settings.max_buffered_bytes)
    app.state.explainer = Explainer(settings)
    app.state.kept_photos = kept_photos_for(settings)
    app.state.remote_images = RemoteImages(
        settings.remote_image_hosts,
        max_bytes=settings.max_upload_bytes,
        max_bytes_together=settings.max_request_bytes,
        timeout_seconds=settings.remote_image_timeout_seconds,
    )
    app.state.access = AccessControl(settings)
    add_error_handlers(app)
    keyed = access_problems()
    # The first is the one that is asked for most: they are tried in this order.
    for module in (identifications, curation):
        app.include_router(module.router, responses=keyed)
    for module in (session, health, metrics, page):
        app.include_router(module.router)
    for module in (species, sheets):
        app.include_router(module.router, dependencies=[Depends(may_read)], responses=keyed)
    for module in (changes, jobs, bundles):
        app.include_router(module.router, dependencies=[Depends(may_look_behind)], responses=keyed)
    for module in (batches, embeddings, explanations, plantnet, plantnet_lists):
        app.include_router(module.router)
    app.mount("/static", page.static_files(), name="static")
    # Made when it is first asked for: it takes half a second.
    app.openapi = cache(lambda: openapi_of(app))  # type: ignore[method-assign]
    app.add_middleware(
        BodyLimits,
        timeout_seconds=settings.body_timeout_seconds,
        forms={
            batches.PATH: BodyLimit(settings.batch_upload_bytes, settings.batch_upload_seconds),
            FORM_PATHS: BodyLimit(settings.max_request_bytes, settings.body_timeout_seconds),
        },
    )
    app.add_middleware(PlainAddresses)
    app.add_middleware(UnexpectedErrors)
    app.add_middleware(AccessAnswers)
    app.add_middleware(CrossOrigin, origins=settings.cors_origins)
    app.add_middleware(RequestContext)  # outside of everything that answers
    app.add_middleware(PlantnetErrors)  # rewrites what those within answer
    telemetry.watch_requests(app)
    # Outermost: from here on the client is who a trusted proxy says.
    app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.trusted_proxies))
    return app
