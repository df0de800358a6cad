"""From the catalogue's sheets and a trained model to an index artifact that is served.

A build continues the latest index of the same model: only what changed in the catalogue since is embedded and put into
it. The result is the same as that of a build from nothing (`from_nothing`), but for the files that it shares.
"""

import json
import logging
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from indexer.build_answers import FittedAnswers, fit_answers
from indexer.build_cache import BuildCache
from indexer.build_content import Content, ContentBuilder
from indexer.build_lock import alone_at_building
from indexer.calibrate_gate import GateKind
from indexer.progress import Report, silent
from indexer.run_folder import COMPARISON_PREFIX
from indexer.splits import Splits
from indexer.validation import fall_in_words, validation_figures, validation_set
from models.artifacts import (
    INDEX_KIND,
    MODEL_KIND,
    activate,
    folder_of,
    list_artifacts,
    read,
    remove_stale_staging,
    writing,
)
from models.bundle import Bundle, TrainedModel, load_bundle, write_index_files
from models.bundle_history import BundleRecord, get_bundle, list_bundles
from models.catalogue import Catalogue
from models.catalogue_revisions import CatalogueRevision
from models.compute import Compute
from models.errors import BundleError, BundleMissing
from models.home import Home
from models.taxonomy import Taxonomy

logger = logging.getLogger(__name__)

DEFAULT_MOST_FALL = 0.02
"""Share of top-1 on the validation photos that a new build may lose and still be put into service by itself."""

_LISTED = 100


@dataclass(frozen=True)
class BuiltIndex:
    """What a build gave.

    `added`, `removed` and `moved` count sheets against the index `base` that it continues; `unreadable` names sheets
    whose stored images could not be read. `held_back` says why it was not put into service by itself.
    """

    bundle_id: str
    model_id: str
    species: int
    sheets: int
    embedded: int
    reused: int
    base: str | None
    added: int
    removed: int
    moved: int
    unreadable: tuple[str, ...]
    activated: bool
    held_back: str | None
    validation: dict[str, Any] | None
    seconds: float
    gate: dict[str, Any]
    gate_figures: dict[str, Any]
    reliability_figures: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class _Asked:
    """What a build was asked for."""

    model_id: str | None
    gate_kind: GateKind | None
    activate_it: bool
    automatic: bool
    from_nothing: bool
    most_fall: float
    built_by: str
    job_id: str | None


def build(
    home: Home,
    catalogue: Catalogue,
    compute: Compute,
    *,
    model_id: str | None = None,
    gate_kind: GateKind | None = None,
    activate_it: bool = True,
    automatic: bool = False,
    from_nothing: bool = False,
    most_fall: float = DEFAULT_MOST_FALL,
    built_by: str = "",
    job_id: str | None = None,
    cache: BuildCache | None = None,
    report: Report = silent,
) -> BuiltIndex:
    """Embed what is new, build, verify and, unless told otherwise, activate an index for the latest or a named model.

    Test sheets stay out. An index whose figures on the validation photos fall by more than `most_fall` is kept but not
    activated; nor is one that nobody asked for (`automatic`) while somebody has gone back to an earlier one. With a
    `job_id` for which an index was finished before, that one is taken. Builds of one home wait for each other.

    Raises `BundleMissing` without a model and `InsufficientData` without sheets. A failed build leaves the active
    bundle as it was, and its embeddings for the next.
    """
    asked = _Asked(model_id, gate_kind, activate_it, automatic, from_nothing, most_fall, built_by, job_id)
    with alone_at_building(home, report):
        return _Build(home, catalogue, compute, asked, cache or BuildCache(), report).run()


def served_and_up_to_date(home: Home, catalogue: Catalogue, model_id: str | None = None) -> str | None:
    """Id of the bundle that is served, if a build for the latest or the named model would make the same; else None.

    Raises `BundleMissing` without a model.
    """
    wanted, revision = model_id or latest_model(home), catalogue.revision()
    served = next((record for record in list_bundles(home) if record.is_active), None)
    if served is None or served.model_id != wanted:
        return None
    if (served.catalogue.revision, served.catalogue.token) != (revision.revision, revision.token):
        return None
    try:
        read(folder_of(home.indexes, served.bundle_id), kind=INDEX_KIND)
    except BundleError as error:
        logger.warning("%s is served and damaged, and built anew: %s", served.bundle_id, error)
        return None
    return served.bundle_id


