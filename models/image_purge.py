"""Deleting image files that nothing needs any more, while others add and import."""

from collections.abc import Sequence
from itertools import islice

from models.catalogue import Catalogue
from models.image_store import StoredFile
from models.specimens import Sheet

_BATCH = 500


def purge_sheets(catalogue: Catalogue, revision: int) -> list[Sheet]:
    """The sheets that were removed at or before `revision` and whose files are deleted now.

    Rows go before files, so that a kill in between leaves files too many, which a sweep finds; and files go under the
    write lock, so that nobody enters an image whose file is just going.
    """
    purged: list[Sheet] = []
    while True:
        with catalogue.writing(action="purge") as writer:
            batch = writer.purge_sheets(revision, _BATCH)
        if not batch:
            return purged
        with catalogue.writing(action="purge") as writer:
            for image in writer.unreferenced([sheet.image for sheet in batch]):
                catalogue.image_store.discard(image)
        purged += batch


def sweep_images(catalogue: Catalogue) -> int:
    """How many files were deleted that no row has referred to for a day.

    What was stored since may be about to be entered.
    """
    store = catalogue.image_store
    removed = store.sweep()
    files = store.abandoned_files()
    while batch := list(islice(files, _BATCH)):
        if candidates := _not_needed(catalogue, batch):
            removed += _delete(catalogue, candidates)
    return removed


def _not_needed(catalogue: Catalogue, batch: Sequence[StoredFile]) -> list[StoredFile]:
    """Asked without the write lock, since nearly all files are needed."""
    needed = catalogue.needed_files([file.stored_sha256 for file in batch])
    return [file for file in batch if file.stored_sha256 not in needed]


def _delete(catalogue: Catalogue, candidates: Sequence[StoredFile]) -> int:
    removed = 0
    with catalogue.writing(action="sweep") as writer:
        needed = writer.needed_files([file.stored_sha256 for file in candidates])
        for file in candidates:
            if file.stored_sha256 not in needed and catalogue.image_store.discard_abandoned(file):
                removed += 1
    return removed
