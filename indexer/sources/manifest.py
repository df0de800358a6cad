"""Layout of a CSV manifest: one line an image."""

import csv
import difflib
import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import TypeVar

from indexer.sources.records import Dataset, Layout, Problems, Record, not_utf8, parse_species_id
from models.errors import InvalidDataset
from models.specimens import Organ, Role, Specimen, Split
from models.taxonomy import Species, SpeciesId

_REQUIRED = ("path", "species_id", "role")
_OF_SPECIES = ("scientific_name", "genus", "family")
_OF_IMAGE = (
    "specimen",
    "observation",
    "organ",
    "split",
    "institution_code",
    "collection_code",
    "catalog_number",
    "license",
    "rights_holder",
)
_KNOWN = (*_REQUIRED, *_OF_SPECIES, *_OF_IMAGE)
_DELIMITERS = ",;\t"

_Choice = TypeVar("_Choice", bound=StrEnum)
_Row = dict[str, str]


def read_manifest(file: Path, *, role_required: bool = True) -> Dataset:
    """The dataset that `file` lists; paths in it are relative to its folder.

    The separator is a comma, semicolon or tab. Without `role_required` a file without the column role lists field
    photos. Raises `InvalidDataset` that names file, line and column, when a required column is missing, a value is not
    allowed, a path leaves the folder, or two lines contradict one another about a species.
    """
    header, notes = _read_header(file, _REQUIRED if role_required else _REQUIRED[:2])
    problems = Problems(file)
    told_of_species: dict[SpeciesId, dict[str, tuple[str, int]]] = {}
    count = 0
    for line, row in _rows(file, header, problems):
        count += 1
        record = _record(file.parent, row, line, problems)
        if record is not None:
            _merge_species(told_of_species.setdefault(record.species_id, {}), record, row, line, problems)
    problems.raise_if_any()
    if not count:
        raise InvalidDataset(f"{file} lists no image: there is nothing below its header")
    species = [_species(key, told) for key, told in sorted(told_of_species.items())]
    return Dataset(
        layout=Layout.MANIFEST,
        root=file.parent,
        species=tuple(species),
        record_count=count,
        records=lambda: _records(file, header),
        told=frozenset(_told_columns(header)),
        notes=notes,
    )


def _species(species_id: SpeciesId, told: dict[str, tuple[str, int]]) -> Species:
    name, genus, family = (told[column][0] if column in told else None for column in _OF_SPECIES)
    return Species(species_id, name or species_id, genus, family)


def _told_columns(header: list[str]) -> Iterator[str]:
    for column in header:
        if column in ("specimen", "observation", "catalog_number"):
            yield "plant_key"
        if column in _OF_IMAGE and column not in ("specimen", "observation"):
            yield column


def _open_lines(file: Path) -> Iterator[str]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            yield from lines
    except UnicodeDecodeError as error:
        raise not_utf8(file) from error
    except OSError as error:
        raise InvalidDataset(f"{file} cannot be read: {error.strerror or error}") from error


def _delimiter(first_line: str) -> str:
    return max(_DELIMITERS, key=first_line.count)


