"""Reads the form of a batch onto the disk as it comes: photos one by one, or an archive of them.

Metadata is removed before a photo is kept, and an archive is held in a file without a name, which is gone with the
request however that ends. File names are kept as text for the results and used for nothing else.
"""

import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import anyio
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser
from starlette.datastructures import Headers
from starlette.types import Receive

from app.refusals import MalformedRequest, RequestTooLarge, UnacceptableForm
from app.uploads import FormAssembler, FormShape, UploadShare, body_chunks, boundary_of
from models.answer_values import one_line
from models.batches import BatchDraft, BatchPlant
from models.decoding import decode_clean
from models.durable import storage_error
from models.errors import ImageTooLarge, InvalidImage
from models.metadata_removal import remove_metadata
from models.photo_archives import MEBIBYTE, ArchivedPhoto, ArchiveLimits, read_archive

ARCHIVE_FIELD = "archive"
_FLUSH_BYTES = MEBIBYTE
_MAX_NAME = 500


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What a batch may hold; `max_plant_photos` are of one plant."""

    max_photos: int
    max_photo_bytes: int
    max_bytes: int
    max_pixels: int
    max_plant_photos: int


@dataclass(frozen=True, slots=True)
class ReceivedPhoto:
    """A photo's name, and its number in the draft or why it was not kept."""

    name: str
    number: int | None
    error: str | None


@dataclass(slots=True)
class BatchUpload:
    """What came: the text fields, and the photos in the order that they are answered in."""

    texts: dict[str, list[str]]
    photos: list[ReceivedPhoto] = field(default_factory=list)

    def plants(self, *, by_folder: bool, max_plant_photos: int) -> list[BatchPlant]:
        """Each photo a plant, or the photos of each folder one."""
        if not by_folder:
            return [BatchPlant(p.name, () if p.number is None else (p.number,), p.error) for p in self.photos]
        folders: dict[str, list[ReceivedPhoto]] = {}
        for photo in self.photos:
            folders.setdefault(ArchivedPhoto(photo.name, b"").folder, []).append(photo)
        return [_plant_of(folder, photos, max_plant_photos) for folder, photos in folders.items()]


def _plant_of(folder: str, photos: Sequence[ReceivedPhoto], most: int) -> BatchPlant:
    bad = next((photo for photo in photos if photo.error is not None), None)
    if bad is not None:
        return BatchPlant(folder, error=f"{bad.name}: {bad.error}")
    if len(photos) > most:
        return BatchPlant(folder, error=f"expected at most {most} photos of one plant, found {len(photos)}")
    return BatchPlant(folder, tuple(photo.number for photo in photos if photo.number is not None))


async def read_batch(
    headers: Headers,
    receive: Receive,
    shape: FormShape,
    share: UploadShare,
    draft: BatchDraft,
    limits: BatchLimits,
    decoding: anyio.CapacityLimiter,
) -> BatchUpload:
    """The form of a batch, its photos stored in `draft`; one that cannot be used has its error in its place.

    `share` holds what is in memory, the photo or piece of an archive that is coming in. Photos are decoded in threads
    of `decoding`. Raises what `read_upload` raises, `InvalidBatch` and `StorageFull`.
    """
    with _Spool(draft.folder.parent) as spool:
        assembler = BatchAssembler(shape, share, limits)
        parser = MultipartParser(boundary_of(headers, shape), assembler.callbacks())
        upload = BatchUpload(assembler.form.texts)
        try:
            async for chunk in body_chunks(receive):
                parser.write(chunk)
                for name, content in assembler.take_photos():
                    kept = await anyio.to_thread.run_sync(_keep, draft, name, content, limits, limiter=decoding)
                    upload.photos.append(kept)
                    share.give(len(content))
                if len(assembler.archive) >= _FLUSH_BYTES:
                    await _spool(spool, assembler, share)
            parser.finalize()
        except FormParserError:
            raise MalformedRequest(
                "expected a multipart/form-data body, found one whose parts cannot be told apart; "
                "let the HTTP library write the body and its boundary"
            ) from None
        if not assembler.is_complete:
            raise MalformedRequest("the body ends before its closing boundary; the upload was cut off, send it again")
        if assembler.has_archive:
            await _spool(spool, assembler, share)
            await anyio.to_thread.run_sync(_unpack, spool.file, draft, upload, limits, decoding)
    if assembler.has_archive and assembler.photo_count:
        raise UnacceptableForm(f"expected {shape.file_field} or {ARCHIVE_FIELD}, found both; send two batches")
    if not upload.photos:
        raise UnacceptableForm(f"expected files in {shape.file_field}, or a ZIP in {ARCHIVE_FIELD}, found none")
    return upload


async def _spool(spool: "_Spool", assembler: "BatchAssembler", share: UploadShare) -> None:
    piece = assembler.take_archive()
    await anyio.to_thread.run_sync(spool.write, piece)
    share.give(len(piece))


