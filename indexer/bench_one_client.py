"""How much longer a client that is alone waits for the service than the pipeline takes without one.

Both are measured in turns of a second each: a machine that others use as well is faster in one minute than in the next
by more than the difference.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from scipy.stats import binom

from indexer.progress import Report, silent
from models.errors import VoucherError

_TURN_SECONDS = 1.0
_FEWEST_TURNS = 3
_WARM_UP_SECONDS = 0.1
_SHOWN_CHARACTERS = 500
_LEVEL = 0.95

Milliseconds = Callable[[float], float]
"""Measures for so many seconds and tells the median milliseconds of one photo."""


class BarePipelineEnded(VoucherError):
    """The pipeline that was to be measured does not answer."""


@dataclass(frozen=True)
class OneClient:
    """Medians over `turns`, in each of which both were measured: milliseconds of a photo, bare and served.

    `overhead` is the median of the turns' ratios, less one, and `overhead_interval` its 95 % interval by the ranks of
    the ratios (that of the sign test; with fewer than six turns it is their range, and less certain).
    """

    turns: int
    bare_milliseconds: float
    served_milliseconds: float
    overhead: float
    overhead_interval: tuple[float, float]


def in_turns(bare: Milliseconds, served: Milliseconds, seconds: float, report: Report = silent) -> list[list[float]]:
    """Pairs of bare and served milliseconds, measured for `seconds` each in all; the first of a turn alternates."""
    turn = min(_TURN_SECONDS, seconds / _FEWEST_TURNS)
    turns = max(_FEWEST_TURNS, round(seconds / turn))
    pairs: list[list[float]] = []
    for number in range(turns):
        report("turns of one client", number, turns)
        measured = [0.0, 0.0]
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            measured[which] = (bare, served)[which](turn)
        pairs.append(measured)
    report("turns of one client", turns, turns)
    return pairs


def one_client(pairs: Sequence[Sequence[float]]) -> OneClient:
    """What the turns come to; there must be one at least."""
    ratios = sorted(served / bare - 1 for bare, served in pairs)
    rank = max(1, int(binom.ppf((1 - _LEVEL) / 2, len(ratios), 0.5)))
    return OneClient(
        turns=len(pairs),
        bare_milliseconds=median(bare for bare, _ in pairs),
        served_milliseconds=median(served for _, served in pairs),
        overhead=median(ratios),
        overhead_interval=(ratios[rank - 1], ratios[-rank]),
    )


@contextmanager
def bare_pipeline(arguments: Sequence[str]) -> Iterator[Milliseconds]:
    """The pipeline in a process of its own, idle between the times that it is asked. Raises `BarePipelineEnded`."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "indexer.bench_bare", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        given, told = process.stdin, process.stdout

        def ask(seconds: float) -> float:
            try:
                print(seconds, file=given, flush=True)
                return float(told.readline())
            except (OSError, ValueError) as error:
                log.seek(0)
                said = log.read().strip()[-_SHOWN_CHARACTERS:]
                raise BarePipelineEnded(f"the pipeline that was measured without a service ended: {said}") from error

        try:
            ask(_WARM_UP_SECONDS)
            yield ask
        finally:
            process.kill()
            process.communicate()
