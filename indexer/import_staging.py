"""What an import has found so far, in a private temporary database: memory stays flat, a kill leaves nothing."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Any, Self

from indexer.import_report import Conflict, Duplicate, Rejection
from indexer.sources import Record
from models.specimens import Image, Organ, Role, Specimen, Split
from models.taxonomy import SpeciesId

_COLUMNS = (
    "ordinal INTEGER PRIMARY KEY",
    "name TEXT NOT NULL",
    "species_id TEXT NOT NULL",
    "role TEXT NOT NULL",
    "plant_key TEXT",
    "organ TEXT",
    "split TEXT",
    "institution_code TEXT",
    "collection_code TEXT",
    "catalog_number TEXT",
    "license TEXT",
    "rights_holder TEXT",
    "source_sha256 TEXT",
    "stored_sha256 TEXT",
    "suffix TEXT",
    "width INTEGER",
    "height INTEGER",
    "bytes INTEGER",
    "reason TEXT",
)

# One row for each image: its first file, how many files hold it, and whether they agree about it.
_GROUPS = """
CREATE TABLE grouped AS SELECT
    stored_sha256,
    MIN(ordinal) AS kept,
    COUNT(*) AS files,
    MIN(species_id) <> MAX(species_id) OR MIN(role) <> MAX(role)
        OR MIN(COALESCE(split, '')) <> MAX(COALESCE(split, '')) AS torn
FROM staged WHERE stored_sha256 IS NOT NULL GROUP BY stored_sha256
"""


@dataclass(frozen=True, slots=True)
class StagedImage:
    """An image of the dataset, decoded and stored, that is to be entered in the catalogue."""

    name: str
    image: Image
    species_id: SpeciesId
    role: Role
    plant_key: str
    organ: Organ | None
    split: Split | None
    specimen: Specimen
    license: str | None
    rights_holder: str | None


class Staging:
    """Findings in the order of the dataset. First `add`, then `group`, then the questions."""

    def __init__(self) -> None:
        # The empty name makes a private database on disk that SQLite deletes even after a kill.
        self._connection = sqlite3.connect("", isolation_level=None)
        self._connection.execute(f"CREATE TABLE staged ({', '.join(_COLUMNS)})")
        self._connection.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def add(self, ordinal: int, record: Record, outcome: Image | str) -> None:
        """Note a file: its image, or the reason why it was rejected."""
        image = outcome if isinstance(outcome, Image) else None
        row = (
            ordinal,
            record.name,
            record.species_id,
            record.role,
            record.plant_key,
            record.organ,
            record.split,
            record.specimen.institution_code,
            record.specimen.collection_code,
            record.specimen.catalog_number,
            record.license,
            record.rights_holder,
            *(
                (None,) * 6
                if image is None
                else (
                    image.source_sha256,
                    image.stored_sha256,
                    image.suffix,
                    image.width,
                    image.height,
                    image.bytes,
                )
            ),
            None if isinstance(outcome, Image) else outcome,
        )
        self._connection.execute(f"INSERT INTO staged VALUES ({', '.join('?' * len(row))})", row)

    def group(self) -> None:
        """Bring files with the same image together; to be called once, after the last `add`."""
        self._connection.execute("CREATE INDEX by_image ON staged (stored_sha256, ordinal)")
        self._connection.execute(_GROUPS)

    def rejected(self, limit: int) -> tuple[int, tuple[Rejection, ...]]:
        """How many files were rejected, and the first of them."""
        count = self._one("SELECT COUNT(*) FROM staged WHERE reason IS NOT NULL")
        rows = self._connection.execute(
            "SELECT name, reason FROM staged WHERE reason IS NOT NULL ORDER BY ordinal LIMIT ?", (limit,)
        )
        return count, tuple(Rejection(*row) for row in rows)

    def duplicates(self, limit: int) -> tuple[int, tuple[Duplicate, ...]]:
        """How many files repeat one that comes before them in the dataset, and the first of them."""
        count = self._one("SELECT COALESCE(SUM(files - 1), 0) FROM grouped WHERE NOT torn")
        rows = self._connection.execute(
            "SELECT s.name, k.name FROM grouped g JOIN staged s USING (stored_sha256) "
            "JOIN staged k ON k.ordinal = g.kept "
            "WHERE g.files > 1 AND NOT g.torn AND s.ordinal <> g.kept ORDER BY s.ordinal LIMIT ?",
            (limit,),
        )
        return count, tuple(Duplicate(*row) for row in rows)

    def conflicts(self, limit: int) -> tuple[int, tuple[Conflict, ...]]:
        """How many images the dataset contradicts itself about, and the first of them."""
        count = self._one("SELECT COUNT(*) FROM grouped WHERE torn")
        torn = self._connection.execute(
            "SELECT stored_sha256 FROM grouped WHERE torn ORDER BY kept LIMIT ?", (limit,)
        ).fetchall()
        return count, tuple(self._conflict(*row) for row in torn)

    def _conflict(self, stored_sha256: str) -> Conflict:
        rows = self._connection.execute(
            "SELECT name, species_id, role, split FROM staged WHERE stored_sha256 = ? ORDER BY ordinal",
            (stored_sha256,),
        ).fetchall()
        sides: dict[tuple[str, str, str | None], str] = {}
        for name, *side in rows:
            sides.setdefault((side[0], side[1], side[2]), name)
        return Conflict(contradiction(sides), tuple(row[0] for row in rows))

    def images(self) -> Iterator[StagedImage]:
        """Every image once, by its first file, except those the dataset contradicts itself about."""
        cursor = self._connection.execute(
            "SELECT s.* FROM grouped g JOIN staged s ON s.ordinal = g.kept WHERE NOT g.torn ORDER BY s.ordinal"
        )
        cursor.row_factory = sqlite3.Row
        return (_staged_image(row) for row in cursor)

    def _one(self, query: str) -> int:
        return int(self._connection.execute(query).fetchone()[0])


def contradiction(sides: dict[tuple[str, str, str | None], str]) -> str:
    """A sentence that names species, role, split and file of each side of a conflict."""
    named = [
        f"{role} of species {species_id}{f' in the split {split}' if split else ''} ({name})"
        for (species_id, role, split), name in sides.items()
    ]
    return "the same image is a " + " and a ".join(named)


def in_chunks(images: Iterable[StagedImage], size: int) -> Iterator[Sequence[StagedImage]]:
    """The images in lists of at most `size`."""
    iterator = iter(images)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _staged_image(row: Any) -> StagedImage:
    image = Image(
        row["source_sha256"],
        row["stored_sha256"],
        row["suffix"],
        row["width"],
        row["height"],
        row["bytes"],
    )
    return StagedImage(
        name=row["name"],
        image=image,
        species_id=SpeciesId(row["species_id"]),
        role=Role(row["role"]),
        plant_key=row["plant_key"] or image.image_id,
        organ=Organ(row["organ"]) if row["organ"] else None,
        split=Split(row["split"]) if row["split"] else None,
        specimen=Specimen(row["institution_code"], row["collection_code"], row["catalog_number"]),
        license=row["license"],
        rights_holder=row["rights_holder"],
    )
