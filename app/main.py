"""The application: routes, middleware, and a lifespan that loads what is served."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache

from fastapi import FastAPI

from app.body_limits import BodyLimits
from app.bundle_watch import load_serving
from app.error_responses import add_error_handlers
from app.event_streams import EventStreams
from app.request_context import RequestContext
from app.routes import bundles, changes, curation, health, identifications, jobs, page, sheets, species
from app.routes.documented_errors import openapi_of
from app.serving import Serving
from app.settings import Settings, home_of
from app.uploads import UploadBudget
from models.jobs import JobQueue

DESCRIPTION = """\
Names a plant from field photos, and shows the herbarium sheets that vouch for the answer.

Every error is an RFC 9457 problem document (`application/problem+json`)."""


def create_app(settings: Settings, load: Callable[[Settings], Serving] = load_serving) -> FastAPI:
    """The service over the home that `settings` names; `load` is called once, when it starts.

    Without a bundle the service starts all the same and says on `/readyz` what is missing.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        serving = await asyncio.to_thread(load, settings)
        app.state.serving = serving
        serving.start()
        try:
            yield
        finally:
            await asyncio.to_thread(serving.close)
            await asyncio.to_thread(app.state.jobs.close)

    # FastAPI's own documentation pages load scripts from another host; the description itself stays.
    app = FastAPI(
        title="voucher",
        version="1",
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.jobs = JobQueue(home_of(settings))
    app.state.event_streams = EventStreams(settings.max_event_streams)
    app.state.upload_budget = UploadBudget(settings.max_buffered_bytes)
    add_error_handlers(app)
    for module in (identifications, species, sheets, curation, changes, jobs, bundles, health, page):
        app.include_router(module.router)
    app.mount("/static", page.static_files(), name="static")
    # Made when it is first asked for: it takes half a second.
    app.openapi = cache(lambda: openapi_of(app))  # type: ignore[method-assign]
    app.add_middleware(BodyLimits, max_bytes=settings.max_request_bytes, timeout_seconds=settings.body_timeout_seconds)
    app.add_middleware(RequestContext)  # added last, so it is the outermost
    return app
