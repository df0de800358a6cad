"""Failures are counted by address, refill with time, and take no memory without end."""

import pytest

from app.access_throttle import FailureThrottle, network_of
from app.refusals import TooManyFailures


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def throttle_of(clock: Clock, **given: int) -> FailureThrottle:
    return FailureThrottle(**({"at_once": 3, "seconds_per_failure": 10.0} | given), now=clock)  # type: ignore[arg-type]


def failures(throttle: FailureThrottle, address: str, attempts: int) -> int:
    """How many of so many wrong keys are looked at."""
    let_in = 0
    for _ in range(attempts):
        try:
            throttle.take(address)
            let_in += 1
        except TooManyFailures:
            pass
    return let_in


def test_some_failures_pass_and_then_one_in_a_while(clock: Clock) -> None:
    throttle = throttle_of(clock)
    assert failures(throttle, "192.0.2.1", 10) == 3
    with pytest.raises(TooManyFailures, match="wait 10 seconds") as caught:
        throttle.take("192.0.2.1")
    assert caught.value.retry_after_seconds == 10
    clock.seconds = 9.9
    assert failures(throttle, "192.0.2.1", 1) == 0
    clock.seconds = 10.0
    assert failures(throttle, "192.0.2.1", 5) == 1
    clock.seconds = 1_000_000.0
    assert failures(throttle, "192.0.2.1", 10) == 3


def test_attempts_while_it_is_empty_do_not_make_it_longer(clock: Clock) -> None:
    throttle = throttle_of(clock)
    failures(throttle, "192.0.2.1", 1_000)
    clock.seconds = 10.0
    assert failures(throttle, "192.0.2.1", 1) == 1


def test_other_addresses_are_not_concerned(clock: Clock) -> None:
    throttle = throttle_of(clock)
    failures(throttle, "192.0.2.1", 10)
    assert failures(throttle, "192.0.2.2", 10) == 3


def test_right_keys_cost_nothing_and_are_not_remembered(clock: Clock) -> None:
    throttle = throttle_of(clock)
    for _ in range(100):
        throttle.take("192.0.2.1")
        throttle.give_back("192.0.2.1")
    assert len(throttle) == 0
    failures(throttle, "192.0.2.1", 3)
    clock.seconds = 10.0
    for _ in range(100):
        throttle.take("192.0.2.1")
        throttle.give_back("192.0.2.1")
    assert failures(throttle, "192.0.2.1", 10) == 1  # the failures of before still count


def test_memory_does_not_grow_with_the_addresses(clock: Clock) -> None:
    throttle = throttle_of(clock, most_addresses=50)
    for number in range(5_000):
        failures(throttle, f"2001:db8:{number:x}::1", 2)
    assert len(throttle) == 50
    assert failures(throttle, "x" * 100_000, 1) == 1
    assert len(network_of("x" * 100_000)) == 64


@pytest.mark.parametrize(
    ("one", "other", "are_the_same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1:2:3", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2", True),
        ("testclient", "testclient", True),
        ("", "testclient", False),
    ],
)
def test_an_ipv6_network_is_one_client(one: str, other: str, are_the_same: bool) -> None:
    assert (network_of(one) == network_of(other)) == are_the_same
