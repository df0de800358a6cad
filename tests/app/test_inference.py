import asyncio
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from app.inference import InferenceQueue, Unobserved
from app.refusals import AnswerTimeout, ClientGone
from models.errors import ImageTooLarge, ServiceOverloaded, UnreadableImage

Encode = Callable[..., bytes]


def queue_of(**given: object) -> InferenceQueue:
    options = {"queue_limit": 4, "decode_workers": 2, "max_pixels": 50_000, "timeout_seconds": 5.0} | given
    return InferenceQueue(**options)


async def ask(queue: InferenceQueue, identifier: object, *photos: bytes, **options: object) -> object:
    return await queue.ask(identifier, photos, lambda looked: identifier.answer(looked.encoded), **options)


def test_more_than_the_limit_is_refused_and_room_is_given_back(identifier, encode: Encode) -> None:
    async def scenario() -> None:
        queue = queue_of(queue_limit=2)
        identifier.hold.clear()
        waiting = [asyncio.create_task(ask(queue, identifier, encode())) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert queue.admitted == 2
        with pytest.raises(ServiceOverloaded):
            queue.refuse_when_full()
        with pytest.raises(ServiceOverloaded):
            await ask(queue, identifier, encode())
        identifier.hold.set()
        assert [answer.photo_count for answer in await asyncio.gather(*waiting)] == [1, 1]
        assert queue.admitted == 0
        queue.refuse_when_full()
        queue.close()

    asyncio.run(scenario())


def test_how_full_it_is_is_told_when_it_changes(identifier, encode: Encode) -> None:
    noted: list[int] = []

    class Noting(Unobserved):
        def queue_changed(self) -> None:
            noted.append(queue.admitted)

    async def scenario() -> None:
        identifier.hold.clear()
        waiting = [asyncio.create_task(ask(queue, identifier, encode())) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert noted == [1, 2]
        identifier.hold.set()
        await asyncio.gather(*waiting)
        assert noted == [1, 2, 1, 0]
        queue.close()

    queue = queue_of(observer=Noting())
    asyncio.run(scenario())


def test_a_client_that_hung_up_is_dropped_before_its_turn(identifier, encode: Encode) -> None:
    async def scenario() -> None:
        queue = queue_of()
        identifier.hold.clear()
        first = asyncio.create_task(ask(queue, identifier, encode()))
        # Decoded side by side, the second could reach the network before the first.
        assert await asyncio.to_thread(identifier.entered.wait, 10)
        gone = asyncio.Event()
        second = asyncio.create_task(ask(queue, identifier, encode(), client_gone=gone.wait))
        await asyncio.sleep(0.1)
        gone.set()
        with pytest.raises(ClientGone):
            await second
        assert queue.admitted == 1
        identifier.hold.set()
        await first
        queue.close()

    asyncio.run(scenario())
    assert identifier.answered == 1


def test_an_answer_that_takes_too_long_is_given_up(identifier, encode: Encode) -> None:
    async def scenario() -> None:
        queue = queue_of(timeout_seconds=0.1)
        identifier.hold.clear()
        started = time.monotonic()
        with pytest.raises(AnswerTimeout):
            await ask(queue, identifier, encode())
        assert time.monotonic() - started < 2
        assert queue.admitted == 0
        identifier.hold.set()
        queue.close()

    asyncio.run(scenario())


def test_no_more_photos_are_decoded_at_once_than_there_are_workers(identifier, encode: Encode) -> None:
    now, most, lock = 0, 0, threading.Lock()

    def preprocess(image: object) -> np.ndarray:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1
        return np.zeros((3, 4, 4), np.float32)

    identifier.preprocess = preprocess

    async def scenario() -> None:
        queue = queue_of(decode_workers=2, queue_limit=10)
        await asyncio.gather(*(ask(queue, identifier, *[encode()] * 3) for _ in range(4)))
        queue.close()

    asyncio.run(scenario())
    assert most == 2


def test_a_bad_photo_is_named_by_its_position(identifier, encode: Encode) -> None:
    async def scenario() -> None:
        queue = queue_of()
        with pytest.raises(UnreadableImage, match=r"^photo 2: "):
            await ask(queue, identifier, encode(), encode()[:600])
        with pytest.raises(ImageTooLarge, match=r"^photo 1: "):
            await ask(queue, identifier, encode(size=(500, 500)), encode())
        assert queue.admitted == 0
        queue.close()

    asyncio.run(scenario())
    assert identifier.answered == 0


def test_the_event_loop_stays_free_while_the_network_runs(identifier, encode: Encode) -> None:
    async def scenario() -> int:
        queue = queue_of()
        identifier.hold.clear()
        answer = asyncio.create_task(ask(queue, identifier, encode()))
        turns = 0
        for _ in range(20):
            await asyncio.sleep(0.005)
            turns += 1
        identifier.hold.set()
        await answer
        queue.close()
        return turns

    assert asyncio.run(scenario()) == 20
