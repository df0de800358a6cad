"""The processes that draw."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from indexer.demo_flora.render import DrawingTask, draw_picture
from models.errors import VoucherError
from models.specimens import Organ

_BATCH = 8
Progress = Callable[[int, int], None]


def draw_all(tasks: Sequence[DrawingTask], workers: int, on_progress: Progress | None) -> list[tuple[Organ, int]]:
    """What `draw_picture` returned for each task, in order; drawn in `workers` processes.

    Raises `VoucherError` when a process dies. On Ctrl-C all processes end before this returns.
    """
    report = on_progress or (lambda done, total: None)
    batches = [tasks[i : i + _BATCH] for i in range(0, len(tasks), _BATCH)]
    report(0, len(tasks))
    if min(workers, len(batches)) <= 1:
        results = []
        for batch in batches:
            results.append(_draw_batch(batch))
            report(sum(map(len, results)), len(tasks))
    else:
        results = _in_processes(batches, min(workers, len(batches)), len(tasks), report)
    return [result for batch_results in results for result in batch_results]


def _in_processes(
    batches: Sequence[Sequence[DrawingTask]], workers: int, total: int, report: Progress
) -> list[list[tuple[Organ, int]]]:
    # Spawned, not forked: the caller may have threads (BLAS, progress bars), which forking would break.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker)
    try:
        futures = [pool.submit(_draw_batch, batch) for batch in batches]
        waiting: set[Future[list[tuple[Organ, int]]]] = set(futures)
        done = 0
        while waiting:
            ended, waiting = wait(waiting, return_when="FIRST_COMPLETED")
            done += sum(len(future.result()) for future in ended)
            report(done, total)
        return [future.result() for future in futures]
    except BrokenProcessPool as error:
        raise VoucherError(
            "a process that draws the demo flora ended before its time: killed for want of memory, or "
            "started from a script without `if __name__ == '__main__'`; run it again, or with workers=1"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker() -> None:
    """Ctrl-C is the parent's to handle, and nobody draws on when the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    watched = parent

    def leave_with_parent() -> None:
        watched.join()
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


def _draw_batch(tasks: Sequence[DrawingTask]) -> list[tuple[Organ, int]]:
    return [draw_picture(task) for task in tasks]


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
