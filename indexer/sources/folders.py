"""Layout of folders: ``sheet/<species>/``, ``field/<species>/`` and, for test photos, ``test/field/<species>/``."""

import os
from collections.abc import Iterator
from pathlib import Path

from indexer.sources.records import Dataset, Layout, Record, parse_species_id
from models.errors import InvalidDataset
from models.specimens import Role, Split
from models.taxonomy import Species, SpeciesId

_PLACES = (
    (("sheet",), Role.SHEET, None),
    (("field",), Role.FIELD, None),
    (("test", "sheet"), Role.SHEET, Split.TEST),
    (("test", "field"), Role.FIELD, Split.TEST),
)
_DESKTOP_FILES = frozenset(("thumbs.db", "desktop.ini"))


def read_folders(root: Path) -> Dataset:
    """The dataset below `root`; a species' folder name is its identifier and its name.

    Raises `InvalidDataset` when there is neither ``sheet/`` nor ``field/``, or no image.
    """
    if not any((root / parts[0]).is_dir() for parts, _, _ in _PLACES[:2]):
        raise InvalidDataset(
            f"{root} holds neither a folder sheet nor a folder field; expected sheet/<species>/ and "
            "field/<species>/ with the images in them"
        )
    species: dict[SpeciesId, Species] = {}
    notes: list[str] = []
    count = 0
    for parts, _, _ in _PLACES:
        place = root.joinpath(*parts)
        for folder in species_folders(place):
            species_id = species_of_folder(folder)
            species.setdefault(species_id, Species(species_id, str(species_id)))
            count += sum(1 for _ in files_below(folder))
        if stray := sum(1 for entry in _entries(place) if not entry.is_dir()):
            notes.append(f"{place}: {stray} files lie in no species' folder and were left out")
    if not count:
        raise InvalidDataset(f"{root} holds no image in sheet/<species>/ or field/<species>/")
    has_test = any(split is not None and root.joinpath(*parts).is_dir() for parts, _, split in _PLACES)
    return Dataset(
        layout=Layout.FOLDERS,
        root=root,
        species=tuple(sorted(species.values(), key=lambda s: s.species_id)),
        record_count=count,
        records=lambda: _records(root),
        told=frozenset({"split"} if has_test else ()),
        notes=tuple(notes),
    )


def _records(root: Path) -> Iterator[Record]:
    for parts, role, split in _PLACES:
        for folder in species_folders(root.joinpath(*parts)):
            species_id = species_of_folder(folder)
            for file in files_below(folder):
                yield Record(file, file.relative_to(root).as_posix(), species_id, role, split=split)


def species_folders(place: Path) -> list[Path]:
    """Folders in `place` by name; none when there is no such place."""
    return [entry for entry in _entries(place) if entry.is_dir()]


def files_below(folder: Path) -> Iterator[Path]:
    """Files below `folder` in a fixed order, except hidden ones and those that desktops leave behind.

    Files that are no images are among them: they are reported, not passed over.
    """
    for entry in _entries(folder):
        if entry.is_dir():
            yield from files_below(entry)
        else:
            yield entry


def _entries(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    names = sorted(entry.name for entry in os.scandir(folder))
    return [folder / name for name in names if not name.startswith(".") and name.lower() not in _DESKTOP_FILES]


def species_of_folder(folder: Path) -> SpeciesId:
    """Species that a folder is named after. Raises `InvalidDataset`."""
    try:
        return parse_species_id(folder.name)
    except ValueError as error:
        raise InvalidDataset(f"{folder}: {error}") from error
