"""The command line of a payload on this host: a process is one, a Python function becomes one.

A `python` payload is called by a script of the standard library alone, in the interpreter of
its environment or, without one, in the worker's interpreter without the worker's packages.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from temporal_fabric import durable, python_runner

if TYPE_CHECKING:
    from temporal_fabric.adapters.contract import AttemptSpec
    from temporal_fabric.requests.payloads import PythonPayload

_CALL = "call.json"
_ALONE = ("-S", "-s", "-P")
"""No site-packages, no packages of the user, no folder of the runner: a clean interpreter."""

_IN_ENVIRONMENT = ("-s", "-P")


@dataclass(frozen=True, slots=True)
class LocalCommand:
    """A command of this host."""

    argv: tuple[str, ...]
    env: dict[str, str]
    workdir: str
    """Current folder; a relative one is below the task folder."""


def local_command(attempt: AttemptSpec) -> LocalCommand:
    """Return the command of an attempt; what it reads is written below the attempt's folder.

    Repeating it writes the same files again.

    Raises:
        OSError: the folder cannot be written.
    """
    process, python = attempt.request.payload.process, attempt.request.payload.python
    if process is not None:
        return LocalCommand(tuple(process.command), dict(process.env), process.workdir or "")
    if python is None:
        raise TypeError("the verdict admits process and python payloads only")
    return LocalCommand(_call(attempt, python), dict(python.env), python.workdir or "")


def _call(attempt: AttemptSpec, payload: PythonPayload) -> tuple[str, ...]:
    entry_point, call = payload.entry_point, attempt.folder / _CALL
    if payload.source:
        file = attempt.folder / "task" / entry_point.partition(":")[0]
        durable.replace(file, "".join(f"{line}\n" for line in payload.source).encode())
        entry_point = str(attempt.folder / "task" / entry_point)
    asked = {
        "entry_point": entry_point,
        "args": list(payload.args),
        "kwargs": dict(payload.kwargs),
    }
    durable.replace(call, json.dumps(asked).encode())
    environment = attempt.env.get("VIRTUAL_ENV")
    python = str(Path(environment, "bin", "python")) if environment else sys.executable
    flags = _IN_ENVIRONMENT if environment else _ALONE
    return (python, *flags, python_runner.__file__, str(call))
