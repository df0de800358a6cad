"""Changes to the catalogue, inside one transaction."""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, true, update

from models import catalogue_schema as schema
from models.catalogue_queries import needed_files, purgeable_sheets, with_image
from models.catalogue_revisions import latest_revision
from models.specimens import FieldPhoto, Image, Role, Sheet, SyntheticPhoto
from models.taxonomy import Species, SpeciesId


@dataclass(frozen=True, slots=True)
class KnownImage:
    """What the catalogue says about an image that it holds."""

    image: Image
    role: Role
    species_id: SpeciesId
    metadata: Mapping[str, Any]
    """Its row in `sheets` or `field_photos`."""


@dataclass(frozen=True, slots=True)
class TornPlant:
    """A specimen or observation whose images say different things.

    `sides` holds species, split and the path of one image for each of them.
    """

    role: Role
    plant_key: str
    sides: tuple[tuple[str, str | None, str | None], ...]


class CatalogueWriter:
    """Reads what is there and writes what is new; `Catalogue.writing` makes one and commits.

    The first change of what an index is made of takes the next revision, with which all changed sheets are marked.
    The write lock is held since the beginning, so that revisions are in the order of the commits and without gaps.
    """

    def __init__(self, connection: Connection, actor: str, action: str) -> None:
        self._connection = connection
        self._actor = actor
        self._action = action
        self._revision: int | None = None
        self._sheets = 0
        self.now = schema.now()

    @property
    def connection(self) -> Connection:
        """The transaction that everything is part of."""
        return self._connection

    def revise(self, sheets: int = 0) -> int:
        """The revision that this transaction makes, which it does from now on; `sheets` are counted as changed."""
        if self._revision is None:
            self._revision = latest_revision(self._connection).revision + 1
            first = {
                "revision": self._revision,
                "token": secrets.token_hex(16),
                "at": self.now,
                "actor": self._actor,
                "action": self._action,
                "sheets": 0,
            }
            self._connection.execute(insert(schema.revisions).values(first))
        self._sheets += sheets
        return self._revision

    def finish(self) -> None:
        """Enter how many sheets were changed; to be called once, at the end."""
        if self._revision is not None and self._sheets:
            table = schema.revisions
            ours = update(table).where(table.c.revision == self._revision)
            self._connection.execute(ours.values(sheets=self._sheets))

    def put_species(self, named: Iterable[Species]) -> tuple[int, int]:
        """How many species were new, and how many were changed.

        A value that is given replaces what was there; one that is missing leaves it, and so does a name that
        only repeats the identifier.
        """
        table = schema.species
        known = {row["species_id"]: row for row in self._connection.execute(select(table)).mappings()}
        new: list[dict[str, Any]] = []
        changed = 0
        for one in named:
            row = known.get(one.species_id)
            given = {"scientific_name": one.scientific_name, "genus": one.genus, "family": one.family}
            if row is None:
                new.append({"species_id": one.species_id, **given})
                continue
            if one.scientific_name == one.species_id:
                given["scientific_name"] = None
            differing = {k: v for k, v in given.items() if v is not None and row[k] != v}
            if differing:
                changed += 1
                self._connection.execute(update(table).where(table.c.species_id == one.species_id).values(differing))
        if new:
            self._connection.execute(insert(table), new)
        if new or changed:
            self.revise()
        return len(new), changed

    def find(self, source_digests: Sequence[str], stored_digests: Sequence[str]) -> list[KnownImage]:
        """Images that have one of these digests; at most a thousand or so of each may be asked for at once."""
        images = schema.images
        found: list[KnownImage] = []
        for role, table in schema.TABLE_OF.items():
            same = images.c.source_sha256.in_(source_digests) | images.c.stored_sha256.in_(stored_digests)
            query = with_image(table).where(same)
            for row in self._connection.execute(query).mappings():
                metadata = {c.name: row[c.name] for c in table.c}
                found.append(KnownImage(schema.image_of(row), role, SpeciesId(row["species_id"]), metadata))
        return found

    def torn_plants(self, limit: int) -> list[TornPlant]:
        """Plants whose images disagree about the species or the split, at most `limit` of each role.

        Sheets that were removed are not asked.
        """
        torn: list[TornPlant] = []
        for role, table in schema.TABLE_OF.items():
            key = table.c.plant_key
            split = func.coalesce(table.c.split, "")
            living = table.c.removed_at.is_(None) if role is Role.SHEET else true()
            query = (
                select(key)
                .where(living)
                .group_by(key)
                .having(
                    (func.min(table.c.species_id) != func.max(table.c.species_id))
                    | (func.min(split) != func.max(split))
                )
                .order_by(key)
                .limit(limit)
            )
            for plant_key in self._connection.execute(query).scalars().all():
                columns = (table.c.species_id, table.c.split, func.min(table.c.source_path))
                rows = self._connection.execute(
                    select(*columns)
                    .where(living, key == plant_key)
                    .group_by(table.c.species_id, table.c.split)
                    .order_by(table.c.species_id, table.c.split)
                )
                torn.append(TornPlant(role, plant_key, tuple((one, split, path) for one, split, path in rows)))
        return torn

    def add_sheets(self, sheets: Sequence[Sheet]) -> None:
        """Sheets whose images the catalogue does not hold yet."""
        if sheets:
            entered = {"revision": self.revise(len(sheets)), "added_at": self.now}
            self._connection.execute(insert(schema.images), [schema.image_row(s.image) for s in sheets])
            self._connection.execute(insert(schema.sheets), [schema.sheet_row(s) | entered for s in sheets])

    def add_field_photos(self, photos: Sequence[FieldPhoto]) -> None:
        """Field photos whose images the catalogue does not hold yet."""
        if photos:
            self.revise()
            self._connection.execute(insert(schema.images), [schema.image_row(p.image) for p in photos])
            self._connection.execute(insert(schema.field_photos), [schema.field_photo_row(p) for p in photos])

    def add_synthetic_photos(self, photos: Sequence[SyntheticPhoto]) -> int:
        """How many were new: what a run has drawn after a sheet stays as it was first entered.

        At most a thousand or so may be added at once, and their sheets must be in the catalogue.
        """
        table = schema.synthetic_photos
        wanted = {(photo.run_id, photo.sheet_id): schema.synthetic_photo_row(photo) for photo in photos}
        known = select(table.c.run_id, table.c.sheet_id).where(table.c.sheet_id.in_([sheet for _, sheet in wanted]))
        present = {(run_id, sheet_id) for run_id, sheet_id in self._connection.execute(known)}
        new = [row for key, row in wanted.items() if key not in present]
        if new:
            self._connection.execute(insert(table), new)
        return len(new)

    def remove_synthetic_photos(self, run_id: str) -> list[Image]:
        """The images of a run's synthetic photos, which are no longer in the catalogue."""
        table = schema.synthetic_photos
        rows = self._connection.execute(select(table).where(table.c.run_id == run_id)).mappings()
        images = [schema.image_of(row) for row in rows]
        self._connection.execute(delete(table).where(table.c.run_id == run_id))
        return images

    def purge_sheets(self, revision: int, limit: int) -> list[Sheet]:
        """At most `limit` sheets that were removed at or before `revision`, from now on without an image."""
        query = purgeable_sheets(revision).limit(limit)
        sheets = [schema.sheet_of(row) for row in self._connection.execute(query).mappings()]
        table = schema.sheets
        ours = update(table).where(table.c.image_id.in_([sheet.sheet_id for sheet in sheets]))
        # No revision: an index does not change by it.
        self._connection.execute(ours.values(purged_at=self.now))
        return sheets

    def unreferenced(self, images: Sequence[Image]) -> list[Image]:
        """Those whose stored file nothing in the catalogue needs; a thousand or so may be asked for at once."""
        needed = self.needed_files([image.stored_sha256 for image in images])
        return [image for image in images if image.stored_sha256 not in needed]

    def needed_files(self, stored_digests: Sequence[str]) -> set[str]:
        """Which of these the catalogue needs; a thousand or so may be asked for at once."""
        return needed_files(self._connection, stored_digests)

    def change(self, role: Role, image_id: str, values: Mapping[str, Any]) -> None:
        """Replace columns of one sheet or field photo."""
        table = schema.TABLE_OF[role]
        is_sheet = role is Role.SHEET
        revision = self.revise(1 if is_sheet else 0)
        marked = {**values, "revision": revision} if is_sheet else dict(values)
        self._connection.execute(update(table).where(table.c.image_id == image_id).values(marked))
