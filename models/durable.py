"""Writing so that a killed process or a full disk never leaves half a file under a final name. POSIX only."""

import errno
import fcntl
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from models.errors import StorageFull, StorageReadOnly

logger = logging.getLogger(__name__)

_STAGING = re.compile(r"\.staging-.+-(?P<pid>[1-9][0-9]*)-[0-9a-f]{8}")


def storage_error(error: OSError, what: str) -> StorageFull | StorageReadOnly | None:
    """What to raise when a disk has no room or may not be written to, `what` says what became of it; else None."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):  # of the disk, or of the user
        return StorageFull(f"the disk is full: {what}; free some space, for example with `voucher gc`, and try again")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StorageReadOnly(
            f"{error.filename or 'the home'} cannot be written to ({error.strerror}): {what}; mount the disk for "
            "writing, or mend the rights of the folder"
        )
    return None


def staging_path(parent: Path, name: str) -> Path:
    """A fresh temporary sibling for `name`: ``.staging-<name>-<pid>-<random>``. Creates nothing."""
    return parent / f".staging-{name}-{os.getpid()}-{secrets.token_hex(4)}"


def sync_file(path: Path) -> None:
    """Wait until the content of `path` is on the disk, and drop it from the page cache.

    Dropping makes a check that follows read what the disk holds, not what was meant to be written.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Wait until the entries of the folder (new names, renames) are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Create `path` and its parents where missing, durably."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for created in missing:
        sync_folder(created.parent)


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` at `path` in one step: readers see the old file or the new one, never a part."""
    temporary = staging_path(path.parent, path.name)
    try:
        temporary.write_bytes(content)
        sync_file(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def staging_folder(parent: Path, name: str) -> Iterator[Path]:
    """A temporary sibling folder, locked while in use and removed on any exception.

    The caller renames it at the end. The lock tells other containers on the same disk, whose process
    numbers mean something else, that the folder is being written.
    """
    make_folder(parent)
    folder = staging_path(parent, name)
    descriptor = -1
    try:
        folder.mkdir()
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        # Some network file systems cannot lock folders; the process number is what is left there.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def remove_stale_staging(parent: Path) -> list[str]:
    """Names of the staging folders and files that were removed: those whose process is dead."""
    removed = []
    for entry in sorted(parent.iterdir()) if parent.is_dir() else ():
        match = _STAGING.fullmatch(entry.name)
        if match is None or _is_alive(int(match["pid"])) or _is_locked(entry):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
        logger.info("removed %s, left behind by a process that was killed", entry.name)
        removed.append(entry.name)
    return removed


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
