"""`/v1/index-builds` and `/v1/jobs`: long work that is asked for here and done by a worker."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from app.dependencies import CuratorDependency, JobsDependency, StreamsDependency
from app.event_streams import EventStreams
from app.routes.documented_errors import problems
from app.schemas.jobs import IndexBuildBody, JobBody, JobList
from models.job_values import BuildRequest, Job
from models.jobs import BUILD_WORKFLOW, JobQueue

router = APIRouter(tags=["jobs"])

POLL_SECONDS = 0.5
HEARTBEAT_SECONDS = 15.0
"""A line that means nothing, so that proxies keep the connection and a client that is gone is noticed."""

JobId = Annotated[str, Path(max_length=200, description="as the answer to the request for the work named it")]


@router.post(
    "/v1/index-builds",
    status_code=202,
    summary="Ask for a new index",
    responses=problems(403, 422, 503, 507),
)
def create_index_build(
    jobs: JobsDependency, curator: CuratorDependency, response: Response, asked: IndexBuildBody | None = None
) -> JobBody:
    """Puts what changed among the sheets into a new index, and the index into service.

    The work is queued; one build runs at a time. A build whose figures on the validation photos fall is kept but not
    put into service: `result.held_back` of the job then says why.
    """
    wanted = asked or IndexBuildBody()
    request = BuildRequest(
        model_id=wanted.model_id,
        activate=wanted.activate,
        from_nothing=wanted.from_nothing,
        requested_by=curator.named(wanted.curator),
    )
    job = jobs.enqueue_build(request)
    response.headers["Location"] = f"/v1/jobs/{job.job_id}"
    return body_of(job)


@router.get("/v1/jobs", summary="List the jobs", responses=problems(422, 503))
def list_jobs(jobs: JobsDependency, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> JobList:
    """The latest first; batches are not among them, since they are their senders' business."""
    return JobList(jobs=[body_of(job) for job in jobs.list(limit=limit, kinds=(BUILD_WORKFLOW,))])


@router.get("/v1/jobs/{job_id}", summary="How far a job is", responses=problems(404, 422, 503))
def get_job(job_id: JobId, jobs: JobsDependency) -> JobBody:
    """State, progress with rate and time left, and in the end its result or the reason why it failed."""
    return body_of(jobs.get(job_id))


@router.post("/v1/jobs/{job_id}/cancel", summary="Cancel a job", responses=problems(403, 404, 422, 503, 507))
def cancel_job(job_id: JobId, jobs: JobsDependency, curator: CuratorDependency) -> JobBody:
    """One that waits is not begun, one that runs stops at its next step, one that is done stays as it is."""
    return body_of(jobs.cancel(job_id))


@router.get(
    "/v1/jobs/{job_id}/events",
    summary="Follow a job as server-sent events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}, **problems(404, 422, 503)},
)
async def follow_job(
    job_id: JobId, request: Request, jobs: JobsDependency, streams: StreamsDependency
) -> StreamingResponse:
    """An event `job` with the body of `GET /v1/jobs/{job_id}` at each change, until the job is done."""
    first = await run_in_threadpool(jobs.get, job_id)
    streams.take()
    events = _events(first, jobs, request, streams)

    async def counted() -> AsyncIterator[str]:
        try:
            async for event in events:
                yield event
        finally:
            streams.give_back()

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(counted(), media_type="text/event-stream", headers=headers)


async def _events(job: Job, jobs: JobQueue, request: Request, streams: EventStreams) -> AsyncIterator[str]:
    told: str | None = None
    silent_seconds = 0.0
    while True:
        content = json.dumps(body_of(job).model_dump(mode="json"), separators=(",", ":"))
        if content != told:
            told, silent_seconds = content, 0.0
            yield f"event: job\ndata: {content}\n\n"
        elif silent_seconds >= HEARTBEAT_SECONDS:
            silent_seconds = 0.0
            yield ": still there\n\n"
        if job.state.is_final or streams.is_ending or await request.is_disconnected():
            return
        await asyncio.sleep(POLL_SECONDS)
        silent_seconds += POLL_SECONDS
        job = await run_in_threadpool(jobs.get, job.job_id)


def body_of(job: Job) -> JobBody:
    """What is sent of a job."""
    return JobBody.model_validate(job.to_json())
