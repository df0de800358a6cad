"""How the service logs: lines of text or of JSON, each with the id of the request that it is about."""

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime

from app.settings import Settings
from models.api_keys import without_keys

request_id_in_work: ContextVar[str | None] = ContextVar("request_id_in_work", default=None)
"""Of the request that this task, and the threads that it asks, are at; None outside of requests."""


_TELL_ADDRESSES = ("httpx2", "httpcore2")
"""Their notes of each request hold addresses that clients have sent."""


class TextFormatter(logging.Formatter):
    """Time, level, logger, request id where there is one, message; no key, also not in a traceback."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(request)s%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        request_id = request_id_in_work.get()
        # Some messages name their request by themselves.
        is_named = request_id is None or request_id in record.getMessage()
        record.request = "" if is_named else f"[{request_id}] "
        return without_keys(super().format(record))


class JsonFormatter(logging.Formatter):
    """One JSON object in a line: time (UTC), level, logger, message, request_id, exception; no key in any of them."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        line: dict[str, str] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        request_id = request_id_in_work.get()
        if request_id is not None:
            line["request_id"] = request_id
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return without_keys(json.dumps(line, ensure_ascii=False))


def set_up_logging(settings: Settings) -> None:
    """Log to standard error from INFO upwards; to be called once, by an entry point."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    # The console script has set up lines for people before it knew that it serves.
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for chatty in _TELL_ADDRESSES:
        logging.getLogger(chatty).setLevel(logging.WARNING)
