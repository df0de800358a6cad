"""A file of answers, a row for each plant, that a run which was killed goes on with."""

import csv
import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from models.answer_values import COLUMNS, csv_head, csv_line, one_line, plain_cell, table_row
from models.errors import InvalidConfig

FORMATS = (".csv", ".jsonl")


def check_format(path: Path) -> None:
    """Raises `InvalidConfig` for a file of another kind."""
    if path.suffix.lower() not in FORMATS:
        raise InvalidConfig(f"expected a file for results that ends in {' or '.join(FORMATS)}, found {path.name!r}")


class ResultRows:
    """Rows in a ``.csv`` or ``.jsonl`` file; each is handed to the operating system before the next is begun.

    What a killed run left of its last row is cut off, and the names of the whole rows are in `done`. Raises
    `InvalidConfig` for another kind of file, for a file that holds something else, and while another run writes to it.
    """

    def __init__(self, path: Path) -> None:
        check_format(path)
        self._path = path
        self._as_csv = path.suffix.lower() == ".csv"
        self._descriptor = -1
        self.done: set[str] = set()
        self.failed = 0
        self.bundle_ids: set[str] = set()

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InvalidConfig(f"another run writes to {self._path}; wait for it, or take another file") from None
            size = self._read()
            os.ftruncate(self._descriptor, size)
            os.lseek(self._descriptor, size, os.SEEK_SET)
            if self._as_csv and size == 0:
                self._write(csv_head())
        except BaseException:
            os.close(self._descriptor)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def has(self, name: str) -> bool:
        """Whether there is a row of this name already."""
        return one_line(name) in self.done

    def write(self, name: str, answer: dict[str, Any] | None, error: str | None) -> None:
        """Add a row: an answer as `answer_values` gives it, or an error."""
        if self._as_csv:
            self._write(csv_line(table_row(name, answer, error)))
        else:
            row = {"file": one_line(name), "error": error, "answer": answer}
            self._write(json.dumps(row, separators=(",", ":")) + "\n")
        self._note(one_line(name), error, (answer or {}).get("bundle_id"))

    def _note(self, name: str, error: str | None, bundle_id: str | None) -> None:
        self.done.add(name)
        self.failed += error is not None
        if bundle_id:
            self.bundle_ids.add(bundle_id)

    def _write(self, line: str) -> None:
        view = memoryview(line.encode())
        while view:
            view = view[os.write(self._descriptor, view) :]

    def _read(self) -> int:
        """Bytes of the whole rows. Every row is one line: no cell holds a line end."""
        size = 0
        with self._path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    if self._as_csv:
                        self._read_csv(line.decode(), is_head=size == 0)
                    else:
                        row = json.loads(line)
                        self._note(str(row["file"]), row["error"], (row["answer"] or {}).get("bundle_id"))
                except (ValueError, KeyError, TypeError, AttributeError):
                    raise self._foreign() from None
                size += len(line)
            else:
                return size
        if size == 0 and not csv_head().encode().startswith(line) and not line.startswith(b'{"file":'):
            raise self._foreign()
        return size

    def _read_csv(self, line: str, *, is_head: bool) -> None:
        if is_head:
            if line.rstrip("\r\n") != csv_head().rstrip("\n"):
                raise ValueError("other columns")
            return
        (cells,) = csv.reader([line])
        row = dict(zip(COLUMNS, cells, strict=True))
        self._note(plain_cell(row["file"]), row["error"] or None, row["bundle_id"] or None)

    def _foreign(self) -> InvalidConfig:
        return InvalidConfig(f"{self._path} is there and holds something else than results; take another file")
