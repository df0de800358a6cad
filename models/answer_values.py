"""An answer as plain values with the keys of the HTTP API, and as the cells of a table."""

import csv
import importlib.metadata
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

from models.retrieval import Candidate, Identification, Novelty, PredictionSet, SheetMatch

COLUMNS = (
    "file",
    "species_id",
    "scientific_name",
    "genus",
    "family",
    "probability",
    "outcome",
    "identified_as",
    "unknown",
    "decision_source",
    "probability_outside",
    "photo_count",
    "bundle_id",
    "model_id",
    "identification_references",
    "error",
)
"""Of a table of answers, one row a plant. `species_id` to `probability` are the likeliest species; `identified_as` is
the taxon that can be named, empty where none can."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]")
_FORMULA = ("=", "+", "-", "@", "'", "＝", "＋", "－", "＠")
_TEXT = {"file", "species_id", "scientific_name", "genus", "family", "identified_as", "error"}


@cache
def software() -> str:
    """``voucher`` and its version, for the record of who named a plant."""
    return f"voucher {importlib.metadata.version('voucher')}"


def answer_values(
    answer: Identification, model_id: str, sheet_values: Callable[[SheetMatch], dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Plain values of an answer; `sheet_values` tells more of a sheet than its id and similarity."""
    return {
        "bundle_id": answer.bundle_id,
        "model_id": model_id,
        "software": software(),
        "photo_count": answer.photo_count,
        "decision": {
            "source": answer.decision.source.value,
            "reason": answer.decision.reason,
            "evidence": dict(answer.decision.evidence),
        },
        "outcome": answer.outcome.value,
        "summary": answer.summary,
        "calibrated": answer.calibrated,
        "roll_up": asdict(answer.roll_up) if answer.roll_up else None,
        "unknown": _novelty_values(answer.novelty),
        "prediction_set": _prediction_set_values(answer.prediction_set),
        "probability_outside": answer.probability_outside,
        "candidates": [_candidate_values(c, sheet_values or _plain_sheet) for c in answer.candidates],
    }


def _novelty_values(novelty: Novelty | None) -> dict[str, Any] | None:
    if novelty is None:
        return None
    return {"score": novelty.unknown_score, "threshold": novelty.threshold, "is_unknown": novelty.is_unknown}


def _prediction_set_values(found: PredictionSet | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "coverage": found.coverage,
        "size": found.size,
        "species": [{"species_id": s.species_id, "scientific_name": s.scientific_name} for s in found.species],
        "herbarium_only": found.herbarium_only,
        "guarantee": found.guarantee,
    }


def _candidate_values(candidate: Candidate, sheet_values: Callable[[SheetMatch], dict[str, Any]]) -> dict[str, Any]:
    return {
        "species_id": candidate.species.species_id,
        "scientific_name": candidate.species.scientific_name,
        "genus": candidate.species.genus,
        "family": candidate.species.family,
        "probability": candidate.probability,
        "similarity": candidate.similarity,
        "has_field_photos": candidate.has_field_photos,
        "in_classifier": candidate.in_classifier,
        "sheets": [sheet_values(match) for match in candidate.sheets],
    }


def _plain_sheet(match: SheetMatch) -> dict[str, Any]:
    return {"sheet_id": match.sheet_id, "similarity": match.similarity}


def table_row(file: str, answer: Mapping[str, Any] | None, error: str | None = None) -> dict[str, Any]:
    """The cells of one plant, by the names in `COLUMNS`; `answer` as `answer_values` gives it, None for an error."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS) | {"file": file, "error": error}
    if answer is None:
        return row
    first: Mapping[str, Any] = answer["candidates"][0] if answer["candidates"] else {}
    unknown, roll_up = answer.get("unknown"), answer.get("roll_up")
    is_named = roll_up is not None and not (unknown or {}).get("is_unknown")
    return row | {
        **{name: first.get(name) for name in ("species_id", "scientific_name", "genus", "family", "probability")},
        "outcome": answer["outcome"],
        "identified_as": roll_up["name"] if is_named and roll_up is not None else None,
        "unknown": None if unknown is None else unknown["is_unknown"],
        "decision_source": answer["decision"]["source"],
        "probability_outside": answer.get("probability_outside"),
        "photo_count": answer["photo_count"],
        "bundle_id": answer["bundle_id"],
        "model_id": answer["model_id"],
        "identification_references": (f"{answer['software']}; model {answer['model_id']}; index {answer['bundle_id']}"),
    }


def csv_line(row: Mapping[str, Any]) -> str:
    """One line of a CSV table with its line end, cells in the order of `COLUMNS`; harmless in a spreadsheet."""
    return _csv_line([_cell(name, row[name]) for name in COLUMNS])


def csv_head() -> str:
    """The line with the names of the columns."""
    return _csv_line(COLUMNS)


def one_line(text: str) -> str:
    """Text without control characters and lone surrogates, so that a file name is one cell of one line."""
    return _CONTROL.sub(lambda found: f"%{ord(found[0]):02X}", text).encode("utf-8", "replace").decode()


def safe_cell(text: str) -> str:
    """Text on one line that no spreadsheet takes for a formula (CWE-1236): such a cell begins with an apostrophe."""
    line = one_line(text)
    return f"'{line}" if line.startswith(_FORMULA) else line


def plain_cell(cell: str) -> str:
    """Inverse of `safe_cell` for text on one line."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    return safe_cell(str(value)) if name in _TEXT else str(value)


def _csv_line(cells: Sequence[str]) -> str:
    packed = io.StringIO()
    csv.writer(packed, lineterminator="\n").writerow(cells)
    return packed.getvalue()
