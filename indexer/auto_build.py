"""Builds that nobody has to ask for: some time after the last change of the catalogue."""

import logging
import time
from collections.abc import Callable

from models.artifacts import list_artifacts
from models.bundle_history import latest_revision
from models.catalogue import Catalogue
from models.catalogue_revisions import CatalogueRevision
from models.home import Home
from models.job_values import BuildRequest
from models.jobs import JobQueue

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0


class AutoBuild:
    """Asks for a build when the catalogue was changed and then left alone for `quiet_seconds`.

    Quiet is measured from when this process first saw the change, by a clock that never jumps. The job is named after
    the revision, so that several workers ask for the same one.
    """

    def __init__(
        self, home: Home, jobs: JobQueue, quiet_seconds: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._home, self._jobs, self._quiet_seconds, self._now = home, jobs, quiet_seconds, now
        self._catalogue: Catalogue | None = None
        self._look_at = float("-inf")
        self._seen: CatalogueRevision | None = None
        self._seen_at = 0.0
        self._asked: CatalogueRevision | None = None

    def close(self) -> None:
        """Release the database."""
        if self._catalogue is not None:
            self._catalogue.close()
            self._catalogue = None

    def look(self) -> None:
        """Ask for a build if one is due."""
        now = self._now()
        if now < self._look_at:
            return
        self._look_at = now + min(_LOOK_SECONDS, self._quiet_seconds / 2)
        if self._catalogue is None:
            self._catalogue = Catalogue.open(self._home)
        found = self._catalogue.revision()
        if found != self._seen:
            self._seen, self._seen_at = found, now
        if found.revision == 0 or found == self._asked or now - self._seen_at < self._quiet_seconds:
            return
        if not list_artifacts(self._home.models):
            return  # without a trained model there is nothing that a build could do
        if latest_revision(self._home) != found:
            job_id = f"build-auto-{found.revision}-{found.token[:12]}"
            self._jobs.enqueue_build(BuildRequest(automatic=True, requested_by="voucher"), job_id=job_id)
            logger.info("asked for %s", job_id)
        self._asked = found  # last, so that a queue that cannot be written is asked again
