"""The report of a conformance run: which adapter kept which promise."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from temporal_fabric import durable

if TYPE_CHECKING:
    from pathlib import Path

PASSED, FAILED = "passed", "failed"
NOT_SHOWN = "not shown"
"""The bench could not try it."""

NOT_APPLICABLE = "not applicable"
"""The adapter does not promise it, and says so itself."""

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one case of the suite went."""

    case: str
    verdict: str
    """``passed``, ``failed``, ``not shown`` or ``not applicable``."""

    why: str = ""
    seconds: float = 0.0


@dataclass(slots=True)
class Report:
    """All outcomes of one adapter, in one variant of its backend."""

    kind: str
    version: str
    """Of the distribution that ships the adapter."""

    suite: str
    """Version of the fabric whose suite it was."""

    at: str
    variant: str = ""
    outcomes: list[Outcome] = field(default_factory=list[Outcome])

    @property
    def passed(self) -> bool:
        """Whether cases were run and none failed."""
        return bool(self.outcomes) and all(found.verdict != FAILED for found in self.outcomes)

    @property
    def lines(self) -> list[str]:
        """One line per case, for people."""
        return [
            f"{found.verdict:14} {found.case}" + (f": {found.why}" if found.why else "")
            for found in self.outcomes
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {"format": FORMAT, "passed": self.passed, **asdict(self)}

    def write(self, folder: Path) -> Path:
        """Write ``<kind>.json`` or ``<kind>-<variant>.json``, replaced whole; return its path."""
        folder.mkdir(parents=True, exist_ok=True)
        name = "-".join(part for part in (self.kind, self.variant) if part)
        path = folder / f"{name}.json"
        durable.replace(path, json.dumps(self.as_dict(), indent=1).encode() + b"\n")
        return path

    @classmethod
    def read(cls, path: Path) -> Report:
        """Read a report.

        Raises:
            OSError: there is none.
            ValueError: this is no report of a format that is known.
        """
        found = json.loads(path.read_bytes())
        try:
            if found.pop("format") != FORMAT:
                raise ValueError(f"another format of report [path={path}]")
            found.pop("passed")
            found["outcomes"] = [Outcome(**outcome) for outcome in found["outcomes"]]
            return cls(**found)
        except (AttributeError, KeyError, TypeError) as exc:
            raise ValueError(f"no conformance report [path={path}]: {exc}") from exc
