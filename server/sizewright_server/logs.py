"""Structured logs: one JSON object a line on standard error."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import TextIO

#: Attributes every log record has; what is beside them was given as `extra`.
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


_ENCODER = json.JSONEncoder(default=str)


class JsonFormatter(logging.Formatter):
    """A record as JSON: time, level, message, extras, and the traceback of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, tz=UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {k: v for k, v in vars(record).items() if k not in STANDARD}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return _ENCODER.encode(entry)


class StandardErrorHandler(logging.StreamHandler[TextIO]):
    """Writes to standard error for as long as somebody reads it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's own name)
        """Lets the log go nowhere once its reader has gone: calls and the exit code go on."""
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
        else:
            super().handleError(record)


def log_to_stderr() -> None:
    """Sends the package's logs to standard error as JSON."""
    handler = StandardErrorHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger("sizewright")
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    root.propagate = False
