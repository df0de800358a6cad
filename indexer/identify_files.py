"""Photos on disk to an answer, as values with the keys of the HTTP API."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from indexer.photo_arguments import check_photos
from models.answer_values import answer_values
from models.candidate_filter import CandidateFilter
from models.catalogue import Catalogue
from models.errors import InvalidImage, UnknownSheet
from models.identifier import Identifier
from models.retrieval import Identification, SheetMatch
from models.specimens import Sheet

_MAX_PIXELS = 250_000_000


def identify_files(
    identifier: Identifier,
    paths: Sequence[Path],
    *,
    top_k: int = 5,
    sheets_per_candidate: int = 3,
    within: CandidateFilter | None = None,
) -> Identification:
    """The answer for 1 … P photos of one plant. Raises `InvalidImage` naming the file, `InvalidCandidateFilter`."""
    check_photos(paths)
    images = []
    for path in paths:
        try:
            images.append(identifier.decode(path, max_pixels=_MAX_PIXELS))
        except InvalidImage as error:
            raise type(error)(f"{path}: {error}") from error
    return identifier.identify(images, top_k=top_k, sheets_per_candidate=sheets_per_candidate, within=within)


def answer_to_json(answer: Identification, catalogue: Catalogue, model_id: str) -> dict[str, Any]:
    """Plain values with the keys that the HTTP API uses; for a sheet the path of its image in place of an address."""
    return answer_values(answer, model_id, lambda match: _sheet_to_json(match, catalogue))


def _sheet_to_json(match: SheetMatch, catalogue: Catalogue) -> dict[str, Any]:
    sheet = _sheet(match, catalogue)
    specimen = sheet.specimen if sheet else None
    return {
        "sheet_id": match.sheet_id,
        "similarity": match.similarity,
        "institution_code": specimen.institution_code if specimen else None,
        "collection_code": specimen.collection_code if specimen else None,
        "catalog_number": specimen.catalog_number if specimen else None,
        "image_path": str(catalogue.image_store.path(sheet.image)) if sheet else None,
    }


def _sheet(match: SheetMatch, catalogue: Catalogue) -> Sheet | None:
    """The sheet as catalogued; None if it was removed after the index was built."""
    try:
        return catalogue.get_sheet(match.sheet_id)
    except UnknownSheet:
        return None
