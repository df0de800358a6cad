"""Immutable folders on disk: written whole or not at all, verified before anything reads them.

A manifest lists every file with its SHA-256, so that a changed file is refused before a parser of
FAISS, Parquet or safetensors files sees it. A file may be a hard link that several artifacts share: removing one of
them leaves the others whole. ``active.json`` names the index artifact that is served.
"""

import importlib.metadata
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from models.durable import (
    remove_stale_staging,
    replace_file,
    staging_folder,
    storage_error,
    sync_file,
    sync_folder,
)
from models.errors import BundleCorrupt, BundleError, BundleMissing
from models.home import Home
from models.manifest import (
    FORMAT_VERSION,
    INDEX_KIND,
    MODEL_KIND,
    OLDEST_READABLE_POINTER,
    Artifact,
    FileRecord,
    Metadata,
    artifact_from_manifest,
    check_version,
    manifest_digest,
    oldest_readable,
    parse_object,
    remedy_for,
)
from models.verified_files import hashed, is_known, record_of

__all__ = [
    "FORMAT_VERSION",
    "INDEX_KIND",
    "MODEL_KIND",
    "Artifact",
    "FileRecord",
    "activate",
    "active_artifact_id",
    "folder_of",
    "list_artifacts",
    "list_incomplete",
    "previous_artifact_id",
    "read",
    "remove_stale_staging",
    "writing",
]

_MANIFEST = "manifest.json"
_READ_ONLY = 0o444
_ARTIFACT_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


@contextmanager
def writing(
    parent: Path, *, kind: str, artifact_id: str, metadata: Callable[[], Metadata] | Metadata
) -> Iterator[Path]:
    """A temporary folder to write files into; on a clean exit it becomes ``parent/<artifact_id>``.

    Every file is hashed, fsynced, read back and made read-only before the rename; `metadata` may be a function, called
    at the end. A hard link of a file that this process has verified is taken over as it is. On any exception the folder
    is removed and nothing appears under the final name.

    Raises `BundleError` when the artifact exists already or the folder holds something other than
    files and folders, or the id is no plain name.
    """
    target = folder_of(parent, artifact_id)
    _refuse_existing(target)
    with staging_folder(parent, artifact_id) as staging:
        yield staging
        _seal(staging, kind, artifact_id, metadata() if callable(metadata) else metadata)
        _refuse_existing(target)
        try:
            staging.rename(target)
        except OSError as error:
            # Another process may have published the same id since the check above.
            _refuse_existing(target)
            raise BundleError(f"cannot publish {target}: {error.strerror}") from error
        sync_folder(parent)


def read(root: Path, *, kind: str, verify: bool = True) -> Artifact:
    """The artifact in `root`, all its files checked against the manifest: names, sizes and SHA-256.

    A file that this process has verified before, in this artifact or in another that shares it, is not hashed again.
    `verify=False` leaves out all hashes and must not precede parsing a file.

    Raises `BundleMissing` when there is no such folder and `BundleCorrupt` when the manifest or a file
    is missing, changed, truncated, added, of another kind or of an unknown format version.
    """
    if not root.is_dir():
        listed = "`voucher bundles list` shows what there is; " if kind == INDEX_KIND else ""
        raise BundleMissing(f"there is no {kind} {root.name} in {root.parent}; {listed}{remedy_for(kind)}")
    try:
        return _read(root, kind, root.name, verify=verify)
    except OSError as error:
        raise BundleCorrupt(
            f"{kind} {root.name}: cannot read {error.filename}: {error.strerror}; check its permissions "
            f"and the disk, or {remedy_for(kind)}"
        ) from error


def folder_of(parent: Path, artifact_id: str) -> Path:
    """``parent/<artifact_id>``, for an id that may come from anywhere.

    Raises `BundleError` for an id that is no plain name, and could lead out of `parent`.
    """
    if not _ARTIFACT_ID.fullmatch(artifact_id):
        raise BundleError(
            "an artifact id is 1 to 128 letters, digits, dots, dashes and underscores, without a leading dot; "
            f"got {artifact_id!r}"
        )
    return parent / artifact_id


def list_artifacts(parent: Path) -> list[str]:
    """Ids of the complete artifacts in `parent`, sorted; what is still being written is not among them."""
    if not parent.is_dir():
        return []
    return sorted(
        entry.name for entry in parent.iterdir() if _ARTIFACT_ID.fullmatch(entry.name) and (entry / _MANIFEST).is_file()
    )


def list_incomplete(parent: Path) -> list[str]:
    """Names of what lies in `parent` and is no complete artifact, sorted; nothing of it is ever served.

    It is still being written, or was left behind by a process that was killed.
    """
    if not parent.is_dir():
        return []
    return sorted({entry.name for entry in parent.iterdir()} - set(list_artifacts(parent)))


def activate(home: Home, artifact_id: str, *, by: str = "") -> None:
    """Make an index artifact the one that is served, after verifying it, in one atomic step; `by` is for the record.

    Raises `BundleMissing` or `BundleCorrupt` as `read` does, and `StorageFull` or `BundleError` when the pointer cannot
    be written; the old one then stays active.
    """
    read(folder_of(home.indexes, artifact_id), kind=INDEX_KIND)
    remove_stale_staging(home.root)
    try:
        before: str | None = active_artifact_id(home)
    except BundleError:
        before = None
    pointer = {
        "format_version": FORMAT_VERSION,
        "artifact_id": artifact_id,
        "activated_at": _now(),
        "activated_by": by,
        "previous": before if before != artifact_id else previous_artifact_id(home),
    }
    try:
        replace_file(home.active_pointer, json.dumps(pointer).encode())
    except OSError as error:
        if (refused := storage_error(error, f"{artifact_id} was not put into service")) is not None:
            raise refused from error
        raise BundleError(f"{artifact_id} cannot be put into service: {error}; check the permissions") from error


