"""The commands of the processes that a service starts, and what ties these to its life."""

import os
import signal
import sys
import threading

from app.cpu_share import decode_threads, network_cores
from app.settings import PREFIX, Settings

# The command line belongs to another layer: it is found as it is installed.
_START = (
    "import importlib.metadata as m, sys; "
    "sys.argv[0] = 'voucher'; "
    "next(iter(m.entry_points(group='console_scripts', name='voucher'))).load()()"
)

WORKER_POLITENESS = 10
"""Builds take every core that they get; those who wait for an answer come first."""


def worker_command(settings: Settings) -> list[str]:
    """The command of a worker on the home of `settings`; a database address is left to the environment."""
    command = [sys.executable, "-c", _START, "worker", "--home", str(settings.home), "--device", settings.device]
    command += ["--with-parent", "--log-format", settings.log_format]
    if settings.auto_build_seconds is not None:
        command += ["--auto", "--auto-seconds", str(settings.auto_build_seconds)]
    return command


def serving_command(settings: Settings, listening: int) -> list[str]:
    """The command of one of several serving processes, which accept at the same socket."""
    return [sys.executable, "-c", _START, "serve", "--home", str(settings.home), "--listening", str(listening)]


def serving_environment(settings: Settings) -> dict[str, str]:
    """What `serving_command` needs beside the environment of this process: its share of the cores, and no worker."""
    given = {
        "host": settings.host,
        "port": settings.port,
        "device": settings.device,
        "workers": 1,
        "worker": "false",
        "cpu_threads": network_cores(settings),
        "decode_workers": decode_threads(settings),
    }
    return {PREFIX + name.upper(): str(value) for name, value in given.items()}


def end_with_parent() -> None:
    """Stop this process in the way of SIGTERM when its standard input, a pipe from its parent, closes."""

    def wait() -> None:
        # Not by way of `sys.stdin`: its lock, held in this thread, makes the interpreter's end a crash.
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()
