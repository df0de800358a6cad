"""Rates of API keys: requests of the last minute, counted in the database so that several processes share them."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.storage.base import SlidingWindowCounterSupport, Storage, TimestampedSlidingWindow
from limits.strategies import SlidingWindowCounterRateLimiter
from sqlalchemy import Connection, Engine, case, delete, select
from sqlalchemy.exc import SQLAlchemyError

from models import catalogue_schema as schema
from models.api_keys_usage import RETRY_SECONDS, upsert
from models.catalogue_engine import reading, writing

logger = logging.getLogger(__name__)

_TABLE = schema.api_key_windows
_NAMESPACE = "key"


@dataclass(frozen=True, slots=True)
class Rate:
    """How a key stands in its minute; `accepted` says whether this request still goes through."""

    per_minute: int
    remaining: int
    resets_in_seconds: int
    accepted: bool


class KeyRates:
    """Counts requests of keys in sliding minutes. Threads may share it.

    While the database cannot be written each process counts by itself.
    """

    def __init__(self, engine: Engine, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._shared = SlidingWindowCounterRateLimiter(DatabaseWindows(engine))
        self._own: SlidingWindowCounterRateLimiter | None = None
        self._retry_at = float("-inf")

    def hit(self, key_id: str, per_minute: int) -> Rate:
        """Count one request, unless it would be one too many."""
        if self._now() >= self._retry_at:
            try:
                return _hit(self._shared, key_id, per_minute)
            except SQLAlchemyError as error:
                self._retry_at = self._now() + RETRY_SECONDS
                cause = " ".join(str(getattr(error, "orig", None) or type(error).__name__).split())
                logger.warning("rates of API keys are counted in memory until the database can be written: %s", cause)
        if self._own is None:
            self._own = SlidingWindowCounterRateLimiter(MemoryStorage())
        return _hit(self._own, key_id, per_minute)


def _hit(limiter: SlidingWindowCounterRateLimiter, key_id: str, per_minute: int) -> Rate:
    item = RateLimitItemPerMinute(per_minute, namespace=_NAMESPACE)
    accepted = limiter.hit(item, key_id)
    reset_at, remaining = limiter.get_window_stats(item, key_id)
    seconds = min(60, max(1, ceil(reset_at - time.time())))
    return Rate(per_minute, max(0, remaining), seconds, accepted)


class DatabaseWindows(Storage, SlidingWindowCounterSupport, TimestampedSlidingWindow):
    """The windows that `limits` counts in, as rows of the catalogue's database."""

    STORAGE_SCHEME = None

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine

    @property
    def base_exceptions(self) -> type[Exception]:
        """What goes wrong when the database cannot be used."""
        return SQLAlchemyError

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count `amount` requests, unless they are too many."""
        now = time.time()
        previous, current = self.sliding_window_keys(key, expiry, now)
        connection = writing(self._engine.connect())
        with connection, connection.begin() as transaction:
            # The row is locked with the first statement: what others count meanwhile comes before or after.
            requests = _add(connection, current, amount, now, expiry)
            weighted = _requests(connection, previous, now) * _share(now, expiry) + requests
            if floor(weighted) > limit:
                transaction.rollback()
                return False
            if requests == amount:
                connection.execute(delete(_TABLE).where(_TABLE.c.ends_at <= now))
        return True

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Requests and seconds left of the window before and of this one."""
        now = time.time()
        keys = self.sliding_window_keys(key, expiry, now)
        with reading(self._engine.connect()) as connection:
            previous, current = (_requests(connection, window, now) for window in keys)
        left = _share(now, expiry) * expiry
        return previous, left if previous else 0.0, current, left + expiry

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Forget what was counted."""
        for window in self.sliding_window_keys(key, expiry, time.time()):
            self.clear(window)

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count in one window by itself."""
        connection = writing(self._engine.connect())
        with connection, connection.begin():
            return _add(connection, key, amount, time.time(), expiry)

    def get(self, key: str) -> int:
        """What one window has counted."""
        with reading(self._engine.connect()) as connection:
            return _requests(connection, key, time.time())

    def get_expiry(self, key: str) -> float:
        """When a window is forgotten, in seconds since 1970."""
        with reading(self._engine.connect()) as connection:
            found = connection.execute(select(_TABLE.c.ends_at).where(_TABLE.c.window_key == key)).scalar_one_or_none()
        return time.time() if found is None else float(found)

    def check(self) -> bool:
        """Whether the database answers."""
        with reading(self._engine.connect()) as connection:
            return connection.execute(select(1)).scalar_one() == 1

    def reset(self) -> int | None:
        """How many windows were forgotten: all."""
        connection = writing(self._engine.connect())
        with connection, connection.begin():
            return connection.execute(delete(_TABLE)).rowcount

    def clear(self, key: str) -> None:
        """Forget one window."""
        connection = writing(self._engine.connect())
        with connection, connection.begin():
            connection.execute(delete(_TABLE).where(_TABLE.c.window_key == key))


def _share(now: float, expiry: int) -> float:
    """How much of the window before lies in the last `expiry` seconds, 0 to 1."""
    return 1 - (now / expiry) % 1


def _add(connection: Connection, window: str, amount: int, now: float, expiry: int) -> int:
    ends_at = now + 2 * expiry
    is_over = _TABLE.c.ends_at <= now
    statement = upsert(connection, _TABLE).values(window_key=window, requests=amount, ends_at=ends_at)
    changed = statement.on_conflict_do_update(
        index_elements=[_TABLE.c.window_key],
        set_={
            "requests": case((is_over, amount), else_=_TABLE.c.requests + amount),
            "ends_at": case((is_over, ends_at), else_=_TABLE.c.ends_at),
        },
    )
    return int(connection.execute(changed.returning(_TABLE.c.requests)).scalar_one())


def _requests(connection: Connection, window: str, now: float) -> int:
    query = select(_TABLE.c.requests).where(_TABLE.c.window_key == window, _TABLE.c.ends_at > now)
    return connection.execute(query).scalar_one_or_none() or 0
