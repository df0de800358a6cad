"""Rates hold in sliding minutes, across processes, and without a database in each of them."""

from collections.abc import Iterator

import pytest
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from sqlalchemy import func, select

from models import api_keys_rates
from models import catalogue_schema as schema
from models.api_keys_rates import DatabaseWindows, KeyRates
from models.api_keys_store import KeyStore
from models.home import Home

START = 1_800_000_000.0
"""The beginning of a minute."""


class Clock:
    def __init__(self) -> None:
        self.seconds = START

    def time(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("limits.storage.memory.time.time", clock.time)
    monkeypatch.setattr("limits.strategies.time.time", clock.time)
    monkeypatch.setattr(api_keys_rates.time, "time", clock.time)
    return clock


@pytest.fixture
def store(empty_home: Home) -> Iterator[KeyStore]:
    KeyStore.open(empty_home, create=True).close()
    with KeyStore.open_for_serving(empty_home) as opened:
        yield opened


def test_so_many_requests_pass_in_a_minute(store: KeyStore, clock: Clock) -> None:
    rates = KeyRates(store.engine)
    found = [rates.hit("a", 3) for _ in range(5)]
    assert [rate.accepted for rate in found] == [True, True, True, False, False]
    assert [rate.remaining for rate in found] == [2, 1, 0, 0, 0]
    assert all(0 < rate.resets_in_seconds <= 60 for rate in found)
    assert rates.hit("b", 3).accepted
    clock.seconds += 119
    assert rates.hit("a", 3).accepted


def test_a_new_minute_does_not_forget_the_one_before_at_once(store: KeyStore, clock: Clock) -> None:
    rates = KeyRates(store.engine)
    clock.seconds = START + 59
    assert sum(rates.hit("a", 10).accepted for _ in range(20)) == 10
    clock.seconds = START + 61
    assert sum(rates.hit("a", 10).accepted for _ in range(20)) <= 1
    clock.seconds = START + 90
    assert 3 <= sum(rates.hit("a", 10).accepted for _ in range(20)) <= 6


def test_processes_share_a_rate(store: KeyStore, empty_home: Home, clock: Clock) -> None:
    with KeyStore.open_for_serving(empty_home) as other:
        rates = [KeyRates(store.engine), KeyRates(other.engine)]
        assert sum(rates[number % 2].hit("a", 7).accepted for number in range(20)) == 7


def test_it_counts_as_the_library_counts_in_memory(store: KeyStore, clock: Clock) -> None:
    shared = SlidingWindowCounterRateLimiter(DatabaseWindows(store.engine))
    memory = SlidingWindowCounterRateLimiter(MemoryStorage())
    item = RateLimitItemPerMinute(5)
    for step in (0, 1, 7, 20, 20, 3, 2, 2, 30, 1, 1, 1, 70, 0, 0, 0, 0, 0, 0, 200, 1):
        clock.seconds += step
        assert shared.test(item, "a") == memory.test(item, "a"), clock.seconds
        assert shared.hit(item, "a") == memory.hit(item, "a"), clock.seconds
        assert shared.get_window_stats(item, "a") == pytest.approx(memory.get_window_stats(item, "a")), clock.seconds
    shared.storage.clear_sliding_window(item.key_for("a"), 60)  # type: ignore[attr-defined]
    assert shared.get_window_stats(item, "a").remaining == 5


def test_windows_that_are_over_are_removed(store: KeyStore, clock: Clock) -> None:
    rates = KeyRates(store.engine)
    for number in range(20):
        rates.hit(f"key-{number}", 5)
        clock.seconds += 60
    with store.engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(schema.api_key_windows)).scalar_one() <= 3


def test_single_windows_can_be_counted_read_and_forgotten(store: KeyStore, clock: Clock) -> None:
    windows = DatabaseWindows(store.engine)
    assert windows.check()
    assert [windows.incr("w", 60), windows.incr("w", 60, 2), windows.get("w")] == [1, 3, 3]
    assert windows.get_expiry("w") == START + 120
    clock.seconds += 121
    assert windows.get("w") == 0
    assert windows.incr("w", 60) == 1
    windows.clear("w")
    assert windows.get("w") == 0
    assert windows.get_expiry("w") == clock.seconds
    windows.incr("w", 60)
    assert windows.reset() == 1


def test_without_the_database_each_process_counts_by_itself(
    store: KeyStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    rates = KeyRates(store.engine, now=clock.monotonic)
    with store.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE api_key_windows RENAME TO away")
    assert [rates.hit("a", 2).accepted for _ in range(3)] == [True, True, False]
    assert len([r for r in caplog.records if "counted in memory" in r.message]) == 1
    with store.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE away RENAME TO api_key_windows")
    clock.seconds += 6
    assert rates.hit("a", 2).accepted
    with store.engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(schema.api_key_windows)).scalar_one() == 1
