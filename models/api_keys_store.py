"""The API keys of a home, in the catalogue's database."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, Engine, RowMapping, event, insert, or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from models import catalogue_schema as schema
from models.api_keys import ApiKey, NewKey, Scope
from models.catalogue_database import open_database
from models.catalogue_engine import catalogue_error, create_catalogue_engine, is_sqlite, reading, writing
from models.errors import UnknownKey
from models.home import Home

SERVING_WAIT_SECONDS = 0.5
"""How long a request waits for somebody else's lock, such as that of a large import, before it goes on without."""


class KeyStore:
    """Keys, and what was used of them. Threads may share it.

    All methods raise `CatalogueError` (`CatalogueBusy`) and `StorageFull`. Nothing here makes a revision of the
    catalogue: keys are no part of an index.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        # Errors of the database are told with their statement, and never with what was put into it.
        engine.hide_parameters = True

    @classmethod
    def open(cls, home: Home, *, create: bool = False) -> "KeyStore":
        """For commands: what is written is on the disk. With `create` a catalogue is made where there is none."""
        return cls(open_database(home, create=create))

    @classmethod
    def open_for_serving(cls, home: Home) -> "KeyStore":
        """For a service: waits for locks shortly, and does not wait for the disk.

        A power failure may forget the use of the last second; nothing else is written through it.
        """
        open_database(home, create=False).dispose()
        engine = create_catalogue_engine(home.catalogue_url, wait_seconds=SERVING_WAIT_SECONDS)
        relax = "PRAGMA synchronous=NORMAL" if is_sqlite(home.catalogue_url) else "SET synchronous_commit = off"

        def configure(connection: Any, _: object) -> None:
            cursor = connection.cursor()
            cursor.execute(relax)
            cursor.close()
            connection.commit()

        event.listen(engine, "connect", configure)
        return cls(engine)

    def close(self) -> None:
        """Release the database."""
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def create(self, wanted: NewKey) -> tuple[ApiKey, str]:
        """What is kept of a new key, and the key itself, which is told this once."""
        kept, text = wanted.make()
        with self._writing() as connection:
            connection.execute(insert(schema.api_keys).values(_row_of(kept)))
        return kept, text

    def all_keys(self) -> list[ApiKey]:
        """All keys, also those that open nothing any more, the oldest first."""
        table = schema.api_keys
        with self._reading() as connection:
            rows = connection.execute(select(table).order_by(table.c.created_at, table.c.key_id)).mappings()
            return [_key_of(row) for row in rows]

    def find(self, key_id: str) -> ApiKey | None:
        """One key, or None when there is none."""
        with self._reading() as connection:
            return _find(connection, key_id)

    def exist(self) -> bool:
        """Whether a key was ever made; those that were revoked or have expired count."""
        with self._reading() as connection:
            return connection.execute(select(schema.api_keys.c.key_id).limit(1)).first() is not None

    def revoke(self, key_id: str) -> ApiKey:
        """The key, which opens nothing from now on; once revoked it stays so. Raises `UnknownKey`."""
        table = schema.api_keys
        change = update(table).where(table.c.key_id == key_id, table.c.revoked_at.is_(None))
        with self._writing() as connection:
            connection.execute(change.values(revoked_at=schema.now()))
            found = _find(connection, key_id)
        if found is None:
            raise UnknownKey(f"there is no key {key_id!r}; `voucher keys list` shows them by their ids")
        return found

    def note_use(self, key_id: str, day: date) -> None:
        """Remember the last day on which a key was used; finer than that it is not kept."""
        table = schema.api_keys
        is_news = or_(table.c.last_used_on.is_(None), table.c.last_used_on < day.isoformat())
        change = update(table).where(table.c.key_id == key_id, is_news)
        with self._writing() as connection:
            connection.execute(change.values(last_used_on=day.isoformat()))

    def used_on(self, day: date) -> dict[str, int]:
        """Identifications of a day, of each key that had any."""
        table = schema.api_key_usage
        query = select(table.c.key_id, table.c.identifications).where(table.c.day == day.isoformat())
        with self._reading() as connection:
            return {row.key_id: row.identifications for row in connection.execute(query)}

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._reporting(), reading(self.engine.connect()) as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._reporting(), writing(self.engine.connect()) as connection, connection.begin():
            yield connection

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise catalogue_error(self.engine.url, error) from error


def _find(connection: Connection, key_id: str) -> ApiKey | None:
    row = connection.execute(select(schema.api_keys).where(schema.api_keys.c.key_id == key_id)).mappings().first()
    return None if row is None else _key_of(row)


def _row_of(key: ApiKey) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "name": key.name,
        "digest": key.digest,
        "scopes": " ".join(sorted(key.scopes)),
        "daily_quota": key.daily_quota,
        "per_minute": key.per_minute,
        "created_at": key.created_at.isoformat(),
        "expires_at": None if key.expires_at is None else key.expires_at.isoformat(),
    }


def _key_of(row: RowMapping) -> ApiKey:
    known = {scope.value for scope in Scope}
    return ApiKey(
        key_id=row["key_id"],
        name=row["name"],
        # One of a newer voucher opens nothing here.
        scopes=frozenset(Scope(word) for word in row["scopes"].split() if word in known),
        digest=row["digest"],
        created_at=datetime.fromisoformat(row["created_at"]),
        daily_quota=row["daily_quota"],
        per_minute=row["per_minute"],
        expires_at=_moment(row["expires_at"]),
        last_used_on=None if row["last_used_on"] is None else date.fromisoformat(row["last_used_on"]),
        revoked_at=_moment(row["revoked_at"]),
    )


def _moment(stored: str | None) -> datetime | None:
    return None if stored is None else datetime.fromisoformat(stored)
