"""Version 2's rule that a group has either processes or children with limits, and living by it.

A group that has processes itself cannot let a controller work for its children. Whoever was
given a group to rule, as systemd says "delegated", therefore puts its own processes into a
child, a leaf, and the attempts into others beside it.

* A service of systemd has to be started in such a leaf (``DelegateSubgroup=``, systemd 254).
  Moved there afterwards, its group would take no process any more, and the service manager
  could not start its main process a second time while payloads are there.
* A scope and a container start no second main process: there we move.
* A group that nobody has given us is left alone, whatever our rights.

See "Control Group APIs and Delegation" of systemd, and "No Internal Process Constraint" in the
kernel's ``admin-guide/cgroup-v2``.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

CONTROLLERS = ("memory", "cpu", "pids")
LEAF = "fabric-self"

_MARKS = ("user.delegate", "trusted.delegate")
"""Attributes by which systemd marks what it has given away; the second is root's to read."""

_TRIES = 20


def unit_of(own: Path) -> Path:
    """Return the group below which attempts belong: our own, or its parent where we are a leaf."""
    leaf = own.name == LEAF or (not _marked(own) and _marked(own.parent))
    return own.parent if leaf else own


def make_room(
    own: Path, *, container: bool = False, controllers: Iterable[str] = CONTROLLERS
) -> None:
    """Let controllers work for the children of our unit; do nothing where it is not ours.

    Args:
        own: The group of this process, of version 2.
        container: Whether it is all that this process's namespace shows.
        controllers: The wanted ones; those that are not to be had are left out.
    """
    unit = unit_of(own)
    lacking = set(controllers) & _words(unit / "cgroup.controllers")
    lacking -= _words(unit / "cgroup.subtree_control")
    if not lacking or enable(unit, lacking) or unit != own:
        return
    if container or (_marked(own) and not own.name.endswith(".service")):
        _move_into_leaf(unit)
        enable(unit, lacking)


def enable(group: Path, controllers: Iterable[str]) -> bool:
    """Let controllers work for the children of a group; return whether all of them do.

    Of a group with processes memory would be refused, but processor time and pids would be
    given: that makes it threaded, and then no process can enter its children at all.
    """
    if not _is_root(group) and _words(group / "cgroup.procs"):
        return False
    text = " ".join(f"+{name}" for name in controllers)
    try:
        (group / "cgroup.subtree_control").write_text(text, encoding="ascii")
    except OSError:
        return False
    return True


def _move_into_leaf(unit: Path) -> None:
    leaf = unit / LEAF
    with suppress(OSError):
        leaf.mkdir(exist_ok=True)
        # While they are moved they may start others.
        for _ in range(_TRIES):
            pids = _words(unit / "cgroup.procs")
            for pid in pids:
                with suppress(OSError):  # it has ended meanwhile
                    (leaf / "cgroup.procs").write_text(pid, encoding="ascii")
            if not pids:
                return


def _is_root(group: Path) -> bool:
    # The rule is not for the host's own root, which alone has no type.
    return not (group / "cgroup.type").exists()


def _marked(group: Path) -> bool:
    for name in _MARKS:
        with suppress(OSError):
            if os.getxattr(group, name) == b"1":
                return True
    return False


def _words(path: Path) -> set[str]:
    try:
        return set(path.read_text(encoding="ascii").split())
    except OSError:
        return set()
