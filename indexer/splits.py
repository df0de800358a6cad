"""Which image may be used for what: drawn once, by specimen and observation, and saved."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from indexer.run_config import SplitConfig
from models.errors import BundleCorrupt, InsufficientData
from models.specimens import FieldPhoto, Role, Sheet, Split
from models.taxonomy import SpeciesId


@dataclass(frozen=True, slots=True)
class Record:
    """What a splitter needs to know of an image; images of one `group` stay together."""

    image_id: str
    species_id: SpeciesId
    role: Role
    group: str
    declared: Split | None


@dataclass(frozen=True)
class Splits:
    """Split of every image, and the species whose photos were hidden from training on purpose."""

    split_of: dict[str, Split]
    hidden_species: tuple[SpeciesId, ...] = ()

    def save(self, path: Path) -> None:
        """Write as Parquet: image ids and splits, no species, so that nothing downstream can read test labels."""
        table = pa.table(
            {"image_id": list(self.split_of), "split": [s.value for s in self.split_of.values()]},
        ).replace_schema_metadata({"hidden_species": "\x1f".join(self.hidden_species)})
        pq.write_table(table, path)

    @classmethod
    def load(cls, path: Path) -> "Splits":
        """Inverse of `save`. Raises `BundleCorrupt`."""
        try:
            table = pq.read_table(path)
            hidden = (table.schema.metadata or {}).get(b"hidden_species", b"").decode()
            pairs = zip(table["image_id"].to_pylist(), table["split"].to_pylist(), strict=True)
            split_of = {image_id: Split(split) for image_id, split in pairs}
        except (pa.ArrowException, KeyError, ValueError, OSError) as error:
            raise BundleCorrupt(f"{path} is not a readable split file: {error}. Train again.") from error
        return cls(split_of, tuple(SpeciesId(s) for s in hidden.split("\x1f") if s))


def sheet_record(sheet: Sheet) -> Record:
    """The splitter's view of a sheet."""
    return Record(sheet.sheet_id, sheet.species_id, Role.SHEET, sheet.specimen_key, sheet.split)


def photo_record(photo: FieldPhoto) -> Record:
    """The splitter's view of a field photo."""
    return Record(photo.photo_id, photo.species_id, Role.FIELD, photo.observation_key, photo.split)


def draw_splits(records: Iterable[Record], config: SplitConfig, generator: np.random.Generator) -> Splits:
    """A split for every image.

    What the catalogue declares is obeyed. Of the photos that it leaves open, those of
    ``config.hide_photos_of_species`` random species (all of them) and those beyond ``photos_per_species`` are
    tested; otherwise, only if no photo at all is declared test, ``test_fraction`` of each species' observations.
    Then ``validation_fraction`` of the groups of each species and role becomes validation, never the last group,
    unless that role has declared validation images. Sheets are tested only where the catalogue says so.
    Raises `InsufficientData` when more species are to be hidden than have photos.
    """
    by_group: dict[tuple[SpeciesId, Role], dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    split_of: dict[str, Split] = {}
    declared: dict[Role, set[Split]] = {Role.SHEET: set(), Role.FIELD: set()}
    with_sheets: set[SpeciesId] = set()
    kept_photos: set[SpeciesId] = set()
    for record in records:
        if record.role is Role.SHEET and record.declared is not Split.TEST:
            with_sheets.add(record.species_id)
        if record.declared is not None:
            split_of[record.image_id] = record.declared
            declared[record.role].add(record.declared)
            if record.role is Role.FIELD and record.declared is not Split.TEST:
                kept_photos.add(record.species_id)
        else:
            by_group[record.species_id, record.role][record.group].append(record)
    photographed = {species for species, role in by_group if role is Role.FIELD}
    open_photos = sorted((photographed & with_sheets) - kept_photos)
    hidden = _hidden_species(open_photos, config.hide_photos_of_species, generator)
    draws_test = Split.TEST not in declared[Role.FIELD]
    for (species, role), groups in sorted(by_group.items()):
        keys = sorted(groups)
        order = [keys[i] for i in generator.permutation(len(keys))]
        if role is Role.FIELD:
            tested = _tested_count(order, groups, species in hidden, config, draws_test)
        else:
            tested = 0
        remaining = len(order) - tested
        validated = 0 if Split.VALIDATION in declared[role] else round(config.validation_fraction * remaining)
        validated = max(0, min(validated, remaining - 1))
        for position, key in enumerate(order):
            if position < tested:
                split = Split.TEST
            elif position < tested + validated:
                split = Split.VALIDATION
            else:
                split = Split.TRAIN
            split_of.update({record.image_id: split for record in groups[key]})
    return Splits(split_of, tuple(sorted(hidden)))


def _hidden_species(
    candidates: Sequence[SpeciesId], count: int, generator: np.random.Generator
) -> frozenset[SpeciesId]:
    if count == 0:
        return frozenset()
    if count >= len(candidates):
        raise InsufficientData(
            f"split.hide_photos_of_species is {count}, but only {len(candidates)} species have sheets and "
            "field photos that may be hidden, and at least one must keep them"
        )
    return frozenset(candidates[i] for i in generator.choice(len(candidates), size=count, replace=False))


def _tested_count(
    order: Sequence[str],
    groups: dict[str, list[Record]],
    hidden: bool,
    config: SplitConfig,
    draws_test: bool,
) -> int:
    """How many of the groups, from the front of `order`, are tested."""
    if hidden:
        return len(order)
    if config.photos_per_species is not None:
        kept = 0
        for position in range(len(order) - 1, -1, -1):
            kept += len(groups[order[position]])
            if kept >= config.photos_per_species:
                return position
        return 0
    if not draws_test:
        return 0
    return min(round(config.test_fraction * len(order)), len(order) - 1)
