"""One request's way through the threads that decode its photos, run the network and work out its answer."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from PIL import Image

from app.batching import Batcher, Network, Outputs, Pixels
from models.encoder import Encoded
from models.errors import ImageTooLarge, UnreadableImage

T = TypeVar("T")


class PhotoReader(Network, Protocol):
    """A network with the preprocessing that belongs to it: an `Identifier`."""

    def decode(self, source: bytes, *, max_pixels: int) -> Image.Image:
        """Upright RGB picture. Raises `InvalidImage`."""

    def preprocess(self, image: Image.Image) -> Pixels:
        """``(3, H, W)`` float32."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What is known of the P photos of one request once the network has seen them.

    `pixels` is ``(P, 3, H, W)`` float32, as the network got them; `sizes` are width and height of the upright photos,
    as they were decoded.
    """

    encoded: Encoded
    pixels: Pixels
    sizes: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of an identification that is over: upload, decode, wait, network or answer; `time.monotonic` seconds."""

    name: str
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Threads:
    """Who does the work of all requests."""

    decoders: Executor
    batcher: Batcher
    answers: Executor


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """The photos of one plant, who looks at them, and what is made of what was seen."""

    reader: PhotoReader
    photos: Sequence[bytes]
    then: Callable[[Looked], T]
    max_pixels: int


class Passage(Generic[T]):
    """The way of one request.

    Whoever ends a part of it hands on to the next: the thread that has decoded the last photo to the network, the
    network's thread to one that answers. The event loop hears of it once, at the end: between the parts it would be
    woken, and with it the core that it runs on, only to hand on.
    """

    def __init__(self, question: Question[T], threads: Threads) -> None:
        # Who ends it takes this with it: an error keeps the frames that it came through, and so would keep the photos.
        self._answered: Future[T] | None = Future()
        self.stages: list[Stage] = []
        """Those that are over; to be read when the way is."""
        # What waits in an executor reaches the question through here alone: once it is given up, neither photos nor
        # bundle are kept by what an executor drops only when its turn comes.
        self._question: Question[T] | None = question
        self._threads = threads
        self._lock = threading.Lock()
        self._under_way: list[Future[Any]] = []
        self._decoded: list[tuple[Pixels, tuple[int, int]] | None] = [None] * len(question.photos)
        self._is_arriving = False

    @property
    def _is_over(self) -> bool:
        return self._answered is None

    def begin(self) -> "Future[T]":
        """Have the photos decoded. To be called once; raises `RuntimeError` when there are no threads any more.

        The future tells what `then` made of it, or what went wrong; it is cancelled when a thread that was needed has
        been shut down.
        """
        assert self._answered is not None
        began, photos, answered = time.monotonic(), len(self._decoded), self._answered
        self._is_arriving = True
        self._threads.batcher.expect(1)
        for position in range(photos):
            self._follow(self._threads.decoders.submit(self._decode, position, began))
        return answered

    def give_up(self) -> None:
        """Do no more of it than is being done just now. Nothing when it is over."""
        self._ends()

    def _ends(self) -> "Future[T] | None":
        """To tell how it ended, for the first who comes; what is under way is given up."""
        with self._lock:
            answered, self._answered = self._answered, None
            self._question = None
            self._decoded.clear()
            under_way, self._under_way = self._under_way, []
        self._no_longer_arriving()
        for part in under_way:
            part.cancel()
        return answered

    def _follow(self, part: "Future[Any]") -> None:
        """Cancel `part` with the rest, and end the rest when it fails, or is dropped by an executor at its end."""
        with self._lock:
            is_over = self._is_over
            if not is_over:
                self._under_way.append(part)
        if is_over:
            part.cancel()
        else:
            part.add_done_callback(self._look_at)

    def _look_at(self, part: "Future[Any]") -> None:
        if part.cancelled():
            self._drop()
        # Not raised here: it would keep this frame, which has `part`, which keeps it.
        elif (failure := part.exception()) is not None:
            self._fail(failure)

    def _decode(self, position: int, began: float) -> None:
        """In a thread that decodes."""
        if (question := self._question) is None:
            return
        decoded = _decoded(question, position)
        with self._lock:
            if self._is_over:
                return
            self._decoded[position] = decoded
            ready = [each for each in self._decoded if each is not None]
        if len(ready) == len(question.photos):
            self.stages.append(Stage("decode", began, time.monotonic()))
            pixels, sizes = np.stack([pixels for pixels, _ in ready]), tuple(size for _, size in ready)
            self._to_network(question, pixels, sizes)

    def _to_network(self, question: Question[T], pixels: Pixels, sizes: tuple[tuple[int, int], ...]) -> None:
        self._no_longer_arriving()
        outputs = self._threads.batcher.submit(question.reader, pixels)
        self._follow(outputs)
        outputs.add_done_callback(lambda done: self._to_answer(done, pixels, sizes))

    def _to_answer(self, outputs: "Future[Outputs]", pixels: Pixels, sizes: tuple[tuple[int, int], ...]) -> None:
        """In the network's thread, or where `outputs` are cancelled."""
        if outputs.cancelled() or outputs.exception() is not None or self._is_over:
            return
        try:
            found = outputs.result()
            self.stages.append(Stage("wait", found.since, found.began))
            self.stages.append(Stage("network", found.began, found.ended))
            looked = Looked(found.encoded, pixels, sizes)
            self._follow(self._threads.answers.submit(self._answer, looked, time.monotonic()))
        except Exception as error:  # noqa: BLE001 - handed on to who waits
            self._fail(error)

    def _answer(self, looked: Looked, began: float) -> None:
        """In a thread that answers."""
        if (question := self._question) is None:
            return
        answer = question.then(looked)
        self.stages.append(Stage("answer", began, time.monotonic()))
        if (answered := self._ends()) is not None and answered.set_running_or_notify_cancel():
            answered.set_result(answer)

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, Exception):
            # Such as would end the event loop in which it is told.
            whole = RuntimeError(f"a thread was ended by {error!r}")
            whole.__cause__, error = error, whole
        if (answered := self._ends()) is not None and answered.set_running_or_notify_cancel():
            answered.set_exception(error)

    def _drop(self) -> None:
        if (answered := self._ends()) is not None:
            answered.cancel()

    def _no_longer_arriving(self) -> None:
        with self._lock:
            was_arriving, self._is_arriving = self._is_arriving, False
        # The batcher has a lock of its own, and cancels requests while it holds it: the two are never held together.
        if was_arriving:
            self._threads.batcher.expect(-1)


def _decoded(question: Question[Any], position: int) -> tuple[Pixels, tuple[int, int]]:
    try:
        image = question.reader.decode(question.photos[position], max_pixels=question.max_pixels)
    except UnreadableImage as error:
        raise UnreadableImage(f"photo {position + 1}: {error}") from error
    except ImageTooLarge as error:
        raise ImageTooLarge(f"photo {position + 1}: {error}") from error
    return question.reader.preprocess(image), image.size
