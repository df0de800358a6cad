"""Answers explained on disk: each candidate's best sheet beside the photo, both under their heat maps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from models.catalogue import Catalogue
from models.errors import InvalidConfig
from models.explanation import explain, most_similar_photo
from models.explanation_picture import heat_map, side_by_side
from models.identifier import Identifier
from models.retrieval import FloatArray, Identification
from models.specimens import Role

DEFAULT_CANDIDATES = 3

_MAX_PIXELS = 250_000_000
_HEIGHT = 640
"""Pixels of a picture that is written."""

_BARE = Image.new("RGBA", (1, 1))


def write_explanations(
    identifier: Identifier,
    catalogue: Catalogue,
    photos: Sequence[Path],
    answer: Identification,
    folder: Path,
    *,
    candidates: int = DEFAULT_CANDIDATES,
) -> list[Path]:
    """PNG files in `folder`, one for each of the first candidates that has sheets, by their place in `answer`.

    Each shows, from left to right, the photo that is most like the candidate's best sheet, the same under its heat map,
    the sheet under its heat map, and the sheet. `photos` are those that `answer` is about. Raises `InvalidConfig` when
    the folder cannot be written to, `InvalidImage`, `CatalogueError`, `UnknownSheet`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidConfig(f"--explain: {folder} is no folder to write to: {error.strerror}") from error
    preprocessing, gallery = identifier.encoder.preprocessing, identifier.bundle.gallery
    pictures = [identifier.decode(path, max_pixels=_MAX_PIXELS) for path in photos]
    pixels = [preprocessing.apply(picture) for picture in pictures]
    embeddings = identifier.encoder.embed(np.stack(pixels))
    written = []
    for number, candidate in enumerate(answer.candidates[:candidates], 1):
        for match in candidate.sheets[:1]:
            sheet = catalogue.image_store.open(
                catalogue.get_sheet(match.sheet_id).image, minimum_side=preprocessing.minimum_decode_side
            )
            best = most_similar_photo(gallery.metric, embeddings, gallery.vectors_for([match.sheet_id])[0])
            drawn = _drawn(identifier, (pictures[best], pixels[best]), sheet)
            path = folder / f"{number}-{_plain(candidate.species.species_id)}-{_plain(match.sheet_id)}.png"
            drawn.save(path, "PNG")
            written.append(path)
    return written


def _drawn(identifier: Identifier, photo: tuple[Image.Image, FloatArray], sheet: Image.Image) -> Image.Image:
    preprocessing = identifier.encoder.preprocessing
    picture, pixels = photo
    (found,) = explain(identifier.encoder, identifier.bundle.gallery.metric, pixels, [preprocessing.apply(sheet)])
    heat = {
        Role.FIELD: heat_map(found.photo, preprocessing, picture.size, longer_side=_HEIGHT),
        Role.SHEET: heat_map(found.sheet, preprocessing, sheet.size, longer_side=_HEIGHT),
    }
    parts = [(picture, _BARE), (picture, heat[Role.FIELD]), (sheet, heat[Role.SHEET]), (sheet, _BARE)]
    return side_by_side(parts, height=_HEIGHT)


def _plain(identifier: str) -> str:
    """For a file name: another person's identifiers may hold anything."""
    return "".join(c if c.isalnum() and c.isascii() else "_" for c in identifier)[:60]
