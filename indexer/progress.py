"""How long work tells what it is doing."""

from collections.abc import Callable

Report = Callable[[str, int, int], None]
"""Called with the name of a stage, how much of it is done and how much there is."""


def silent(stage: str, done: int, total: int) -> None:
    """Tells nobody."""


def of_stage(report: Report, stage: str) -> Callable[[int, int], None]:
    """`report` for one stage."""
    return lambda done, total: report(stage, done, total)
