"""`voucher bundles`: the versions of the index, and which one is served."""

from typing import Annotated, Any

import typer

from indexer import console
from indexer.options import DEFAULT_HOME, ByOption, HomeOption, JsonOption, who
from models.artifacts import (
    INDEX_KIND,
    MODEL_KIND,
    activate,
    active_artifact_id,
    folder_of,
    list_artifacts,
    list_incomplete,
    previous_artifact_id,
    read,
)
from models.bundle_history import BundleRecord, difference, get_bundle, list_bundles
from models.catalogue import Catalogue
from models.errors import BundleError, BundleMissing
from models.home import Home

bundles_app = typer.Typer(no_args_is_help=True, help="Versions of the index: list, compare, verify, go back.")

BundleId = Annotated[str, typer.Argument(help="As `voucher bundles list` shows it.")]


@bundles_app.callback()
def _group() -> None:
    """Versions of the index: list, compare, verify, go back."""


@bundles_app.command("list")
def list_command(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """All bundles, the latest first."""
    found = list_bundles(console.home_of(home))
    if as_json:
        console.show_json([bundle.to_json() for bundle in found])
        return
    rows = [
        (
            ("→ " if b.is_active else "  ") + b.bundle_id,
            b.created_at[:16].replace("T", " "),
            f"{b.sheets:,}",
            f"{b.species:,}",
            _changes(b),
            "–" if b.validation is None else f"{100 * b.validation['top1']:.1f} %",
            b.built_by,
            _state(b),
        )
        for b in found
    ]
    columns = ["bundle", "built", "sheets", "species", "changes", "validation top-1", "by", ""]
    console.show_table("Bundles (→ is served)", columns, rows)


@bundles_app.command("show")
def show_command(bundle_id: BundleId, home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """What one bundle was built from, and what had changed."""
    bundle = get_bundle(console.home_of(home), bundle_id)
    if as_json:
        console.show_json(bundle.to_json())
        return
    lines = [
        f"{bundle.bundle_id}, built {bundle.created_at}" + (f" by {bundle.built_by}" if bundle.built_by else ""),
        f"model {bundle.model_id}; {bundle.sheets:,} sheets of {bundle.species:,} species; "
        f"catalogue revision {bundle.catalogue.revision}",
        f"{_state(bundle) or 'not served'}; {_changes(bundle)}" + (f" since {bundle.base}" if bundle.base else ""),
    ]
    if bundle.validation is not None:
        v = bundle.validation
        lines.append(
            f"validation photos, which training knows: top-1 {100 * v['top1']:.1f} %, top-5 {100 * v['top5']:.1f} % of "
            f"{v['photos']} photos of {v['species']} species"
        )
    lines += [
        f"  revision {r['revision']}: {r['action']}, {r['sheets']} sheets, by {r['by']}, {r['at']}"
        for r in bundle.changes.get("revisions", [])
    ]
    for line in lines:
        console.output.print(line, markup=False, soft_wrap=True)


@bundles_app.command("diff")
def diff_command(
    before: BundleId, after: BundleId, home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False
) -> None:
    """Sheets and species that two bundles do not share."""
    found = difference(console.home_of(home), before, after)
    if as_json:
        console.show_json(found.to_json())
        return
    for name in ("species_added", "species_removed"):
        ids = getattr(found, name)
        console.output.print(f"{name.replace('_', ' ')}: {len(ids):,}  {', '.join(ids[:20])}", markup=False)
    for name in ("added", "removed", "moved"):
        table = getattr(found, name)
        console.output.print(f"sheets {name}: {table.num_rows:,}", markup=False)
        for row in table.slice(0, 20).to_pylist():
            was = f" (was {row['previous_species_id']})" if name == "moved" else ""
            console.output.print(f"  {row['sheet_id']}  {row['species_id']}{was}", markup=False)


@bundles_app.command("activate")
def activate_command(bundle_id: BundleId, home: HomeOption = DEFAULT_HOME, by: ByOption = None) -> None:
    """Serve this bundle from now on: an earlier one, to go back, or one that was held back."""
    _activate(console.home_of(home), bundle_id, by)


@bundles_app.command("rollback")
def rollback_command(home: HomeOption = DEFAULT_HOME, by: ByOption = None) -> None:
    """Serve the bundle that was served before this one; a second time leads back. `activate` takes any."""
    where = console.home_of(home)
    present = active_artifact_id(where)
    previous = previous_artifact_id(where)
    if previous is None:
        raise BundleMissing("no bundle was served before this one; see `voucher bundles list`")
    _activate(where, previous, by)
    console.output.print(
        f"The same command again leads back to {present}; for one further back: `voucher bundles list`, then "
        "`voucher bundles activate`.",
        markup=False,
        soft_wrap=True,
    )


@bundles_app.command("check")
def check_command(
    bundle_id: Annotated[str | None, typer.Argument(help="A bundle; none: the one that is served.")] = None,
    home: HomeOption = DEFAULT_HOME,
    most: Annotated[int, typer.Option(min=0, max=1000, help="Doubtful sheets to show.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Ask each sheet for its nearest ones: how often they are of its species, and which look wrongly determined."""
    from indexer.leave_one_out import leave_one_out, specimens_of
    from models.gallery import Gallery

    where = console.home_of(home)
    chosen = bundle_id or active_artifact_id(where)
    get_bundle(where, chosen)
    artifact = read(folder_of(where.indexes, chosen), kind=INDEX_KIND)
    gallery = Gallery.load(artifact.root, expected_space_id=str(artifact.metadata.get("space_id")))
    with Catalogue.open(where) as catalogue, console.progress_bars() as report:
        specimens = specimens_of(catalogue.sheets(include_removed=True))
        found = leave_one_out(gallery, specimens, most_doubtful=most, report=report)
    if as_json:
        console.show_json({"bundle_id": chosen, **found.to_json()})
        return
    top1 = "–" if found.top1 is None else f"{100 * found.top1:.1f} %"
    interval = "" if found.top1_interval is None else " ({:.0f}–{:.0f})".format(*(100 * v for v in found.top1_interval))
    console.output.print(
        f"{chosen}: the nearest sheet of another specimen is of the same species for {top1}{interval} of "
        f"{found.sheets:,} sheets of {found.species:,} species; {found.alone:,} are the only specimen of theirs",
        markup=False,
        soft_wrap=True,
    )
    rows = [
        (d.sheet_id, d.species_id, d.nearest_species_id, d.nearest_sheet_id, f"{d.agreeing} of {d.neighbours}")
        for d in found.doubtful
    ]
    if rows:
        columns = ["sheet", "species", "nearest is of", "nearest sheet", "neighbours that agree"]
        console.show_table("Look at these first", columns, rows)


@bundles_app.command("verify")
def verify_command(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Read every file of every bundle and model and compare it with its manifest; exit status 1 if any is damaged."""
    where = console.home_of(home)
    rows = _verified(where)
    if as_json:
        console.show_json(rows)
    else:
        table = [(r["kind"], r["id"], "complete" if r["fault"] is None else str(r["fault"])) for r in rows]
        console.show_table("Artifacts", ["kind", "id", ""], table)
    if any(r["fault"] is not None and not r["incomplete"] for r in rows):
        raise typer.Exit(1)


def _verified(home: Home) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for kind, parent in ((MODEL_KIND, home.models), (INDEX_KIND, home.indexes)):
        for artifact_id in list_artifacts(parent):
            fault = None
            try:
                read(folder_of(parent, artifact_id), kind=kind)
            except BundleError as error:
                fault = str(error)
            rows.append({"kind": kind, "id": artifact_id, "fault": fault, "incomplete": False})
        for name in list_incomplete(parent):
            fault = "incomplete: being written, or left behind by a killed process; nothing of it is ever served"
            rows.append({"kind": kind, "id": name, "fault": fault, "incomplete": True})
    return rows


def _activate(home: Home, bundle_id: str, by: str | None) -> None:
    activate(home, bundle_id, by=who(by))
    console.output.print(f"{bundle_id} is served from now on; running services follow within seconds.", markup=False)


def _changes(bundle: BundleRecord) -> str:
    if bundle.base is None:
        return "from nothing"
    c = bundle.changes
    return f"+{c.get('added', 0)} −{c.get('removed', 0)} ↔{c.get('moved', 0)}"


def _state(bundle: BundleRecord) -> str:
    if bundle.fault is not None:
        return f"damaged: {bundle.fault}"
    if bundle.is_active:
        return "served"
    return f"held back: {bundle.held_back}" if bundle.held_back else ""
