"""Putting a home in order while no launcher runs: nothing of it lives, no record says it does.

Runs in the host's namespaces, where the processes of an earlier launcher can be seen whatever
mode that one ran in.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from signal import SIGKILL
from typing import TYPE_CHECKING, Any

from temporal_fabric.launcher import cgroups, syscalls, trees
from temporal_fabric.launcher.protocol import decode
from temporal_fabric.launcher.records import Records, lost

if TYPE_CHECKING:
    from temporal_fabric.launcher.protocol import LaunchRecord

INFO = "launcher.json"

_LIMIT_S = 60.0
_POOL = 8


def read_info(home: Path) -> dict[str, Any]:
    """Return what the last launcher's starter wrote; a torn file is of an earlier boot."""
    try:
        return decode((home / INFO).read_bytes())
    except (OSError, ValueError):
        return {}


def wait_for_last(home: Path, limit_s: float) -> bool:
    """Wait until the last launcher, and its pid namespace with it, is dead.

    Its lock comes free earlier: the first process of a namespace lets go of its files before
    the kernel has killed the rest.
    """
    info = read_info(home)
    if not info or info.get("boot_id") != syscalls.boot_id():
        return True
    return syscalls.wait_gone(int(info["pid"]), int(info["start_time"]), limit_s)


def sweep(home: Path) -> None:
    """Kill what an earlier launcher left and close its records.

    Raises:
        OSError: a process of the home cannot be killed, or a record cannot be written.
    """
    deadline = time.monotonic() + _LIMIT_S
    for base in read_info(home).get("bases", ()):
        if not cgroups.sweep_base(Path(base), _LIMIT_S):
            raise OSError(f"a payload cannot be killed [cgroup={base}]")
    ours = trees.marked_by(syscalls.home_id(home))
    while trees.signal_marked(ours, SIGKILL):
        if time.monotonic() > deadline:
            raise OSError("a payload cannot be killed [cgroup=none]")
        time.sleep(0.005)
    records = Records(home)
    records.remove_temporaries()
    open_records = [record for record in records.attempts() if _open(record)]
    boot_id = syscalls.boot_id()
    # One by one, a thousand fsyncs take more than a second.
    with ThreadPoolExecutor(_POOL) as pool:
        list(pool.map(partial(_close, records, boot_id), open_records))


def _open(record: LaunchRecord) -> bool:
    return record.state in {"intent", "running"} or record.ended_at is None


def _close(records: Records, boot_id: str, record: LaunchRecord) -> None:
    if record.why == "torn":
        records.write(lost(record, "torn", record.error or ""), durable=True)
    elif record.boot_id != boot_id:
        records.write(lost(record, "boot", "the host was restarted"), durable=True)
    elif record.state == "intent":
        # In the same boot the `running` record would be there if the payload had been let go.
        records.remove(record.key)
    else:
        records.write(lost(record, "launcher", "its launcher died"), durable=True)
