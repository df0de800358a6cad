"""How a service divides the cores among its processes and threads."""

from app.settings import Settings
from models.cpu_cores import available_cores

_MOST_DECODERS = 8


def network_threads(settings: Settings) -> int:
    """Threads of the network on a CPU, in each serving process."""
    return settings.cpu_threads or max(1, available_cores() // settings.workers)


def decode_threads(settings: Settings) -> int:
    """Photos that each serving process decodes at one time; more than eight take memory and gain nothing."""
    return settings.decode_workers or min(_MOST_DECODERS, max(2, available_cores() // settings.workers))
