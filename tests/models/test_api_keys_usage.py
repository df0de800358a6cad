"""Quotas hold across processes, and a database that cannot be written stops nobody."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from sqlalchemy import event, text

from models.api_keys import ApiKey, NewKey
from models.api_keys_store import KeyStore
from models.api_keys_usage import RETRY_SECONDS, UsageBook
from models.home import Home

ROOT = Path(__file__).resolve().parents[2]
TODAY = date(2026, 3, 1)


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0
        self.day = TODAY

    def now(self) -> float:
        return self.seconds

    def today(self) -> date:
        return self.day


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(empty_home: Home) -> Iterator[KeyStore]:
    KeyStore.open(empty_home, create=True).close()
    with KeyStore.open_for_serving(empty_home) as opened:
        yield opened


@pytest.fixture
def key(store: KeyStore) -> ApiKey:
    return store.create(NewKey("Ada", daily_quota=10))[0]


@pytest.fixture
def book(store: KeyStore, clock: Clock) -> UsageBook:
    return UsageBook(store.engine, today=clock.today, now=clock.now)


def test_a_quota_is_spent_to_the_last_and_never_exceeded(book: UsageBook, key: ApiKey) -> None:
    assert [book.charge(key.key_id, 10, 4).used for _ in range(2)] == [4, 8]
    refused = book.charge(key.key_id, 10, 4)
    assert (refused.accepted, refused.used) == (False, 8)
    assert book.charge(key.key_id, 10, 2).used == 10
    assert not book.charge(key.key_id, 10, 1).accepted
    assert book.used(key.key_id) == 10
    assert not book.charge(key.key_id, 10, 11).accepted


def test_more_than_a_whole_day_at_once_is_refused_with_the_first_request(book: UsageBook, key: ApiKey) -> None:
    assert not book.charge(key.key_id, 10, 11).accepted
    assert book.used(key.key_id) == 0


def test_without_a_quota_use_is_counted_too(book: UsageBook, key: ApiKey, store: KeyStore) -> None:
    assert [book.charge(key.key_id, None, 1_000_000).used for _ in range(2)] == [1_000_000, 2_000_000]
    assert store.used_on(TODAY) == {key.key_id: 2_000_000}


def test_each_day_begins_with_nothing_used(book: UsageBook, key: ApiKey, clock: Clock, store: KeyStore) -> None:
    late = book.charge(key.key_id, 10, 10)
    clock.day = TODAY + timedelta(days=1)
    assert book.used(key.key_id) == 0
    assert book.charge(key.key_id, 10, 10).accepted
    assert book.give_back(late) == 0  # taken off the day that it was put on
    assert book.used(key.key_id) == 10
    assert store.used_on(TODAY) == {key.key_id: 0}


def test_the_days_of_a_year_are_told_the_latest_first(
    book: UsageBook, key: ApiKey, clock: Clock, store: KeyStore
) -> None:
    other = store.create(NewKey("Bea"))[0]
    days = [date(2025, 12, 31), date(2026, 1, 1), TODAY, date(2026, 12, 31), date(2027, 1, 1)]
    for count, day in enumerate(days, start=1):
        clock.day = day
        book.charge(key.key_id, None, count)
        book.charge(other.key_id, None, 100)
    clock.day = date(2026, 5, 1)
    book.give_back(book.charge(key.key_id, None, 7))
    assert list(book.by_day(key.key_id, 2026).items()) == [(days[3], 4), (days[2], 3), (days[1], 2)]
    assert book.by_day(key.key_id, 2025) == {days[0]: 1}
    assert book.by_day(key.key_id, 0) == book.by_day("no such key", 2026) == {}


def test_what_is_given_back_can_be_used(book: UsageBook, key: ApiKey) -> None:
    first = book.charge(key.key_id, 10, 6)
    assert book.give_back(first) == 0
    assert book.charge(key.key_id, 10, 10).accepted


SPENDER = """
from pathlib import Path
from models.api_keys_store import KeyStore
from models.api_keys_usage import UsageBook
from models.home import Home
with KeyStore.open_for_serving(Home(Path({root!r}), {url!r})) as store:
    book = UsageBook(store.engine)
    input()
    print(sum(book.charge({key_id!r}, 150, 1).accepted for _ in range(120)))
"""


def test_books_of_several_processes_share_one_count(empty_home: Home, store: KeyStore, key: ApiKey) -> None:
    script = SPENDER.format(root=str(empty_home.root), url=empty_home.database_url, key_id=key.key_id)
    command = [sys.executable, "-c", script]
    started = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    accepted = []
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in started:
        out, _ = process.communicate(timeout=60)
        accepted.append(int(out))
    assert sum(accepted) == 150
    assert UsageBook(store.engine).used(key.key_id) == 150


def lock(home: Home, other: KeyStore) -> object:
    """A transaction of somebody else that keeps all writers out, as a long import does."""
    connection = other.engine.connect()
    if home.database_url is None:
        connection = connection.execution_options(voucher_write=True)
    connection.begin()
    if home.database_url is not None:
        connection.execute(text("LOCK TABLE api_key_usage IN EXCLUSIVE MODE"))
    return connection


def test_while_others_hold_the_lock_the_count_goes_on_and_is_entered_later(
    empty_home: Home, book: UsageBook, key: ApiKey, clock: Clock, store: KeyStore, caplog: pytest.LogCaptureFixture
) -> None:
    book.charge(key.key_id, 10, 3)
    with KeyStore.open(empty_home) as other:
        held = lock(empty_home, other)
        try:
            assert book.charge(key.key_id, 10, 4).used == 7
            assert book.used(key.key_id) == 7
            mistaken = book.charge(key.key_id, 10, 2)
            assert mistaken.used == 9
            assert book.give_back(mistaken) == 7
            assert not book.charge(key.key_id, 10, 4).accepted
            assert store.used_on(TODAY) == {key.key_id: 3}
            # It was tried once, not with every request.
            assert len([r for r in caplog.records if "counted in memory" in r.message]) == 1
        finally:
            held.close()  # type: ignore[attr-defined]
    clock.seconds = RETRY_SECONDS + 1
    assert book.charge(key.key_id, 10, 1).used == 8
    assert store.used_on(TODAY) == {key.key_id: 8}


def test_what_is_owed_is_entered_in_the_end(empty_home: Home, book: UsageBook, key: ApiKey, store: KeyStore) -> None:
    with KeyStore.open(empty_home) as other:
        held = lock(empty_home, other)
        assert book.charge(key.key_id, 10, 4).used == 4  # nothing was known of it before
        held.close()  # type: ignore[attr-defined]
    assert store.used_on(TODAY) == {}
    book.settle()
    assert store.used_on(TODAY) == {key.key_id: 4}
    book.settle()
    assert store.used_on(TODAY) == {key.key_id: 4}


def test_a_database_that_is_full_stops_nobody(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    KeyStore.open(home, create=True).close()
    with KeyStore.open_for_serving(home) as store:
        key, _ = store.create(NewKey("Ada", daily_quota=2))
        book = UsageBook(store.engine)
        store.engine.dispose()

        def fill(connection: object, _: object) -> None:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]  # type: ignore[attr-defined]
            connection.execute(f"PRAGMA max_page_count = {pages}")  # type: ignore[attr-defined]
            connection.execute("PRAGMA query_only = ON")  # type: ignore[attr-defined]

        event.listen(store.engine, "connect", fill)
        assert [book.charge(key.key_id, 2, 1).accepted for _ in range(3)] == [True, True, False]
