"""The API keys as a running service knows them: read when they are asked for, and remembered for a second."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from models.api_keys import ApiKey
from models.api_keys_rates import KeyRates
from models.api_keys_store import KeyStore
from models.api_keys_usage import UsageBook
from models.catalogue_database import catalogue_exists
from models.errors import CatalogueError, StorageFull
from models.home import Home

logger = logging.getLogger(__name__)

FRESH_SECONDS = 1.0
"""A key that is revoked, and the first key that is made, count after so long."""

TRUSTED_SECONDS = 900.0
"""While the database cannot be read, keys that were seen in so long go on working."""

_NOTE_RETRY_SECONDS = 60.0
_MOST_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class OpenStore:
    """The database of the keys, and what is counted in it."""

    keys: KeyStore
    usage: UsageBook
    rates: KeyRates


@dataclass(frozen=True, slots=True)
class _Seen:
    key: ApiKey
    at: float


class KeyRing:
    """Keys of a home; blocking, and to be shared by threads. Where there is no catalogue there are no keys."""

    def __init__(self, home: Home, *, now: Callable[[], float] = time.monotonic) -> None:
        self._home, self._now = home, now
        self._lock = threading.Lock()
        """Held for a moment: the event loop asks what is remembered."""
        self._opening = threading.Lock()
        self._store: OpenStore | None = None
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._exist: bool | None = None
        self._exist_at = float("-inf")
        self._note_at = float("-inf")

    def exist_if_fresh(self) -> bool | None:
        """Whether there are keys, as far as that is known without asking the database."""
        # Once there are keys there are keys: none is ever deleted.
        if self._exist or self._now() - self._exist_at < FRESH_SECONDS:
            return self._exist
        return None

    def exist_as_known(self) -> bool | None:
        """As it was known last, however long ago."""
        return self._exist

    def exist(self) -> bool:
        """Whether a key was ever made. Raises `CatalogueError` and `StorageFull` when that was never known."""
        known = self.exist_if_fresh()
        if known is not None:
            return known
        try:
            store = self._open()
            self._exist = store is not None and store.keys.exist()
        except (CatalogueError, StorageFull):
            if self._exist is None:
                raise
        self._exist_at = self._now()
        return bool(self._exist)

    def remembered(self, key_id: str) -> tuple[ApiKey, bool] | None:
        """A key that was seen lately, and whether it was read within the last second."""
        with self._lock:
            seen = self._seen.get(key_id)
        if seen is None or self._now() - seen.at > TRUSTED_SECONDS:
            return None
        return seen.key, self._now() - seen.at < FRESH_SECONDS

    def find(self, key_id: str) -> ApiKey | None:
        """The key as the database has it, or as it was seen last when that cannot be read.

        Raises `CatalogueError` and `StorageFull` when it cannot be read and the key was not seen lately.
        """
        try:
            store = self._open()
            found = None if store is None else store.keys.find(key_id)
        except (CatalogueError, StorageFull):
            remembered = self.remembered(key_id)
            if remembered is None:
                raise
            return remembered[0]
        with self._lock:
            if found is None:
                # Ids that do not exist are not remembered: there is no end of them.
                self._seen.pop(key_id, None)
            else:
                self._seen[key_id] = _Seen(found, self._now())
                self._seen.move_to_end(key_id)
                if len(self._seen) > _MOST_KEYS:
                    self._seen.popitem(last=False)
        return found

    def note_use(self, key: ApiKey) -> None:
        """Remember that `key` was used today; a database that cannot be written is tried again in a minute."""
        today = datetime.now(UTC).date()
        store = self._open()
        if store is None or key.last_used_on == today or self._now() < self._note_at:
            return
        try:
            store.keys.note_use(key.key_id, today)
        except (CatalogueError, StorageFull) as error:
            self._note_at = self._now() + _NOTE_RETRY_SECONDS
            logger.warning("the last use of a key is not noted: %s", error)
            return
        with self._lock:
            seen = self._seen.get(key.key_id)
            if seen is not None:
                self._seen[key.key_id] = replace(seen, key=replace(seen.key, last_used_on=today))

    def store(self) -> OpenStore:
        """What is counted of the keys. Raises `CatalogueError` where there is no catalogue."""
        store = self._open()
        if store is None:
            raise CatalogueError(f"there is no catalogue in {self._home.root}: run `voucher keys create` first")
        return store

    def close(self) -> None:
        """Enter what is still owed and release the database."""
        with self._opening:
            store, self._store = self._store, None
        if store is not None:
            store.usage.settle()
            store.keys.close()

    def _open(self) -> OpenStore | None:
        if self._store is not None:
            return self._store
        if not catalogue_exists(self._home):
            return None
        with self._opening:
            if self._store is None:
                keys = KeyStore.open_for_serving(self._home)
                self._store = OpenStore(keys, UsageBook(keys.engine), KeyRates(keys.engine))
            return self._store
