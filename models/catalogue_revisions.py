"""What changed in the catalogue and when: the numbered steps of its history, read."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, RowMapping, func, select

from models import catalogue_schema as schema
from models.taxonomy import SpeciesId

_CHUNK_ROWS = 2_000


@dataclass(frozen=True, slots=True)
class CatalogueRevision:
    """A state of the catalogue. The number counts committed changes; the token is random.

    Two catalogues, or one and its copy from a backup, may both reach a number, but never with the same token.
    """

    revision: int
    token: str


EMPTY = CatalogueRevision(0, "")
"""Before the first change."""


@dataclass(frozen=True, slots=True)
class Revision:
    """One committed change: who did what, and of how many sheets. `at` is UTC, and for people: clocks jump."""

    revision: int
    token: str
    at: datetime
    actor: str
    action: str
    sheets: int


class ChangeAction(StrEnum):
    """What a curator did to one sheet or species."""

    ADDED = "added"
    REMOVED = "removed"
    RESTORED = "restored"
    MOVED = "moved"
    SPECIES_ADDED = "species added"


@dataclass(frozen=True, slots=True)
class Change:
    """One sheet of a curator's change, or a species (`sheet_id` is None). `species_id` is the one it has afterwards."""

    revision: int
    position: int
    action: ChangeAction
    sheet_id: str | None
    species_id: SpeciesId
    previous_species_id: SpeciesId | None


def latest_revision(connection: Connection) -> CatalogueRevision:
    """The state that a connection sees."""
    table = schema.revisions
    row = connection.execute(
        select(table.c.revision, table.c.token).order_by(table.c.revision.desc()).limit(1)
    ).one_or_none()
    return EMPTY if row is None else CatalogueRevision(row.revision, row.token)


def is_in_history(connection: Connection, asked: CatalogueRevision) -> bool:
    """Whether the catalogue was once in that state. Every one was empty."""
    if asked == EMPTY:
        return True
    table = schema.revisions
    query = select(func.count()).where(table.c.revision == asked.revision, table.c.token == asked.token)
    return bool(connection.execute(query).scalar_one())


def list_revisions(connection: Connection, since: int, until: int | None, limit: int | None) -> list[Revision]:
    """Those after `since`, up to and with `until`, oldest first; with `limit` the newest of them."""
    table = schema.revisions
    query = select(table).where(table.c.revision > since).order_by(table.c.revision.desc()).limit(limit)
    if until is not None:
        query = query.where(table.c.revision <= until)
    return [_revision_of(row) for row in connection.execute(query).mappings()][::-1]


def stream_changes(connection: Connection, since: int, until: int | None) -> Iterator[Change]:
    """Curators' changes of the revisions after `since`, up to and with `until`, in their order."""
    table = schema.changes
    query = select(table).where(table.c.revision > since).order_by(table.c.revision, table.c.position)
    if until is not None:
        query = query.where(table.c.revision <= until)
    with connection.execution_options(yield_per=_CHUNK_ROWS).execute(query) as rows:
        for row in rows.mappings():
            yield _change_of(row)


def _revision_of(row: RowMapping) -> Revision:
    at = datetime.fromisoformat(row["at"])
    return Revision(row["revision"], row["token"], at, row["actor"], row["action"], row["sheets"])


def _change_of(row: RowMapping) -> Change:
    previous = row["previous_species_id"]
    return Change(
        revision=row["revision"],
        position=row["position"],
        action=ChangeAction(row["action"]),
        sheet_id=row["sheet_id"],
        species_id=SpeciesId(row["species_id"]),
        previous_species_id=None if previous is None else SpeciesId(previous),
    )
