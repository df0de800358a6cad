"""Takes photos off the event loop: a few threads decode, one thread runs the network.

A later change of how requests share the network (batches, several devices) happens behind
`InferenceQueue.identify`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from app.error_responses import AnswerTimeout, ClientGone
from models.errors import ImageTooLarge, ServiceOverloaded, UnreadableImage
from models.retrieval import Identification

if TYPE_CHECKING:
    from models.identifier import Identifier

Pixels = NDArray[np.float32]


class InferenceQueue:
    """Bounded way to the network.

    The identifier comes with each request, so that a request ends with the bundle that it began with while later ones
    are answered by another; one network thread serves them all. At most `queue_limit` identifications are in work or
    wait; one more raises `ServiceOverloaded`. At most `decode_workers` photos exist as full images at one time, which
    bounds memory whatever is sent: what waits for the network is small, upright and already of the network's size.
    """

    def __init__(
        self,
        *,
        queue_limit: int,
        decode_workers: int,
        max_pixels: int,
        timeout_seconds: float,
    ) -> None:
        self._queue_limit = queue_limit
        self._max_pixels = max_pixels
        self._timeout_seconds = timeout_seconds
        self._admitted = 0
        self._decoders = ThreadPoolExecutor(decode_workers, thread_name_prefix="decode")
        self._network = ThreadPoolExecutor(1, thread_name_prefix="inference")

    @property
    def admitted(self) -> int:
        """Identifications in work or waiting."""
        return self._admitted

    def refuse_when_full(self) -> None:
        """Raises `ServiceOverloaded` when one more identification would be refused; before an upload is read."""
        if self._admitted >= self._queue_limit:
            raise ServiceOverloaded(f"{self._queue_limit} identifications are waiting already; try again in a moment")

    async def identify(
        self,
        identifier: "Identifier",
        photos: Sequence[bytes],
        *,
        top_k: int,
        sheets_per_candidate: int,
        client_gone: Callable[[], Awaitable[None]] | None = None,
    ) -> Identification:
        """Answer of `identifier` for the encoded `photos` of one plant.

        `client_gone` returns when nobody waits for the answer any more; what has not begun is then
        dropped. Raises `InvalidImage` (naming the photo by its position from 1), `ServiceOverloaded`,
        `AnswerTimeout`, `ClientGone`.
        """
        self.refuse_when_full()
        self._admitted += 1
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await _unless(client_gone, self._answer(identifier, photos, top_k, sheets_per_candidate))
        except TimeoutError:
            raise AnswerTimeout(
                f"expected an answer within {self._timeout_seconds:.0f} seconds; try again in a moment"
            ) from None
        finally:
            self._admitted -= 1

    async def _answer(
        self, identifier: "Identifier", photos: Sequence[bytes], top_k: int, sheets_per_candidate: int
    ) -> Identification:
        loop = asyncio.get_running_loop()
        waiting = [
            loop.run_in_executor(self._decoders, self._pixels_of, identifier, photo, position)
            for position, photo in enumerate(photos, start=1)
        ]
        try:
            pixels = np.stack(await asyncio.gather(*waiting))
        finally:
            # One bad photo or a cancelled request leaves no decoding behind for the others.
            for future in waiting:
                future.cancel()
        return await loop.run_in_executor(self._network, _run, identifier, pixels, top_k, sheets_per_candidate)

    def _pixels_of(self, identifier: "Identifier", photo: bytes, position: int) -> Pixels:
        try:
            image = identifier.decode(photo, max_pixels=self._max_pixels)
        except UnreadableImage as error:
            raise UnreadableImage(f"photo {position}: {error}") from error
        except ImageTooLarge as error:
            raise ImageTooLarge(f"photo {position}: {error}") from error
        return identifier.preprocess(image)

    def close(self) -> None:
        """Drop what has not begun and wait for what has."""
        self._decoders.shutdown(wait=True, cancel_futures=True)
        self._network.shutdown(wait=True, cancel_futures=True)


def _run(identifier: "Identifier", pixels: Pixels, top_k: int, sheets_per_candidate: int) -> Identification:
    return identifier.identify_tensors(pixels, top_k=top_k, sheets_per_candidate=sheets_per_candidate)


async def _unless(
    client_gone: Callable[[], Awaitable[None]] | None, answer: Awaitable[Identification]
) -> Identification:
    """The answer, or `ClientGone` as soon as the client is."""
    working = asyncio.ensure_future(answer)
    watching = asyncio.ensure_future(client_gone()) if client_gone else None
    try:
        await asyncio.wait([working] if watching is None else [working, watching], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone("the client closed the connection before its answer was ready")
        return working.result()
    finally:
        unfinished = [task for task in (working, watching) if task is not None and not task.done()]
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
