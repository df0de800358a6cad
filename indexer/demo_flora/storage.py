"""The folder that a flora lives in: complete or not there at all."""

import contextlib
import csv
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from indexer.demo_flora.plan import FloraParameters, Picture
from indexer.demo_flora.spread import FloraSpecies
from models.errors import InvalidConfig
from models.specimens import Organ, Role

MANIFEST = "manifest.csv"
STAMP = "flora.json"
"""Written last, so that a folder with it is complete."""

COLUMNS = (
    "path", "species_id", "role", "scientific_name", "genus", "family", "specimen", "observation", "organ",
    "split", "institution_code", "catalog_number",
)  # fmt: skip
_INSTITUTION = "DEMO"


def write_manifest(
    folder: Path, flora: tuple[FloraSpecies, ...], pictures: Sequence[Picture], organs: Sequence[Organ]
) -> None:
    """Writes the table of all pictures, in the layout that an import reads."""
    with (folder / MANIFEST).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        numbers: dict[str, int] = {}
        for picture, organ in zip(pictures, organs, strict=True):
            species = flora[picture.species_position]
            is_sheet = picture.role is Role.SHEET
            names = (species.scientific_name, species.genus, species.family)
            plant = (picture.plant_key, "") if is_sheet else ("", picture.plant_key)
            split = picture.split.value if picture.split else ""
            shown = "" if is_sheet else organ.value
            number = numbers.setdefault(picture.plant_key, len(numbers) + 1)
            citation = (_INSTITUTION, f"{number:06d}") if is_sheet else ("", "")
            row = (picture.path, species.species_id, picture.role.value, *names, *plant, shown, split, *citation)
            writer.writerow(row)
        file.flush()
        os.fsync(file.fileno())


def write_stamp(folder: Path, parameters: FloraParameters, images: int, image_bytes: int) -> None:
    """Writes what the flora was made from, by which a later run knows that it is complete."""
    stamp = _stamp(parameters, images, image_bytes)
    with (folder / STAMP).open("w", encoding="utf-8") as file:
        file.write(json.dumps(stamp, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _stamp(parameters: FloraParameters, images: int, image_bytes: int) -> dict[str, object]:
    return {"parameters": parameters.as_json(), "images": images, "bytes": image_bytes}


def complete_bytes(destination: Path, parameters: FloraParameters, pictures: Sequence[Picture]) -> int | None:
    """Bytes of images in a complete flora of these parameters; None if it must be drawn.

    Raises `InvalidConfig` when there is something in the way that is no demo flora.
    """
    if not destination.exists() or (destination.is_dir() and not any(destination.iterdir())):
        return None
    try:
        stamp = json.loads((destination / STAMP).read_text(encoding="utf-8"))
        drawn_before = "drawing_version" in stamp["parameters"]
    except (OSError, ValueError, KeyError, TypeError):
        drawn_before = False
    if not drawn_before:
        raise InvalidConfig(
            f"the demo flora goes into a folder of its own, but {destination} already holds something else; "
            "choose another folder or empty it"
        )
    try:
        found = sum((destination / picture.path).stat().st_size for picture in pictures)
        (destination / MANIFEST).stat()
    except OSError:
        return None
    return found if stamp == _stamp(parameters, len(pictures), found) else None


@contextlib.contextmanager
def sole_writer(destination: Path) -> Iterator[Path]:
    """An empty folder beside `destination`, locked against other processes, gone at the end.

    What a killed process left in it is removed first: its lock died with it.
    """
    partial = destination.with_name(f".{destination.name}.drawing")
    while True:
        partial.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(partial, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise InvalidConfig(
                f"another process is drawing a demo flora into {destination}; wait for it or choose another folder"
            ) from error
        # Between opening and locking, the last owner may have put its folder in place.
        if partial.exists() and os.path.samestat(os.fstat(descriptor), partial.stat()):
            break
        os.close(descriptor)
    try:
        for entry in partial.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        yield partial
    finally:
        if partial.exists() and os.path.samestat(os.fstat(descriptor), partial.stat()):
            shutil.rmtree(partial)
        os.close(descriptor)


def put_in_place(partial: Path, destination: Path) -> None:
    """Renames `partial` to `destination`; an older demo flora there is moved away first."""
    old = destination.with_name(f".{destination.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if destination.exists():
        destination.rename(old)
    partial.rename(destination)
    folder = os.open(destination.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    shutil.rmtree(old, ignore_errors=True)
