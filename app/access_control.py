"""Whether keys are in force, whose key it is that a request shows, and what it may still ask for."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TypeVar

from app.access_throttle import FailureThrottle
from app.refusals import KeyWrong, NotReady, QuotaSpent, RateExceeded
from app.settings import Settings, home_of
from app.this_machine import is_loopback
from models.api_keys import ApiKey, KeyState, fits, key_id_of
from models.api_keys_rates import Rate
from models.api_keys_ring import KeyRing
from models.api_keys_store import KeyStore
from models.api_keys_usage import Charge
from models.catalogue_database import catalogue_exists
from models.errors import CatalogueError, InvalidConfig, StorageFull

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

    async def in_force(self) -> bool:
        """Whether requests need a key. Raises `NotReady` when that cannot be known."""
        if self._settings.access != "auto":
            return self._settings.access == "keys"
        if not is_loopback(self._settings.host):
            return True
        known = self._ring.exist_if_fresh()
        return known if known is not None else await self._read(self._ring.exist)

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
            found = await self._read(self._ring.find, remembered[0].key_id)
            if not fits(text, found) or found is None:
                raise _wrong()
            key = found
        _refuse_dead(key)
        if key.last_used_on != datetime.now(UTC).date():
            await asyncio.to_thread(self._note_use, key)
        return key

    async def admitted(self, key: ApiKey, identifications: int) -> Admission:
        """What is left to `key` after so many identifications; none asks without counting.

        Raises `RateExceeded` and `QuotaSpent`, with nothing charged.
        """
        if identifications == 0 and key.daily_quota is None:
            return Admission()
        return await self._read(self._admit, key, identifications)

    async def give_back(self, key_quota: int | None, charge: Charge) -> Quota | None:
        """What is left of the day after a charge was taken off again."""
        used = await self._read(self._ring.store().usage.give_back, charge)
        return None if key_quota is None else _of_the_day(key_quota, used)

    async def used_by_day(self, key_id: str, year: int) -> dict[date, int]:
        """Identifications of a key on each day of a year that had any, the latest first. Raises `NotReady`."""
        return await self._read(lambda: self._ring.store().usage.by_day(key_id, year))

    def close(self) -> None:
        """Enter what is not entered yet and release the database; blocks."""
        self._ring.close()

    async def _looked_up(self, text: str, key_id: str | None, address: str) -> ApiKey:
        self._throttle.take(address)
        try:
            found = None if key_id is None else await self._read(self._ring.find, key_id)
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

    def _admit(self, key: ApiKey, identifications: int) -> Admission:
        store = self._ring.store()
        if identifications == 0:
            assert key.daily_quota is not None
            return Admission(quota=_of_the_day(key.daily_quota, store.usage.used(key.key_id)))
        rate = None if key.per_minute is None else store.rates.hit(key.key_id, key.per_minute)
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
            return await asyncio.to_thread(what, *arguments)
        except (CatalogueError, StorageFull) as error:
            if not self._has_told:
                logger.warning("API keys cannot be read: %s", error)
                self._has_told = True
            raise NotReady("API keys cannot be looked up at the moment; try again, or see the service's log") from error


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


def check_start(settings: Settings) -> None:
    """Raises `InvalidConfig` where others could reach a service that nobody has a key of; nothing is left open by
    oversight."""
    if settings.access == "open":
        if not is_loopback(settings.host):
            logger.warning(
                "VOUCHER_ACCESS=open: whoever reaches this service may identify plants with it, without a key"
            )
        return
    if is_loopback(settings.host):
        return
    home = home_of(settings)
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
