"""What a manifest says about an artifact, and whether it can be believed."""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from models.errors import BundleCorrupt

FORMAT_VERSION = 3
MODEL_KIND = "model"
INDEX_KIND = "index"
_OLDEST_READABLE = {MODEL_KIND: 2, INDEX_KIND: 3}
"""Of each kind of artifact. Version 3 changed how an index is laid out, and models not at all."""
OLDEST_READABLE_POINTER = 2

_SHA256 = re.compile(r"[0-9a-f]{64}")
_REMEDIES = {
    MODEL_KIND: "restore the folder from a backup, or run `voucher train` to make a new model",
    INDEX_KIND: "restore the folder from a backup, or run `voucher build` to make a new index",
}

Metadata = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What a file of an artifact must be: SHA-256 in hexadecimal, and length in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Artifact:
    """An artifact whose files fit its manifest. `created_at` is ISO 8601 in UTC."""

    root: Path
    kind: str
    artifact_id: str
    created_at: str
    metadata: Metadata
    files: dict[str, FileRecord]

    def path(self, name: str) -> Path:
        """Where the file `name` lies. Raises `BundleCorrupt` when the manifest does not list it."""
        if name not in self.files:
            listed = ", ".join(sorted(self.files)) or "nothing"
            raise BundleCorrupt(
                f"{self.kind} {self.artifact_id} has no file {name}, only {listed}; {remedy_for(self.kind)}"
            )
        return self.root / name


def artifact_from_manifest(root: Path, manifest: Metadata) -> Artifact:
    """The artifact that a parsed manifest describes; its files are not looked at.

    Raises `AttributeError`, `KeyError`, `TypeError` or `ValueError` for a manifest of another shape.
    """
    files = {name: FileRecord(**record) for name, record in manifest["files"].items()}
    for name, record in files.items():
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or str(PurePosixPath(name)) != name:
            raise ValueError(f"file name {name!r}")
        if not _SHA256.fullmatch(record.sha256) or not isinstance(record.bytes, int) or record.bytes < 0:
            raise ValueError(f"record of {name!r}")
    if not isinstance(manifest["metadata"], dict):
        raise TypeError("metadata")
    return Artifact(
        root=root,
        kind=str(manifest["kind"]),
        artifact_id=str(manifest["artifact_id"]),
        created_at=datetime.fromisoformat(manifest["created_at"]).isoformat(),
        metadata=manifest["metadata"],
        files=files,
    )


def parse_object(content: bytes) -> Metadata:
    """The one JSON object that `content` holds. Raises `ValueError` for anything else."""
    try:
        parsed = json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(parsed, dict):
        raise ValueError("not a JSON object")
    return parsed


def manifest_digest(manifest: Metadata) -> str:
    """SHA-256 over everything in the manifest but the digest itself, in canonical form."""
    rest = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def check_version(parsed: Metadata, where: str, remedy: str, *, oldest: int = FORMAT_VERSION) -> None:
    """Raises `BundleCorrupt` for a format version that is missing, older than `oldest` or newer than ours."""
    version = parsed.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool):
        raise BundleCorrupt(f"{where} has no format version; {remedy}")
    if version > FORMAT_VERSION:
        raise BundleCorrupt(
            f"{where} is of format version {version}, newer than {FORMAT_VERSION}, which this voucher reads; "
            "update voucher"
        )
    if version < oldest:
        raise BundleCorrupt(
            f"{where} is of format version {version}, older than {oldest}, the oldest that this voucher reads; {remedy}"
        )


def oldest_readable(kind: str) -> int:
    """The oldest format version of an artifact of this kind that can be read."""
    return _OLDEST_READABLE.get(kind, FORMAT_VERSION)


def remedy_for(kind: str) -> str:
    """What to do about a broken artifact of this kind, as the end of a message."""
    return _REMEDIES.get(kind, "restore the folder from a backup, or make it again")
