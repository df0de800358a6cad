"""Writing the results of a batch: one process at a time, whole lines, each once."""

import fcntl
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Self

from models.batches import Batch, BatchProgress, while_it_is_there
from models.durable import storage_error


class ResultFile:
    """The results of a batch, written by one process at a time; what a killed one wrote half is cut off."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._folder = -1
        self._file = -1
        self.progress = BatchProgress()
        """What the lines say that were there already."""

    def __enter__(self) -> Self:
        with while_it_is_there(self._batch.batch_id):
            self._folder = os.open(self._batch.folder, os.O_RDONLY | os.O_DIRECTORY)
            # Some network file systems cannot lock folders; a job belongs to one worker there all the same.
            with suppress(OSError):
                fcntl.flock(self._folder, fcntl.LOCK_EX)
            size = self._read()
            self._file = os.open(self._batch.results, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.ftruncate(self._file, size)
            os.lseek(self._file, size, os.SEEK_SET)
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in (self._file, self._folder):
            if descriptor >= 0:
                os.close(descriptor)

    def _read(self) -> int:
        """Bytes of the whole lines."""
        size, done, failed, answer = 0, 0, 0, None
        for line in self._batch.result_lines():
            row = json.loads(line)
            size, done, failed = size + len(line) + 1, done + 1, failed + (row["error"] is not None)
            answer = row["answer"] or answer
        ids = (answer["bundle_id"], answer["model_id"]) if answer else (None, None)
        self.progress = BatchProgress(done, failed, *ids)
        return size

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add rows, durably. Raises `StorageFull`."""
        content = b"".join(json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in rows)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(self._file, view) :]
            os.fsync(self._file)
        except OSError as error:
            if (refused := storage_error(error, "the results cannot be written")) is not None:
                raise refused from error
            raise
