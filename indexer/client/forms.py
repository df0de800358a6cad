"""Addresses and forms of requests."""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

from indexer.client.transport import Body
from models.errors import UnreadableImage

Photo = Path | str | bytes
"""A file, or its bytes."""


def segment(name: str) -> str:
    """An identifier as one part of an address, whatever is in it."""
    return quote(name, safe="")


def filter_fields(
    species_ids: Iterable[str], genera: Iterable[str], families: Iterable[str], ignore_unlisted: bool
) -> dict[str, str]:
    """The fields that restrict candidates; those without entries are left out."""
    given = {"species_ids": species_ids, "genera": genera, "families": families}
    fields = {name: joined for name, entries in given.items() if (joined := ",".join(entries))}
    return fields | ({"ignore_unlisted": "true"} if ignore_unlisted else {})


def names_of(files: Sequence[Path | str]) -> list[str]:
    """Names below the folder that all files share: what lies above it is nobody's business."""
    paths = [Path(file).absolute() for file in files]
    shared = os.path.commonpath([path.parent for path in paths])
    return [path.relative_to(shared).as_posix() for path in paths]


def form(field: str, files: Sequence[Photo], fields: Mapping[str, Any], *, names: Sequence[str] = ()) -> Body:
    """A multipart form; files are opened for each attempt anew, and go by a number where no `names` are given."""

    def parts(stack: ExitStack) -> dict[str, Any]:
        found = []
        for number, file in enumerate(files):
            name = names[number] if names else f"{field}-{number + 1}"
            try:
                content = file if isinstance(file, bytes) else stack.enter_context(Path(file).open("rb"))  # noqa: SIM115
            except OSError as error:
                raise UnreadableImage(f"{file!s}: {error.strerror or 'it cannot be read'}") from None
            found.append((field, (name, content, "application/octet-stream")))
        return {"files": found, "data": dict(fields)}

    return parts
