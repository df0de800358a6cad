"""Whether keys are in force, whose key it is that a request shows, and what it may still ask for."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TypeVar

from app.access_throttle import FailureThrottle
from app.database_silence import DatabaseSilent, SilenceGuard
from app.refusals import KeyWrong, NotReady, QuotaSpent, RateExceeded
from app.settings import Settings, home_of
from app.this_machine import is_loopback
from models.api_keys import ApiKey, KeyState, fits, key_id_of
from models.api_keys_rates import Rate
from models.api_keys_ring import KeyRing
from models.api_keys_store import KeyStore
from models.api_keys_usage import Charge
from models.catalogue_database import catalogue_exists, is_up_to_date
from models.errors import CatalogueError, InvalidConfig, StorageFull
from models.home import Home

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

HOW_TO_MAKE = "make one with `voucher keys create --name NAME`"


@dataclass(frozen=True, slots=True)
class Quota:
    """Identifications of one key in one day (UTC), or requests in one minute."""

    limit: int
    remaining: int
    resets_in_seconds: int


@dataclass(frozen=True, slots=True)
class Admission:
    """What a key has left after a request was let in; None where it has no limit."""

    quota: Quota | None = None
    rate: Quota | None = None
    charge: Charge | None = None


class AccessControl:
    """The doorkeeper of one serving process; its methods are called on the event loop, and wait in threads."""

    def __init__(
        self, settings: Settings, *, ring: KeyRing | None = None, throttle: FailureThrottle | None = None
    ) -> None:
        self._settings = settings
        self._ring = ring or KeyRing(home_of(settings))
        self._throttle = throttle or FailureThrottle()
        self._has_told = False
        self._database = SilenceGuard("keys")
        self._finding: dict[str, asyncio.Future[ApiKey | None]] = {}

    async def in_force(self) -> bool:
        """Whether requests need a key. Raises `NotReady` when that cannot be known."""
        if self._settings.access != "auto":
            return self._settings.access == "keys"
        if not is_loopback(self._settings.host):
            return True
        known = self._ring.exist_if_fresh()
        if known is not None:
            return known
        try:
            return await self._ask(self._ring.exist)
        except (CatalogueError, StorageFull) as error:
            if (last := self._ring.exist_as_known()) is not None:
                return last
            raise self._not_ready(error) from error

    async def verified(self, text: str, address: str) -> ApiKey:
        """The key that `text` is. Raises `KeyWrong`, `TooManyFailures`, and `NotReady` when it cannot be looked up."""
        key_id = key_id_of(text)
        remembered = None if key_id is None else self._ring.remembered(key_id)
        if remembered is None or not fits(text, remembered[0]):
            key = await self._looked_up(text, key_id, address)
        elif remembered[1]:
            key = remembered[0]
        else:
            # It was right a moment ago: others behind its address that try keys do not lock it out.
            found = await self._find(remembered[0].key_id)
            if not fits(text, found) or found is None:
                raise _wrong()
            key = found
        _refuse_dead(key)
        if key.last_used_on != datetime.now(UTC).date():
            with contextlib.suppress(DatabaseSilent):  # noted with another request
                await self._ask(self._note_use, key)
        return key

    async def admitted(self, key: ApiKey, identifications: int, *, is_request: bool = True) -> Admission:
        """What is left to `key` after so many identifications; none asks without counting.

        Where it `is_request` it counts in the key's minute. While the database does not answer at all, nothing is
        counted. Raises `RateExceeded` and `QuotaSpent`, with nothing charged.
        """
        if identifications == 0 and key.daily_quota is None:
            return Admission()
        try:
            return await self._ask(self._admit, key, identifications, is_request)
        except DatabaseSilent as error:
            self._tell("what keys use is not counted: %s", error)
            return Admission()

    async def give_back(self, key_quota: int | None, charge: Charge) -> Quota | None:
        """What is left of the day after a charge was taken off again."""
        used = await self._read(self._ring.store().usage.give_back, charge)
        return None if key_quota is None else _of_the_day(key_quota, used)

    async def used_by_day(self, key_id: str, year: int) -> dict[date, int]:
        """Identifications of a key on each day of a year that had any, the latest first. Raises `NotReady`."""
        return await self._read(lambda: self._ring.store().usage.by_day(key_id, year))

    def close(self) -> None:
        """Enter what is not entered yet and release the database; blocks, but not for a database that is silent."""
        with contextlib.suppress(DatabaseSilent):
            self._database.ask_and_wait(self._ring.close)
        self._database.close()

    def _found(self, key_id: str, done: "asyncio.Future[ApiKey | None]") -> None:
        self._finding.pop(key_id, None)
        if not done.cancelled():
            done.exception()  # has been seen, also where those who asked have gone

    async def _looked_up(self, text: str, key_id: str | None, address: str) -> ApiKey:
        if key_id in self._finding:
            # Many requests of one client at once: that they are let in takes none of its failures.
            if (found := await self._find(key_id)) is not None and fits(text, found):
                return found
            self._throttle.take(address)
            raise _wrong()
        self._throttle.take(address)
        try:
            found = None if key_id is None else await self._find(key_id)
        except NotReady:
            self._throttle.give_back(address)
            raise
        if not fits(text, found) or found is None:
            raise _wrong()
        self._throttle.give_back(address)
        return found

    def _note_use(self, key: ApiKey) -> None:
        try:
            self._ring.note_use(key)
        except (CatalogueError, StorageFull) as error:
            logger.warning("the last use of a key is not noted: %s", error)

    def _admit(self, key: ApiKey, identifications: int, is_request: bool) -> Admission:
        store = self._ring.store()
        if identifications == 0:
            assert key.daily_quota is not None
            return Admission(quota=_of_the_day(key.daily_quota, store.usage.used(key.key_id)))
        per_minute = key.per_minute if is_request else None
        rate = None if per_minute is None else store.rates.hit(key.key_id, per_minute)
        quota_of_minute = None if rate is None else _of_the_minute(rate)
        if rate is not None and not rate.accepted:
            raise RateExceeded(
                f"this key may ask {rate.per_minute} times in a minute; wait {rate.resets_in_seconds} seconds",
                retry_after_seconds=rate.resets_in_seconds,
                admission=Admission(rate=quota_of_minute),
            )
        charge = store.usage.charge(key.key_id, key.daily_quota, identifications)
        quota = None if key.daily_quota is None else _of_the_day(key.daily_quota, charge.used)
        if quota is not None and not charge.accepted:
            raise QuotaSpent(
                f"this key may identify {quota.limit} plants in a day, and {quota.remaining} are left for the "
                f"{identifications} asked for; the next day begins at 0:00 UTC, in {quota.resets_in_seconds} seconds",
                retry_after_seconds=quota.resets_in_seconds,
                admission=Admission(quota, quota_of_minute),
            )
        return Admission(quota, quota_of_minute, charge)

    async def _read(self, what: Callable[..., Answer], *arguments: object) -> Answer:
        try:
            return await self._ask(what, *arguments)
        except (CatalogueError, StorageFull) as error:
            raise self._not_ready(error) from error

    async def _ask(self, what: Callable[..., Answer], *arguments: object) -> Answer:
        answer = await self._database.ask(lambda: what(*arguments))
        self._has_told = False
        return answer

    def _not_ready(self, error: Exception) -> NotReady:
        self._tell("API keys cannot be read: %s", error)
        return NotReady("API keys cannot be looked up at the moment; try again, or see the service's log")

    def _tell(self, words: str, error: Exception) -> None:
        if not self._has_told:
            logger.warning(words, error)
            self._has_told = True

    async def _find(self, key_id: str) -> ApiKey | None:
        """A key as the database has it; while that is silent, as it was seen last.

        However many ask for one key at a time, the database is asked once.
        """
        asked = self._finding.get(key_id)
        if asked is None:
            asked = asyncio.ensure_future(self._ask(self._ring.find, key_id))
            self._finding[key_id] = asked
            asked.add_done_callback(lambda done: self._found(key_id, done))
        try:
            return await asyncio.shield(asked)
        except DatabaseSilent as error:
            remembered = self._ring.remembered(key_id)
            if remembered is not None:
                return remembered[0]
            raise self._not_ready(error) from error
        except (CatalogueError, StorageFull) as error:
            raise self._not_ready(error) from error


def _wrong() -> KeyWrong:
    return KeyWrong("the key is not one of this service; check that all of it was copied, or ask its operator for one")


def _refuse_dead(key: ApiKey) -> None:
    """Only who has the whole key is told why it no longer works."""
    state = key.state()
    if state is not KeyState.ACTIVE:
        raise KeyWrong(f"the key {key.key_id} is {state.value}; ask the operator of this service for another one")


def _of_the_day(quota: int, used: int) -> Quota:
    now = datetime.now(UTC)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return Quota(quota, max(0, quota - used), max(1, round((midnight - now).total_seconds())))


def _of_the_minute(rate: Rate) -> Quota:
    return Quota(rate.per_minute, rate.remaining, rate.resets_in_seconds)


def count_keys(home: Home) -> int | None:
    """Keys that open something now; None where the catalogue cannot be asked, or not without bringing it up to date."""
    try:
        if not catalogue_exists(home):
            return 0
        if not is_up_to_date(home):
            return None
        with KeyStore.open_for_serving(home) as store:
            return sum(key.state() is KeyState.ACTIVE for key in store.all_keys())
    except (CatalogueError, StorageFull) as error:
        logger.debug("keys cannot be counted: %s", error)
        return None


def check_start(settings: Settings) -> None:
    """Raises `InvalidConfig` where others could reach a service that nobody has a key of; nothing is left open by
    oversight."""
    home = home_of(settings)
    if settings.access == "keys" and is_loopback(settings.host):
        if count_keys(home) == 0:
            logger.warning("VOUCHER_ACCESS=keys, and there is no key that opens anything: %s", HOW_TO_MAKE)
        return
    if settings.access == "open":
        if not is_loopback(settings.host):
            logger.warning(
                "VOUCHER_ACCESS=open: whoever reaches this service may identify plants with it, without a key"
            )
        return
    if is_loopback(settings.host):
        return
    exist = False
    if catalogue_exists(home):
        with KeyStore.open(home) as store:
            exist = store.exist()
    if not exist:
        raise InvalidConfig(
            f"the service would listen for other machines (on {settings.host}), and there is no API key yet: "
            f"{HOW_TO_MAKE} (with --home {settings.home}), or set VOUCHER_ACCESS=open where only those reach it who "
            "may use it"
        )
