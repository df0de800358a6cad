"""Lines of a log, as text or as one JSON object each, and no API key in any of them."""

import json
import logging
from datetime import UTC, datetime

from models.api_keys import without_keys

TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


class TextFormatter(logging.Formatter):
    """Time, level, logger, message; no key, also not in a traceback."""

    def __init__(self, line: str = TEXT_FORMAT) -> None:
        super().__init__(line)

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        return without_keys(super().format(record))


class JsonFormatter(logging.Formatter):
    """One JSON object in a line: time (UTC), level, logger, message, exception; no key in any of them."""

    def members(self, record: logging.LogRecord) -> dict[str, str]:
        """What is told of a record."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return line

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        return without_keys(json.dumps(self.members(record), ensure_ascii=False))
