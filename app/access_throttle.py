"""Slows down clients that try keys: wrong keys of one address are counted, in memory that does not grow."""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from app.refusals import TooManyFailures

FAILURES_AT_ONCE = 10
SECONDS_PER_FAILURE = 6.0
"""An address may fail so often at once, and then once in so many seconds. Keys cannot be guessed: this keeps those who
try from costing more than a look into a table."""

MOST_ADDRESSES = 20_000

IPV6_PREFIX = 64
"""Bits that tell one customer's network from another's; the rest a client chooses as it likes."""


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class FailureThrottle:
    """A bucket of failures for each address; used on the event loop alone, one in each process.

    A failure is taken before a key is looked up, and put back when the key is right: requests that are in flight at
    one time cannot be more than the bucket holds.
    """

    def __init__(
        self,
        *,
        at_once: int = FAILURES_AT_ONCE,
        seconds_per_failure: float = SECONDS_PER_FAILURE,
        most_addresses: int = MOST_ADDRESSES,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._at_once, self._seconds_per_failure = at_once, seconds_per_failure
        self._most_addresses, self._now = most_addresses, now
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        """Addresses that are remembered."""
        return len(self._buckets)

    def take(self, address: str) -> None:
        """Take one failure from the bucket of `address`. Raises `TooManyFailures` when it is empty."""
        place = network_of(address)
        bucket = self._filled(place)
        if bucket.left < 1:
            seconds = math.ceil((1 - bucket.left) * self._seconds_per_failure)
            raise TooManyFailures(
                f"too many wrong keys came from this address; wait {seconds} seconds before trying another one. "
                "Keys that have worked here a moment ago go on working",
                retry_after_seconds=seconds,
            )
        bucket.left -= 1
        self._buckets[place] = bucket
        self._buckets.move_to_end(place)
        if len(self._buckets) > self._most_addresses:
            self._buckets.popitem(last=False)

    def give_back(self, address: str) -> None:
        """Put the failure back that was taken: the key was right."""
        place = network_of(address)
        bucket = self._filled(place)
        bucket.left = min(self._at_once, bucket.left + 1)
        if bucket.left >= self._at_once:
            # Whoever never fails is not remembered.
            self._buckets.pop(place, None)

    def _filled(self, place: str) -> _Bucket:
        now = self._now()
        bucket = self._buckets.get(place)
        if bucket is None:
            return _Bucket(self._at_once, now)
        bucket.left = min(self._at_once, bucket.left + (now - bucket.at) / self._seconds_per_failure)
        bucket.at = now
        return bucket


def network_of(address: str) -> str:
    """What failures are counted by: an IPv4 address, or the network of an IPv6 address."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if found.version == 6:
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, IPV6_PREFIX), strict=False))
    return str(found)
