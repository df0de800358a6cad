"""What a worker does with batches of photos that were sent to the service."""

import logging
import threading
from typing import TYPE_CHECKING, Any

from indexer.progress import Report
from models.answer_values import answer_values
from models.batch_results import ResultFile
from models.batches import Batch, BatchProgress, BatchStore
from models.errors import BundleError, JobCancelled, UnknownBatch, VoucherError
from models.home import Home
from models.jobs import JobQueue

if TYPE_CHECKING:
    from indexer.identify_many import Named
    from models.identifier import Identifier

logger = logging.getLogger(__name__)

STAGE = "identifying"


class BatchWork:
    """Identifies batches, one at a time, and removes what is left of old ones.

    What was done stays done: a batch whose worker was killed goes on after the last plant whose result was written,
    with the same bundle while it is there. Photos are removed with the end of the work, whatever the end is.
    """

    def __init__(self, home: Home, jobs: JobQueue, device: str = "auto") -> None:
        self._home, self._jobs, self._device = home, jobs, device
        self._store = BatchStore(home)
        self._busy = threading.Lock()
        self._identifier: Identifier | None = None

    @property
    def is_working(self) -> bool:
        """Whether a batch is under way."""
        return self._busy.locked()

    def forget(self) -> None:
        """Give back the memory of the network."""
        self._identifier = None

    def sweep(self) -> None:
        """Remove the photos of ended batches and the batches whose time has passed. Raises `JobQueueError`."""
        for name in self._store.sweep(self._jobs.is_over):
            logger.info("removed %s: its time has passed, or it belongs to nobody", name)

    def do(self, batch_id: str, report: Report) -> dict[str, Any]:
        """The counts of a batch once all its plants have results; or why there are none, as ``failed``."""
        try:
            batch = self._store.get(batch_id)
            with self._busy:
                progress = self._done(batch, report)
        except UnknownBatch as error:
            logger.info("job %s has no batch any more", batch_id)
            return {"failed": str(error)}
        except Exception:
            # Its photos are removed by the next sweep, which sees that the job has failed.
            logger.exception("job %s failed in a way that nobody expected", batch_id)
            raise
        if progress.reason is not None:
            return {"failed": progress.reason}
        logger.info("batch %s: %d plants, %d with an error", batch_id, progress.done, progress.failed)
        return {
            "plants": progress.done,
            "failed_plants": progress.failed,
            "photos": batch.photo_count,
            "bundle_id": progress.bundle_id,
            "model_id": progress.model_id,
        }

    def _done(self, batch: Batch, report: Report) -> BatchProgress:
        """How a batch ended. Raises `UnknownBatch` where it was deleted meanwhile."""
        if batch.progress().finished_at is None:
            try:
                batch.finish(self._identify(batch, report))
            except UnknownBatch:
                raise
            except JobCancelled as error:
                logger.info("job %s was cancelled", batch.batch_id)
                batch.finish(reason=str(error))
            except (VoucherError, OSError) as error:
                logger.warning("job %s failed: %s", batch.batch_id, error)
                batch.finish(reason=str(error))
        return batch.progress()

    def _identify(self, batch: Batch, report: Report) -> BatchProgress:
        from indexer.identify_many import Asked, Plant, identify_many

        with ResultFile(batch) as results:
            progress, total = results.progress, len(batch.plants)
            report(STAGE, progress.done, total)
            identifier = self._loaded(progress.bundle_id)
            left = (
                Plant(plant.name, tuple(batch.photo(number) for number in plant.photos), plant.error)
                for plant in batch.plants[progress.done :]
            )
            options = batch.options
            asked = Asked(options.top_k, options.sheets_per_candidate, options.within, options.max_pixels)
            for named in identify_many(identifier, left, asked):
                results.append([_row(progress.done + n, each, identifier.model_id) for n, each in enumerate(named)])
                progress = BatchProgress(
                    done=progress.done + len(named),
                    failed=progress.failed + sum(each.error is not None for each in named),
                    bundle_id=identifier.bundle_id,
                    model_id=identifier.model_id,
                )
                batch.note(progress)
                report(STAGE, progress.done, total)
        return progress

    def _loaded(self, bundle_id: str | None) -> "Identifier":
        """With the bundle that a batch was begun with, or the active one. Raises `BundleError`."""
        from models.artifacts import active_artifact_id
        from models.compute import Compute
        from models.identifier import Identifier

        wanted = bundle_id or active_artifact_id(self._home)
        held = self._identifier
        if held is not None and held.bundle_id == wanted:
            return held
        compute = Compute.resolve(self._device)
        model = None if held is None else held.bundle.model
        self._identifier = held = None
        try:
            found = Identifier.load(self._home, compute, wanted, model=model)
        except BundleError:
            if bundle_id is None:
                raise
            logger.warning("bundle %s is gone: the rest of the batch is answered by the active one", bundle_id)
            found = Identifier.load(self._home, compute, model=model)
        self._identifier = found
        return found


def _row(position: int, named: "Named", model_id: str) -> dict[str, Any]:
    answer = None if named.answer is None else answer_values(named.answer, model_id)
    return {"position": position, "file": named.plant.name, "error": named.error, "answer": answer}
