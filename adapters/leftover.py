"""Processes of this host that outlived their container.

An engine that was killed itself may lose sight of what it started (moby issues 15397, 40789).
The kernel still knows: the container's id stands in the control groups of its processes.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from temporal_fabric.errors import TransientBackendError

_PATIENCE_S = 5.0
_LOOK_S = 0.05


def end(container: str) -> None:
    """Kill every process that is still in a container's control groups; return when none is.

    Args:
        container: Whole id of a container that its engine takes for ended; empty for none.

    Raises:
        TransientBackendError: something is left.
    """
    until = time.monotonic() + _PATIENCE_S
    while container and (left := [pid for pid in _pids() if _is_of(pid, container)]):
        for pid in left:
            _kill(pid, container)
        if time.monotonic() > until:
            raise TransientBackendError(
                f"a process outlived its container [pid={left[0]}, container={container[:12]}]"
            )
        time.sleep(_LOOK_S)


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _is_of(pid: int, container: str) -> bool:
    """Return whether a process lives, and in the container; a dead one waits to be reaped."""
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace")
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1]
    except OSError:
        return False
    return container in groups and state not in {b"Z", b"X"}


def _kill(pid: int, container: str) -> None:
    with suppress(OSError):
        handle = os.pidfd_open(pid)
        try:
            # The handle is of the process that has the number now: look again before it counts.
            if _is_of(pid, container):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)
