"""Runs payloads under limits from each place that a worker can have in groups of version 2.

``python -I -S on_version_2.py SOURCE``, as root of a machine of its own. Prints one JSON object:
what was seen, by place and payload.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from temporal_fabric.launcher import LauncherClient

ROOT = Path("/sys/fs/cgroup")
MEMORY = 32 << 20

_NOBODY = 65534
_CLONE_NEWNS, _CLONE_NEWCGROUP = 0x00020000, 0x02000000
_MS_PRIVATE, _MS_REC, _MNT_DETACH = 1 << 18, 1 << 14, 2
_PATIENCE_S = 120.0

_OWN = "$(sed -n 's,^0::,/sys/fs/cgroup,p' /proc/self/cgroup)"
_EATS = "tail < /dev/zero > /dev/null"  # keeps what may be its last line, and there is none
_PAYLOADS: dict[str, tuple[str, dict[str, float]]] = {
    "shown": (
        f"cd {_OWN} && cat memory.max memory.swap.max cpu.max pids.max",
        {"memory_bytes": MEMORY, "cpus": 0.2, "pids": 9},
    ),
    "fits": ("head -c 4000000 /dev/zero | tail | wc -c; exit 3", {"memory_bytes": MEMORY}),
    "dies": (f"exec {_EATS}", {"memory_bytes": MEMORY}),
    "child": (f"{_EATS}; exit 0", {"memory_bytes": MEMORY}),
    "bomb": ("i=0; while sleep 600 & do i=$((i + 1)); echo $i; done", {"pids": 20}),
    "busy": (f"timeout 2 sh -c 'while :; do :; done'; cat {_OWN}/cpu.stat", {"cpus": 0.2}),
}
"""What runs to its end, and under which limits."""

_EVERYWHERE = ("shown", "child")


def root() -> Path:
    """Stay in the root group, as on a host without a service manager."""
    return ROOT


def scope() -> Path:
    """Be given a group, and live in it."""
    return _entered(_given("given.scope"))


def service() -> Path:
    """Be a service that was given its group, and no leaf of it to live in."""
    return _entered(_given("lone.service"))


def leaf() -> Path:
    """Be a service that was given its group, and a leaf to live in."""
    group = _given("leafy.service")
    (group / "worker").mkdir()
    _entered(group / "worker")
    return group


def session() -> Path:
    """Live in a group that nobody has given away, as after a login."""
    (ROOT / "session.scope").mkdir()
    return _entered(ROOT / "session.scope")


def container() -> Path:
    """See nothing but the own group."""
    (ROOT / "container").mkdir()
    _entered(ROOT / "container")
    libc = ctypes.CDLL(None, use_errno=True)
    calls: tuple[Callable[[], int], ...] = (
        lambda: libc.unshare(_CLONE_NEWNS | _CLONE_NEWCGROUP),
        lambda: libc.mount(None, b"/", None, _MS_PRIVATE | _MS_REC, None),
        lambda: libc.umount2(bytes(ROOT), _MNT_DETACH),
        lambda: libc.mount(b"cgroup", bytes(ROOT), b"cgroup2", 0, None),
    )
    for call in calls:
        if call() != 0:
            raise OSError(ctypes.get_errno(), "no container")
    return ROOT


def user() -> Path:
    """Be an ordinary user who was given a group, as by ``systemd-run --user --scope``."""
    group = _given("theirs.scope")
    for path in (group, group / "cgroup.procs", group / "cgroup.subtree_control"):
        os.chown(path, _NOBODY, _NOBODY)
    _entered(group)
    os.setgroups([])
    os.setgid(_NOBODY)
    os.setuid(_NOBODY)
    return group


PLACES = (root, scope, service, leaf, session, container, user)


def _given(name: str) -> Path:
    group = ROOT / name
    group.mkdir()
    os.setxattr(group, "user.delegate", b"1")
    return group


def _entered(group: Path) -> Path:
    (group / "cgroup.procs").write_text("0")
    return group


async def _seen(folder: Path, unit: Path, payloads: Iterable[str]) -> dict[str, Any]:
    from temporal_fabric.launcher import LauncherClient  # noqa: PLC0415 - found by main()

    async with await LauncherClient.connect(folder / "home", timeout_s=_PATIENCE_S) as client:
        found: dict[str, Any] = {"info": await client.info()}
        for key in payloads:
            found[key] = await _ended(client, folder, key, *_PAYLOADS[key])
        found |= await _stopped(client, folder, unit)
        await client.shutdown()
    deadline = time.monotonic() + _PATIENCE_S
    while (left := _left(unit)) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    return found | {"left": left, "self": (unit / "fabric-self").exists()}


async def _ended(
    client: LauncherClient, folder: Path, key: str, script: str, limits: dict[str, float]
) -> dict[str, Any]:
    from temporal_fabric.errors import PermanentBackendError  # noqa: PLC0415

    try:
        await _start(client, folder, key, script, limits)
    except PermanentBackendError as exc:
        return {"refused": str(exc)}
    record = await client.wait(key, _PATIENCE_S)
    return record.as_dict() | {"out": (folder / f"{key}.out").read_text()}


async def _stopped(client: LauncherClient, folder: Path, unit: Path) -> dict[str, Any]:
    """Freeze a tree of three, and kill it while it stands still."""
    await _start(client, folder, "tree", "setsid sh -c 'sleep 600 & wait' & exec sleep 600", {})
    group = _group_of("tree", unit)
    while len((group / "cgroup.procs").read_text().split()) < 3:
        await asyncio.sleep(0.05)
    await client.freeze("tree")
    frozen = (group / "cgroup.events").read_text()
    record = await client.terminate("tree", 0.0)
    return {"frozen": frozen, "tree": record.as_dict(), "gone": not group.exists()}


async def _start(
    client: LauncherClient, folder: Path, key: str, script: str, limits: dict[str, float]
) -> None:
    from temporal_fabric.launcher.limits import Limits  # noqa: PLC0415
    from temporal_fabric.launcher.protocol import LaunchSpec  # noqa: PLC0415

    spec = LaunchSpec(
        key=key,
        argv=("sh", "-c", script),
        env={"PATH": os.environ["PATH"]},
        cwd=str(folder),
        stdout=str(folder / f"{key}.out"),
        stderr=str(folder / f"{key}.err"),
        limits=Limits.from_dict(limits),
    )
    await client.start(spec)


def _group_of(key: str, unit: Path) -> Path:
    (found,) = unit.glob(f"fabric-*/a-{key}")
    return found


def _left(unit: Path) -> list[str]:
    return [path.name for path in unit.glob("fabric-*") if path.name != "fabric-self"]


def _tell(place: Callable[[], Path], folder: Path) -> None:
    """Be the process of one place, and write down what was seen from there."""
    answer = folder / "answer.json"
    answer.touch()
    folder.chmod(0o777)
    answer.chmod(0o666)
    try:
        payloads = _PAYLOADS if place in {root, user} else _EVERYWHERE
        found = asyncio.run(_seen(folder, place(), payloads))
    except BaseException as exc:  # noqa: BLE001 - told, and not lost with this process
        found = {"error": repr(exc)}
    answer.write_text(json.dumps(found))


def main() -> None:
    """Be in all places at once."""
    # As a service manager does, before it starts anything.
    (ROOT / "cgroup.subtree_control").write_text("+memory +cpu +pids")
    source = Path(sys.argv[1])
    sys.path.insert(0, str(source))
    importlib.import_module("temporal_fabric.launcher.client")  # once for all

    # Everybody may run what this process runs; the change is seen on this machine alone.
    for path in (source, Path(sys.executable).resolve()):
        for folder in path.parents:
            folder.chmod(folder.stat().st_mode | 0o555)
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folders = {place.__name__: Path(name, place.__name__) for place in PLACES}
        for place in PLACES:
            folders[place.__name__].mkdir()
            if os.fork() == 0:
                _tell(place, folders[place.__name__])
                os._exit(0)
        for _ in PLACES:
            os.wait()
        found = {key: json.loads((at / "answer.json").read_text()) for key, at in folders.items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
