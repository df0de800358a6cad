"""Bringing a dataset in: every image is read, decoded and stored once, then all is entered in one transaction."""

import hashlib
import logging
import os
import time
import unicodedata
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Literal

from indexer.import_merge import Merged, merge_chunk, torn_plant_in_words
from indexer.import_report import LISTED_AT_MOST, Added, Conflict, ImportReport, SpeciesImages
from indexer.import_staging import Staging, in_chunks
from indexer.sources import Dataset, Layout, Record, read_dataset
from models.catalogue import Catalogue
from models.catalogue_writer import CatalogueWriter
from models.decoding import read_source
from models.errors import InvalidDataset, InvalidImage, UnreadableImage
from models.home import Home
from models.image_store import ImageStore
from models.specimens import Image

logger = logging.getLogger(__name__)

_CHUNK_IMAGES = 400
_WAITING_PER_WORKER = 4
_CONFLICTS_SHOWN = 20

Progress = Callable[[int, int], None]


def import_dataset(
    path: Path,
    home: Home,
    *,
    layout: Layout | None = None,
    on_conflict: Literal["error", "skip"] = "error",
    workers: int | None = None,
    on_progress: Progress | None = None,
    actor: str = "voucher",
) -> ImportReport:
    """What was added, found again, left out and why; in the catalogue's history `actor` has done it.

    Unusable files are reported and the rest is imported. A killed or failed import leaves the catalogue as
    it was; files it has stored by then are found and used by the next. `on_progress` receives the number of
    files done and the number of all files. With ``on_conflict="skip"`` images that are listed under two
    species, in both roles or in two splits are left out; otherwise they stop the import.

    Raises `InvalidDataset` (layout, lists, contradictions, or not one usable image) and `CatalogueError`.
    """
    started = time.monotonic()
    dataset = read_dataset(path, layout)
    with Staging() as staging:
        _stage(dataset, home, staging, workers or _usable_cores(), on_progress)
        rejected_count, rejected = staging.rejected(LISTED_AT_MOST)
        if rejected_count == dataset.record_count:
            first = "\n  ".join(f"{r.path}: {r.reason}" for r in rejected[:3])
            raise InvalidDataset(
                f"none of the {rejected_count:,} images of {path} can be used; the first of them:\n  {first}"
            )
        duplicate_count, duplicates = staging.duplicates(LISTED_AT_MOST)
        with Catalogue.open(home, create=True) as catalogue:
            with catalogue.writing(actor=actor, action="import") as writer:
                added_species, updated_species = writer.put_species(dataset.species)
                merged = _merge(writer, catalogue.image_store, staging, dataset, on_conflict)
            by_species = _by_species(catalogue, dataset)
    return ImportReport(
        layout=dataset.layout,
        added=Added(merged.sheets, merged.field_photos, added_species),
        updated=merged.updated,
        updated_species=updated_species,
        already_present=merged.already_present,
        duplicate_count=duplicate_count + merged.duplicate_count,
        duplicates=(*duplicates, *merged.duplicates)[:LISTED_AT_MOST],
        rejected_count=rejected_count,
        rejected=rejected,
        conflict_count=merged.conflict_count,
        conflicts=tuple(merged.conflicts),
        already_removed=merged.already_removed,
        by_species=by_species,
        notes=dataset.notes,
        seconds=time.monotonic() - started,
    )


def _stage(dataset: Dataset, home: Home, staging: Staging, workers: int, on_progress: Progress | None) -> None:
    """Read, check and store every image, and note the findings in the dataset's order."""
    store = ImageStore(home.images)
    store.sweep()
    catalogue = Catalogue.open(home) if Catalogue.exists(home) else None
    root = dataset.root.resolve()
    executor = ThreadPoolExecutor(workers, thread_name_prefix="import")
    try:

        def examine(record: Record) -> tuple[Record, Image | str]:
            return record, _examine(record, root, store, catalogue)

        done = _in_order(executor, examine, dataset.records(), workers * _WAITING_PER_WORKER)
        for ordinal, (record, outcome) in enumerate(done):
            staging.add(ordinal, record, outcome)
            if on_progress is not None:
                on_progress(ordinal + 1, dataset.record_count)
    finally:
        # Ctrl-C lands here: what is under way finishes (a second or so), the rest is dropped.
        executor.shutdown(wait=True, cancel_futures=True)
        if catalogue is not None:
            catalogue.close()
    staging.group()


