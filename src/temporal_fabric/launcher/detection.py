"""Finding where the groups of attempts can be: version 2, version 1 or both mixed.

They lie beside the launcher's own group, so that limits set from outside go on to hold.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from temporal_fabric.launcher import delegation
from temporal_fabric.launcher.bases import NONE, Bases
from temporal_fabric.launcher.cgroups import remove_group

V1, V2 = "v1", "v2"
CHOICE_ENV = "FABRIC_LAUNCHER_CGROUP"

Mounts = dict[str, tuple[str, Path]]
"""Root and mount point by controller, "" standing for version 2."""


def detect(name: str, choice: str = "") -> Bases:
    """Make the base folders called `name` and return those that work.

    Args:
        name: Name of the base folder, one per home.
        choice: ``v1``, ``v2`` or ``none`` to allow nothing else.
    """
    if choice == NONE:
        return Bases()
    places, own = mounts(), own_groups()
    found = Bases()
    if choice != V1:
        found = _detect_v2(name, places, own)
    if found.kill is None and choice != V2:
        kill = _base("freezer", name, places, own, "freezer.state")
        found = Bases(
            V1 if kill else NONE, kill, None, _base("cpuacct", name, places, own, "cpuacct.usage")
        )
    if found.kill is None:
        return Bases()
    found = replace(
        found,
        memory=found.memory or _base("memory", name, places, own, "memory.oom_control"),
        quota=found.quota or _base("cpu", name, places, own, "cpu.cfs_quota_us"),
        pids=found.pids or _base("pids", name, places, own, "pids.max"),
    )
    return found if _joinable(found) else Bases()


def make_room() -> None:
    """Let version 2 give limits to groups beside our own, where it is ours to do so.

    Must run where every process of our own group is seen: outside the launcher's namespaces.
    """
    if os.environ.get(CHOICE_ENV, "") in {NONE, V1}:
        return
    places, own = mounts(), own_groups()
    place = own_folder("", places, own)
    if place is not None:
        delegation.make_room(place, container=own[""] == places[""][0])


def own_folder(controller: str, places: Mounts, own: dict[str, str]) -> Path | None:
    """Return the folder of our own group, None where it is not mounted here."""
    if controller not in places or controller not in own:
        return None
    root, point = places[controller]
    path = own[controller]
    return point / path.removeprefix(root).lstrip("/") if path.startswith(root) else None


def mounts() -> Mounts:
    """Return root and mount point by controller, "" standing for version 2."""
    found: dict[str, tuple[str, Path]] = {}
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        root, point = left.split(" ")[3:5]
        if kind == "cgroup2":
            found[""] = (root, Path(point))
        elif kind == "cgroup":
            for controller in options.split(","):
                found[controller] = (root, Path(point))
    return found


def own_groups() -> dict[str, str]:
    """Return the path of this process's group by controller, as its namespace sees it."""
    found: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        found |= dict.fromkeys(controllers.split(","), path)
    return found


def _detect_v2(name: str, mounts: Mounts, own: dict[str, str]) -> Bases:
    place = own_folder("", mounts, own)
    kill = None if place is None else _made(delegation.unit_of(place) / name, "cgroup.procs")
    if kill is None:
        return Bases()
    for folder in (kill.parent, kill):
        for controller in delegation.CONTROLLERS:
            delegation.enable(folder, [controller])
    if not _has(kill, "cgroup.kill"):
        remove_group(kill)
        return Bases()
    return Bases(
        V2,
        kill,
        memory=kill if _has(kill, "memory.events") else None,
        quota=kill if _has(kill, "cpu.max") else None,
        pids=kill if _has(kill, "pids.max") else None,
    )


def _base(
    controller: str, name: str, mounts: Mounts, own: dict[str, str], needed: str
) -> Path | None:
    place = own_folder(controller, mounts, own)
    return None if place is None else _made(place / name, needed)


def _made(base: Path, needed: str) -> Path | None:
    try:
        base.mkdir(exist_ok=True)
    except OSError:
        return None
    return base if _has(base, needed) else None


def _has(base: Path, needed: str) -> bool:
    """Return whether a child of the base has a control file; the root has fewer files."""
    probe = base / "probe"
    try:
        probe.mkdir(exist_ok=True)
    except OSError:
        return False
    try:
        return (probe / needed).exists()
    finally:
        remove_group(probe)


def _joinable(bases: Bases) -> bool:
    """Let a child try to join: rights to make a group do not imply rights to enter it."""
    probes = [base / "probe" for base in bases.folders()]
    for probe in probes:
        probe.mkdir(exist_ok=True)
    pid = os.fork()
    if pid == 0:
        try:
            for probe in probes:
                (probe / "cgroup.procs").write_text("0", encoding="ascii")
        except BaseException:  # noqa: BLE001 - a forked copy must not go on
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    for probe in probes:
        remove_group(probe)
    return status == 0
