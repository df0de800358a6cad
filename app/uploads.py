"""Reads a multipart form: its files as bytes, the other fields as text.

Nothing is written to disk and no file name is kept. Bytes are counted while they arrive; whether they
are an image is for `models.decoding` to say, after a look at the first bytes here.
"""

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers
from starlette.types import Receive

from app.refusals import ClientGone, MalformedRequest, UnacceptableForm, UnsupportedUpload
from models.errors import ImageTooLarge, ServiceOverloaded, UnreadableImage
from models.metadata_removal import detect_format

if TYPE_CHECKING:  # not there at run time
    from python_multipart.multipart import MultipartCallbacks

MAX_TEXT_PARTS = 40

_FIELD_NAME_SHOWN = 40
MAX_BOUNDARY_BYTES = 70
"""RFC 2046, section 5.1.1."""

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class FormShape:
    """What a form may hold: images in one field, and text in others. The words are for messages."""

    file_field: str
    file_word: str
    """One of the files, such as “photo”."""
    files_words: str
    """All of them, such as “photos of one plant”."""
    text_fields: tuple[str, ...]
    max_files: int
    max_file_bytes: int
    max_text_bytes: int
    longer_texts: Mapping[str, int] = field(default_factory=dict)
    """Bytes of those text fields that may have more than `max_text_bytes`, in all their parts together; they count as
    uploads."""


