"""What the C library keeps of free memory."""

import sys

import pytest

from app.memory import PAUSE_SECONDS, FreeMemory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's")


def test_memory_is_given_back_once_a_minute_at_most() -> None:
    now = 100.0
    memory = FreeMemory(lambda: now)
    assert memory.give_back()
    assert not memory.give_back()
    now += PAUSE_SECONDS
    assert memory.give_back()
