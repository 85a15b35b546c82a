"""``logs/events.jsonl``: what began and ended on this host, one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING, Any

from temporal_fabric.clock import now

if TYPE_CHECKING:
    from pathlib import Path

FILE_BYTES = 16 * 1024 * 1024
FILES_KEPT = 4
"""Rotated files beside the current one."""

log = logging.getLogger(__name__)


class EventLog:
    """Appends events and rotates by size; a full or read-only disk costs events only.

    Args:
        path: The file.
        file_bytes: Size above which a new file is begun.
    """

    def __init__(self, path: Path, file_bytes: int = FILE_BYTES) -> None:
        self._path = path
        self._handler = _Lines(path, maxBytes=file_bytes, backupCount=FILES_KEPT, delay=True)

    def write(self, event: str, fields: dict[str, Any]) -> None:
        """Append one event; blocks for the disk, never raises."""
        line = json.dumps({"at": now(), "event": event, **fields})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            self._handler.complain(exc)
            return
        self._handler.handle(logging.LogRecord("events", logging.INFO, "", 0, line, None, None))

    def close(self) -> None:
        """Close the file; never raises."""
        try:
            self._handler.close()
        except OSError as exc:  # what the full disk refused is flushed once more
            self._handler.complain(exc)


class _Lines(RotatingFileHandler):
    _complained = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say once that the log cannot be written."""
        del record
        self.complain(sys.exc_info()[1])

    def complain(self, why: BaseException | None) -> None:
        if not self._complained:
            self._complained = True
            log.warning("the event log cannot be written [path=%s]: %s", self.baseFilename, why)