class _Build:
    """One build, alone on its home."""

    def __init__(
        self, home: Home, catalogue: Catalogue, compute: Compute, asked: _Asked, cache: BuildCache, report: Report
    ) -> None:
        self._home, self._catalogue, self._compute = home, catalogue, compute
        self._asked, self._cache, self._report = asked, cache, report
        self._began = time.monotonic()

    def run(self) -> BuiltIndex:
        remove_stale_staging(self._home.indexes)
        self._report("what changed", 0, 1)
        history = list_bundles(self._home)
        done = next((b for b in history if self._asked.job_id and b.job_id == self._asked.job_id), None)
        if done is not None and done.fault is None:
            # The process was killed between writing this index and saying so.
            return self._finish(done, embedded=0)
        model = self._cache.model(self._home, self._asked.model_id or latest_model(self._home), self._compute)
        splits = self._cache.splits(self._home, model.model_id)
        store = self._cache.store(self._home, model)
        # Read first: what is changed from here on is seen by the next build, if not by this one.
        revision = self._catalogue.revision()
        base = None if self._asked.from_nothing else self._base(model, history)
        builder = ContentBuilder(self._catalogue, model, splits, store, self._compute, self._report)
        content = builder.from_nothing() if base is None else builder.continued(base)
        fitted = fit_answers(model, content.gallery, base, self._asked.gate_kind, self._report)
        record, bundle = self._write(model, splits, content, fitted, revision, history)
        self._cache.keep(bundle)
        return self._finish(record, embedded=content.embedded)

    def _base(self, model: TrainedModel, history: list[BundleRecord]) -> Bundle | None:
        """The latest index that can be continued."""
        for record in history:
            state = record.catalogue
            if record.fault is not None or record.model_id != model.model_id or not state.token:
                continue
            if not self._catalogue.has_revision(state.revision, state.token):
                continue
            try:
                return self._cache.bundle(self._home, record.bundle_id, model, self._compute)
            except BundleError as error:
                logger.warning("index %s is not continued: %s", record.bundle_id, error)
        return None

    def _write(
        self,
        model: TrainedModel,
        splits: Splits,
        content: Content,
        fitted: FittedAnswers,
        revision: CatalogueRevision,
        history: list[BundleRecord],
    ) -> tuple[BundleRecord, Bundle]:
        """The new index, written, read back as a service would, and measured on the validation photos."""
        gallery = content.gallery
        present = set(gallery.species_ids)
        names = Taxonomy.of(s for s in self._catalogue.species() if s.species_id in present)
        bundle_id = f"index-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        photos = validation_set(self._home, self._catalogue, model, splits, self._report)
        unwritten = Bundle(bundle_id, model, gallery, fitted.gate, fitted.reliability, names, {})
        validation = validation_figures(unwritten, photos)
        metadata = {
            "model_id": model.model_id,
            "number": 1 + max((b.number for b in history), default=0),
            "space_id": gallery.space_id,
            "catalogue_revision": revision.revision,
            "catalogue_token": revision.token,
            "species": len(present),
            "sheets": gallery.sheet_count,
            "base": content.base,
            "built_by": self._asked.built_by,
            "job_id": self._asked.job_id,
            "changes": self._changes(content, history),
            "unreadable": list(content.unreadable),
            "validation": validation,
            "held_back": self._reason_against(validation, history) if self._asked.activate_it else None,
            "gate_fitted_for": fitted.fitted_for,
            "gate_figures": fitted.gate_figures,
            "reliability_figures": fitted.reliability_figures,
        }
        self._report("writing the index", 0, 1)
        with writing(self._home.indexes, kind=INDEX_KIND, artifact_id=bundle_id, metadata=metadata) as folder:
            write_index_files(folder, gallery, fitted.gate, names, fitted.reliability)
        # What cannot be served is not activated.
        bundle = load_bundle(self._home, self._compute, bundle_id, model=model)
        self._report("writing the index", 1, 1)
        return get_bundle(self._home, bundle_id), bundle

    def _changes(self, content: Content, history: list[BundleRecord]) -> dict[str, Any]:
        since = next((b.catalogue.revision for b in history if b.bundle_id == content.base), 0)
        steps = self._catalogue.revisions(since, limit=_LISTED)
        return {
            "added": content.added,
            "removed": content.removed,
            "moved": content.moved,
            "species_added": len(content.species_added),
            "species_removed": len(content.species_removed),
            "species": {
                "added": list(content.species_added[:_LISTED]) if content.base else [],
                "removed": list(content.species_removed[:_LISTED]),
            },
            "revisions": [
                {"revision": s.revision, "at": s.at.isoformat(), "by": s.actor, "action": s.action, "sheets": s.sheets}
                for s in steps
            ],
        }

    def _finish(self, record: BundleRecord, *, embedded: int) -> BuiltIndex:
        """Put the index into service unless something speaks against it."""
        held_back = record.held_back
        activated = self._asked.activate_it and held_back is None
        if activated:
            activate(self._home, record.bundle_id, by=self._asked.built_by)
        elif held_back is not None:
            logger.warning("%s is kept, but not put into service: %s", record.bundle_id, held_back)
        m = record.metadata
        return BuiltIndex(
            bundle_id=record.bundle_id,
            model_id=record.model_id,
            species=record.species,
            sheets=record.sheets,
            embedded=embedded,
            reused=record.sheets - embedded,
            base=record.base,
            added=m["changes"]["added"],
            removed=m["changes"]["removed"],
            moved=m["changes"]["moved"],
            unreadable=tuple(m["unreadable"]),
            activated=activated,
            held_back=held_back,
            validation=record.validation,
            seconds=round(time.monotonic() - self._began, 3),
            gate=json.loads((self._home.indexes / record.bundle_id / "gate.json").read_text(encoding="utf-8")),
            gate_figures=m["gate_figures"],
            reliability_figures=m["reliability_figures"],
        )

    def _reason_against(self, validation: dict[str, Any] | None, history: list[BundleRecord]) -> str | None:
        """Why the new index should wait for somebody's word."""
        active = next((b for b in history if b.is_active and b.fault is None), None)
        if active is None:
            return None
        newest = next((b for b in history if b.fault is None and b.held_back is None), active)
        if self._asked.automatic and newest.bundle_id != active.bundle_id:
            return (
                f"somebody went back from {newest.bundle_id} to {active.bundle_id}; put this one into service with "
                "`voucher bundles activate`"
            )
        return fall_in_words(active.validation, validation, self._asked.most_fall)


