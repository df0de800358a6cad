"""How a service divides the cores among its processes and threads."""

from dataclasses import dataclass

from app.settings import Settings
from models.cpu_cores import available_cores

_MOST_DECODERS = 8
_MOST_LANES = 4
"""Each holds the memory of a batch; networks so small that more would help are fast enough."""


@dataclass(frozen=True, slots=True)
class NetworkShare:
    """Cores of the network in each serving process, and its lanes: how many batches it computes at one time."""

    cores: int = 1
    lanes: int = 1

    def threads_of_lane(self, *, is_alone: bool) -> int:
        """Threads that a lane computes with, while others do or while it is alone."""
        return self.cores if is_alone else max(1, self.cores // self.lanes)


def network_cores(settings: Settings) -> int:
    """Cores that the network has on a CPU, in each serving process."""
    return settings.cpu_threads or max(1, available_cores() // settings.workers)


def network_share(settings: Settings, *, on_cpu: bool) -> NetworkShare:
    """Of each serving process; a GPU takes one batch at a time."""
    cores = network_cores(settings)
    return NetworkShare(cores, min(_MOST_LANES, cores) if on_cpu else 1)


def decode_threads(settings: Settings) -> int:
    """Photos that each serving process decodes at one time; more than eight take memory and gain nothing."""
    return settings.decode_workers or min(_MOST_DECODERS, max(2, available_cores() // settings.workers))
