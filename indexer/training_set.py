"""What may be learnt from: images of the training and validation splits, never of the test split."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.run_config import SplitConfig
from indexer.splits import Record, Splits, draw_splits, photo_record, sheet_record
from models.catalogue import Catalogue
from models.errors import InsufficientData
from models.specimens import FieldPhoto, Sheet, Split
from models.taxonomy import SpeciesId, Taxonomy

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class TrainingSet:
    """N images of the training and validation splits as columns of equal length.

    `groups` holds a number for each specimen or observation.
    """

    taxonomy: Taxonomy
    image_ids: tuple[str, ...]
    paths: tuple[Path, ...]
    classes: IntArray
    is_field: BoolArray
    groups: IntArray
    is_validation: BoolArray

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def has_field_photos(self) -> BoolArray:
        """``(C,)``: species with field photos in the training split."""
        flags = np.zeros(len(self.taxonomy), dtype=bool)
        flags[self.classes[self.is_field & ~self.is_validation]] = True
        return flags

    @property
    def has_sheets(self) -> BoolArray:
        """``(C,)``: species with sheets in the training split."""
        flags = np.zeros(len(self.taxonomy), dtype=bool)
        flags[self.classes[~self.is_field & ~self.is_validation]] = True
        return flags

    def describe(self) -> str:
        """One line for people: what there is to learn from."""
        both = int((self.has_field_photos & self.has_sheets).sum())
        only = int((self.has_sheets & ~self.has_field_photos).sum())
        return (
            f"{len(self.taxonomy)} species ({both} with sheets and field photos, {only} herbarium-only), "
            f"{int((~self.is_field).sum())} sheets and {int(self.is_field.sum())} field photos, "
            f"of which {int(self.is_validation.sum())} images choose the epoch"
        )


def catalogue_splits(catalogue: Catalogue, config: SplitConfig, generator: np.random.Generator) -> Splits:
    """Splits drawn for everything in the catalogue."""

    def records() -> Iterable[Record]:
        yield from map(sheet_record, catalogue.sheets())
        yield from map(photo_record, catalogue.field_photos())

    return draw_splits(records(), config, generator)


def read_training_set(catalogue: Catalogue, splits: Splits) -> TrainingSet:
    """The images of the training and validation splits, in a fixed order.

    Raises `InsufficientData`, saying what is missing, when there is nothing to tell apart.
    """
    store = catalogue.image_store
    chosen: list[tuple[Sheet | FieldPhoto, bool, str]] = []
    for sheet in catalogue.sheets():
        if splits.split_of.get(sheet.sheet_id) in (Split.TRAIN, Split.VALIDATION):
            chosen.append((sheet, False, f"sheet:{sheet.specimen_key}"))
    for photo in catalogue.field_photos():
        if splits.split_of.get(photo.photo_id) in (Split.TRAIN, Split.VALIDATION):
            chosen.append((photo, True, f"field:{photo.observation_key}"))
    present = {record.species_id for record, _, _ in chosen}
    if len(present) < 2:
        raise InsufficientData(
            f"training tells species apart and needs at least 2 with images; the catalogue has {len(present)}. "
            "Import more species with `voucher import`."
        )
    taxonomy = Taxonomy.of(s for s in catalogue.species() if s.species_id in present)
    group_numbers: dict[str, int] = {}
    image_ids = tuple(_image_id(record) for record, _, _ in chosen)
    return TrainingSet(
        taxonomy=taxonomy,
        image_ids=image_ids,
        paths=tuple(store.path(record.image) for record, _, _ in chosen),
        classes=np.array([taxonomy.class_index(record.species_id) for record, _, _ in chosen], dtype=np.int64),
        is_field=np.array([is_field for _, is_field, _ in chosen], dtype=bool),
        groups=np.array([group_numbers.setdefault(g, len(group_numbers)) for _, _, g in chosen], dtype=np.int64),
        is_validation=np.array([splits.split_of[i] is Split.VALIDATION for i in image_ids], dtype=bool),
    )


def species_positions(taxonomy: Taxonomy, species: Iterable[SpeciesId]) -> IntArray:
    """Class indices of `species`."""
    return np.array([taxonomy.class_index(s) for s in species], dtype=np.int64)


def _image_id(record: Sheet | FieldPhoto) -> str:
    return record.sheet_id if isinstance(record, Sheet) else record.photo_id