def previous_artifact_id(home: Home) -> str | None:
    """Id of the index artifact that was served before the one that is; None where there was none."""
    try:
        previous = parse_object(home.active_pointer.read_bytes()).get("previous")
    except (OSError, ValueError):
        return None
    return previous if isinstance(previous, str) and _ARTIFACT_ID.fullmatch(previous) else None


def active_artifact_id(home: Home) -> str:
    """Id of the index artifact that is served.

    Raises `BundleMissing` when none was ever activated, `BundleCorrupt` when the pointer is unreadable.
    """
    remedy = "run `voucher build` to make and activate an index"
    try:
        pointer = parse_object(home.active_pointer.read_bytes())
    except FileNotFoundError:
        raise BundleMissing(f"no index is active in {home.root}; {remedy}") from None
    except (OSError, ValueError) as error:
        raise BundleCorrupt(f"{home.active_pointer} is unreadable ({error}); {remedy}") from error
    check_version(pointer, str(home.active_pointer), remedy, oldest=OLDEST_READABLE_POINTER)
    artifact_id = pointer.get("artifact_id")
    if not isinstance(artifact_id, str) or not _ARTIFACT_ID.fullmatch(artifact_id):
        raise BundleCorrupt(f"{home.active_pointer} names no artifact; {remedy}")
    return artifact_id


def _seal(staging: Path, kind: str, artifact_id: str, metadata: Metadata) -> None:
    """Make what was written durable, describe it in the manifest, and read it all back."""
    files = {}
    for name in sorted(_file_names(staging)):
        if name == _MANIFEST:
            raise BundleError(f"{_MANIFEST} is written by voucher itself; choose another file name")
        files[name] = asdict(_sealed(staging / name))
    body = {
        "kind": kind,
        "artifact_id": artifact_id,
        "format_version": FORMAT_VERSION,
        "created_at": _now(),
        "voucher_version": _voucher_version(),
        "files": files,
        "metadata": metadata,
    }
    manifest = json.loads(json.dumps(body, allow_nan=False))
    manifest["digest"] = manifest_digest(manifest)
    (staging / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    (staging / _MANIFEST).chmod(_READ_ONLY)
    sync_file(staging / _MANIFEST)
    for folder in (staging, *(p for p in staging.rglob("*") if p.is_dir())):
        sync_folder(folder)
    _read(staging, kind, artifact_id, verify=True)


def _sealed(path: Path) -> FileRecord:
    """What is in a file that is now durable and read-only, as it was written: reading it back is the next step."""
    if is_known(path):
        return record_of(path)
    record = hashed(path)
    path.chmod(_READ_ONLY)
    sync_file(path)
    return record


def _read(root: Path, kind: str, artifact_id: str, *, verify: bool) -> Artifact:
    where, remedy = f"{kind} {root.name}", remedy_for(kind)
    try:
        manifest = parse_object((root / _MANIFEST).read_bytes())
    except FileNotFoundError:
        raise BundleCorrupt(f"{where}: {_MANIFEST} is missing; {remedy}") from None
    except ValueError as error:
        raise BundleCorrupt(f"{where}: {_MANIFEST} is damaged ({error}); {remedy}") from error
    check_version(manifest, f"{where}: {_MANIFEST}", remedy, oldest=oldest_readable(kind))
    if manifest.get("digest") != manifest_digest(manifest):
        raise BundleCorrupt(f"{where}: {_MANIFEST} was changed after it was written; {remedy}")
    try:
        artifact = artifact_from_manifest(root, manifest)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BundleCorrupt(f"{where}: {_MANIFEST} lacks or garbles {error}; {remedy}") from error
    if artifact.kind != kind:
        raise BundleCorrupt(f"{where}: expected a {kind} artifact, found a {artifact.kind!r} one; {remedy}")
    if artifact.artifact_id != artifact_id:
        raise BundleCorrupt(f"{where}: the folder was renamed; give it back its name {artifact.artifact_id}")
    _check_files(artifact, where, verify=verify)
    return artifact


def _check_files(artifact: Artifact, where: str, *, verify: bool) -> None:
    remedy = remedy_for(artifact.kind)
    found = _file_names(artifact.root) - {_MANIFEST}
    if missing := sorted(artifact.files.keys() - found):
        raise BundleCorrupt(f"{where}: {', '.join(missing)} is missing; {remedy}")
    if extra := sorted(found - artifact.files.keys()):
        raise BundleCorrupt(f"{where}: {', '.join(extra)} does not belong there; remove it")
    for name, expected in artifact.files.items():
        path = artifact.root / name
        size = path.stat().st_size
        if size != expected.bytes:
            raise BundleCorrupt(f"{where}: {name} has {size} bytes instead of {expected.bytes}; {remedy}")
    for name, expected in artifact.files.items() if verify else ():
        if record_of(artifact.root / name) != expected:
            raise BundleCorrupt(f"{where}: the content of {name} was changed (SHA-256 does not match); {remedy}")


def _file_names(root: Path) -> set[str]:
    """Files below `root`, relative. Raises `BundleCorrupt` for links, sockets and the like."""
    names = set()
    for path in root.rglob("*"):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise BundleCorrupt(f"{path} is a link or a special file; an artifact holds plain files only")
        if path.is_file():
            names.add(path.relative_to(root).as_posix())
    return names


def _refuse_existing(target: Path) -> None:
    if os.path.lexists(target):
        raise BundleError(f"{target} exists already and is never overwritten; choose another id")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _voucher_version() -> str:
    try:
        return importlib.metadata.version("voucher")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