def _in_order(
    executor: ThreadPoolExecutor,
    examine: Callable[[Record], tuple[Record, Image | str]],
    records: Iterator[Record],
    waiting: int,
) -> Iterator[tuple[Record, Image | str]]:
    """Results in the order of `records`, with at most `waiting` of them in memory."""
    pending: deque[Future[tuple[Record, Image | str]]] = deque(
        executor.submit(examine, record) for record in islice(records, waiting)
    )
    while pending:
        yield pending.popleft().result()
        for record in islice(records, 1):
            pending.append(executor.submit(examine, record))


def _examine(record: Record, root: Path, store: ImageStore, catalogue: Catalogue | None) -> Image | str:
    """The stored image of a record, or the reason why it cannot be used."""
    try:
        original = read_source(_existing_file(record.path, root))
        source_sha256 = hashlib.sha256(original).hexdigest()
        if catalogue is not None:
            known = catalogue.find_image(source_sha256)
            if known is not None and known in store:
                return known
        return store.add_read(original, source_sha256)
    except InvalidImage as error:
        return str(error)


def _existing_file(path: Path, root: Path) -> Path:
    """The file that `path` means, inside `root`. Raises `UnreadableImage`.

    File systems differ in how they compose accented letters; a list may use the other form.
    """
    forms = (path, *(Path(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD")))
    for candidate in forms:
        try:
            real = candidate.resolve(strict=True)
        except (OSError, RuntimeError):
            continue
        if not real.is_relative_to(root):
            raise UnreadableImage("it is a link that leads out of the dataset's folder; copy the file in")
        if not real.is_file():
            raise UnreadableImage("it is not a file")
        return real
    raise UnreadableImage("there is no such file")


def _merge(
    writer: CatalogueWriter,
    store: ImageStore,
    staging: Staging,
    dataset: Dataset,
    on_conflict: Literal["error", "skip"],
) -> Merged:
    """Enter the staged images. Raises `InvalidDataset` and `CatalogueError`, which undo the transaction."""
    count, conflicts = staging.conflicts(LISTED_AT_MOST)
    merged = Merged(conflict_count=count, conflicts=list(conflicts))
    for chunk in in_chunks(staging.images(), _CHUNK_IMAGES):
        merge_chunk(writer, store, chunk, dataset.told, merged)
    if merged.conflict_count and on_conflict == "error":
        raise InvalidDataset(_conflict_message(merged.conflict_count, merged.conflicts))
    if torn := writer.torn_plants(_CONFLICTS_SHOWN):
        listed = "\n  ".join(torn_plant_in_words(one) for one in torn)
        raise InvalidDataset(
            "nothing was imported: all images of one specimen or observation must have one species and one "
            f"split, or the test photos would not be new to the model:\n  {listed}"
        )
    return merged


def _conflict_message(count: int, conflicts: list[Conflict]) -> str:
    shown = [conflict.reason for conflict in conflicts[:_CONFLICTS_SHOWN]]
    more = [f"… and {count - len(shown):,} more"] if count > len(shown) else []
    return (
        f"nothing was imported, because {count:,} images contradict one another:\n  "
        + "\n  ".join(shown + more)
        + "\nRemove the wrong ones, or leave all of these images out with --on-conflict skip"
    )


def _by_species(catalogue: Catalogue, dataset: Dataset) -> tuple[SpeciesImages, ...]:
    counts = catalogue.species_counts()
    imported = {species.species_id for species in dataset.species}
    return tuple(
        SpeciesImages(
            species_id=species.species_id,
            scientific_name=species.scientific_name,
            sheets=counts[species.species_id].sheets + counts[species.species_id].test_sheets,
            field_photos=counts[species.species_id].field_photos + counts[species.species_id].test_field_photos,
        )
        for species in catalogue.species()
        if species.species_id in imported
    )


def _usable_cores() -> int:
    """Cores that this process may use, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
