"""Where images are kept: content-addressed files without metadata, written once."""

import hashlib
import io
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from PIL import Image as PillowImage

from models.decoding import decode_clean, decode_image, read_source, upright_size
from models.durable import make_folder, storage_error, sync_folder
from models.errors import CatalogueError
from models.metadata_removal import CleanFile, ImageFormat, remove_metadata
from models.specimens import Image

CURATOR_MAX_PIXELS = 250_000_000
"""A sheet scanned at 600 dpi has about 100 million pixels; uploads from outside get a lower limit."""

_LARGE_PIXELS = 50_000_000
_INCOMING = ".incoming"
_ABANDONED_SECONDS = 24 * 3600.0
_RENEWED_AFTER_SECONDS = 3600.0
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of the store, whether or not anything refers to it."""

    stored_sha256: str
    path: Path


class ImageStore:
    """Images below `root`, at ``ab/cd/<sha256 of the stored bytes><suffix>``.

    Files are never changed once they are there, so readers need no lock. They are removed under the catalogue's write
    lock only, when nothing refers to them.
    May be used by several threads and processes at once.
    """

    def __init__(self, root: Path, *, max_pixels: int = CURATOR_MAX_PIXELS) -> None:
        self.root = root
        self.max_pixels = max_pixels
        self._one_large_image = threading.Lock()

    def add(self, source: Path | bytes) -> Image:
        """The image, checked by decoding it once, and stored without EXIF, GPS, XMP or comments.

        JPEG, PNG and WebP keep their pixels bit for bit; TIFF and animated WebP become an upright 8-bit
        RGB PNG of the first frame, which decodes to the same pixels. Adding it again changes nothing.
        Raises `UnreadableImage` or `ImageTooLarge`, and `StorageFull` or `CatalogueError` when it cannot be written.
        """
        original = read_source(source)
        return self.add_read(original, hashlib.sha256(original).hexdigest())

    def add_read(self, original: bytes, source_sha256: str) -> Image:
        """As `add`, for a caller that has read and hashed the file already."""
        clean = remove_metadata(original)
        width, height = upright_size(clean)
        # Two scanner TIFFs at once would take gigabytes; they wait for one another.
        with self._one_large_image if width * height > _LARGE_PIXELS else nullcontext():
            stored, suffix = self._checked(clean)
        stored_sha256 = hashlib.sha256(stored).hexdigest()
        image = Image(source_sha256, stored_sha256, suffix, width, height, len(stored))
        self._keep(stored, self.path(image), stored_sha256)
        return image

    def path(self, image: Image) -> Path:
        """Where the image is kept, whether or not it is there."""
        digest = image.stored_sha256
        return self.root / digest[:2] / digest[2:4] / f"{digest}{image.suffix}"

    def __contains__(self, image: Image) -> bool:
        try:
            return self.path(image).stat().st_size == image.bytes
        except OSError:
            return False

    def open(self, image: Image, *, minimum_side: int | None = None) -> PillowImage.Image:
        """Upright RGB pixels of a stored image; `minimum_side` as in `decode_image`.

        Raises `CatalogueError` when its file is gone, `UnreadableImage` when it is damaged.
        """
        path = self.path(image)
        if not path.exists():
            raise CatalogueError(
                f"the file of image {image.image_id} is missing from the image store (expected {path}); "
                "run `voucher import` on its dataset again, which puts it back"
            )
        return decode_image(path, max_pixels=self.max_pixels, minimum_side=minimum_side)

    def discard(self, image: Image) -> None:
        """Remove the file of an image that nothing refers to any more. Raises `CatalogueError`."""
        try:
            self.path(image).unlink(missing_ok=True)
        except OSError as error:
            raise CatalogueError(
                f"the file of image {image.image_id} cannot be removed below {self.root}: {error.strerror or error}; "
                "check the permissions of the home folder"
            ) from error

    def abandoned_files(self) -> Iterator[StoredFile]:
        """Files that were stored, or met again by `add`, a day ago or longer; most of them are needed."""
        for folder in sorted(self.root.glob("[0-9a-f][0-9a-f]/[0-9a-f][0-9a-f]")):
            for path in sorted(folder.iterdir()):
                digest = path.name.partition(".")[0]
                if _DIGEST.fullmatch(digest) and _is_abandoned(path):
                    yield StoredFile(digest, path)

    def discard_abandoned(self, file: StoredFile) -> bool:
        """Whether a file was removed that nothing refers to; not when somebody has met it since. Raises `OSError`."""
        if not _is_abandoned(file.path):
            return False
        file.path.unlink(missing_ok=True)
        return True

    def sweep(self) -> int:
        """How many files that killed writers left behind a day ago or longer were removed."""
        removed = 0
        incoming = self.root / _INCOMING
        for left in incoming.iterdir() if incoming.is_dir() else ():
            if _is_abandoned(left):
                left.unlink(missing_ok=True)
                removed += 1
        return removed

    def _checked(self, clean: CleanFile) -> tuple[bytes, str]:
        """Bytes to store and their suffix, after every byte has gone through the decoder."""
        if clean.removable:
            # libjpeg reads the whole file even when it reconstructs only 1/8 of it, so this is a full check.
            decode_clean(clean, max_pixels=self.max_pixels, minimum_side=1)
            return clean.with_orientation(), clean.format.suffix
        pixels = decode_clean(clean, max_pixels=self.max_pixels)
        packed = io.BytesIO()
        pixels.save(packed, "PNG", compress_level=3)
        return packed.getvalue(), ImageFormat.PNG.suffix

    def _keep(self, stored: bytes, path: Path, stored_sha256: str) -> None:
        try:
            if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == stored_sha256:
                _renew(path)
                return
            incoming = self.root / _INCOMING
            make_folder(incoming)
            make_folder(path.parent)
            temporary = incoming / f"{os.getpid()}-{secrets.token_hex(8)}"
            try:
                with temporary.open("xb") as file:
                    file.write(stored)
                    file.flush()
                    os.fsync(file.fileno())
                # Whoever else renames onto this name brings the same bytes.
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
            sync_folder(path.parent)
        except OSError as error:
            if (refused := storage_error(error, "the image was not stored")) is not None:
                raise refused from error
            raise CatalogueError(
                f"an image cannot be written below {self.root}: {error.strerror or error}; "
                "check the free space and the permissions of the home folder"
            ) from error


def _is_abandoned(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _ABANDONED_SECONDS
    except FileNotFoundError:  # another process sweeps too
        return False


def _renew(path: Path) -> None:
    """Tell that an old file is about to be needed: while no row refers to it, its time says how long it stays."""
    if time.time() - path.stat().st_mtime > _RENEWED_AFTER_SECONDS:
        os.utime(path)
