"""Heat maps for an answer: which sheets get one, how they are made beside other requests, and where they are kept."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import anyio

from app.inference import unless_gone
from app.passage import Looked
from app.refusals import AnswerTimeout, ExplanationsOff
from app.schemas.identification import ExplanationBody
from app.serving import Serving
from app.settings import Settings, home_of
from models.catalogue import Catalogue
from models.errors import VoucherError
from models.explanation_store import ExplanationStore
from models.retrieval import FloatArray, Identification

if TYPE_CHECKING:
    from models.explanation import Explanation
    from models.identifier import Identifier

logger = logging.getLogger(__name__)

_SWEEP_SECONDS = 60.0
_DECODED_AT_ONCE = 2
"""Sheets; a scan takes hundreds of megabytes while it is scaled."""

T = TypeVar("T")


def heat_map_url(explanation_id: str, name: str) -> str:
    """Address of a heat map on this service."""
    return f"/v1/explanations/{explanation_id}/{name}.png"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request whose answer is to be explained: who answered it, and from what.

    It has a place in the queue until it is answered. `client_gone` returns when nobody waits for the answer any more.
    """

    serving: Serving
    identifier: "Identifier"
    looked: Looked
    client_gone: Callable[[], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True)
class _Made:
    """The heat maps of one sheet and of the photo that is most like it, as PNG files."""

    sheet_id: str
    photo_position: int
    photo_png: bytes
    sheet_png: bytes


class Explainer:
    """Explains answers, keeps the heat maps for a while, and removes them in the background."""

    def __init__(self, settings: Settings) -> None:
        self.store = ExplanationStore(
            home_of(settings).explanations,
            seconds=settings.explanation_seconds,
            most_bytes=settings.explanation_max_bytes,
        )
        self._is_on = settings.explanations
        self._timeout_seconds = settings.request_timeout_seconds
        self._decoding = anyio.CapacityLimiter(_DECODED_AT_ONCE)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Remove what expires, in a thread of its own."""
        if self._is_on:
            self._thread = threading.Thread(target=self._sweep, name="explanation-sweep", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Remove no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def refuse_when_off(self) -> None:
        """Raises `ExplanationsOff` where the operator wants no heat maps."""
        if not self._is_on:
            raise ExplanationsOff("this service makes no heat maps (VOUCHER_EXPLANATIONS=false)")

    async def explain(self, asked: Asked, answer: Identification, *, candidates: int) -> dict[str, ExplanationBody]:
        """Heat maps of the best sheet of each of the first so many candidates of `answer`, by sheet id.

        A sheet that cannot be explained is not among them, and the log says why: an answer is worth having without.
        Raises `ClientGone` only.
        """
        wanted = [c.sheets[0].sheet_id for c in answer.candidates[:candidates] if c.sheets] if self._is_on else []
        if not wanted:
            return {}
        return await unless_gone(asked.client_gone, self._explained(asked, wanted, must=False))

    async def explain_sheets(self, asked: Asked, sheet_ids: Sequence[str]) -> dict[str, ExplanationBody]:
        """Heat maps of these sheets of the index, by sheet id; those whose pictures cannot be read are left out.

        Raises `AnswerTimeout` and `ClientGone`.
        """
        return await unless_gone(asked.client_gone, self._explained(asked, sheet_ids, must=True))

    async def _explained(self, asked: Asked, sheet_ids: Sequence[str], *, must: bool) -> dict[str, ExplanationBody]:
        """With `must` it is an error when there is not time enough."""
        made: list[_Made] = []
        try:
            async with asyncio.timeout(self._timeout_seconds):
                for sheet_id in sheet_ids:
                    if (found := await self._tried(asked, sheet_id, must=must)) is not None:
                        made.append(found)
        except TimeoutError:
            logger.warning("%d of %d sheets were explained in time", len(made), len(sheet_ids))
            if must:
                raise AnswerTimeout(
                    f"expected all heat maps within {self._timeout_seconds:.0f} seconds; ask for fewer sheets at a time"
                ) from None
        return await self._kept(made) if made else {}

    async def _tried(self, asked: Asked, sheet_id: str, *, must: bool) -> _Made | None:
        try:
            return await self._made(asked, sheet_id)
        except (VoucherError, OSError) as error:
            if must and isinstance(error, AnswerTimeout):
                raise
            logger.warning("sheet %s is not explained: %s", sheet_id, error)
        except Exception:
            logger.exception("sheet %s is not explained", sheet_id)
        return None

    async def _made(self, asked: Asked, sheet_id: str) -> _Made:
        # Loads the network's library, which whoever loaded a bundle has done already.
        from models.explanation import explain, most_similar_photo

        identifier, looked, catalogue = asked.identifier, asked.looked, asked.serving.collection.catalogue
        gallery = identifier.bundle.gallery
        pixels, sheet_size = await self._in_thread(lambda: _sheet_pixels(identifier, catalogue, sheet_id))
        vector = gallery.vectors_for([sheet_id])[0]
        photo = most_similar_photo(gallery.metric, looked.encoded.embeddings, vector)
        # A task for each sheet, so that other requests' batches come in between.
        (found,) = await asked.serving.queue.on_network(
            lambda: explain(identifier.encoder, gallery.metric, looked.pixels[photo], [pixels])
        )
        sizes = (looked.sizes[photo], sheet_size)
        photo_png, sheet_png = await self._in_thread(lambda: _drawn(identifier, found, sizes))
        return _Made(sheet_id, photo + 1, photo_png, sheet_png)

    async def _kept(self, made: Sequence[_Made]) -> dict[str, ExplanationBody]:
        files: dict[str, bytes] = {}
        for number, each in enumerate(made, 1):
            files |= {f"photo-{number}": each.photo_png, f"sheet-{number}": each.sheet_png}
        try:
            identity = await self._in_thread(lambda: self.store.put(files))
        except (OSError, ValueError) as error:
            logger.warning("heat maps cannot be kept: %s", error)
            return {}
        return {
            each.sheet_id: ExplanationBody(
                photo_position=each.photo_position,
                photo_heat_map_url=heat_map_url(identity, f"photo-{number}"),
                sheet_heat_map_url=heat_map_url(identity, f"sheet-{number}"),
            )
            for number, each in enumerate(made, 1)
        }

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self._decoding)

    def _sweep(self) -> None:
        while not self._stop.wait(_SWEEP_SECONDS):
            try:
                self.store.sweep()
            except OSError as error:
                logger.warning("expired heat maps cannot be removed: %s", error)


def _sheet_pixels(identifier: "Identifier", catalogue: Catalogue, sheet_id: str) -> tuple[FloatArray, tuple[int, int]]:
    """What the network saw of a sheet when it was indexed, and the upright image's width and height."""
    image = catalogue.get_sheet(sheet_id).image
    preprocessing = identifier.encoder.preprocessing
    picture = catalogue.image_store.open(image, minimum_side=preprocessing.minimum_decode_side)
    return preprocessing.apply(picture), (image.width, image.height)


def _drawn(
    identifier: "Identifier", found: "Explanation", sizes: tuple[tuple[int, int], tuple[int, int]]
) -> tuple[bytes, bytes]:
    """PNG files of both heat maps, each with the proportions of its upright picture."""
    from models.explanation_picture import heat_map, png_of

    preprocessing = identifier.encoder.preprocessing
    photo, sheet = (
        png_of(heat_map(contributions, preprocessing, size))
        for contributions, size in zip((found.photo, found.sheet), sizes, strict=True)
    )
    return photo, sheet
