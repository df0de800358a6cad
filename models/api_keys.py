"""API keys: how one is made, what is kept of it, and whether what a client shows is one."""

import hashlib
import hmac
import re
import secrets
import string
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum

from models.errors import InvalidConfig
from models.plain_text import required_text

KEY_PATTERN = re.compile(r"vch_([0-9a-f]{12})_[0-9A-Za-z]{43}")
"""A key: a prefix that people and scanners of leaked secrets know, a public id, and the secret."""

_LETTERS = string.ascii_letters + string.digits
_SECRET_LETTERS = 43
"""Of 62 letters each: 256 bit."""

MAX_NAME = 100
MAX_QUOTA = 1_000_000_000
MAX_PER_MINUTE = 1_000_000
MAX_DAYS = 3650


class Scope(StrEnum):
    """What a key opens."""

    IDENTIFY = "identify"
    CURATE = "curate"


class KeyState(StrEnum):
    """Whether a key opens anything."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is kept of a key: everything but the key."""

    key_id: str
    name: str
    scopes: frozenset[Scope]
    digest: str = field(repr=False)
    created_at: datetime
    daily_quota: int | None = None
    """Identifications in a day (UTC)."""
    per_minute: int | None = None
    """Requests to identify in a minute."""
    expires_at: datetime | None = None
    last_used_on: date | None = None
    revoked_at: datetime | None = None

    def state(self, now: datetime | None = None) -> KeyState:
        """Whether it opens anything at `now`."""
        if self.revoked_at is not None:
            return KeyState.REVOKED
        if self.expires_at is not None and self.expires_at <= (now or datetime.now(UTC)):
            return KeyState.EXPIRED
        return KeyState.ACTIVE


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a key is to be. Raises `InvalidConfig` and `InvalidSheetDetails` for what cannot be."""

    name: str
    scopes: frozenset[Scope] = frozenset({Scope.IDENTIFY})
    daily_quota: int | None = None
    per_minute: int | None = None
    expires_in_days: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", required_text("name", self.name, most=MAX_NAME))
        if not self.scopes:
            raise InvalidConfig("a key needs a scope: identify or curate")
        _check_range("daily quota", self.daily_quota, MAX_QUOTA)
        _check_range("rate per minute", self.per_minute, MAX_PER_MINUTE)
        _check_range("days until it expires", self.expires_in_days, MAX_DAYS)

    def make(self) -> tuple[ApiKey, str]:
        """What is kept, and the key itself, which nobody can find out again."""
        key_id = secrets.token_hex(6)
        text = f"vch_{key_id}_{''.join(secrets.choice(_LETTERS) for _ in range(_SECRET_LETTERS))}"
        now = datetime.now(UTC).replace(microsecond=0)
        expires_at = None if self.expires_in_days is None else now + timedelta(days=self.expires_in_days)
        kept = ApiKey(
            key_id, self.name, self.scopes, digest_of(text), now, self.daily_quota, self.per_minute, expires_at
        )
        return kept, text


def _check_range(what: str, given: int | None, most: int) -> None:
    if given is not None and not 1 <= given <= most:
        raise InvalidConfig(f"{what}: expected a whole number from 1 to {most}, found {given}")


def digest_of(text: str) -> str:
    """SHA-256 of a key, in hex.

    A fast hash is enough: passwords need a slow one because they can be guessed, and 256 random bits cannot.
    """
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


_NO_DIGEST = digest_of("")


def key_id_of(text: str) -> str | None:
    """The public id in what looks like a key."""
    found = KEY_PATTERN.fullmatch(text)
    return None if found is None else found[1]


def fits(text: str, key: ApiKey | None) -> bool:
    """Whether `text` is that key; takes the same time whatever is wrong, and also when there is no such key."""
    is_equal = hmac.compare_digest(digest_of(text), _NO_DIGEST if key is None else key.digest)
    return is_equal and key is not None


def without_keys(text: str) -> str:
    """`text` with the secret of every key in it replaced, for logs."""
    return KEY_PATTERN.sub(r"vch_\1_…", text) if "vch_" in text else text
