"""What the command line shows: progress and notes on the error stream, results on the output stream."""

import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from indexer.progress import Pace, Report
from models.home import Home
from models.log_lines import JsonFormatter, TextFormatter

DATABASE_VARIABLE = "VOUCHER_DATABASE_URL"

errors = Console(stderr=True, highlight=False)
output = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
"""A file or a pipe has no width: tables for it are not squeezed into that of a narrow terminal."""


def home_of(root: Path, *, may_be_new: bool = False) -> Home:
    """The home at `root`, with the database that the environment names, if any.

    An address with a password is no option of a command, since other users of the machine can read those. Raises
    `InvalidConfig`, also where there is neither such a folder nor a database, unless the command makes one.
    """
    home = Home(root, os.environ.get(DATABASE_VARIABLE) or None)
    if not may_be_new:
        home.require()
    return home


def configure_logging(*, verbose: bool) -> None:
    """Notes of our own packages on the error stream."""
    handler = RichHandler(console=errors, show_path=False, show_level=verbose, markup=False, log_time_format="[%X]")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler], force=True)
    for name in ("models", "indexer", "app"):
        logging.getLogger(name).setLevel(logging.DEBUG if verbose else logging.INFO)


def log_lines(*, as_json: bool) -> None:
    """Notes as lines of a log instead, with time and level: for a command that runs as a service."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


@contextmanager
def progress_bars() -> Iterator[Report]:
    """A bar for each stage; plain lines at every tenth when the error stream is no terminal."""
    if not errors.is_terminal:
        yield _PlainLines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors) as bars:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield report


class _Rate(ProgressColumn):
    """Things a second, once it is known."""

    def render(self, task: Task) -> Text:
        return Text("" if not task.speed else f"{task.speed:.3g}/s")


class _PlainLines:
    def __init__(self) -> None:
        self._shown: dict[str, int] = {}
        self._pace = Pace()

    def __call__(self, stage: str, done: int, total: int) -> None:
        pace = self._pace.after(stage, done, total)
        tenth = 10 if total == 0 else done * 10 // total
        if tenth > self._shown.get(stage, -1):
            self._shown[stage] = tenth
            errors.print(f"{stage}: {done}/{total}{pace}", markup=False)


def show_json(values: Any) -> None:
    """One JSON document on the output stream."""
    sys.stdout.write(json.dumps(values, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    sys.stdout.flush()


def show_table(title: str, columns: list[str], rows: Sequence[tuple[str, ...]]) -> None:
    """A table on the output stream."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        # The first column is what one copies into the next command.
        table.add_column(column, justify="left" if number < 2 else "right", no_wrap=number == 0)
    for row in rows:
        table.add_row(*row)
    output.print(table)
