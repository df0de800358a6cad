"""`voucher worker`: the process that does the queued work."""

import logging
import os
import signal
import threading
from typing import Annotated, Any, Literal

import typer

from indexer import console
from indexer.options import DEFAULT_HOME, DeviceOption, HomeOption
from models.errors import VoucherError

logger = logging.getLogger(__name__)

AUTO_SECONDS = 60.0


def worker_command(
    home: HomeOption = DEFAULT_HOME,
    auto: Annotated[
        bool, typer.Option("--auto", help="Build by itself, some time after the last change of the catalogue.")
    ] = False,
    auto_seconds: Annotated[
        float, typer.Option(min=0.1, help="How long the catalogue is left alone before it is built.")
    ] = AUTO_SECONDS,
    device: DeviceOption = "auto",
    log_format: Annotated[
        Literal["text", "json"] | None,
        typer.Option(envvar="VOUCHER_LOG_FORMAT", help="Lines with time and level, for a log. [default: for people]"),
    ] = None,
    with_parent: Annotated[
        bool, typer.Option("--with-parent", help="Stop when the standard input is closed.", hidden=True)
    ] = False,
) -> None:
    """Do the queued work of a home: index builds, one after the other, and beside them batches of photos.

    `voucher serve` runs one by itself; more may run beside it. Ctrl-C stops, and a build that is under way is continued
    by the next worker.
    """
    if log_format is not None:
        console.log_lines(as_json=log_format == "json")
    from indexer.worker import Worker, leave_at_once

    worker = Worker(console.home_of(home), device=device, auto_seconds=auto_seconds if auto else None)

    def stop(*_: Any) -> None:
        worker.stop.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if with_parent:
        threading.Thread(target=_stop_with_parent, args=(worker.stop,), daemon=True).start()
    try:
        worker.run(ready=lambda name: logger.info("%s waits for jobs", name))
    except VoucherError as error:
        if log_format is None:
            raise
        logger.error("the worker ends: %s", error)
        raise typer.Exit(2) from None
    leave_at_once(worker)


def _stop_with_parent(stop: threading.Event) -> None:
    """The other end of the standard input is closed when the parent ends, whatever ended it."""
    # Not by way of `sys.stdin`: its lock, held in this thread, makes the interpreter's end a crash.
    while os.read(0, 4096):
        pass
    stop.set()
