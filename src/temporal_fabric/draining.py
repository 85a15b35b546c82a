"""A drained backend: what runs on it goes on, nothing new is granted.

The mark is one small file of the host, ``FABRIC_HOME/drained/<backend>.json``, so it outlives
the worker. It is read whenever a place could be granted; nothing else remembers it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from temporal_fabric import durable
from temporal_fabric.clock import now
from temporal_fabric.shapes import is_table

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Drained:
    """Since when a backend is drained, and why."""

    since: str
    reason: str = ""

    def __str__(self) -> str:
        text = f"drained since {self.since}" if self.since else "drained"
        return f"{text}: {self.reason}" if self.reason else text


class DrainMark:
    """The mark of one backend of a host.

    Args:
        home: The host's ``FABRIC_HOME``.
        backend: The backend's name; what follows an ``@`` is the host and left out.
    """

    def __init__(self, home: Path, backend: str) -> None:
        self._path = home / "drained" / f"{backend.partition('@')[0]}.json"

    def read(self) -> Drained | None:
        """Return the mark, None where there is none.

        One that cannot be read counts as drained: it was set, and placing would undo it.
        """
        try:
            told = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as exc:
            return Drained("", f"the mark {self._path} cannot be read: {exc}")
        if not is_table(told):
            return Drained("", f"the mark {self._path} is not ours")
        return Drained(str(told.get("since", "")), str(told.get("reason", "")))

    def put(self, *, drained: bool, reason: str = "") -> None:
        """Drain the backend or undrain it, durably; repeating it changes nothing.

        Args:
            drained: Whether it shall be.
            reason: Why; one that is drained already keeps since when, and its reason unless
                another is given.

        Raises:
            OSError: it could not be written down; what was there stays.
        """
        if not drained:
            self._clear()
            return
        known = self.read() or Drained(now())
        durable.make_folder(self._path.parent)
        mark = Drained(known.since or now(), reason or known.reason)
        durable.replace(self._path, json.dumps(asdict(mark)).encode() + b"\n")

    def _clear(self) -> None:
        try:
            self._path.unlink()
        except FileNotFoundError:
            return
        durable.sync_folder(self._path.parent)
