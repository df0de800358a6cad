"""How long work tells what it is doing."""

import time
from collections.abc import Callable

Report = Callable[[str, int, int], None]
"""Called with the name of a stage, how much of it is done and how much there is."""


def silent(stage: str, done: int, total: int) -> None:
    """Tells nobody."""


def of_stage(report: Report, stage: str) -> Callable[[int, int], None]:
    """`report` for one stage."""
    return lambda done, total: report(stage, done, total)


class Pace:
    """How fast each stage goes and how long it will still take, by what it has been told since it began."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began: dict[str, tuple[float, int]] = {}

    def after(self, stage: str, done: int, total: int) -> str:
        """``, 12.5/s, 40 s left``; empty while nothing can be said. What was done before does not count."""
        began, before = self._began.setdefault(stage, (self._now(), done))
        seconds, since = self._now() - began, done - before
        if seconds <= 0 or since <= 0:
            return ""
        rate = since / seconds
        return f", {rate:.3g}/s" + (f", {_duration((total - done) / rate)} left" if done < total else "")


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
