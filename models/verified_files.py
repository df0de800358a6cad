"""Which files this process has hashed already, so that a file that several artifacts share is hashed once.

A file is known by its device, inode, length and time of change, not by its name: a hard link of it is the same file.
Nothing is believed across processes: a new one hashes everything that it reads.
"""

import hashlib
import os
import shutil
import threading
import time
from collections import OrderedDict
from pathlib import Path

from models.errors import BundleCorrupt
from models.manifest import FileRecord

_Identity = tuple[int, int, int, int]

_MOST = 65_536
"""Files that are remembered, the latest used; some 20 MB."""
SETTLED_SECONDS = 2.0
"""A file that was written so shortly before it was hashed may be written again without another time of change: file
systems count in ticks, the coarsest of two seconds. Such a file is not remembered."""

_known: "OrderedDict[_Identity, str]" = OrderedDict()
_lock = threading.Lock()


def record_of(path: Path) -> FileRecord:
    """SHA-256 and length of a file, read whole, unless this process has read it since it was last changed.

    Raises `OSError`.
    """
    with path.open("rb") as file:
        identity = _identity(os.fstat(file.fileno()))
        if (known := _recall(identity)) is not None:
            return FileRecord(known, identity[2])
        read_at = time.time_ns()
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        after = _identity(os.fstat(file.fileno()))
    if after == identity and read_at - identity[3] > SETTLED_SECONDS * 1e9:
        _remember(identity, digest)
    return FileRecord(digest, after[2])


def hashed(path: Path) -> FileRecord:
    """SHA-256 and length of a file that is read whole now, and not remembered. Raises `OSError`."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileRecord(digest, os.fstat(file.fileno()).st_size)


def is_known(path: Path) -> bool:
    """Whether this process has hashed the file since it was last changed. Raises `OSError`."""
    return _recall(_identity(path.stat())) is not None


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` another name of the file `source`; a copy where the file system has no links, or no more of them.

    Raises `BundleCorrupt` when a copy is not what was verified, `OSError` when neither can be made.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except FileNotFoundError:
        raise
    except OSError:
        before = record_of(source)
        shutil.copyfile(source, target, follow_symlinks=False)
        if record_of(target) != before:
            raise BundleCorrupt(f"{source} could not be copied unchanged to {target}; check the disk") from None


def forget() -> None:
    """Hash every file again that is read from now on."""
    with _lock:
        _known.clear()


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _recall(identity: _Identity) -> str | None:
    with _lock:
        digest = _known.get(identity)
        if digest is not None:
            _known.move_to_end(identity)
        return digest


def _remember(identity: _Identity, digest: str) -> None:
    with _lock:
        _known[identity] = digest
        _known.move_to_end(identity)
        while len(_known) > _MOST:
            _known.popitem(last=False)
