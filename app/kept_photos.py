"""Field photos that were sent for identification, kept for training or review where the operator wants that."""

import hashlib
import io
import json
import logging
import queue
import secrets
import stat
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.settings import Settings, home_of
from models.decoding import decode_image
from models.durable import staging_folder
from models.errors import VoucherError
from models.retrieval import Identification

logger = logging.getLogger(__name__)

JPEG_QUALITY = 92

_WAITING = 16
_WAITING_BYTES = 64 * 1024 * 1024
_COUNT_AGAIN_SECONDS = 300.0
_MOST_PROCESSES = 64


@dataclass(frozen=True, slots=True)
class _Received:
    """What one identification leaves to be kept."""

    photos: tuple[bytes, ...]
    answer: Identification
    request_id: str

    @property
    def bytes(self) -> int:
        return sum(map(len, self.photos))


class KeptPhotos:
    """Writes photos below `folder`, at ``<year-month-day>/<random id>/1.jpg``, with ``identification.json`` beside.

    They are decoded and encoded anew, upright, so that nothing of EXIF, position, colour profile or comment is left. A
    thread of its own does so after the answer; when more waits than it can hold, or `most_bytes` are there, photos are
    not kept and the log says so. Nothing that was kept is ever removed. Several processes may write below one folder.
    """

    def __init__(self, folder: Path, *, most_bytes: int, max_pixels: int) -> None:
        self._folder = folder
        self._most_bytes, self._max_pixels = most_bytes, max_pixels
        self._waiting: queue.Queue[_Received | None] = queue.Queue(_WAITING)
        self._waiting_bytes = 0
        self._counting = threading.Lock()
        self._kept_bytes, self._counted_at = 0, float("-inf")
        self._written_bytes = 0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to write."""
        self._thread = threading.Thread(target=self._run, name="kept-photos", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, then no more."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
            self._thread = None

    def keep(self, photos: Sequence[bytes], answer: Identification, request_id: str) -> None:
        """Have the photos of one identification kept; returns at once and never fails."""
        received = _Received(tuple(photos), answer, request_id)
        with self._counting:
            has_room = self._waiting_bytes + received.bytes <= _WAITING_BYTES
            if has_room:
                try:
                    self._waiting.put_nowait(received)
                    self._waiting_bytes += received.bytes
                except queue.Full:
                    has_room = False
        if not has_room:
            logger.warning("photos of request %s are not kept: too many are waiting to be written", request_id)

    def _run(self) -> None:
        while (received := self._waiting.get()) is not None:
            try:
                self._write(received)
            except (VoucherError, OSError) as error:
                logger.warning("photos of request %s are not kept: %s", received.request_id, error)
            except Exception:
                logger.exception("photos of request %s are not kept", received.request_id)
            with self._counting:
                self._waiting_bytes -= received.bytes

    def _write(self, received: _Received) -> None:
        now = datetime.now(UTC)
        encoded = [self._encoded(photo) for photo in received.photos]
        record = json.dumps(_record(received, encoded, now), indent=1, ensure_ascii=False).encode()
        size = len(record) + sum(len(content) for content, _ in encoded)
        if self._held_bytes() + size > self._most_bytes:
            logger.warning(
                "photos of request %s are not kept: %d MiB are there already (VOUCHER_KEPT_PHOTOS_MAX_BYTES)",
                received.request_id,
                self._kept_bytes // 2**20,
            )
            return
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        day = self._folder / now.date().isoformat()
        identity = secrets.token_hex(8)
        with staging_folder(day, identity) as staging:
            for number, (content, _) in enumerate(encoded, 1):
                (staging / f"{number}.jpg").write_bytes(content)
            (staging / "identification.json").write_bytes(record)
            staging.rename(day / identity)
        self._kept_bytes += size
        self._written_bytes += size

    def _encoded(self, photo: bytes) -> tuple[bytes, tuple[int, int]]:
        """JPEG of the upright pixels alone, and its width and height."""
        picture = decode_image(photo, max_pixels=self._max_pixels)
        packed = io.BytesIO()
        picture.save(packed, "JPEG", quality=JPEG_QUALITY, optimize=True)
        return packed.getvalue(), picture.size

    def _held_bytes(self) -> int:
        """Of all processes; counted anew now and then, since others write and operators remove.

        The fuller it is, the more often: others may have written as much as this process, and `_MOST_PROCESSES` of them
        must not write more than there is room for.
        """
        room = self._most_bytes - self._kept_bytes
        is_old = time.monotonic() - self._counted_at > _COUNT_AGAIN_SECONDS
        may_be_full = self._written_bytes > 0 and self._written_bytes * _MOST_PROCESSES > room
        if is_old or may_be_full:
            self._kept_bytes = sum(map(_bytes_of, self._folder.glob("*/*/*")))
            self._counted_at, self._written_bytes = time.monotonic(), 0
        return self._kept_bytes


def _bytes_of(path: Path) -> int:
    try:
        found = path.stat()
    except OSError:  # another process has given its folder its name meanwhile
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def kept_photos_for(settings: Settings) -> KeptPhotos | None:
    """What keeps photos of this service; None unless the settings ask for that."""
    if not settings.keep_photos:
        return None
    return KeptPhotos(
        home_of(settings).received, most_bytes=settings.kept_photos_max_bytes, max_pixels=settings.max_pixels
    )


def _record(received: _Received, encoded: list[tuple[bytes, tuple[int, int]]], now: datetime) -> dict[str, Any]:
    """What is noted beside the photos: the answer, and nothing about who asked."""
    answer = received.answer
    return {
        "request_id": received.request_id,
        "received_on": now.date().isoformat(),
        "bundle_id": answer.bundle_id,
        "outcome": answer.outcome.value,
        "candidates": [{"species_id": c.species.species_id, "probability": c.probability} for c in answer.candidates],
        "photos": [
            {
                "file": f"{number}.jpg",
                "sha256": hashlib.sha256(content).hexdigest(),
                "width": size[0],
                "height": size[1],
            }
            for number, (content, size) in enumerate(encoded, 1)
        ],
    }
