"""Photos on disk to an answer, as JSON and as lines for people."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models.catalogue import Catalogue
from models.errors import InvalidConfig, InvalidImage, UnknownSheet, UnreadableImage
from models.identifier import Identifier
from models.retrieval import Candidate, Identification, Novelty, PredictionSet, SheetMatch
from models.specimens import Sheet

_MAX_PIXELS = 250_000_000
_MAX_PHOTOS = 5
_SET_SHOWN = 5


def check_photos(paths: Sequence[Path]) -> None:
    """Raises `InvalidConfig` for more photos than one plant has here, `UnreadableImage` for a missing file."""
    if len(paths) > _MAX_PHOTOS:
        raise InvalidConfig(f"{len(paths)} photos of one plant are too many; up to {_MAX_PHOTOS}, one call a plant")
    for path in paths:
        if not path.is_file():
            raise UnreadableImage(f"{path}: there is no such file")


def identify_files(
    identifier: Identifier, paths: Sequence[Path], *, top_k: int = 5, sheets_per_candidate: int = 3
) -> Identification:
    """The answer for 1 … P photos of one plant. Raises `InvalidImage` naming the file."""
    check_photos(paths)
    images = []
    for path in paths:
        try:
            images.append(identifier.decode(path, max_pixels=_MAX_PIXELS))
        except InvalidImage as error:
            raise type(error)(f"{path}: {error}") from error
    return identifier.identify(images, top_k=top_k, sheets_per_candidate=sheets_per_candidate)


def answer_to_json(answer: Identification, catalogue: Catalogue) -> dict[str, Any]:
    """Plain values with the keys that the HTTP API uses."""
    return {
        "bundle_id": answer.bundle_id,
        "photo_count": answer.photo_count,
        "decision": {
            "source": answer.decision.source.value,
            "reason": answer.decision.reason,
            "evidence": answer.decision.evidence,
        },
        "outcome": answer.outcome.value,
        "summary": answer.summary,
        "calibrated": answer.calibrated,
        "roll_up": asdict(answer.roll_up) if answer.roll_up else None,
        "unknown": _novelty_to_json(answer.novelty),
        "prediction_set": _prediction_set_to_json(answer.prediction_set),
        "candidates": [_candidate_to_json(candidate, catalogue) for candidate in answer.candidates],
    }


def _novelty_to_json(novelty: Novelty | None) -> dict[str, Any] | None:
    if novelty is None:
        return None
    return {"score": novelty.unknown_score, "threshold": novelty.threshold, "is_unknown": novelty.is_unknown}


def _prediction_set_to_json(found: PredictionSet | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "coverage": found.coverage,
        "size": found.size,
        "species": [{"species_id": s.species_id, "scientific_name": s.scientific_name} for s in found.species],
        "herbarium_only": found.herbarium_only,
        "guarantee": found.guarantee,
    }


def _candidate_to_json(candidate: Candidate, catalogue: Catalogue) -> dict[str, Any]:
    return {
        "species_id": candidate.species.species_id,
        "scientific_name": candidate.species.scientific_name,
        "genus": candidate.species.genus,
        "family": candidate.species.family,
        "probability": candidate.probability,
        "similarity": candidate.similarity,
        "has_field_photos": candidate.has_field_photos,
        "in_classifier": candidate.in_classifier,
        "sheets": [_sheet_to_json(match, catalogue) for match in candidate.sheets],
    }


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


def answer_lines(answer: Identification, catalogue: Catalogue) -> Iterator[str]:
    """The answer for people."""
    yield answer.summary
    for number, candidate in enumerate(answer.candidates, 1):
        species = candidate.species
        taxa = ", ".join(t for t in (species.genus, species.family) if t)
        note = "" if candidate.has_field_photos else "  [known from herbarium sheets only]"
        similarity = "–" if candidate.similarity is None else f"{candidate.similarity:.2f}"
        name = f"{species.scientific_name}" + (f" ({taxa})" if taxa else "")
        yield f"{number}. {candidate.probability:6.1%}  {name}, similarity {similarity}{note}"
        if number == 1:
            for match in candidate.sheets:
                yield f"      vouched for by {_citation(match, catalogue)}"
    if answer.prediction_set is not None:
        yield _set_line(answer.prediction_set)
    if not answer.calibrated:
        yield "The percentages are not calibrated: there were too few photos to learn from."
    yield f"Decided by: {answer.decision.source.value}. {answer.decision.reason}"
    yield f"Bundle: {answer.bundle_id}"


def _set_line(found: PredictionSet) -> str:
    if not found.size:
        return f"No species is likely enough for a set of {100 * found.coverage:.0f} % coverage: doubt this answer."
    names = ", ".join(s.scientific_name for s in found.species[:_SET_SHOWN])
    more = f" and {found.size - _SET_SHOWN:,} more" if found.size > _SET_SHOWN else ""
    return f"Set of {100 * found.coverage:.0f} % coverage: {names}{more} – {found.guarantee}"


def _citation(match: SheetMatch, catalogue: Catalogue) -> str:
    sheet = _sheet(match, catalogue)
    codes = (
        [
            c
            for c in (sheet.specimen.institution_code, sheet.specimen.collection_code, sheet.specimen.catalog_number)
            if c
        ]
        if sheet
        else []
    )
    name = " ".join(codes) if codes else f"sheet {match.sheet_id}"
    return f"{name} (similarity {match.similarity:.2f})"
