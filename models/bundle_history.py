"""The bundles of a home over time: what each was built from, what had changed, and which one is served."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from models.artifacts import INDEX_KIND, active_artifact_id, folder_of, list_artifacts, read
from models.catalogue_revisions import CatalogueRevision
from models.errors import BundleError, UnknownBundle
from models.gallery_files import read_sheet_columns
from models.home import Home


@dataclass(frozen=True, slots=True)
class BundleRecord:
    """One index artifact, by its manifest. `created_at` is ISO 8601 in UTC, and for people: clocks jump.

    `number` counts the builds of this home, in the order that they were done. `base` names the bundle that it
    continues, `changes` counts what differs from it. `fault` says why its files cannot be served, as far as names and
    sizes tell; `voucher bundles verify` reads them all.
    """

    bundle_id: str
    model_id: str
    number: int
    created_at: str
    catalogue: CatalogueRevision
    species: int
    sheets: int
    base: str | None
    built_by: str
    job_id: str | None
    changes: dict[str, Any]
    validation: dict[str, Any] | None
    held_back: str | None
    is_active: bool
    fault: str | None
    metadata: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the long figures of gate and calibration."""
        short = {name: getattr(self, name) for name in self.__slots__ if name not in ("metadata", "catalogue")}
        return short | {"catalogue_revision": self.catalogue.revision}


def list_bundles(home: Home) -> list[BundleRecord]:
    """All bundles, the latest first; those whose files are incomplete are among them, with their fault."""
    try:
        active = active_artifact_id(home)
    except BundleError:
        active = ""
    records = [_record(home, bundle_id, active) for bundle_id in list_artifacts(home.indexes)]
    return sorted(records, key=lambda r: (r.number, r.created_at, r.bundle_id), reverse=True)


def get_bundle(home: Home, bundle_id: str) -> BundleRecord:
    """One bundle. Raises `UnknownBundle`."""
    found = next((record for record in list_bundles(home) if record.bundle_id == bundle_id), None)
    if found is None:
        raise UnknownBundle(f"there is no bundle {bundle_id!r}; `voucher bundles list` shows those that there are")
    return found


def latest_revision(home: Home, model_id: str | None = None) -> CatalogueRevision | None:
    """The newest state of the catalogue that a sound index (of one model) was built from; None without any."""
    of_model = [b for b in list_bundles(home) if b.fault is None and model_id in (None, b.model_id)]
    return of_model[0].catalogue if of_model else None


@dataclass(frozen=True, slots=True)
class BundleDifference:
    """What `after` holds that `before` does not, and the other way: Arrow tables (sheet_id, species_id)."""

    before: str
    after: str
    added: pa.Table
    removed: pa.Table
    moved: pa.Table
    """Columns sheet_id, species_id (in `after`), previous_species_id."""
    species_added: tuple[str, ...]
    species_removed: tuple[str, ...]

    def to_json(self, limit: int = 1_000) -> dict[str, Any]:
        """Counts, and at most `limit` rows of each list."""
        lists = {name: getattr(self, name).slice(0, limit).to_pylist() for name in ("added", "removed", "moved")}
        counts = {name: getattr(self, name).num_rows for name in lists}
        return {
            "before": self.before,
            "after": self.after,
            "counts": counts | {"species_added": len(self.species_added), "species_removed": len(self.species_removed)},
            "species_added": list(self.species_added[:limit]),
            "species_removed": list(self.species_removed[:limit]),
            **lists,
        }


def difference(home: Home, before: str, after: str) -> BundleDifference:
    """Sheets and species that two bundles do not share. Raises `UnknownBundle` and `BundleError`."""
    for bundle_id in (before, after):
        get_bundle(home, bundle_id)
    tables = [_sheets(home, bundle_id) for bundle_id in (before, after)]
    old, new = (set(pc.unique(t["species_id"]).to_pylist()) for t in tables)
    joined = tables[1].join(
        tables[0].rename_columns(["sheet_id", "previous_species_id"]), keys="sheet_id", join_type="full outer"
    )
    joined = joined.sort_by("sheet_id")
    gone, fresh = pc.is_null(joined["species_id"]), pc.is_null(joined["previous_species_id"])
    moved = pc.fill_null(pc.not_equal(joined["species_id"], joined["previous_species_id"]), False)
    removed = joined.filter(gone).select(["sheet_id", "previous_species_id"])
    return BundleDifference(
        before,
        after,
        added=joined.filter(fresh).select(["sheet_id", "species_id"]),
        removed=removed.rename_columns(["sheet_id", "species_id"]),
        moved=joined.filter(moved),
        species_added=tuple(sorted(new - old)),
        species_removed=tuple(sorted(old - new)),
    )


def _sheets(home: Home, bundle_id: str) -> pa.Table:
    return read_sheet_columns(read(folder_of(home.indexes, bundle_id), kind=INDEX_KIND).root)


def _record(home: Home, bundle_id: str, active: str) -> BundleRecord:
    fault: str | None = None
    created_at, metadata = "", dict[str, Any]()
    try:
        artifact = read(folder_of(home.indexes, bundle_id), kind=INDEX_KIND, verify=False)
        created_at, metadata = artifact.created_at, artifact.metadata
    except BundleError as error:
        fault = str(error)
    return BundleRecord(
        bundle_id=bundle_id,
        model_id=str(metadata.get("model_id", "")),
        number=int(metadata.get("number", 0)),
        created_at=created_at,
        catalogue=CatalogueRevision(
            int(metadata.get("catalogue_revision", 0)), str(metadata.get("catalogue_token", ""))
        ),
        species=int(metadata.get("species", 0)),
        sheets=int(metadata.get("sheets", 0)),
        base=metadata.get("base"),
        built_by=str(metadata.get("built_by", "")),
        job_id=metadata.get("job_id"),
        changes=dict(metadata.get("changes") or {}),
        validation=metadata.get("validation"),
        held_back=metadata.get("held_back"),
        is_active=bundle_id == active,
        fault=fault,
        metadata=metadata,
    )
