"""Photos that were sent to be identified together: kept until that is done, and their results for a time.

``batches/<id>/``: ``batch.json`` (what was asked for), ``photos/<number>`` (without metadata), ``results.jsonl`` (a
line for each plant, in their order) and ``progress.json``. A folder is put there whole or not at all. Of the files'
names only the text is kept, to be shown with the results; nothing on disk is called by them.
"""

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from models.candidate_filter import CandidateFilter
from models.durable import (
    remove_stale_staging,
    replace_file,
    staging_folder,
    staging_path,
    storage_error,
    sync_folder,
)
from models.errors import CatalogueError, UnknownBatch
from models.home import Home

_BATCH_ID = re.compile(r"batch-[0-9]{8}-[0-9]{6}-[0-9a-f]{16}")
_MANIFEST, _PHOTOS, _PROGRESS = "batch.json", "photos", "progress.json"
_LOST_SECONDS = 3600.0
"""A batch that no job knows was being sent when its service was killed, if it is as old as this."""


@dataclass(frozen=True, slots=True)
class BatchPlant:
    """One plant of a batch: the name that results show, the numbers of its stored photos, or why there are none."""

    name: str
    photos: tuple[int, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """What was asked for. `key_id` is the key that may see the results; None where no key is needed."""

    top_k: int = 5
    sheets_per_candidate: int = 0
    species_ids: tuple[str, ...] = ()
    genera: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    ignores_unlisted: bool = False
    max_pixels: int = 50_000_000
    keep_hours: float = 72.0
    key_id: str | None = None
    requested_by: str = ""

    @property
    def within(self) -> CandidateFilter | None:
        """What candidates are restricted to."""
        return CandidateFilter.of(self.species_ids, self.genera, self.families, ignores_unlisted=self.ignores_unlisted)


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far a batch is: plants done, how many of these with an error, and which bundle answers.

    `reason` says why it ended before all were done.
    """

    done: int = 0
    failed: int = 0
    bundle_id: str | None = None
    model_id: str | None = None
    finished_at: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch as it was sent; its plants never change."""

    batch_id: str
    folder: Path
    created_at: str
    options: BatchOptions
    plants: tuple[BatchPlant, ...]

    @property
    def photo_count(self) -> int:
        """Photos that were stored."""
        return sum(len(plant.photos) for plant in self.plants)

    def photo(self, number: int) -> Path:
        """Where a photo is kept, until the batch is done."""
        return self.folder / _PHOTOS / f"{number:06d}"

    @property
    def results(self) -> Path:
        """Where the results are, a JSON document on each line."""
        return self.folder / "results.jsonl"

    def progress(self) -> BatchProgress:
        """How far it is."""
        try:
            return BatchProgress(**json.loads((self.folder / _PROGRESS).read_bytes()))
        except FileNotFoundError:
            return BatchProgress()

    def note(self, progress: BatchProgress) -> None:
        """Tell how far it is. Raises `UnknownBatch` when the batch was deleted meanwhile."""
        with while_it_is_there(self.batch_id):
            replace_file(self.folder / _PROGRESS, json.dumps(asdict(progress)).encode())

    def result_lines(self) -> Iterator[bytes]:
        """The whole lines of the results so far, without their ends."""
        try:
            file = self.results.open("rb")
        except FileNotFoundError:
            return
        with file:
            for line in file:
                if not line.endswith(b"\n"):
                    return
                yield line[:-1]

    @property
    def expires_at(self) -> datetime | None:
        """When it is deleted; None until it is finished."""
        finished = self.progress().finished_at
        if finished is None:
            return None
        return datetime.fromtimestamp(
            datetime.fromisoformat(finished).timestamp() + 3600 * self.options.keep_hours, UTC
        )

    def finish(self, progress: BatchProgress | None = None, *, reason: str | None = None) -> None:
        """Remove the photos and start the time that results are kept for; the first end of a batch stays its end."""
        with while_it_is_there(self.batch_id):
            # In place: photos that were moved aside would outlive a kill.
            shutil.rmtree(self.folder / _PHOTOS, ignore_errors=True)
            last = progress or self.progress()
            if last.finished_at is None:
                now = datetime.now(UTC).isoformat(timespec="seconds")
                replace_file(
                    self.folder / _PROGRESS, json.dumps(asdict(replace(last, finished_at=now, reason=reason))).encode()
                )


@dataclass(slots=True)
class BatchDraft:
    """A batch that is being sent: photos are added, then all of it is put in its place by `BatchStore.receive`."""

    folder: Path
    plants: list[BatchPlant] = field(default_factory=list)
    photo_count: int = 0
    stored_bytes: int = 0

    def add_photo(self, content: bytes) -> int:
        """Number of a photo that was stored; `content` is without metadata. Raises `StorageFull`."""
        number = self.photo_count
        try:
            with (self.folder / _PHOTOS / f"{number:06d}").open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if (refused := storage_error(error, "the batch was not stored")) is not None:
                raise refused from error
            raise
        self.photo_count += 1
        self.stored_bytes += len(content)
        return number


class BatchStore:
    """The batches of one home."""

    def __init__(self, home: Home) -> None:
        self.root = home.batches

    @contextmanager
    def receive(self) -> Iterator[tuple[BatchDraft, Callable[[BatchOptions], Batch]]]:
        """A draft, and the function that makes a batch of it; whatever was not made one leaves nothing behind."""
        with self._staging() as folder:
            draft = BatchDraft(folder)
            kept: list[Batch] = []

            def keep(options: BatchOptions) -> Batch:
                kept.append(self._put(draft, options))
                return kept[0]

            yield draft, keep
            if not kept:
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        with ExitStack() as stack:
            try:
                folder = stack.enter_context(staging_folder(self.root, "batch"))
                (folder / _PHOTOS).mkdir()
            except OSError as error:
                if (refused := storage_error(error, "the batch was not stored")) is not None:
                    raise refused from error
                raise
            yield folder

    def get(self, batch_id: str) -> Batch:
        """One batch. Raises `UnknownBatch`."""
        with while_it_is_there(batch_id):
            if not _BATCH_ID.fullmatch(batch_id):
                raise FileNotFoundError
            values = json.loads((self.root / batch_id / _MANIFEST).read_bytes())
        options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values["options"].items()}
        return Batch(
            batch_id=batch_id,
            folder=self.root / batch_id,
            created_at=values["created_at"],
            options=BatchOptions(**options),
            plants=tuple(BatchPlant(p["name"], tuple(p["photos"]), p["error"]) for p in values["plants"]),
        )

    def ids(self) -> list[str]:
        """All batches, the oldest first."""
        if not self.root.is_dir():
            return []
        return sorted(p.name for p in self.root.iterdir() if _BATCH_ID.fullmatch(p.name))

    def unfinished(self) -> int:
        """How many batches wait or are being worked on: those that still have their photos."""
        return sum((self.root / batch_id / _PHOTOS).is_dir() for batch_id in self.ids())

    def delete(self, batch_id: str) -> None:
        """Remove a batch with everything in it. Raises `UnknownBatch`, and `StorageReadOnly` with nothing removed."""
        folder = self.get(batch_id).folder
        try:
            _remove_folder(folder)
        except OSError as error:
            if (refused := storage_error(error, "the batch was not removed")) is not None:
                raise refused from error
            raise

    def sweep(self, is_over: Callable[[str], bool | None], *, dry_run: bool = False) -> list[str]:
        """Ids of the batches that were removed: those whose time has passed, and those of no job.

        `is_over` says whether nothing more will happen to the job of that id, None where there is no such job. Batches
        whose job has ended, however it ended, lose their photos.
        """
        removed = [] if dry_run else remove_stale_staging(self.root)
        for batch_id in self.ids():
            try:
                batch = self.get(batch_id)
                over = is_over(batch_id)
                expires = batch.expires_at
                age = time.time() - datetime.fromisoformat(batch.created_at).timestamp()
                is_lost = over is None and expires is None and age > _LOST_SECONDS
                if is_lost or (expires is not None and expires <= datetime.now(UTC)):
                    removed.append(batch_id)
                    if not dry_run:
                        _remove_folder(batch.folder)
                elif over and expires is None and not dry_run:
                    batch.finish()
            except UnknownBatch:  # somebody else has removed it meanwhile
                continue
        return removed

    def _put(self, draft: BatchDraft, options: BatchOptions) -> Batch:
        now = datetime.now(UTC)
        batch_id = f"batch-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(8)}"
        created = now.isoformat(timespec="seconds")
        values = {
            "created_at": created,
            "options": asdict(options),
            "plants": [asdict(plant) for plant in draft.plants],
        }
        try:
            replace_file(draft.folder / _MANIFEST, json.dumps(values).encode())
            sync_folder(draft.folder / _PHOTOS)
            draft.folder.rename(self.root / batch_id)
            sync_folder(self.root)
        except OSError as error:
            if (refused := storage_error(error, "the batch was not stored")) is not None:
                raise refused from error
            raise CatalogueError(f"a batch cannot be written below {self.root}: {error.strerror or error}") from error
        return Batch(batch_id, self.root / batch_id, created, options, tuple(draft.plants))


@contextmanager
def while_it_is_there(batch_id: str) -> Iterator[None]:
    """A block in which a file that is gone means that the batch is: raises `UnknownBatch`."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise UnknownBatch(
            f"there is no batch {batch_id!r}: results are kept for a limited time, and deleted with their batch"
        ) from None


def _remove_folder(folder: Path) -> None:
    """Out of sight in one step, then away: a kill in between leaves nothing under its name."""
    aside = staging_path(folder.parent, folder.name)
    with suppress(FileNotFoundError):
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