class BatchAssembler(FormAssembler):
    """Callbacks of the parser that hand photos and pieces of the archive on as soon as they are there."""

    def __init__(self, shape: FormShape, share: UploadShare, limits: BatchLimits) -> None:
        super().__init__(shape, share)
        self.archive = bytearray()
        self.has_archive = False
        self.photo_count = 0
        self._limits = limits
        self._photos: list[tuple[str, bytes]] = []
        self._name = ""

    def take_photos(self) -> list[tuple[str, bytes]]:
        """Names and bytes of the photos that came since this was last asked."""
        taken, self._photos = self._photos, []
        return taken

    def take_archive(self) -> bytes:
        """Bytes of the archive that came since this was last asked."""
        taken = bytes(self.archive)
        self.archive.clear()
        return taken

    def _begin_part(self, file_name: bytes) -> None:
        if self._field_name == self._shape.file_field:
            self.photo_count += 1
            if self.photo_count > self._limits.max_photos:
                raise UnacceptableForm(f"expected at most {self._limits.max_photos:,} photos in a batch, found more")
            self._name = _shown(file_name, self.photo_count)
        elif self._field_name == ARCHIVE_FIELD:
            if self.has_archive:
                raise UnacceptableForm(f"{ARCHIVE_FIELD}: expected one file, found several")
            self.has_archive = True
        else:
            super()._begin_part(file_name)

    def _known_fields(self) -> str:
        return f"{ARCHIVE_FIELD} (a ZIP) or {super()._known_fields()}"

    def _on_part_data(self, chunk: bytes, start: int, end: int) -> None:
        if self._field_name == ARCHIVE_FIELD:
            self._share.take(end - start)
            self.archive += chunk[start:end]
        elif self._field_name == self._shape.file_field:
            # One byte more tells that it is too large; the rest is thrown away, since others may be usable.
            room = self._limits.max_photo_bytes + 1 - len(self._part)
            piece = chunk[start : min(end, start + max(0, room))]
            self._share.take(len(piece))
            self._part += piece
        else:
            super()._on_part_data(chunk, start, end)

    def _on_part_end(self) -> None:
        if self._field_name == ARCHIVE_FIELD:
            return
        if self._field_name == self._shape.file_field:
            self._photos.append((self._name, bytes(self._part)))
            self._part = bytearray()
        else:
            super()._on_part_end()


class _Spool:
    """A file without a name for an archive, on the disk of the home."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None

    def __enter__(self) -> "_Spool":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def file(self) -> IO[bytes]:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 (closed by `__exit__`)
        return self._file

    def write(self, content: bytes) -> None:
        try:
            self.file.write(content)
            self.file.flush()
        except OSError as error:
            if (refused := storage_error(error, "the batch was not stored")) is not None:
                raise refused from error
            raise


def _unpack(
    file: IO[bytes], draft: BatchDraft, upload: BatchUpload, limits: BatchLimits, decoding: anyio.CapacityLimiter
) -> None:
    archive = ArchiveLimits(limits.max_photos, limits.max_photo_bytes, limits.max_bytes)
    for photo in read_archive(file, archive):
        name = _shown(photo.name.encode("utf-8", "replace"), len(upload.photos) + 1)
        if isinstance(photo.content, bytes):
            # One photo at a time: other uploads get their turn in between.
            turn = object()
            anyio.from_thread.run(decoding.acquire_on_behalf_of, turn)
            try:
                upload.photos.append(_keep(draft, name, photo.content, limits))
            finally:
                anyio.from_thread.run_sync(decoding.release_on_behalf_of, turn)
        else:
            upload.photos.append(ReceivedPhoto(name, None, str(photo.content)))


def _keep(draft: BatchDraft, name: str, content: bytes, limits: BatchLimits) -> ReceivedPhoto:
    try:
        if len(content) > limits.max_photo_bytes:
            most = limits.max_photo_bytes / MEBIBYTE
            raise ImageTooLarge(f"expected at most {most:.0f} MiB, found more; send a smaller copy")
        kept = _without_metadata(content, limits.max_pixels)
    except InvalidImage as error:
        return ReceivedPhoto(name, None, str(error))
    if draft.stored_bytes + len(kept) > 2 * limits.max_bytes:
        # Pictures that had to be written anew can grow.
        raise RequestTooLarge("the photos take more room than a batch may; send several smaller batches")
    return ReceivedPhoto(name, draft.add_photo(kept), None)


def _without_metadata(content: bytes, max_pixels: int) -> bytes:
    """The photo as it may be kept. Raises `InvalidImage`."""
    clean = remove_metadata(content)
    if clean.removable:
        return clean.with_orientation()
    packed = io.BytesIO()
    decode_clean(clean, max_pixels=max_pixels).save(packed, "PNG", compress_level=1)
    return packed.getvalue()


def _shown(file_name: bytes, number: int) -> str:
    """A name for the results: on one line, with slashes, and never empty."""
    text = one_line(file_name.decode("utf-8", errors="replace")).replace("\\", "/").strip()
    return text[-_MAX_NAME:] or f"photo {number}"
