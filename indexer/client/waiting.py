"""Waiting for what a worker does."""

import time
from collections.abc import Callable
from typing import TypeVar

from indexer.client.answers import Batch, Job

Waited = TypeVar("Waited", Batch, Job)


def wait_for(
    look: Callable[[], Waited], timeout_seconds: float | None, poll_seconds: float, report: Callable[[Waited], None]
) -> Waited:
    """What `look` gives once nothing more will happen to it; `report` gets all before. Raises `TimeoutError`."""
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    while True:
        found = look()
        report(found)
        if found.is_final:
            return found
        if deadline is not None and time.monotonic() >= deadline:
            raise TimeoutError(f"it is still {found.state} after {timeout_seconds:.0f} seconds")
        time.sleep(poll_seconds)
