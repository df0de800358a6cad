"""What an index has to take in: all sheets of the catalogue, or those that changed since another index was built."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from indexer.fit_metric import rows_for_metric
from indexer.splits import Splits
from models.catalogue import Catalogue
from models.errors import UnknownSheet
from models.specimens import FieldPhoto, Sheet, Split
from models.taxonomy import SpeciesId


@dataclass
class Images:
    """Sheets or photos as columns; `files` is where each stored image lies, by its digest."""

    ids: list[str] = field(default_factory=list)
    species: list[SpeciesId] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, image_id: str, species_id: SpeciesId, digest: str, path: Path) -> None:
        """One more."""
        self.ids.append(image_id)
        self.species.append(species_id)
        self.digests.append(digest)
        self.files[digest] = path

    def without(self, digests: Sequence[str]) -> "Images":
        """Those whose image is not among `digests`."""
        left_out = set(digests)
        kept = Images()
        for image_id, species_id, digest in zip(self.ids, self.species, self.digests, strict=True):
            if digest not in left_out:
                kept.add(image_id, species_id, digest, self.files[digest])
        return kept


@dataclass(frozen=True)
class SheetChanges:
    """Living sheets to take in, and ids of sheets whose former row, if there is one, goes.

    `touches_training` says that one of them was in the model's training, whose sheets the metric is fitted on.
    """

    added: Images
    dropped: frozenset[str]
    touches_training: bool


def all_sheets(catalogue: Catalogue, splits: Splits) -> Images:
    """Every living sheet but those that are for testing alone."""
    return _images(catalogue, catalogue.sheets(), splits)


def changed_since(
    catalogue: Catalogue, revision: int, splits: Splits, unreadable_then: Iterable[str] = ()
) -> SheetChanges:
    """What changed after `revision`, in time proportional to it; sheets that could not be read then are tried again."""
    changed = {sheet.sheet_id: sheet for sheet in catalogue.changed_sheets(revision)}
    for sheet_id in unreadable_then:
        try:
            changed.setdefault(sheet_id, catalogue.get_sheet(sheet_id))
        except UnknownSheet:
            continue
    living = [changed[sheet_id] for sheet_id in sorted(changed) if not changed[sheet_id].removed]
    touches = any(sheet_id in splits.split_of for sheet_id in changed)
    return SheetChanges(_images(catalogue, living, splits), frozenset(changed), touches)


def training_sheets(sheets: Images, splits: Splits) -> Images:
    """Those of the sheets that the model was trained or validated on."""
    chosen = Images()
    for image_id, species_id, digest in zip(sheets.ids, sheets.species, sheets.digests, strict=True):
        if splits.split_of.get(image_id) in (Split.TRAIN, Split.VALIDATION):
            chosen.add(image_id, species_id, digest, sheets.files[digest])
    return chosen


def photos_of_metric(catalogue: Catalogue, splits: Splits) -> Images:
    """Some photos of each species that training was allowed to see: the metric learns from them how photos differ."""
    allowed: list[FieldPhoto] = [
        photo
        for photo in catalogue.field_photos()
        if splits.split_of.get(photo.photo_id) in (Split.TRAIN, Split.VALIDATION)
    ]
    classes = np.unique([p.species_id for p in allowed], return_inverse=True)[1].reshape(-1).astype(np.int64)
    photos = Images()
    for row in rows_for_metric(np.arange(len(allowed)), classes, np.ones(len(allowed), dtype=bool)):
        photo = allowed[row]
        path = catalogue.image_store.path(photo.image)
        photos.add(photo.photo_id, photo.species_id, photo.image.stored_sha256, path)
    return photos


def _images(catalogue: Catalogue, sheets: Iterable[Sheet], splits: Splits) -> Images:
    images = Images()
    for sheet in sheets:
        # A sheet that came after training has the split that the catalogue declares, if any.
        if splits.split_of.get(sheet.sheet_id, sheet.split) is not Split.TEST:
            digest = sheet.image.stored_sha256
            images.add(sheet.sheet_id, sheet.species_id, digest, catalogue.image_store.path(sheet.image))
    return images
