"""`/v1/batches`: many photos that are sent together and identified by a worker."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from app.access import Access, charge_more
from app.batch_form import FORM_SCHEMA, batch_limits, form_shape, read_options
from app.batch_upload import read_batch
from app.dependencies import (
    AskDependency,
    BatchDoorDependency,
    HomeDependency,
    IdentifyDependency,
    JobsDependency,
    ServingDependency,
    SettingsDependency,
    UploadBudgetDependency,
)
from app.identification_form import truth
from app.refusals import BatchUnfinished
from app.routes.documented_errors import problems
from app.schemas.jobs import BatchBody
from models.answer_values import csv_head, csv_line, table_row
from models.batches import Batch, BatchStore
from models.errors import UnknownBatch, UnknownJob, VoucherError
from models.job_values import Job
from models.jobs import JobQueue

router = APIRouter(tags=["batches"])

PATH = "/v1/batches"
JSON_LINES = "application/jsonl"
CSV = "text/csv"
_PIECE_BYTES = 64 * 1024

REQUEST_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": FORM_SCHEMA}}}
}

BatchId = Annotated[str, Path(max_length=64, description="as the answer to the request named it")]


@router.post(
    PATH,
    status_code=202,
    summary="Identify many photos",
    responses=problems(400, 401, 403, 408, 413, 415, 422, 429, 503, 507),
    openapi_extra=REQUEST_BODY,
)
async def create_batch(
    request: Request,
    access: IdentifyDependency,
    settings: SettingsDependency,
    serving: ServingDependency,
    budget: UploadBudgetDependency,
    door: BatchDoorDependency,
    home: HomeDependency,
    jobs: JobsDependency,
    response: Response,
) -> BatchBody:
    """Takes photos, or a ZIP of them, that a worker then identifies with the bundle that is active when it begins.

    Each plant gets a row in the results; a photo that cannot be used has its error there and stops nothing. Photos are
    stored without metadata until all are done, and then deleted; results are kept for a limited time. Every plant
    counts as one identification of the key's day, and a batch as one at least.
    """
    species = serving.identifier.species
    store = BatchStore(home)
    await door.refuse_when_full(store)
    with door.upload(access.key_id), budget.share() as share, store.receive() as (draft, keep):
        shape, limits = form_shape(settings), batch_limits(settings)
        upload = await read_batch(request.headers, request.receive, shape, share, draft, limits, door.decoding)
        options = read_options(upload.texts, settings, access)
        if (within := options.within) is not None:
            await run_in_threadpool(within.positions, species)
        by_folder = truth(upload.texts, "folders_are_plants", False)
        draft.plants = upload.plants(by_folder=by_folder, max_plant_photos=settings.max_photos)
        usable = sum(plant.error is None for plant in draft.plants)
        await charge_more(request, max(0, usable - 1))  # the first was charged before anything was read

        def keep_and_enqueue() -> tuple[Batch, Job]:
            # In one thread, which ends what it has begun: a batch without a job would take the place of another.
            batch = keep(options)
            try:
                return batch, jobs.enqueue_batch(batch.batch_id, requested_by=options.requested_by)
            except Exception:
                with suppress(OSError, VoucherError):
                    store.delete(batch.batch_id)
                raise

        async with door.keeping(store):
            batch, job = await run_in_threadpool(keep_and_enqueue)
    response.headers["Location"] = f"{PATH}/{batch.batch_id}"
    return _body(batch, job)


@router.get(f"{PATH}/{{batch_id}}", summary="How far a batch is", responses=problems(401, 403, 404, 422, 429, 503))
def get_batch(batch_id: BatchId, access: AskDependency, home: HomeDependency, jobs: JobsDependency) -> BatchBody:
    """Its state, how many plants are done and how many of these have an error, and when it will be deleted."""
    batch = _own(home, batch_id, access)
    return _body(batch, _job(jobs, batch_id))


@router.get(
    f"{PATH}/{{batch_id}}/results",
    summary="The results of a batch, as JSON lines or CSV",
    response_class=StreamingResponse,
    responses={
        200: {"content": {JSON_LINES: {"schema": {"type": "string"}}, CSV: {"schema": {"type": "string"}}}},
        **problems(401, 403, 404, 409, 422, 429, 503),
    },
)
def get_results(
    batch_id: BatchId,
    request: Request,
    access: AskDependency,
    home: HomeDependency,
    jobs: JobsDependency,
    format: Annotated[
        Literal["jsonl", "csv"] | None, Query(description="none: as the Accept header says, JSON lines by itself")
    ] = None,
    partial: Annotated[bool, Query(description="the results so far, of a batch that is not done")] = False,
) -> StreamingResponse:
    """A row for each plant, in the order in which they were sent; those of an archive by their names.

    A line of JSON holds `position`, `file`, and either `answer`, which is that of `POST /v1/identifications`, or
    `error`. CSV has one line for each plant with its likeliest species, and no cell that a spreadsheet would run.
    """
    batch = _own(home, batch_id, access)
    if not partial and batch.progress().finished_at is None:
        job = _job(jobs, batch_id)
        if job is not None and not job.state.is_final:
            raise BatchUnfinished(
                f"batch {batch_id} is {job.state.value}: ask again when it is done, or with partial=true for "
                "the results so far"
            )
    as_csv = format == "csv" if format is not None else CSV in request.headers.get("accept", "")
    name = f"{batch_id}.{'csv' if as_csv else 'jsonl'}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    pieces = _in_pieces(_csv_lines(batch) if as_csv else (line + b"\n" for line in batch.result_lines()))
    media_type = f"{CSV}; charset=utf-8" if as_csv else JSON_LINES
    return StreamingResponse(pieces, media_type=media_type, headers=headers)


@router.delete(
    f"{PATH}/{{batch_id}}",
    status_code=204,
    summary="Delete a batch",
    responses=problems(401, 403, 404, 422, 429, 503, 507),
)
def delete_batch(batch_id: BatchId, access: AskDependency, home: HomeDependency, jobs: JobsDependency) -> None:
    """Stops the work if it is not done, and deletes photos and results."""
    batch = _own(home, batch_id, access)
    job = _job(jobs, batch_id)
    if job is not None and not job.state.is_final:
        jobs.cancel(batch_id)
    BatchStore(home).delete(batch.batch_id)


def _own(home: HomeDependency, batch_id: str, access: Access) -> Batch:
    """The batch, if the key that asks is the one that sent it. Raises `UnknownBatch`."""
    batch = BatchStore(home).get(batch_id)
    if batch.options.key_id is not None and batch.options.key_id != access.key_id:
        raise UnknownBatch(f"there is no batch {batch_id!r} of this key")
    return batch


def _job(jobs: JobQueue, batch_id: str) -> Job | None:
    """The job of a batch; None once old jobs were forgotten."""
    try:
        return jobs.get(batch_id)
    except UnknownJob:
        return None


def _body(batch: Batch, job: Job | None) -> BatchBody:
    progress, expires_at = batch.progress(), batch.expires_at
    ended = "succeeded" if progress.reason is None else "failed"
    return BatchBody.model_validate(
        {
            "batch_id": batch.batch_id,
            "state": ended if job is None else job.state.value,
            "created_at": batch.created_at,
            "started_at": None if job is None else job.started_at,
            "finished_at": progress.finished_at if job is None or job.state.is_final else None,
            "expires_at": None if expires_at is None else expires_at.isoformat(timespec="seconds"),
            "plants": len(batch.plants),
            "photos": batch.photo_count,
            "done": progress.done,
            "failed": progress.failed,
            "progress": None if job is None or job.progress is None else job.to_json()["progress"],
            "bundle_id": progress.bundle_id,
            "model_id": progress.model_id,
            "reason": progress.reason if job is None else job.reason,
            "results_url": f"{PATH}/{batch.batch_id}/results",
        }
    )


def _csv_lines(batch: Batch) -> Iterator[bytes]:
    yield csv_head().encode()
    for line in batch.result_lines():
        row = json.loads(line)
        yield csv_line(table_row(row["file"], row["answer"], row["error"])).encode()


def _in_pieces(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Some lines together: each piece that is sent costs a change of threads."""
    piece = bytearray()
    for line in lines:
        piece += line
        if len(piece) >= _PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)
