"""How the service logs: lines of text or of JSON, each with the id of the request that it is about."""

import logging
from contextvars import ContextVar

from app.settings import Settings
from models.log_lines import JsonFormatter, TextFormatter

request_id_in_work: ContextVar[str | None] = ContextVar("request_id_in_work", default=None)
"""Of the request that this task, and the threads that it asks, are at; None outside of requests."""


_TELL_ADDRESSES = ("httpx2", "httpcore2")
"""Their notes of each request hold addresses that clients have sent."""


class RequestTextFormatter(TextFormatter):
    """Time, level, logger, request id where there is one, message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(request)s%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        request_id = request_id_in_work.get()
        # Some messages name their request by themselves.
        is_named = request_id is None or request_id in record.getMessage()
        record.request = "" if is_named else f"[{request_id}] "
        return super().format(record)


class RequestJsonFormatter(JsonFormatter):
    """One JSON object in a line, with the `request_id` where there is one."""

    def members(self, record: logging.LogRecord) -> dict[str, str]:
        """What is told of a record."""
        request_id = request_id_in_work.get()
        return super().members(record) | ({} if request_id is None else {"request_id": request_id})


def set_up_logging(settings: Settings) -> None:
    """Log to standard error from INFO upwards; to be called once, by an entry point."""
    handler = logging.StreamHandler()
    handler.setFormatter(RequestJsonFormatter() if settings.log_format == "json" else RequestTextFormatter())
    # The console script has set up lines for people before it knew that it serves.
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for chatty in _TELL_ADDRESSES:
        logging.getLogger(chatty).setLevel(logging.WARNING)
