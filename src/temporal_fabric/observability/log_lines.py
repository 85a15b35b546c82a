"""Log lines: text for a person, JSON objects for a collector, control characters in neither."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from temporal_fabric.clock import from_unix
from temporal_fabric.observability.context import current

FORMATS = ("auto", "json", "text")

_TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"


class JsonFormatter(logging.Formatter):
    """One line per record: ASCII, so that no control character reaches a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a JSON object with the ids of the task at hand."""
        line: dict[str, Any] = {
            "at": from_unix(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **current().fields(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class TextFormatter(logging.Formatter):
    """One line per record; what a message quotes cannot move a terminal's cursor."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - its base's name
        """Return the line with everything escaped that does not print."""
        line = super().formatMessage(record)
        escaped = (char.encode("unicode_escape").decode() for char in line)
        return "".join(
            char if char.isprintable() else code for char, code in zip(line, escaped, strict=True)
        )


def configure(wanted: str) -> bool:
    """Log to standard error.

    Args:
        wanted: ``json``, ``text``, or ``auto``: text on a terminal, else JSON.

    Returns:
        Whether the lines are JSON.
    """
    as_json = wanted == "json" or (wanted == "auto" and not sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter(_TEXT))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("temporalio").setLevel(logging.WARNING)
    # One line for every wake-up of its scheduler says nothing about the fabric.
    logging.getLogger("opentelemetry").setLevel(logging.WARNING)
    return as_json