class UploadBudget:
    """Bytes of uploads that all requests together may hold in memory."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """Bytes held now."""
        return self._held_bytes

    @contextlib.contextmanager
    def share(self) -> Iterator["UploadShare"]:
        """A share that is given back in the end, however the request ends."""
        share = UploadShare(self)
        try:
            yield share
        finally:
            self._held_bytes -= share.held_bytes
            share.held_bytes = 0

    def _take(self, count: int) -> None:
        if self._held_bytes + count > self._max_bytes:
            raise ServiceOverloaded("the service holds as many uploads as it can; try again in a moment")
        self._held_bytes += count


@dataclass(slots=True)
class UploadShare:
    """What one request holds of an `UploadBudget`."""

    budget: UploadBudget
    held_bytes: int = 0

    def take(self, count: int) -> None:
        """Hold `count` bytes more. Raises `ServiceOverloaded` when the budget is spent."""
        self.budget._take(count)
        self.held_bytes += count

    def give(self, count: int) -> None:
        """Hold `count` bytes less."""
        self.budget._take(-count)
        self.held_bytes -= count


@dataclass(slots=True)
class UploadForm:
    """Files in the order they were sent, and the values of the other fields."""

    files: list[bytes] = field(default_factory=list)
    texts: dict[str, list[str]] = field(default_factory=dict)


def give_files(share: UploadShare, form: UploadForm) -> None:
    """Hold the files no longer: their pixels are there, and what is still done takes a while."""
    files, form.files = form.files, []
    share.give(sum(map(len, files)))


async def read_upload(headers: Headers, receive: Receive, shape: FormShape, share: UploadShare) -> UploadForm:
    """The form in a request's body, its files being images of an accepted type by their first bytes.

    Raises `UnsupportedUpload`, `MalformedRequest`, `UnacceptableForm`, `ImageTooLarge`, `UnreadableImage`,
    `ServiceOverloaded`, `ClientGone`, and what `receive` raises (`RequestTooLarge`, `BodyTimeout`).
    """
    assembler = FormAssembler(shape, share)
    parser = MultipartParser(boundary_of(headers, shape), assembler.callbacks())
    try:
        async for chunk in body_chunks(receive):
            parser.write(chunk)
        parser.finalize()
    except FormParserError:
        raise MalformedRequest(
            "expected a multipart/form-data body, found one whose parts cannot be told apart; "
            "let the HTTP library write the body and its boundary"
        ) from None
    if not assembler.is_complete:
        raise MalformedRequest("the body ends before its closing boundary; the upload was cut off, send it again")
    return _checked(assembler.form, shape)


def boundary_of(headers: Headers, shape: FormShape) -> bytes:
    """What parts the form. Raises `UnsupportedUpload` for another body and `MalformedRequest` without a usable one."""
    media_type, options = parse_options_header(headers.get("content-type"))
    if media_type != b"multipart/form-data":
        raise UnsupportedUpload(
            f"expected multipart/form-data with the {shape.file_word}s in the field “{shape.file_field}”, "
            "found another type"
        )
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= MAX_BOUNDARY_BYTES:
        raise MalformedRequest("the Content-Type header must name a boundary of 1 to 70 characters")
    return boundary


async def body_chunks(receive: Receive) -> AsyncIterator[bytes]:
    """The body as it comes. Raises `ClientGone`, and what `receive` raises."""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("the client closed the connection during the upload")
        yield message.get("body", b"")
        more = message.get("more_body", False)


def _checked(form: UploadForm, shape: FormShape) -> UploadForm:
    if not form.files:
        raise UnacceptableForm(
            f"expected 1 to {shape.max_files} files in the form field “{shape.file_field}”, found none"
        )
    for position, content in enumerate(form.files, start=1):
        if not content:
            raise UnreadableImage(f"{shape.file_word} {position} is empty; choose the file again")
        try:
            detect_format(content)
        except UnreadableImage as error:
            raise UnsupportedUpload(f"{shape.file_word} {position}: {error}") from None
    return form


class FormAssembler:
    """Callbacks of the parser; they put the parts of the body into an `UploadForm`."""

    def __init__(self, shape: FormShape, share: UploadShare) -> None:
        self.form = UploadForm()
        self.is_complete = False
        self._shape = shape
        self._share = share
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._disposition = b""
        self._field_name = ""
        self._part = bytearray()
        self._text_parts = 0
        self._long_bytes: dict[str, int] = {}

    def callbacks(self) -> "MultipartCallbacks":
        """For the parser."""
        return {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }

    def _on_part_begin(self) -> None:
        self._disposition = b""
        self._part = bytearray()

    def _on_header_field(self, chunk: bytes, start: int, end: int) -> None:
        self._header_name += chunk[start:end]

    def _on_header_value(self, chunk: bytes, start: int, end: int) -> None:
        self._header_value += chunk[start:end]

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _on_headers_finished(self) -> None:
        kind, options = parse_options_header(self._disposition)
        if kind != b"form-data" or b"name" not in options:
            raise MalformedRequest("every part of the form needs a Content-Disposition with a name")
        self._field_name = options[b"name"].decode("utf-8", errors="replace")
        self._begin_part(options.get(b"filename", b""))

    def _begin_part(self, file_name: bytes) -> None:
        """Refuse a part that may not be there; the file's name is not kept."""
        shape = self._shape
        if self._field_name == shape.file_field:
            if len(self.form.files) == shape.max_files:
                raise UnacceptableForm(f"expected at most {shape.max_files} {shape.files_words}, found more")
        elif self._field_name not in shape.text_fields:
            named = ascii(self._field_name[:_FIELD_NAME_SHOWN])
            raise UnacceptableForm(f"unknown form field {named}; expected {self._known_fields()}")
        else:
            self._text_parts += 1
            if self._text_parts > MAX_TEXT_PARTS:
                raise UnacceptableForm(f"expected at most {MAX_TEXT_PARTS} fields beside the {shape.file_word}s")

    def _known_fields(self) -> str:
        return ", ".join([f"{self._shape.file_field} (files)", *self._shape.text_fields])

    def _on_part_data(self, chunk: bytes, start: int, end: int) -> None:
        size = len(self._part) + end - start
        shape = self._shape
        if self._field_name != shape.file_field:
            longest = shape.longer_texts.get(self._field_name, shape.max_text_bytes)
            # Of all parts of the field together, where it may be long.
            earlier = self._long_bytes.get(self._field_name, 0) if self._field_name in shape.longer_texts else 0
            if earlier + size > longest:
                raise UnacceptableForm(f"{self._field_name}: expected at most {longest:,} characters")
            if self._field_name in shape.longer_texts:
                self._share.take(end - start)
        else:
            if size > shape.max_file_bytes:
                raise ImageTooLarge(
                    f"{shape.file_word} {len(self.form.files) + 1}: expected at most "
                    f"{shape.max_file_bytes / MEBIBYTE:.0f} MiB, found more; send a smaller copy"
                )
            self._share.take(end - start)
        self._part += chunk[start:end]

    def _on_part_end(self) -> None:
        if self._field_name == self._shape.file_field:
            self.form.files.append(bytes(self._part))
        else:
            if self._field_name in self._shape.longer_texts:
                self._long_bytes[self._field_name] = self._long_bytes.get(self._field_name, 0) + len(self._part)
            value = self._part.decode("utf-8", errors="replace").strip()
            self.form.texts.setdefault(self._field_name, []).append(value)
        self._part = bytearray()

    def _on_end(self) -> None:
        self.is_complete = True
