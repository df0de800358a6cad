"""Heat maps on disk for a while, so that each process that serves a home can serve them. No torch."""

import logging
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from models.durable import remove_stale_staging, staging_folder, staging_path

logger = logging.getLogger(__name__)

_ID = re.compile("[0-9a-f]{32}")
_NAME = re.compile("(photo|sheet)-[1-9][0-9]?")
_SUFFIX = ".png"

_FEW = 10
"""A sweep is due when this part of a bound has been written since the last one."""


@dataclass(frozen=True, slots=True)
class StoredMap:
    """A heat map, and for how long it may still be asked for."""

    png: bytes
    seconds_left: float


@dataclass(frozen=True, slots=True)
class _Entry:
    folder: Path
    expires_at: float
    bytes: int


class ExplanationStore:
    """PNG files at ``<folder>/<id>/<name>.png``, those of one answer under one id, until they expire.

    An id is 128 random bits: who was not told it cannot find it. A folder's modification time is the moment at which it
    expires, so that whoever sweeps needs no setting. What is there in all processes together stays below `most_bytes`
    and `most_answers`, but for a tenth that each of them may write between two sweeps; the first to expire go first.
    Several threads and processes may use one folder; it may be deleted at any time.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seconds: float = 3600.0,
        most_bytes: int = 256 * 1024 * 1024,
        most_answers: int = 10_000,
    ) -> None:
        self._folder = folder
        self._seconds = seconds
        self._most_bytes, self._most_answers = most_bytes, most_answers
        self._written_bytes = self._written_answers = 0
        self._counting = threading.Lock()

    def put(self, maps: Mapping[str, bytes]) -> str:
        """Id of PNG files by their names, such as ``photo-1`` or ``sheet-2``, all there or none. Raises `OSError`.

        Raises `ValueError` for a name that could not be asked for, and for more bytes than there is room for.
        """
        size = sum(map(len, maps.values()))
        if not all(_NAME.fullmatch(name) for name in maps):
            raise ValueError(f"expected names such as photo-1 or sheet-2, found {', '.join(maps)}")
        if size > self._most_bytes:
            raise ValueError(f"{size:,} bytes of heat maps are more than the {self._most_bytes:,} that may be kept")
        self._make_room(size)
        identity = secrets.token_hex(16)
        with staging_folder(self._folder, identity) as staging:
            for name, content in maps.items():
                (staging / f"{name}{_SUFFIX}").write_bytes(content)
            expires = time.time() + self._seconds
            os.utime(staging, (expires, expires))
            # Not synced: what a power cut takes away would have expired soon.
            staging.rename(self._folder / identity)
        return identity

    def get(self, identity: str, name: str) -> StoredMap | None:
        """A heat map; None when it is not there, has expired, or could never have been there."""
        if not _ID.fullmatch(identity) or not _NAME.fullmatch(name):
            return None
        folder = self._folder / identity
        try:
            left = folder.stat().st_mtime - time.time()
            return StoredMap((folder / f"{name}{_SUFFIX}").read_bytes(), left) if left > 0.0 else None
        except OSError:
            return None

    def sweep(self, *, room_for: int = 0, only_expired: bool = False) -> int:
        """How many answers' heat maps were removed: those that expired, and the first to expire beyond the bounds."""
        self._written_bytes = self._written_answers = 0
        remove_stale_staging(self._folder)
        entries = sorted(self._entries(), key=lambda entry: entry.expires_at)
        held, removed, now = sum(entry.bytes for entry in entries), 0, time.time()
        for position, entry in enumerate(entries):
            too_many = len(entries) - position > self._most_answers - (room_for > 0)
            fits = only_expired or (held + room_for <= self._most_bytes and not too_many)
            if entry.expires_at > now and fits:
                break
            # Out of the way first: what is half removed cannot be asked for.
            aside = staging_path(self._folder, entry.folder.name)
            try:
                entry.folder.rename(aside)
            except OSError as error:
                logger.debug("a heat map is left to another process: %s", error.strerror)
            else:
                shutil.rmtree(aside, ignore_errors=True)
                removed += 1
            held -= entry.bytes
        return removed

    def expired(self) -> int:
        """How many answers' heat maps a sweep would remove because they expired."""
        now = time.time()
        return sum(entry.expires_at <= now for entry in self._entries())

    def _make_room(self, size: int) -> None:
        with self._counting:
            first = self._written_answers == 0
            self._written_bytes += size
            self._written_answers += 1
            due = (
                first
                or self._written_bytes > self._most_bytes // _FEW
                or self._written_answers > self._most_answers // _FEW
            )
            if due:
                self.sweep(room_for=size)
                self._written_bytes, self._written_answers = size, 1

    def _entries(self) -> list[_Entry]:
        entries = []
        try:
            folders = [folder for folder in self._folder.iterdir() if _ID.fullmatch(folder.name)]
        except FileNotFoundError:
            return []
        for folder in folders:
            with suppress(OSError):  # another process sweeps too
                size = sum(file.stat().st_size for file in folder.iterdir())
                entries.append(_Entry(folder, folder.stat().st_mtime, size))
        return entries
