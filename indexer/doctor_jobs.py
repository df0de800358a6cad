"""Jobs and workers: whether the queue can be read, somebody works on it, and how the last build went."""

from collections.abc import Iterator
from contextlib import closing

from models.catalogue import Catalogue
from models.errors import VoucherError
from models.findings import Finding
from models.home import Home
from models.job_values import Job, JobState
from models.jobs import BUILD_WORKFLOW, JobQueue
from models.worker_presence import running_workers

_LATEST = 50


def check_jobs(home: Home) -> Iterator[Finding]:
    """Workers by the locks that they hold, and the jobs that wait, run or have failed."""
    workers = running_workers(home)
    try:
        if not home.root.is_dir() or not Catalogue.exists(home):
            return  # told by the check of the catalogue
        with closing(JobQueue(home)) as queue:
            jobs = queue.list(limit=_LATEST, with_progress=False)
    except VoucherError as error:
        remedy = "mend the catalogue's database first; jobs are in it"
        yield Finding.fault("jobs", str(error), remedy=remedy)
        return
    waiting = [job for job in jobs if not job.state.is_final]
    what = f"{len(workers)} workers run, {len(waiting)} jobs wait or are under way"
    if waiting and not workers:
        oldest = min(waiting, key=lambda job: job.created_at)
        remedy = "start `voucher serve` or `voucher worker` on this home; a job that was under way is continued"
        yield Finding.fault(
            "jobs", f"{what}, the oldest since {oldest.created_at[:19]} ({oldest.job_id})", remedy=remedy
        )
    else:
        yield Finding.ok("jobs", what, home.workers)
    yield from _last_build(jobs)


def _last_build(jobs: list[Job]) -> Iterator[Finding]:
    ended = [job for job in jobs if job.kind == BUILD_WORKFLOW and job.state in (JobState.SUCCEEDED, JobState.FAILED)]
    if not ended:
        return
    last = max(ended, key=lambda job: job.finished_at or "")
    if last.state is JobState.FAILED:
        what = f"the last one ({last.job_id}) failed: {last.reason}"
        yield Finding.warning("index build", what, remedy="mend what it says, and ask for the build again")
    else:
        yield Finding.ok("index build", f"the last one ({last.job_id}) succeeded")
