"""Freeing the disk of what nothing needs any more; what can be undone or is served stays."""

import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from indexer.build_lock import alone_at_building
from indexer.embedding_store import EmbeddingStore
from indexer.progress import Report, silent
from models.artifacts import MODEL_KIND, list_artifacts, previous_artifact_id, read, remove_stale_staging
from models.batches import BatchStore
from models.bundle_history import list_bundles
from models.catalogue import Catalogue
from models.curation import Curator
from models.durable import staging_path
from models.errors import BundleError, CatalogueError, JobQueueError, StorageFull
from models.explanation_store import ExplanationStore
from models.home import Home
from models.jobs import JobQueue

logger = logging.getLogger(__name__)

KEPT_BUNDLES = 5
KEPT_JOBS = 200
_ABANDONED_SECONDS = 24 * 3600.0


@dataclass
class Garbage:
    """What was removed, or with a dry run would be."""

    purged_sheets: int = 0
    image_files: int = 0
    bundles: list[str] = field(default_factory=list)
    embeddings: int = 0
    leftovers: list[str] = field(default_factory=list)
    batches: list[str] = field(default_factory=list)
    jobs: int = 0
    explanations: int = 0
    freed_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def collect(
    home: Home,
    catalogue: Catalogue,
    *,
    keep_bundles: int = KEPT_BUNDLES,
    dry_run: bool = False,
    by: str = "",
    report: Report = silent,
) -> Garbage:
    """Remove what nothing needs any more, while no build is under way.

    - Bundles but the served one, the one before it and the latest `keep_bundles`.
    - The images, thumbnails and embeddings of sheets that were removed before the served bundle was built, so that no
      answer shows them any more. They can then no longer be restored, and a bundle from before that is kept cites them
      without a picture.
    - Embeddings of models that are gone, finished jobs but the latest 200, heat maps that have expired, and what killed
      processes left behind.
    """
    garbage = Garbage()
    with alone_at_building(home, report):
        before = shutil.disk_usage(home.root).free
        bundles = list_bundles(home)
        active = next((b for b in bundles if b.is_active), None)
        kept = {b.bundle_id for b in [b for b in bundles if b.fault is None][:keep_bundles]}
        kept |= {active.bundle_id if active else "", previous_artifact_id(home) or ""}
        report("bundles", 0, 1)
        for bundle in bundles:
            if bundle.bundle_id not in kept and bundle.fault is None:
                garbage.bundles.append(bundle.bundle_id)
                if not dry_run:
                    _remove_folder(home.indexes / bundle.bundle_id)
        if active is not None and active.fault is None:
            report("removed sheets", 0, 1)
            _purge(home, catalogue, active.catalogue.revision, garbage, by=by, dry_run=dry_run)
        report("embeddings", 0, 1)
        _embeddings(home, catalogue, garbage, dry_run=dry_run)
        _leftovers(home, garbage, dry_run=dry_run)
        _batches(home, garbage, dry_run=dry_run)
        garbage.jobs = 0 if dry_run else _jobs(home)
        heat_maps = ExplanationStore(home.explanations)
        garbage.explanations = heat_maps.expired() if dry_run else heat_maps.sweep(only_expired=True)
        garbage.freed_bytes = max(0, shutil.disk_usage(home.root).free - before)
        report("embeddings", 1, 1)
    return garbage


def _purge(home: Home, catalogue: Catalogue, revision: int, garbage: Garbage, *, by: str, dry_run: bool) -> None:
    curator = Curator(catalogue, by or "voucher gc")
    if dry_run:
        garbage.purged_sheets = sum(1 for _ in catalogue.purgeable_sheets(revision))
        return
    for sheet in curator.purge(revision):
        garbage.purged_sheets += 1
        digest = sheet.image.stored_sha256
        for rendition in (home.renditions / digest[:2]).glob(f"{digest}-*"):
            rendition.unlink(missing_ok=True)
    garbage.image_files = curator.sweep_files()


def _embeddings(home: Home, catalogue: Catalogue, garbage: Garbage, *, dry_run: bool) -> None:
    """Vectors of images that are no longer needed, and of spaces that no model makes any more."""
    if not home.embeddings.is_dir():
        return
    spaces: dict[str, int] = {}
    for model_id in list_artifacts(home.models):
        try:
            metadata = read(home.models / model_id, kind=MODEL_KIND, verify=False).metadata
            spaces[str(metadata["space_id"])] = 0
        except (BundleError, KeyError) as error:
            logger.warning("embeddings are left alone: %s", error)
            return
    needed: set[str] | None = None
    for folder in sorted(p for p in home.embeddings.iterdir() if p.is_dir()):
        if not any(folder.name.startswith(f"{space}-") for space in spaces):
            garbage.leftovers.append(f"embeddings/{folder.name}")
            if not dry_run:
                _remove_folder(folder)
            continue
        if needed is None:
            needed = set(_digests(catalogue))
        garbage.embeddings += EmbeddingStore.compact(folder, needed, dry_run=dry_run)


def _digests(catalogue: Catalogue) -> Iterator[str]:
    """Of every image that a build may ask for; removed sheets that can still be restored are among them."""
    for sheet in catalogue.sheets(include_removed=True):
        if not sheet.purged:
            yield sheet.image.stored_sha256
    for photo in catalogue.field_photos():
        yield photo.image.stored_sha256


def _leftovers(home: Home, garbage: Garbage, *, dry_run: bool) -> None:
    """What killed processes left, and outputs of networks for runs that are over."""
    if not dry_run:
        for parent in (home.root, home.indexes, home.models, home.embeddings, *home.embeddings.glob("*")):
            garbage.leftovers += remove_stale_staging(parent)
    for run_cache in home.cache.iterdir() if home.cache.is_dir() else ():
        run = home.runs / run_cache.name
        over = (run / "model.json").is_file() or not run.is_dir()
        idle = time.time() - run_cache.stat().st_mtime > _ABANDONED_SECONDS
        if run_cache.name not in ("validation", home.explanations.name) and over and idle:
            garbage.leftovers.append(f"cache/{run_cache.name}")
            if not dry_run:
                shutil.rmtree(run_cache, ignore_errors=True)
    for damaged in home.embeddings.glob("*/*.corrupt") if home.embeddings.is_dir() else ():
        garbage.leftovers.append(f"embeddings/{damaged.parent.name}/{damaged.name}")
        if not dry_run:
            damaged.unlink(missing_ok=True)


def _batches(home: Home, garbage: Garbage, *, dry_run: bool) -> None:
    store = BatchStore(home)
    if not store.ids():
        return
    try:
        with JobQueue(home) as jobs:
            garbage.batches = store.sweep(jobs.is_over, dry_run=dry_run)
    except (JobQueueError, CatalogueError, StorageFull) as error:
        logger.warning("old batches are left: %s", error)


def _jobs(home: Home) -> int:
    try:
        with JobQueue(home) as jobs:
            return jobs.forget_all_but(KEPT_JOBS)
    except (JobQueueError, CatalogueError, StorageFull) as error:
        logger.warning("old jobs are left in the queue: %s", error)
        return 0


def _remove_folder(folder: Path) -> None:
    """Out of sight in one step, then away: a kill in between leaves no half of an artifact under its name."""
    aside = staging_path(folder.parent, folder.name)
    folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)
