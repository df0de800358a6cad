"""Keeps little of the memory that is free: less than the C library would by itself. Does nothing without glibc."""

import ctypes
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""Of glibc's malloc.h."""

_LARGE_BLOCK_BYTES = 6 * 1024 * 1024
"""Pillow takes memory in blocks of 16 MiB; what a network of ordinary size works in is mostly smaller than this."""

_KEPT_BYTES = 16 * 1024 * 1024
"""Smaller blocks are given back only beyond this, or the kernel clears a network's memory at every layer: 31,000 page
faults for sixteen photos with 4 MiB above and glibc's fixed 128 KiB here, 9,000 so."""

_MOST_ARENAS = 4
"""A service has some thirty threads, and each of glibc's arenas, eight for a core, keeps free memory of its own."""

PAUSE_SECONDS = 60.0


def keep_memory_small() -> None:
    """Make the C library give the memory of large images back as soon as they are freed.

    glibc raises its threshold for separate mappings to the largest block that was freed, and from then on keeps such
    blocks: the process stays as large as its largest photos ever were, by up to hundreds of megabytes for each decoding
    thread. To be called before threads are started.
    """
    mallopt = _of_the_library("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_ARENA_MAX, _MOST_ARENAS)


class FreeMemory:
    """Gives free memory back to the system, from the middle of the heap too, at most once a minute; any thread may."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._next = float("-inf")
        self._trim = _of_the_library("malloc_trim")

    def give_back(self) -> bool:
        """Whether that was done now. Takes some milliseconds, in which others wait for memory."""
        with self._lock:
            if self._trim is None or self._now() < self._next:
                return False
            self._next = self._now() + PAUSE_SECONDS
        self._trim(0)
        return True


def _of_the_library(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
