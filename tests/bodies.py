"""Request bodies that tests share."""

from __future__ import annotations

import secrets
import sys
from typing import Any

from temporal_fabric.testing.evidence import REPORT

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


def function(code: str, *args: Any, **more: Any) -> dict[str, Any]:
    """Return a body that calls the function ``main`` of a few lines of Python."""
    names = ("kwargs", "env", "outputs", "isolation")
    settings = {key: more.pop(key) for key in names if key in more}
    call = {"entry_point": "code.py:main", "source": code.splitlines(), "args": list(args)}
    return {"id": f"t-{secrets.token_hex(4)}", "payload": {"python": call | settings}, **more}
