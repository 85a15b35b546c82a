"""Request bodies that tests share."""

from __future__ import annotations

import secrets
import sys
from typing import TYPE_CHECKING, Any

from temporal_fabric.testing.evidence import REPORT

if TYPE_CHECKING:
    from temporal_fabric.testing.evidence import EvidenceLedger

REPORTER = [sys.executable, "-S", "-E", "-c", REPORT]


def process(*command: str, **more: Any) -> dict[str, Any]:
    """Return a body that runs a command; ``more`` replaces top-level fields."""
    names = ("env", "inputs", "outputs", "workdir", "isolation", "network")
    settings = {key: more.pop(key) for key in names if key in more}
    return {
        "id": f"t-{secrets.token_hex(4)}",
        "payload": {"process": {"command": list(command), **settings}},
        **more,
    }


def python(code: str, **more: Any) -> dict[str, Any]:
    """Return a body that runs a few lines of Python, without site-packages: quick to start."""
    return process(sys.executable, "-S", "-E", "-c", code, **more)


def shell(script: str, **more: Any) -> dict[str, Any]:
    """Return a body that runs a shell script."""
    return process("/bin/sh", "-c", script, **more)


def reporting(ledger: EvidenceLedger, seconds: float) -> dict[str, Any]:
    """Return a body that reports its start and, so many seconds later, its end."""
    # One process reports both, so one pid stands in both lines.
    program = (
        f"import time\n{REPORT.replace('sys.argv[1]', repr('start'))}"
        f"time.sleep({seconds})\n{REPORT.replace('sys.argv[1]', repr('end'))}"
    )
    return process(*REPORTER[:-1], program, env={"EVIDENCE": str(ledger.socket)})


def assert_ran_once(ledger: EvidenceLedger, request_id: str) -> None:
    """Assert that one process, and no other, started and ended the payload."""
    starts = ledger.lines(id=request_id, event="start")
    ends = ledger.lines(id=request_id, event="end")
    assert len(starts) == len(ends) == 1
    assert (starts[0]["pid"], starts[0]["start"]) == (ends[0]["pid"], ends[0]["start"])


def function(code: str, *args: Any, **more: Any) -> dict[str, Any]:
    """Return a body that calls the function ``main`` of a few lines of Python."""
    names = ("kwargs", "env", "outputs", "isolation")
    settings = {key: more.pop(key) for key in names if key in more}
    call = {"entry_point": "code.py:main", "source": code.splitlines(), "args": list(args)}
    return {"id": f"t-{secrets.token_hex(4)}", "payload": {"python": call | settings}, **more}
