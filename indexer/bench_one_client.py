"""How much longer a client that is alone waits for the service than the pipeline takes without one.

Both are measured in turns of a second each: a machine that others use as well is faster in one minute than in the next
by more than the difference.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from scipy.stats import binom

from indexer.bench_load import Client, request_bytes
from indexer.progress import Report, silent
from models.errors import VoucherError

_TURN_SECONDS = 1.0
_FEWEST_TURNS = 3
_FEWEST_PHOTOS = 10
_WARM_UP_PHOTOS = 5
_SHOWN_CHARACTERS = 500
_LEVEL = 0.95
_OK = 200
_STEP_PHOTOS = 7
"""By so many photos a turn begins later than the one before."""

Milliseconds = Callable[[float, int], float]
"""Measures for so many seconds from the photo of that number on, and tells the median milliseconds of one."""


class BarePipelineEnded(VoucherError):
    """The pipeline that was to be measured does not answer."""


class NotAnswered(VoucherError):
    """The service that was to be measured refuses."""


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


def median_milliseconds(ask: Callable[[int], None], seconds: float, first: int) -> float:
    """Of one photo: `ask` is called with number after number from `first` on, after some that do not count.

    It goes on for `seconds`, and for so long that there are some photos to tell of.
    """
    for number in range(first - _WARM_UP_PHOTOS, first):
        ask(number)
    took: list[float] = []
    end = time.perf_counter() + seconds
    while (started := time.perf_counter()) < end or len(took) < _FEWEST_PHOTOS:
        ask(first + len(took))
        took.append(time.perf_counter() - started)
    return 1000 * median(took)


def in_turns(bare: Milliseconds, served: Milliseconds, seconds: float, report: Report = silent) -> list[list[float]]:
    """Pairs of bare and served milliseconds, measured for `seconds` each in all.

    Both begin a turn with the same photo, which is another one in every turn. The first of a turn alternates.
    """
    turn = min(_TURN_SECONDS, seconds / _FEWEST_TURNS)
    turns = max(_FEWEST_TURNS, round(seconds / turn))
    pairs: list[list[float]] = []
    for number in range(turns):
        report("turns of one client", number, turns)
        measured = [0.0, 0.0]
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            measured[which] = (bare, served)[which](turn, number * _STEP_PHOTOS)
        pairs.append(measured)
    report("turns of one client", turns, turns)
    return pairs


@contextmanager
def one_after_the_other(url: str, field: str, photos: Sequence[Path]) -> Iterator[Milliseconds]:
    """A client of a service, that keeps its connection. Raises `NotAnswered` for an answer that is none."""
    requests = [request_bytes(url, field, photo.read_bytes()) for photo in photos]
    with closing(Client(url)) as client:

        def ask(number: int) -> None:
            status = client.ask(requests[number % len(requests)])
            if status != _OK:
                raise NotAnswered(
                    f"the service that was measured answered {photos[number % len(photos)]} with {status}"
                )

        yield lambda seconds, first: median_milliseconds(ask, seconds, first)


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

        def ask(seconds: float, first: int) -> float:
            try:
                given.write(f"{seconds} {first}\n")
                given.flush()
                return float(told.readline())
            except (OSError, ValueError) as error:
                log.seek(0)
                said = log.read().strip()[-_SHOWN_CHARACTERS:]
                raise BarePipelineEnded(f"the pipeline that was measured without a service ended: {said}") from error

        try:
            ask(0.1, 0)
            yield ask
        finally:
            process.kill()
            process.communicate()
