"""`voucher jobs`: the queue, seen and changed from the command line."""

from typing import Annotated

import typer

from indexer import console
from indexer.options import DEFAULT_HOME, HomeOption, JsonOption
from models.job_values import Job
from models.jobs import JobQueue

jobs_app = typer.Typer(no_args_is_help=True, help="See and cancel queued work, such as index builds.")

JobId = Annotated[str, typer.Argument(help="As `voucher jobs list` shows it.")]


@jobs_app.callback()
def _group() -> None:
    """See and cancel queued work, such as index builds."""


@jobs_app.command("list")
def list_command(
    home: HomeOption = DEFAULT_HOME,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Jobs to show.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Jobs, the latest first."""
    with JobQueue(console.home_of(home)) as jobs:
        found = jobs.list(limit=limit)
    if as_json:
        console.show_json([job.to_json() for job in found])
        return
    rows = [(j.job_id, j.state.value, j.created_at[:19].replace("T", " "), j.requested_by, _told(j)) for j in found]
    console.show_table("Jobs", ["job", "state", "created", "by", ""], rows)


@jobs_app.command("show")
def show_command(job_id: JobId, home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """One job: how far it is, or how it ended."""
    with JobQueue(console.home_of(home)) as jobs:
        _show(jobs.get(job_id), as_json)


@jobs_app.command("cancel")
def cancel_command(job_id: JobId, home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Not begin a job, or stop it at its next step. What it has embedded is kept."""
    with JobQueue(console.home_of(home)) as jobs:
        _show(jobs.cancel(job_id), as_json)


def _show(job: Job, as_json: bool) -> None:
    if as_json:
        console.show_json(job.to_json())
        return
    console.output.print(f"{job.job_id}: {job.state.value}. {_told(job)}".rstrip(), markup=False, soft_wrap=True)


def _told(job: Job) -> str:
    if job.reason is not None:
        return job.reason
    if job.result is not None:
        return str(job.result.get("bundle_id", ""))
    if job.progress is None:
        return ""
    p = job.progress
    left = "" if p.seconds_left is None else f", {p.seconds_left:.0f} s left"
    return f"{p.stage}: {p.done} of {p.total}{left}"
