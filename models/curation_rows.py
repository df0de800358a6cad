"""What a curator's change asks and writes, sheet by sheet, inside one transaction of the catalogue."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import insert, select, update

from models import catalogue_schema as schema
from models.catalogue_queries import with_image
from models.catalogue_revisions import ChangeAction
from models.catalogue_writer import CatalogueWriter, KnownImage
from models.plain_text import comparable
from models.specimens import Image, Sheet, Specimen
from models.taxonomy import Species, SpeciesId

_CHUNK = 500


class CurationRows:
    """Single rows of a transaction, and the history of what is done to them."""

    def __init__(self, writer: CatalogueWriter) -> None:
        self.writer = writer
        self._connection = writer.connection
        self._position = 0

    def find_species(self, species_id: SpeciesId) -> Species | None:
        """The species with that identifier, None when there is none."""
        query = select(schema.species).where(schema.species.c.species_id == species_id)
        row = self._connection.execute(query).mappings().first()
        return None if row is None else schema.species_of(row)

    def species_named(self, scientific_name: str) -> Species | None:
        """The species with that name, up to case and blanks; None when there is none."""
        query = select(schema.species).order_by(schema.species.c.species_id.desc())
        for row in self._connection.execute(query).mappings():
            if comparable(row["scientific_name"]) == comparable(scientific_name):
                return schema.species_of(row)
        return None

    def find_image(self, image: Image) -> KnownImage | None:
        """What the catalogue holds of the same file, or else of the same stored content; None for nothing."""
        found = self.writer.find([image.source_sha256], [image.stored_sha256])
        return max(found, key=lambda known: known.image.source_sha256 == image.source_sha256, default=None)

    def sheets(self, sheet_ids: Iterable[str]) -> dict[str, Sheet]:
        """Sheets by their id, as far as there are any; removed and purged ones too."""
        wanted = list(dict.fromkeys(sheet_ids))
        found: dict[str, Sheet] = {}
        for start in range(0, len(wanted), _CHUNK):
            found |= {s.sheet_id: s for s in self._select(schema.sheets.c.image_id.in_(wanted[start : start + _CHUNK]))}
        return found

    def of_specimen(self, specimen_key: str) -> list[Sheet]:
        """All sheets of one pressed plant, by id; removed and purged ones too."""
        return self._select(schema.sheets.c.plant_key == specimen_key)

    def cited_as(self, specimen: Specimen) -> list[Sheet]:
        """All sheets that are cited with these codes; none without a catalogue number."""
        if specimen.catalog_number is None:
            return []
        columns = schema.sheets.c
        return self._select(
            (columns.catalog_number == specimen.catalog_number)
            & columns.institution_code.is_not_distinct_from(specimen.institution_code)
            & columns.collection_code.is_not_distinct_from(specimen.collection_code)
        )

    def add(self, sheet: Sheet) -> None:
        """Enter a sheet whose image is new."""
        self.writer.add_sheets([sheet])
        self.note(ChangeAction.ADDED, sheet.sheet_id, sheet.species_id, None)

    def update(self, sheet: Sheet, action: ChangeAction, values: Mapping[str, Any]) -> None:
        """Change columns of a sheet, and note that."""
        table = schema.sheets
        marked = {**values, "revision": self.writer.revise(1)}
        self._connection.execute(update(table).where(table.c.image_id == sheet.sheet_id).values(marked))
        species_id = SpeciesId(values.get("species_id", sheet.species_id))
        self.note(action, sheet.sheet_id, species_id, None if species_id == sheet.species_id else sheet.species_id)

    def replace_file(self, sheet_id: str, image: Image) -> None:
        """Tell that the image of a sheet lies in another file, which shows the same."""
        values = schema.image_row(image)
        for identity in ("image_id", "source_sha256"):
            del values[identity]
        table = schema.images
        self._connection.execute(update(table).where(table.c.image_id == sheet_id).values(values))

    def note(
        self, action: ChangeAction, sheet_id: str | None, species_id: SpeciesId, previous: SpeciesId | None
    ) -> None:
        """Add a line to the history of the revision that this transaction makes."""
        self._position += 1
        line = {
            "revision": self.writer.revise(),
            "position": self._position,
            "action": action.value,
            "sheet_id": sheet_id,
            "species_id": species_id,
            "previous_species_id": previous,
        }
        self._connection.execute(insert(schema.changes).values(line))

    def _select(self, condition: Any) -> list[Sheet]:
        table = schema.sheets
        query = with_image(table).where(condition).order_by(table.c.image_id)
        return [schema.sheet_of(row) for row in self._connection.execute(query).mappings()]
