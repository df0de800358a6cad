"""Models and indexes: whether their files are whole and belong together, and whether the active bundle answers."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from models.artifacts import (
    INDEX_KIND,
    MODEL_KIND,
    Artifact,
    active_artifact_id,
    folder_of,
    list_artifacts,
    list_incomplete,
    read,
)
from models.compute import Compute
from models.errors import BundleError, BundleMissing, VoucherError
from models.findings import Finding
from models.home import Home

_ABANDONED_SECONDS = 24 * 3600.0
_TEST_PICTURE = (640, 480)


def check_artifacts(home: Home, *, thorough: bool) -> Iterator[Finding]:
    """Whether every model and index is whole, by names and sizes or by every hash, and every index has its model."""
    models, indexes = _kept(home.models), _kept(home.indexes)
    sound: dict[str, Artifact] = {}
    for parent, kind, ids in ((home.models, MODEL_KIND, models), (home.indexes, INDEX_KIND, indexes)):
        for artifact_id in ids:
            try:
                sound[artifact_id] = read(folder_of(parent, artifact_id), kind=kind, verify=thorough)
            except BundleError as error:
                remedy = "remove its folder if nothing needs it, restore it, or train and build again"
                yield Finding.fault(kind, str(error), where=parent / artifact_id, remedy=remedy)
        yield from _leftovers(parent)
    for index_id in indexes:
        if index_id in sound:
            yield from _belongs_together(home, sound[index_id], sound)
    how = "every SHA-256" if thorough else "names and sizes"
    yield Finding.ok("models and indexes", f"{len(models)} models and {len(indexes)} indexes, checked by {how}")


def _kept(parent: Path) -> list[str]:
    return list_artifacts(parent)


def _leftovers(parent: Path) -> Iterator[Finding]:
    for name in list_incomplete(parent):
        try:
            age = time.time() - (parent / name).stat().st_mtime
        except FileNotFoundError:  # it was finished meanwhile
            continue
        if age > _ABANDONED_SECONDS:
            remedy = "`voucher gc` removes it"
            yield Finding.warning("leftover", "was never finished", where=parent / name, remedy=remedy)


def _belongs_together(home: Home, index: Artifact, sound: dict[str, Artifact]) -> Iterator[Finding]:
    model_id = str(index.metadata.get("model_id", ""))
    model = sound.get(model_id)
    if model is None:
        what = f"its model {model_id} is missing or damaged: it cannot be served"
        remedy = "restore the model, or let `voucher gc` remove the index"
        yield Finding.fault("index", what, where=index.root, remedy=remedy)
        return
    space = _space_of(index)
    if space is not None and space != model.metadata.get("space_id"):
        what = f"holds vectors of another network than its model {model_id}"
        yield Finding.fault("index", what, where=index.root, remedy="run `voucher build`")


def _space_of(index: Artifact) -> str | None:
    """The `space_id` in the gallery's own description; None where that cannot be read."""
    try:
        description = json.loads(index.path("gallery.json").read_text(encoding="utf-8"))
        return str(description["space_id"])
    except (OSError, ValueError, KeyError, TypeError, VoucherError):
        return None


def check_active_bundle(home: Home, device: str) -> Iterator[Finding]:
    """Whether the bundle that would be served loads, every hash of it checked, and answers."""
    from models.identifier import Identifier

    if not home.root.is_dir():
        return
    try:
        bundle_id = active_artifact_id(home)
        compute = Compute.resolve(device)
        began = time.perf_counter()
        identifier = Identifier.load(home, compute)
        loaded = time.perf_counter() - began
        picture = Image.new("RGB", _TEST_PICTURE, (90, 130, 70))
        identifier.identify([picture], top_k=1)
        began = time.perf_counter()
        identifier.identify([picture], top_k=1)
        answered = time.perf_counter() - began
    except BundleMissing as error:
        yield Finding.fault("active bundle", str(error), where=home.active_pointer, remedy="run `voucher build`")
    except VoucherError as error:
        remedy = "serve another one (`voucher bundles rollback`), or run `voucher build`"
        yield Finding.fault("active bundle", str(error), where=home.active_pointer, remedy=remedy)
    else:
        what = (
            f"{bundle_id} with {len(identifier.species_ids)} species loads in {loaded:.1f} s "
            f"and answers in {answered * 1000:.0f} ms"
        )
        yield Finding.ok("active bundle", what, home.active_pointer)
