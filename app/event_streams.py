"""Answers that stay open, counted: a client that follows a job costs a look at the database twice a second."""

from models.errors import ServiceOverloaded


class EventStreams:
    """Room for `most` clients; used on the event loop alone."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.open = 0
        self.is_ending = False
        """Whether the service stops: those that follow a job then come back to the next one."""

    def take(self) -> None:
        """Count one more. Raises `ServiceOverloaded` when there is no room."""
        if self.open >= self._most:
            raise ServiceOverloaded(
                f"{self._most} clients follow jobs already; ask for the job's state from time to time instead"
            )
        self.open += 1

    def give_back(self) -> None:
        """Count one less."""
        self.open -= 1
