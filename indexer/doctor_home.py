"""The home folder: whether it can be written to as voucher writes, and has room for a build."""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from models.artifacts import active_artifact_id, folder_of
from models.catalogue_engine import is_sqlite
from models.durable import sync_folder
from models.errors import BundleError
from models.findings import Finding
from models.home import Home

_MEBIBYTE = 1 << 20
LEAST_FREE_BYTES = 256 * _MEBIBYTE
BUILD_RESERVE_BYTES = 1024 * _MEBIBYTE
"""Room for a build beside the vectors: merged segments, the database's log, reports."""
LEAST_FREE_FILES = 10_000

_MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "afs", "ceph", "glusterfs"})


def check_home(home: Home) -> Iterator[Finding]:
    """Whether it exists, and files in it can be made, synced, locked, linked and renamed."""
    if not home.root.is_dir():
        exists = home.root.exists()
        what = "is not a folder" if exists else "does not exist"
        remedy = "name the right folder with --home or VOUCHER_HOME, or begin with `voucher import`"
        yield Finding.fault("home", what, where=home.root, remedy=remedy)
        return
    found = [finding for folder in _folders(home) for finding in _check_folder(folder)]
    told: set[str] = set()
    for finding in found:
        if finding.what not in told:  # a disk that may not be written to is one fault, however many folders are on it
            told.add(finding.what)
            yield finding
    if not found:
        yield Finding.ok("home", "files can be written, synced, locked, linked and renamed", home.root)
    kind = file_system_of(home.root)
    if kind in _NETWORK and is_sqlite(home.catalogue_url):
        remedy = "keep the home on a local disk, or the catalogue in PostgreSQL (VOUCHER_DATABASE_URL)"
        what = f"the home is on a network file system ({kind}), where SQLite's locks may not hold"
        yield Finding.warning("file system", what, where=home.root, remedy=remedy)


def _folders(home: Home) -> list[Path]:
    """The home, and those folders in it that files are made in; each may be a mount of its own."""
    inner = (home.images, home.models, home.indexes, home.embeddings, home.runs, home.workers, home.backups)
    return [home.root, *(folder for folder in inner if folder.is_dir())]


def _check_folder(folder: Path) -> Iterator[Finding]:
    """What does not work in it. Leaves nothing behind."""
    stem = f".doctor-{os.getpid()}-{secrets.token_hex(4)}"
    first, second = folder / stem, folder / f"{stem}-2"
    try:
        with first.open("xb") as file:
            file.write(b"voucher")
            file.flush()
            os.fsync(file.fileno())
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        first.replace(second)
        sync_folder(folder)
        yield from _check_links(second, first)
        yield from _check_inner_mounts(folder)
    except OSError as error:
        remedy = f"give user {os.geteuid()} the right to write there; check the mount, the quota and the disk"
        what = f"cannot be written as voucher writes: {error.strerror or error}"
        yield Finding.fault("home", what, where=folder, remedy=remedy)
    finally:
        for left in (first, second):
            with suppress(OSError):
                left.unlink(missing_ok=True)


def _check_links(source: Path, target: Path) -> Iterator[Finding]:
    try:
        os.link(source, target)
    except OSError as error:
        remedy = "choose a file system with hard links; else each index takes the room of all its vectors"
        what = f"has no hard links ({error.strerror or error}): versions of the index cannot share files"
        yield Finding.warning("home", what, where=source.parent, remedy=remedy)


def _check_inner_mounts(folder: Path) -> Iterator[Finding]:
    """A file is written beside its place and renamed into it; no rename leads from one file system to another."""
    device = folder.stat().st_dev
    for inner in sorted(folder.iterdir()):
        is_own_place = inner.name in ("images", "models", "indexes", "embeddings", "runs", "cache", "renditions")
        if inner.is_dir() and not inner.is_symlink() and inner.stat().st_dev != device and not is_own_place:
            remedy = "mount the whole home, or one of its own folders such as images, but nothing further down"
            what = "is another file system than the folder around it: nothing can be renamed into it"
            yield Finding.fault("home", what, where=inner, remedy=remedy)


def file_system_of(folder: Path, mounts: Path = _MOUNTS) -> str | None:
    """Kind of the file system that `folder` is on, None where the system does not tell."""
    real = str(folder.resolve())
    best, kind = "", None
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        before, _, after = line.partition(" - ")
        point = before.split()[4].replace(r"\040", " ")
        below = real == point or real.startswith(point.rstrip("/") + "/")
        if below and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind


def check_disk(home: Home) -> Iterator[Finding]:
    """Free space against what a build needs: as much as the index that is served takes, and some."""
    if not home.root.is_dir():
        return
    usage, entries = shutil.disk_usage(home.root), os.statvfs(home.root)
    needed = BUILD_RESERVE_BYTES + _size_of_active_index(home)
    free = f"{usage.free >> 20} MiB are free"
    remedy = "free some space: `voucher gc` removes old bundles and the images of removed sheets"
    if usage.free < LEAST_FREE_BYTES:
        yield Finding.fault("disk", free, where=home.root, remedy=remedy)
    elif usage.free < needed:
        what = f"{free}; a build may need {needed >> 20} MiB"
        yield Finding.warning("disk", what, where=home.root, remedy=remedy)
    else:
        yield Finding.ok("disk", f"{free}; a build may need {needed >> 20} MiB", home.root)
    if entries.f_files and entries.f_favail < LEAST_FREE_FILES:
        what = f"the file system has room for {entries.f_favail} more files"
        yield Finding.warning("disk", what, where=home.root, remedy=remedy)


def _size_of_active_index(home: Home) -> int:
    try:
        folder = folder_of(home.indexes, active_artifact_id(home))
    except BundleError:
        return 0
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