def _read_header(file: Path, required: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Column names in lower case, and remarks about columns that mean nothing here."""
    first_line = next(_open_lines(file), "")
    columns = next(csv.reader([first_line], delimiter=_delimiter(first_line)), [])
    header = [column.strip().lower() for column in columns]
    known = "known columns: " + ", ".join(_KNOWN)
    missing = [column for column in required if column not in header]
    if missing:
        raise InvalidDataset(
            f"{file}, line 1: the column {' and the column '.join(missing)} is missing; found: "
            f"{', '.join(header) or 'an empty line'}; {known}"
        )
    repeated = sorted({column for column in header if column and header.count(column) > 1})
    if repeated:
        raise InvalidDataset(f"{file}, line 1: the column {repeated[0]} appears twice; keep one of them")
    unknown = [column for column in header if column and column not in _KNOWN]
    for column in unknown:
        if meant := difflib.get_close_matches(column, _KNOWN, n=1, cutoff=0.8):
            raise InvalidDataset(f"{file}, line 1: there is no column {column}; was {meant[0]} meant? {known}")
    notes = (f"{file.name}: unused columns: {', '.join(unknown)}; {known}",) if unknown else ()
    return header, notes


def _rows(file: Path, header: list[str], problems: Problems) -> Iterator[tuple[int, _Row]]:
    """Line number and values by column; blank lines are passed over."""
    lines = _open_lines(file)
    first_line = next(lines)
    reader = csv.reader(lines, delimiter=_delimiter(first_line), strict=True)
    try:
        for values in reader:
            line = reader.line_num + 1
            if not any(value.strip() for value in values):
                continue
            if len(values) > len(header) and any(value.strip() for value in values[len(header) :]):
                problems.add(line, f"{len(values)} values for {len(header)} columns; quote values with commas")
                continue
            padded = values + [""] * (len(header) - len(values))
            row = {column: value.strip() for column, value in zip(header, padded, strict=False)}
            yield line, row if "role" in header else {**row, "role": Role.FIELD.value}
    except csv.Error as error:
        raise InvalidDataset(
            f"{file}, line {reader.line_num + 1}: not a CSV table ({error}); look for a stray quotation mark"
        ) from error


def _records(file: Path, header: list[str]) -> Iterator[Record]:
    problems = Problems(file)
    for line, row in _rows(file, header, problems):
        if (record := _record(file.parent, row, line, problems)) is not None:
            yield record
    problems.raise_if_any()  # only when the file was changed since it was checked


def _record(root: Path, row: _Row, line: int, problems: Problems) -> Record | None:
    """The record of a row; None and an entry in `problems` when something in it is wrong."""
    try:
        role = _choice(Role, row, "role", required=True)
        assert role is not None
        plant = row.get("specimen" if role is Role.SHEET else "observation") or None
        specimen = Specimen(*(row.get(column) or None for column in _OF_IMAGE[4:7]))
        return Record(
            path=root / _relative_path(row["path"]),
            name=row["path"],
            species_id=parse_species_id(row["species_id"]),
            role=role,
            plant_key=plant or (_cited(specimen) if role is Role.SHEET else None),
            organ=_choice(Organ, row, "organ"),
            split=_choice(Split, row, "split"),
            specimen=specimen,
            license=row.get("license") or None,
            rights_holder=row.get("rights_holder") or None,
        )
    except ValueError as error:
        problems.add(line, str(error))
        return None


def _choice(choices: type[_Choice], row: _Row, column: str, *, required: bool = False) -> _Choice | None:
    value = row.get(column, "").lower()
    if not value and not required:
        return None
    try:
        return choices(value)
    except ValueError:
        allowed = ", ".join(choice.value for choice in choices)
        found = repr(row[column]) if row[column] else "nothing"
        raise ValueError(f"column {column}: expected one of {allowed}; found {found}") from None


def _relative_path(text: str) -> PurePosixPath:
    """A path below the manifest's folder, with the separators of any system. Raises `ValueError`."""
    if not text:
        raise ValueError("column path: it is empty")
    path = PurePosixPath(text.replace("\\", "/") if "/" not in text else text)
    if path.is_absolute() or re.match(r"[A-Za-z]:", text):
        raise ValueError(f"column path: {text!r} is absolute; write it relative to the manifest's folder")
    if ".." in path.parts or "\0" in text:
        raise ValueError(f"column path: {text!r} leaves the manifest's folder")
    return path


def _cited(specimen: Specimen) -> str | None:
    """Key of a specimen by the codes it is cited with, so that its images are known to be siblings."""
    if not specimen.catalog_number:
        return None
    codes = (specimen.institution_code, specimen.collection_code, specimen.catalog_number)
    return ":".join(code or "" for code in codes)


def _merge_species(told: dict[str, tuple[str, int]], record: Record, row: _Row, line: int, problems: Problems) -> None:
    """Remember what a row says of its species, with the line; contradictions become problems."""
    for column in _OF_SPECIES:
        value = row.get(column)
        if not value:
            continue
        before, first_line = told.setdefault(column, (value, line))
        if before != value:
            problems.add(
                line,
                f"column {column}: species {record.species_id} is {value!r} here, but {before!r} in line {first_line}",
            )
