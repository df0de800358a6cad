"""An import report in lines for people."""

from collections.abc import Iterator

from indexer.import_report import ImportReport

_SHOWN = 20
_SPECIES_SHOWN = 40


def summary_lines(report: ImportReport) -> Iterator[str]:
    """What was added, what was not and why; the JSON form holds every detail."""
    added = report.added
    yield (
        f"{report.layout.value}: added {added.sheets:,} sheets and {added.field_photos:,} field photos, "
        f"{added.species:,} new species, in {report.seconds:.1f} s"
    )
    if report.already_present or report.updated:
        yield f"already in the catalogue: {report.already_present:,}; changed: {report.updated:,}"
    if report.already_removed:
        yield f"removed by a curator, and left so: {report.already_removed:,}; `voucher sheets restore` undoes that"
    if report.duplicate_count:
        yield f"exact duplicates, kept once: {report.duplicate_count:,}"
        yield from (f"  {d.path} is the same as {d.kept}" for d in report.duplicates[:_SHOWN])
        yield from _more(report.duplicate_count)
    if report.conflict_count:
        yield f"left out because they contradict each other: {report.conflict_count:,}"
        yield from (f"  {c.reason}: {', '.join(c.paths)}" for c in report.conflicts[:_SHOWN])
        yield from _more(report.conflict_count)
    if report.rejected_count:
        yield f"not usable: {report.rejected_count:,}"
        yield from (f"  {r.path}: {r.reason}" for r in report.rejected[:_SHOWN])
        yield from _more(report.rejected_count)
    yield from report.notes
    if report.by_species:
        yield "species: sheets / field photos"
        for s in report.by_species[:_SPECIES_SHOWN]:
            yield f"  {s.species_id} {s.scientific_name}: {s.sheets} / {s.field_photos}"
        if len(report.by_species) > _SPECIES_SHOWN:
            yield f"  … and {len(report.by_species) - _SPECIES_SHOWN:,} more species (--json lists all)"


def _more(count: int) -> Iterator[str]:
    if count > _SHOWN:
        yield f"  … and {count - _SHOWN:,} more (--json lists them)"
