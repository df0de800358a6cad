"""`voucher gc`: free the disk of what nothing needs any more."""

from typing import Annotated

import typer

from indexer import console
from indexer.options import DEFAULT_HOME, ByOption, HomeOption, JsonOption, who

_MEBIBYTE = 1024 * 1024


def gc_command(
    home: HomeOption = DEFAULT_HOME,
    keep: Annotated[
        int, typer.Option(min=1, help="Latest bundles to keep, beside the served one and the one before it.")
    ] = 5,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    by: ByOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove old bundles and batches, the images of removed sheets, and what killed processes left behind.

    Sheets that were removed can no longer be restored afterwards, unless they are added again.
    """
    from indexer.garbage import collect
    from models.catalogue import Catalogue

    where = console.home_of(home)
    with Catalogue.open(where) as catalogue, console.progress_bars() as report:
        garbage = collect(where, catalogue, keep_bundles=keep, dry_run=dry_run, by=who(by), report=report)
    if as_json:
        console.show_json(garbage.to_json())
        return
    verb = "would be removed" if dry_run else "were removed"
    lines = [
        f"{len(garbage.bundles)} bundles {verb}" + (f": {', '.join(garbage.bundles)}" if garbage.bundles else ""),
        f"{garbage.purged_sheets} removed sheets, {garbage.image_files} files without a sheet, "
        f"{garbage.embeddings} embeddings, {garbage.explanations} answers' heat maps and {garbage.jobs} finished jobs "
        f"{verb}",
        *(f"left behind: {name}" for name in garbage.leftovers),
    ]
    if not dry_run:
        lines.append(f"{garbage.freed_bytes / _MEBIBYTE:.1f} MiB are free again")
    for line in lines:
        console.output.print(line, markup=False, soft_wrap=True)
