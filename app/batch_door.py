"""Lets batches in: few uploads at one time, few of them by one key, and only while there is room for another batch."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
from fastapi.concurrency import run_in_threadpool

from app.cpu_share import decode_threads
from app.settings import Settings
from models.batches import BatchStore
from models.errors import ServiceOverloaded

MOST_UPLOADS = 8
MOST_OF_A_KEY = 2
"""An upload may take a quarter of an hour; others are to get in meanwhile."""


class BatchDoor:
    """Of one serving process; used on the event loop."""

    def __init__(self, settings: Settings) -> None:
        self._most_batches = settings.batch_jobs
        self._uploads: Counter[str | None] = Counter()
        self._keeping = asyncio.Lock()
        self.decoding = anyio.CapacityLimiter(decode_threads(settings))
        """For whoever decodes photos of batches: memory is bounded by how many do so at one time."""

    @contextmanager
    def upload(self, key_id: str | None) -> Iterator[None]:
        """Counts one upload until the block ends. Raises `ServiceOverloaded` when there are too many."""
        if self._uploads.total() >= MOST_UPLOADS:
            raise ServiceOverloaded(f"{MOST_UPLOADS} batches are being sent already; send yours when some have come in")
        if key_id is not None and self._uploads[key_id] >= MOST_OF_A_KEY:
            raise ServiceOverloaded(
                f"{MOST_OF_A_KEY} batches are being sent with this key already; wait for one of them"
            )
        self._uploads[key_id] += 1
        try:
            yield
        finally:
            self._uploads[key_id] -= 1
            self._uploads += Counter()  # without those at zero

    async def refuse_when_full(self, store: BatchStore) -> None:
        """Raises `ServiceOverloaded` while as many batches wait, or are worked on, as may."""
        if await run_in_threadpool(store.unfinished) >= self._most_batches:
            raise ServiceOverloaded(f"{self._most_batches} batches are waiting already; send yours when some are done")

    @asynccontextmanager
    async def keeping(self, store: BatchStore) -> AsyncIterator[None]:
        """A block in which one batch is kept: many may have come in since there was room. Raises as above."""
        async with self._keeping:
            await self.refuse_when_full(store)
            yield
