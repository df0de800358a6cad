"""What each API key has used today, counted in the database so that several processes share one count."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, case, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from models import catalogue_schema as schema
from models.catalogue_engine import catalogue_error, reading, writing

logger = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
"""After the database could not be written: so long nothing is tried, lest each request waits for the same lock."""

_TABLE = schema.api_key_usage

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Charge:
    """Identifications that were put on a key's day, or, when it is not `accepted`, were not."""

    key_id: str
    day: date
    identifications: int
    used: int
    """Of the whole day, with these when they were accepted."""
    accepted: bool


class UsageBook:
    """Counts identifications of keys. Threads may share it.

    While the database cannot be written (a long import holds its lock, its disk is full) identification goes on: the
    count is continued here from what was known last, and entered as soon as it can be. A quota may then be exceeded by
    what other processes let in meanwhile, and a process that is killed forgets what it has not entered.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._today, self._now = today, now
        self._lock = threading.Lock()
        self._known: dict[tuple[str, date], int] = {}
        self._owed: dict[tuple[str, date], int] = {}
        self._retry_at = float("-inf")

    def charge(self, key_id: str, quota: int | None, identifications: int) -> Charge:
        """Put `identifications` on the key's day, all of them or, where they would exceed the quota, none."""
        day = self._today()
        with self._lock:
            if any(known_day != day for _, known_day in self._known):
                self._known.clear()
            found = self._attempt(lambda connection: _charge(connection, key_id, day, quota, identifications))
            if found is None:
                found = self._charge_here(key_id, day, quota, identifications)
            used, accepted = found
            self._known[key_id, day] = used
        return Charge(key_id, day, identifications, used, accepted)

    def give_back(self, charge: Charge) -> int:
        """How much of the day is used after the charge was taken off again."""
        place = (charge.key_id, charge.day)
        with self._lock:
            found = self._attempt(lambda connection: _add(connection, *place, -charge.identifications))
            if found is None:
                self._owed[place] = self._owed.get(place, 0) - charge.identifications
                found = max(0, self._known.get(place, charge.used) - charge.identifications)
            self._known[place] = found
            return found

    def used(self, key_id: str) -> int:
        """Identifications of the key today."""
        day = self._today()
        with self._lock:
            try:
                with reading(self._engine.connect()) as connection:
                    return max(0, _used(connection, key_id, day) + self._owed.get((key_id, day), 0))
            except SQLAlchemyError:
                return self._known.get((key_id, day), 0)

    def by_day(self, key_id: str, year: int) -> dict[date, int]:
        """Identifications of the key on each day of a year that had any, the latest first. Raises `CatalogueError`."""
        of_the_year = _TABLE.c.day.between(f"{year:04}-01-01", f"{year:04}-12-31")
        query = select(_TABLE.c.day, _TABLE.c.identifications).where(
            _TABLE.c.key_id == key_id, of_the_year, _TABLE.c.identifications > 0
        )
        try:
            with reading(self._engine.connect()) as connection:
                rows = connection.execute(query.order_by(_TABLE.c.day.desc())).all()
        except SQLAlchemyError as error:
            raise catalogue_error(self._engine.url, error) from error
        return {date.fromisoformat(row.day): row.identifications for row in rows}

    def settle(self) -> None:
        """Enter what could not be entered, if that can be done now."""
        with self._lock:
            if self._owed:
                self._retry_at = float("-inf")
                self._attempt(lambda connection: None)

    def _charge_here(self, key_id: str, day: date, quota: int | None, identifications: int) -> tuple[int, bool]:
        place = (key_id, day)
        if place not in self._known:
            try:
                with reading(self._engine.connect()) as connection:
                    self._known[place] = _used(connection, key_id, day)
            except SQLAlchemyError:
                self._known[place] = 0
        used = self._known[place]
        if quota is not None and used + identifications > quota:
            return used, False
        self._owed[place] = self._owed.get(place, 0) + identifications
        return used + identifications, True

    def _attempt(self, change: Callable[[Connection], Answer]) -> Answer | None:
        """What `change` answers in a transaction that first enters what is owed; None when that is not possible."""
        if self._now() < self._retry_at:
            return None
        try:
            with writing(self._engine.connect()) as connection, connection.begin():
                for (key_id, day), owed in self._owed.items():
                    _add(connection, key_id, day, owed)
                answer = change(connection)
        except SQLAlchemyError as error:
            self._retry_at = self._now() + RETRY_SECONDS
            cause = " ".join(str(getattr(error, "orig", None) or type(error).__name__).split())
            logger.warning("use of API keys is counted in memory until the database can be written: %s", cause)
            return None
        self._owed.clear()
        return answer


def _charge(
    connection: Connection, key_id: str, day: date, quota: int | None, identifications: int
) -> tuple[int, bool]:
    """How much is used afterwards, and whether it was charged: one statement, so that no other comes in between."""
    if quota is not None and identifications > quota:
        return _used(connection, key_id, day), False
    statement = upsert(connection, _TABLE).values(key_id=key_id, day=day.isoformat(), identifications=identifications)
    sum_after = _TABLE.c.identifications + identifications
    charged = connection.execute(
        statement.on_conflict_do_update(
            index_elements=[_TABLE.c.key_id, _TABLE.c.day],
            set_={"identifications": sum_after},
            where=None if quota is None else sum_after <= quota,
        ).returning(_TABLE.c.identifications)
    ).scalar_one_or_none()
    return (charged, True) if charged is not None else (_used(connection, key_id, day), False)


def _add(connection: Connection, key_id: str, day: date, identifications: int) -> int:
    """How much is used after `identifications`, which may be negative, were added."""
    at_least_none = max(0, identifications)
    statement = upsert(connection, _TABLE).values(key_id=key_id, day=day.isoformat(), identifications=at_least_none)
    sum_after = _TABLE.c.identifications + identifications
    return connection.execute(
        statement.on_conflict_do_update(
            index_elements=[_TABLE.c.key_id, _TABLE.c.day],
            set_={"identifications": case((sum_after < 0, 0), else_=sum_after)},
        ).returning(_TABLE.c.identifications)
    ).scalar_one()


def _used(connection: Connection, key_id: str, day: date) -> int:
    query = select(_TABLE.c.identifications).where(_TABLE.c.key_id == key_id, _TABLE.c.day == day.isoformat())
    return connection.execute(query).scalar_one_or_none() or 0


def upsert(connection: Connection, table: Any) -> Any:
    """An insert that can say what happens to a row that is there; both databases spell it the same."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)
