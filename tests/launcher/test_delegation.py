"""Room for limits in version 2, on the kernel's own rule, by a controller that is free here.

Where memory, processor time and processes belong to version 1 their limits cannot be tried in
version 2; the rule about processes is the same for every controller.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from temporal_fabric.launcher import cgroups, delegation, detection, syscalls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.launcher.place import Place

CONTROLLER = "hugetlb"


class Unit:
    """A group of version 2 with a process of its own, as a service manager makes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        folder.mkdir()

    def mark(self) -> None:
        """Say that the group was given to whoever runs in it."""
        os.setxattr(self.folder, "user.delegate", b"1")

    def enter(self, leaf: str = "") -> Path:
        """Let a process live in the group, or in a leaf of it; return where."""
        place = self.folder / leaf
        place.mkdir(exist_ok=True)
        process = subprocess.Popen(["sleep", "600"])
        (place / "cgroup.procs").write_text(str(process.pid))
        self._processes.append(process)
        return place

    def has(self, leaf: str = "") -> int:
        """Count the processes of the group itself, or of a leaf of it."""
        return len((self.folder / leaf / "cgroup.procs").read_text().split())

    def limits(self) -> bool:
        """Return whether children get the controller."""
        child = self.folder / "child"
        child.mkdir(exist_ok=True)
        return any(child.glob(f"{CONTROLLER}.*"))

    def close(self) -> None:
        """Remove it."""
        for process in self._processes:
            process.kill()
            process.wait()
        cgroups.remove_group(self.folder)


@pytest.fixture
def make_unit() -> Iterator[Callable[[str], Unit]]:
    """Make groups of version 2 that can have the controller, gone afterwards."""
    _, root = detection.mounts().get("", ("", Path("/nowhere")))
    if not delegation.enable(root, [CONTROLLER]):
        pytest.skip(f"no control groups of version 2 with {CONTROLLER}, or no rights to them")
    made: list[Unit] = []

    def make(kind: str) -> Unit:
        made.append(Unit(root / f"fabric-test-{secrets.token_hex(4)}.{kind}"))
        return made[-1]

    yield make
    for unit in made:
        unit.close()
    with suppress(OSError):
        (root / "cgroup.subtree_control").write_text(f"-{CONTROLLER}")


def test_the_kernel_wants_a_leaf(make_unit: Callable[[str], Unit]) -> None:
    """The rule all of this is about: with a process of its own a group gives no controller."""
    unit = make_unit("scope")
    assert delegation.enable(unit.folder, [CONTROLLER])
    empty = make_unit("scope")
    empty.enter()

    assert not delegation.enable(empty.folder, [CONTROLLER])


@pytest.mark.parametrize("container", [False, True])
def test_processes_of_a_scope_move_into_a_leaf(
    make_unit: Callable[[str], Unit], *, container: bool
) -> None:
    """Given away by its mark, or by being all there is: then children have limits."""
    unit = make_unit("scope")
    for _ in range(3):
        unit.enter()
    if not container:
        unit.mark()

    for _ in range(2):
        delegation.make_room(unit.folder, container=container, controllers=[CONTROLLER])

    assert (unit.has(), unit.has(delegation.LEAF)) == (0, 3)
    assert unit.limits()
    assert delegation.unit_of(unit.folder / delegation.LEAF) == unit.folder


@pytest.mark.parametrize(("kind", "marked"), [("scope", False), ("service", True)])
def test_what_is_not_ours_to_change_stays(
    make_unit: Callable[[str], Unit], kind: str, *, marked: bool
) -> None:
    """A group nobody gave us, and a service that could not be started again."""
    unit = make_unit(kind)
    unit.enter()
    if marked:
        unit.mark()

    delegation.make_room(unit.folder, controllers=[CONTROLLER])

    assert unit.has() == 1
    assert not (unit.folder / delegation.LEAF).exists()
    assert not unit.limits()


def test_a_service_in_a_leaf_of_its_own_needs_no_move(make_unit: Callable[[str], Unit]) -> None:
    """As systemd starts it with DelegateSubgroup: the unit gives limits, the process stays."""
    unit = make_unit("service")
    unit.mark()
    own = unit.enter("worker")

    delegation.make_room(own, controllers=[CONTROLLER])

    assert (unit.has(), unit.has("worker")) == (0, 1)
    assert unit.limits()


async def test_attempts_lie_beside_the_leaf(
    make_unit: Callable[[str], Unit], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launcher in a leaf puts payloads into its unit, and not below its own processes."""
    unit = make_unit("service")
    unit.mark()
    leaf = unit.folder / "worker"
    leaf.mkdir()
    monkeypatch.setenv("FABRIC_LAUNCHER_CGROUP", "v2")
    starting = place.python(
        "async def main():\n"
        "    client = await LauncherClient.connect(HOME)\n"
        "    await client.aclose()\n"
        "asyncio.run(main())\n"
    )
    worker = "open(os.environ['LEAF'] + '/cgroup.procs', 'w').write('0')\n"
    starting[-1] = starting[-1].replace("async def", worker + "async def", 1)
    process = await asyncio.create_subprocess_exec(*starting, env=os.environ | {"LEAF": str(leaf)})
    assert await process.wait() == 0
    client = await place.connect()
    record = await client.start(place.spec("a", "sleep 600"))

    text = await asyncio.to_thread(Path(f"/proc/{record.pid}/cgroup").read_text)
    info = await client.info()
    await client.terminate("a", 0.0)

    own = next(line for line in text.splitlines() if line.startswith("0::"))
    assert own.endswith(f"/{unit.folder.name}/fabric-{syscalls.home_id(place.home)}/a-a")
    assert info["cgroup"] == "v2"