def latest_model(home: Home) -> str:
    """The id of the model that was finished last, those of comparisons apart. Raises `BundleMissing`."""
    models = [m for m in list_artifacts(home.models) if not m.startswith(f"model-{COMPARISON_PREFIX}")]
    if not models:
        raise BundleMissing(f"there is no trained model in {home.models}; run `voucher train` first")
    return max(models, key=lambda m: read(home.models / m, kind=MODEL_KIND, verify=False).created_at)


_GATES = {
    "generalist": "the sheets alone decide",
    "specialist": "the classifier alone decides",
    "fusion": "classifier and sheets are weighed",
    "distance": "the classifier decides where the sheets of its first species are near, else the sheets do",
}


def describe(built: BuiltIndex) -> str:
    """Lines for people."""
    kind = str(built.gate.get("kind"))
    lines = [
        f"{built.bundle_id}: {built.sheets} sheets of {built.species} species "
        f"({built.embedded} embedded, {built.reused} reused). The gate: {_GATES.get(kind, kind)}."
    ]
    if built.base is not None:
        changes = f"{built.added} added, {built.removed} removed, {built.moved} moved"
        lines.append(f"It continues {built.base}: {changes}, in {built.seconds:.1f} s.")
    if built.validation is not None:
        v = built.validation
        lines.append(
            f"To compare with other indexes: top-1 {100 * v['top1']:.1f} % on {v['photos']} validation photos of "
            f"{v['species']} species. Training knows them: how accurate it is tells `voucher evaluate`."
        )
    if built.unreadable:
        lines.append(f"{len(built.unreadable)} sheets were left out, their images cannot be read: see the log.")
    if built.held_back is not None:
        lines.append(f"It is not in service: {built.held_back}.")
    return "\n".join(lines)
