"""The isolation of a local payload: its level, its limits, its sandbox, or why there is none."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_fabric import python_runner
from temporal_fabric.adapters.contract import Shortfall
from temporal_fabric.adapters.host_gpus import device_files
from temporal_fabric.errors import PermanentBackendError
from temporal_fabric.isolation import bubblewrap
from temporal_fabric.isolation.rules import LEVELS, LIMITS, NONE, SANDBOX
from temporal_fabric.launcher.limits import CPUS, MEMORY, PIDS, Limits
from temporal_fabric.launcher.log_cap import LEAST_BYTES
from temporal_fabric.launcher.sandboxed import Sandbox, init_file
from temporal_fabric.requests.quantities import GIGABYTE
from temporal_fabric.secrets import redaction
from temporal_fabric.shapes import is_rows, is_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from temporal_fabric.adapters.contract import AttemptSpec
    from temporal_fabric.gpus.devices import Device
    from temporal_fabric.isolation.abilities import Abilities
    from temporal_fabric.isolation.rules import Rules
    from temporal_fabric.launcher import LaunchSpec
    from temporal_fabric.requests.models import ExecutionRequest
    from temporal_fabric.requests.payloads import ProcessPayload, PythonPayload

_CODE = "E_ISOLATION"
_PIDS = 4096
"""A bomb stops here; a program of a thousand threads does not notice."""

_OWN_TASKS = {SANDBOX: 2, "secrets": 3}
"""Tasks of ours beside the payload: the sandbox and its first process, the filter's threads."""

_WRITTEN = ("error.txt", "telemetry.jsonl")
_OUTBOUND = "outbound"


def level_of(request: ExecutionRequest, rules: Rules) -> str:
    """Return the level a request runs at: its own, else its limits', else the host's."""
    asked = _program(request).isolation
    if asked is not None:
        return asked
    needed = LIMITS if _explicit(request) else NONE
    return max(needed, rules.least(request.tenant), key=LEVELS.index)


def limits_of(request: ExecutionRequest, rules: Rules, able: Abilities) -> Limits:
    """Return what the launcher has to hold a payload to."""
    level, limits = level_of(request, rules), request.limits
    if level == NONE:
        return Limits(log_bytes=limits.log_bytes)
    pids = limits.pids or _PIDS
    pids += _OWN_TASKS[SANDBOX] if level == SANDBOX else 0
    pids += _OWN_TASKS["secrets"] if request.secrets else 0
    # Where neither can hold it the launcher refuses the limit of the group.
    by_user = level == SANDBOX and PIDS not in able.limits and not able.root
    return Limits(
        memory_bytes=limits.memory_bytes or _memory(request),
        cpus=limits.cpus or _cores(request),
        pids=None if by_user else pids,
        user_processes=pids if by_user else None,
        open_files=limits.open_files,
        no_core=True,
        log_bytes=limits.log_bytes,
    )


def isolated(
    spec: LaunchSpec,
    attempt: AttemptSpec,
    home: Path,
    rules: Rules,
    able: Abilities,
    *,
    gpus: tuple[Device, ...] = (),
) -> LaunchSpec:
    """Return the launch with its limits, in its sandbox; makes what the sandbox shows.

    Args:
        spec: The launch as it would be without isolation, secrets included.
        attempt: The attempt, whose folders exist.
        home: The fabric's home, where the folders of all experiments lie.
        rules: The host owner's.
        able: What the host can hold.
        gpus: Devices that are the attempt's.

    Raises:
        PermanentBackendError: there is no sandbox program any more.
        OSError: the attempt's folder cannot be written.
    """
    request = attempt.request
    spec = replace(spec, limits=limits_of(request, rules, able))
    if level_of(request, rules) != SANDBOX:
        return spec
    try:
        program, rules_file = bubblewrap.find(rules.bubblewrap), bubblewrap.filter_file()
    except bubblewrap.Unavailable as exc:
        raise PermanentBackendError(f"{exc} (E_ISOLATION)") from exc
    view = replace(_view(spec, attempt, home, rules), devices=device_files(gpus))
    view.temporary.mkdir(mode=0o700, exist_ok=True)
    for name in _WRITTEN:
        (attempt.folder / name).touch(mode=0o600)
    inside = {"HOME": str(attempt.folder / "task"), "TMPDIR": "/tmp"}  # noqa: S108 - its own
    init = (sys.executable, "-I", "-S", str(init_file()))
    return replace(
        spec,
        env=spec.env | {name: inside[name] for name in inside.keys() - _program(request).env},
        sandbox=Sandbox(bubblewrap.command(program, view), init, str(rules_file)),
    )


def lacking_isolation(
    request: ExecutionRequest, rules: Rules, able: Abilities
) -> Iterator[Shortfall]:
    """Yield what of a request's isolation and limits cannot be enforced on this host."""
    level, at = level_of(request, rules), f"/payload/{request.kind}"
    least = rules.least(request.tenant)
    if LEVELS.index(level) < LEVELS.index(least):
        yield _shortfall(
            f"runs nothing of tenant {request.tenant!r} below isolation {least!r}",
            f"set {at}/isolation to {least!r}, or drop it",
        )
    if reason := able.lacks_level(level):
        yield _shortfall(
            f"isolation {level!r} cannot be enforced here: {reason}",
            f"mend the host as the reason says, or set {at}/isolation to 'none'",
        )
    yield from _limits(request, level, able)
    yield from _logs(request.limits.log_bytes, able)
    yield from _network(request, level, rules)
    workdir = Path(_program(request).workdir or "")
    if (
        level == SANDBOX
        and workdir.is_absolute()
        and not bubblewrap.visible(workdir, _shared(rules))
    ):
        yield _shortfall(
            f"the folder {str(workdir)!r} is not visible in the sandbox",
            f"drop {at}/workdir, or list it in the backend's option 'read' in fabric.toml",
        )


