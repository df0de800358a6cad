"""What may be learnt from: images of the training and validation splits, never of the test split.

Synthetic photos of a run may come with them, flagged. They are trained on where a species has no real photo, and count
as photos nowhere else.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.run_config import SplitConfig
from indexer.splits import Record, Splits, draw_splits, photo_record, sheet_record
from models.catalogue import Catalogue
from models.errors import InsufficientData
from models.specimens import FieldPhoto, Sheet, Split, SyntheticPhoto
from models.taxonomy import SpeciesId, Taxonomy

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class TrainingSet:
    """N images of the training and validation splits as columns of equal length.

    `groups` holds a number for each specimen or observation; a synthetic photo has that of the specimen it was drawn
    after. `is_field` is true for synthetic photos too; none of them is in the validation split.
    """

    taxonomy: Taxonomy
    image_ids: tuple[str, ...]
    paths: tuple[Path, ...]
    classes: IntArray
    is_field: BoolArray
    groups: IntArray
    is_validation: BoolArray
    is_synthetic: BoolArray

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def is_photo(self) -> BoolArray:
        """``(N,)``: real field photos."""
        return self.is_field & ~self.is_synthetic

    @property
    def has_field_photos(self) -> BoolArray:
        """``(C,)``: species with real field photos in the training split."""
        flags = np.zeros(len(self.taxonomy), dtype=bool)
        flags[self.classes[self.is_photo & ~self.is_validation]] = True
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
        drawn = int(self.is_synthetic.sum())
        return (
            f"{len(self.taxonomy)} species ({both} with sheets and field photos, {only} herbarium-only), "
            f"{int((~self.is_field).sum())} sheets and {int(self.is_photo.sum())} field photos, "
            f"of which {int(self.is_validation.sum())} images choose the epoch"
            + (f"; and {drawn} synthetic photos, for species without real ones" if drawn else "")
        )


def catalogue_splits(catalogue: Catalogue, config: SplitConfig, generator: np.random.Generator) -> Splits:
    """Splits drawn for everything in the catalogue."""

    def records() -> Iterable[Record]:
        yield from map(sheet_record, catalogue.sheets())
        yield from map(photo_record, catalogue.field_photos())

    return draw_splits(records(), config, generator)


def read_training_set(catalogue: Catalogue, splits: Splits, synthetic_of: str | None = None) -> TrainingSet:
    """The images of the training and validation splits, in a fixed order.

    With `synthetic_of` a run's synthetic photos follow, as far as their sheets are in the training split: of all
    species, since a fold may hide the photos of any; `usable_rows` takes those that a fit may use.

    Raises `InsufficientData`, saying what is missing, when there is nothing to tell apart.
    """
    learnt = (Split.TRAIN, Split.VALIDATION)
    chosen: list[tuple[Sheet | FieldPhoto | SyntheticPhoto, str]] = []
    specimen_of: dict[str, str] = {}
    for sheet in catalogue.sheets():
        if splits.split_of.get(sheet.sheet_id) in learnt:
            specimen_of[sheet.sheet_id] = f"sheet:{sheet.specimen_key}"
            chosen.append((sheet, specimen_of[sheet.sheet_id]))
    for photo in catalogue.field_photos():
        if splits.split_of.get(photo.photo_id) in learnt:
            chosen.append((photo, f"field:{photo.observation_key}"))
    for drawn in catalogue.synthetic_photos(synthetic_of) if synthetic_of is not None else ():
        if splits.split_of.get(drawn.sheet_id) is Split.TRAIN:
            chosen.append((drawn, specimen_of[drawn.sheet_id]))
    records = [record for record, _ in chosen]
    present = {record.species_id for record in records}
    if len(present) < 2:
        raise InsufficientData(
            f"training tells species apart and needs at least 2 with images; the catalogue has {len(present)}. "
            "Import more species with `voucher import`."
        )
    taxonomy = Taxonomy.of(s for s in catalogue.species() if s.species_id in present)
    group_numbers: dict[str, int] = {}
    image_ids = tuple(_image_id(record) for record in records)
    return TrainingSet(
        taxonomy=taxonomy,
        image_ids=image_ids,
        paths=tuple(catalogue.image_store.path(record.image) for record in records),
        classes=np.array([taxonomy.class_index(record.species_id) for record in records], dtype=np.int64),
        is_field=np.array([not isinstance(record, Sheet) for record in records], dtype=bool),
        groups=np.array([group_numbers.setdefault(g, len(group_numbers)) for _, g in chosen], dtype=np.int64),
        # A synthetic photo's id is in no split file.
        is_validation=np.array([splits.split_of.get(i) is Split.VALIDATION for i in image_ids], dtype=bool),
        is_synthetic=np.array([isinstance(record, SyntheticPhoto) for record in records], dtype=bool),
    )


def usable_rows(training_set: TrainingSet, rows: IntArray) -> IntArray:
    """`rows` without the synthetic photos of species that have real photos among `rows`.

    So whatever hides the photos of a species, a fold or the collection itself, leaves it its synthetic ones.
    """
    photographed = np.unique(training_set.classes[rows[training_set.is_photo[rows]]])
    superfluous = training_set.is_synthetic[rows] & np.isin(training_set.classes[rows], photographed)
    return rows[~superfluous]


def species_positions(taxonomy: Taxonomy, species: Iterable[SpeciesId]) -> IntArray:
    """Class indices of `species`."""
    return np.array([taxonomy.class_index(s) for s in species], dtype=np.int64)


def _image_id(record: Sheet | FieldPhoto | SyntheticPhoto) -> str:
    return record.sheet_id if isinstance(record, Sheet) else record.photo_id
