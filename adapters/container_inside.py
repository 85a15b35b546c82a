"""The inside of a payload's container, the same for every engine and runtime on a shared folder.

The attempt's folders have these names there, whatever they are called outside::

    /input        staged inputs, to read       /task         current folder of a process
    /output       what is kept                 /checkpoints  shared by the attempts of an experiment
    /fabric/      error.txt, telemetry.jsonl
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from temporal_fabric.requests.models import ExecutionRequest
    from temporal_fabric.requests.payloads import PythonPayload

FOLDERS = ("/input", "/task", "/output", "/checkpoints", "/tmp")  # noqa: S108 - its own
"""What a payload has inside, whatever its image."""

WRITTEN = ("error.txt", "telemetry.jsonl")
"""Files of an attempt that a payload has below ``/fabric``."""

CALL, RUNNER = "/fabric/call.json", "/fabric/python_runner.py"

_INSIDE = {
    "FABRIC_INPUT_DIR": "/input",
    "FABRIC_TASK_DIR": "/task",
    "FABRIC_OUTPUT_DIR": "/output",
    "FABRIC_CHECKPOINT_DIR": "/checkpoints",
    "FABRIC_ERROR_FILE": "/fabric/error.txt",
    "FABRIC_TELEMETRY": "/fabric/telemetry.jsonl",
}
_OWN = {"HOME": "/task", "TMPDIR": "/tmp", "PYTHONUNBUFFERED": "1"}  # noqa: S108 - its own


@dataclass(frozen=True, slots=True)
class Program:
    """What a container runs, in terms of its inside."""

    entrypoint: list[str] | None
    """None for the image's own."""

    command: list[str]
    env: dict[str, str]
    workdir: str | None
    """None for the image's own."""

    network: bool


def image_of(request: ExecutionRequest, default: str) -> str:
    """Return the reference of the image that a request runs in; empty where there is none.

    Args:
        request: An admitted request.
        default: The backend's image for payloads that name none.
    """
    if request.payload.container is not None:
        return request.payload.container.image
    if request.environment is not None and request.environment.image is not None:
        return request.environment.image
    return default


def program_of(request: ExecutionRequest) -> Program:
    """Return what a request runs; of a `python` payload it reads `call_of` at `CALL`."""
    container, process = request.payload.container, request.payload.process
    if container is not None:
        workdir = container.workdir and _below_task(container.workdir)
        command, args = list(container.command), list(container.args)
        outbound = container.network == "outbound"
        return Program(command or None, args, dict(container.env), workdir or None, outbound)
    if process is not None:
        workdir, outbound = _below_task(process.workdir or ""), process.network == "outbound"
        return Program(list(process.command), [], dict(process.env), workdir, outbound)
    python = request.payload.python
    if python is None:
        raise TypeError("the verdict admits container, process and python payloads only")
    argv, outbound = ["python3", "-s", RUNNER, CALL], python.network == "outbound"
    return Program(argv, [], dict(python.env), _below_task(python.workdir or ""), outbound)


def call_of(payload: PythonPayload, task: str) -> dict[str, Any]:
    """Return what the runner of a `python` payload reads.

    Args:
        payload: With its own lines of source, if it has any, in a file of the task folder.
        task: That folder, as the payload sees it.
    """
    entry_point = f"{task}/{payload.entry_point}" if payload.source else payload.entry_point
    return {
        "entry_point": entry_point,
        "args": list(payload.args),
        "kwargs": dict(payload.kwargs),
    }


def variables(program: Program, given: dict[str, str]) -> dict[str, str]:
    """Return a container's variables: its own, the program's, and the fabric's by their inside."""
    return _OWN | program.env | given | _INSIDE


def _below_task(path: str) -> str:
    return str(PurePosixPath("/task", path))