def lacking_for_flow(
    energy: Any, least: str, at: str = "/payload/flow/energy"
) -> Iterator[Shortfall]:
    """Yield the functions of a specification that would run outside the isolation demanded.

    One process steps all flows of a host, so what a specification brings of its own code has
    the rights of the worker.

    Args:
        energy: The specification, or a part of it.
        least: The isolation demanded of its tenant.
        at: JSON pointer of the part.
    """
    if least == NONE:
        return
    entries = energy.items() if is_table(energy) else enumerate(energy) if is_rows(energy) else ()
    for key, value in entries:
        if key == "entry_point":
            yield _shortfall(
                f"runs nothing below isolation {least!r}, and functions of a flow's own "
                "run in the process that all flows of the host share",
                f"drop {at}/{key}, or put the function into a python payload",
            )
        else:
            yield from lacking_for_flow(value, least, f"{at}/{key}")


def _limits(request: ExecutionRequest, level: str, able: Abilities) -> Iterator[Shortfall]:
    limits, at = request.limits, f"/payload/{request.kind}"
    if level == NONE:
        for name in _explicit(request):
            change = f"set {at}/isolation to 'limits', or drop /limits/{name}"
            yield _shortfall(f"the limit {name!r} is not enforced with isolation 'none'", change)
        return
    wanted = (
        (MEMORY, "memory_bytes", limits.memory_bytes or _memory(request)),
        (CPUS, "cpus", limits.cpus or _cores(request)),
    )
    for what, name, value in wanted:
        reason = able.lacks(what) if value else ""
        if reason:
            change = f"mend the host as the reason says, or set {at}/isolation to 'none'"
            yield _shortfall(f"{name!r} cannot be limited here: {reason}", change)
    if (limits.open_files or 0) > able.most_open_files:
        yield _shortfall(
            f"payloads may have {able.most_open_files} open files here at most",
            f"set /limits/open_files to {able.most_open_files}",
        )


def _logs(log_bytes: int | None, able: Abilities) -> Iterator[Shortfall]:
    if log_bytes is None:
        return
    if log_bytes < LEAST_BYTES:
        change = f"set /limits/log_bytes to {LEAST_BYTES}"
        yield _shortfall(f"output is cut in blocks: {LEAST_BYTES} bytes are the least", change)
    if able.no_log_cap:
        yield _shortfall(f"output cannot be cut: {able.no_log_cap}", "drop /limits/log_bytes")


def _network(request: ExecutionRequest, level: str, rules: Rules) -> Iterator[Shortfall]:
    asked, at = _program(request).network, f"/payload/{request.kind}"
    if asked == NONE and level != SANDBOX:
        yield _shortfall(
            f"the network is not cut off with isolation {level!r}",
            f"set {at}/isolation to 'sandbox', or drop {at}/network",
        )
    if asked == _OUTBOUND and level == SANDBOX and not rules.network:
        yield _shortfall(
            "this host allows no network in a sandbox",
            f"drop {at}/network, or set the backend's option 'network' in fabric.toml",
        )


def _view(spec: LaunchSpec, attempt: AttemptSpec, home: Path, rules: Rules) -> bubblewrap.View:
    folder = attempt.folder
    readable = [folder / "input", init_file()]
    if attempt.request.payload.python is not None:
        readable += [folder / "call.json", Path(python_runner.__file__)]
    if redaction.VARIABLES in spec.env:
        readable.append(Path(redaction.__file__))
    named = (spec.env.get(name) for name in (redaction.FOLDER, "VIRTUAL_ENV"))
    readable += [Path(path) for path in named if path]
    return bubblewrap.View(
        home=home,
        temporary=folder / "tmp",
        cwd=Path(spec.cwd),
        shared=_shared(rules),
        readable=tuple(readable),
        writable=(
            *(folder / "task", folder / "output", attempt.checkpoints),
            *(folder / name for name in _WRITTEN),
        ),
        network=_program(attempt.request).network == _OUTBOUND,
    )


def _shared(rules: Rules) -> tuple[Path, ...]:
    return tuple(Path(path) for path in rules.read)


def _explicit(request: ExecutionRequest) -> list[str]:
    names = ("memory_bytes", "cpus", "pids", "open_files")
    return [name for name in names if getattr(request.limits, name) is not None]


def _memory(request: ExecutionRequest) -> int | None:
    for resource in request.requirements.resources:
        if resource.type == "memory" and not resource.at_least:
            return round(resource.size_gb * GIGABYTE)
    return None


def _cores(request: ExecutionRequest) -> float | None:
    for resource in request.requirements.resources:
        if resource.type == "cpu" and not resource.at_least:
            return resource.cores
    return None


def _program(request: ExecutionRequest) -> ProcessPayload | PythonPayload:
    program = request.payload.process or request.payload.python
    if program is None:
        raise TypeError("only process and python payloads are isolated here")
    return program


def _shortfall(reason: str, change: str) -> Shortfall:
    return Shortfall(f"{reason} ({_CODE})", change, _CODE)
