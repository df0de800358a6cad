"""An answer for people, from the values that the HTTP API uses; the same whether it came from here or from there."""

from collections.abc import Iterator, Mapping
from typing import Any

_SET_SHOWN = 5
_IGNORED_SHOWN = 10


def answer_lines(answer: Mapping[str, Any]) -> Iterator[str]:
    """The answer for people."""
    yield answer["summary"]
    for number, candidate in enumerate(answer["candidates"], 1):
        taxa = ", ".join(t for t in (candidate["genus"], candidate["family"]) if t)
        note = "" if candidate["has_field_photos"] else "  [known from herbarium sheets only]"
        similarity = "–" if candidate["similarity"] is None else f"{candidate['similarity']:.2f}"
        name = candidate["scientific_name"] + (f" ({taxa})" if taxa else "")
        yield f"{number}. {candidate['probability']:6.1%}  {name}, similarity {similarity}{note}"
        if number == 1:
            for sheet in candidate["sheets"]:
                yield f"      vouched for by {_citation(sheet)}"
    if answer.get("ignored"):
        yield _ignored_line(answer["ignored"])
    if answer["prediction_set"] is not None:
        yield _set_line(answer["prediction_set"])
    if not answer["calibrated"]:
        yield "The percentages are not calibrated: there were too few photos to learn from."
    yield f"Decided by: {answer['decision']['source']}. {answer['decision']['reason']}"
    yield f"Bundle: {answer['bundle_id']}"


def _ignored_line(ignored: Mapping[str, Any]) -> str:
    count, shown = ignored["count"], ignored["entries"][:_IGNORED_SHOWN]
    if not count:
        return "The index holds all that was asked for."
    more = f" and {count - len(shown):,} more" if count > len(shown) else ""
    entries = "1 entry" if count == 1 else f"{count:,} entries"
    return f"Passed over {entries} that the index does not hold: {', '.join(shown)}{more}"


def _set_line(found: Mapping[str, Any]) -> str:
    size, coverage = found["size"], f"{100 * found['coverage']:.0f} %"
    if not size:
        return f"No species is likely enough for a set of {coverage} coverage: doubt this answer."
    names = ", ".join(species["scientific_name"] for species in found["species"][:_SET_SHOWN])
    more = f" and {size - _SET_SHOWN:,} more" if size > _SET_SHOWN else ""
    return f"Set of {coverage} coverage: {names}{more} – {found['guarantee']}"


def _citation(sheet: Mapping[str, Any]) -> str:
    codes = [sheet[name] for name in ("institution_code", "collection_code", "catalog_number") if sheet[name]]
    name = " ".join(codes) if codes else f"sheet {sheet['sheet_id']}"
    return f"{name} (similarity {sheet['similarity']:.2f})"
