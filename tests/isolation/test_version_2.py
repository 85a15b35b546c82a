"""Limits by control groups of version 2 alone, in a virtual machine whose kernel has no others.

What `on_version_2` has seen there from each place that a worker can have.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.backends import guest, missing
from tests.isolation import on_version_2

_SOURCE = Path(__file__).parents[2] / "src"
_LIMIT_S = 500.0
"""For a machine with much else to do: alone it takes half a minute."""

_LIMITED = ("root", "scope", "leaf", "container", "user")
_UNLIMITED = ("service", "session")
_FULLY = ("root", "user")

Seen = dict[str, Any]

pytestmark = pytest.mark.timeout(_LIMIT_S + 30)


@pytest.fixture(scope="module")
def seen() -> Seen:
    """What was seen, by place and payload."""
    python = (sys.executable, "-I", "-S", "-B", str(Path(on_version_2.__file__)), str(_SOURCE))
    try:
        said = guest.run(*python, limit_s=_LIMIT_S)
    except guest.GuestUnavailable as exc:
        missing("guest", str(exc))
    assert said.code == 0, said.err
    found: Seen = json.loads(said.out)
    assert {place: each["error"] for place, each in found.items() if "error" in each} == {}
    return found


@pytest.mark.parametrize("place", _LIMITED)
def test_limits_stand_in_the_groups(seen: Seen, place: str) -> None:
    """Given a group, or the root, a worker limits all there is, and swap does not add to memory."""
    told = seen[place]

    assert (told["info"]["cgroup"], told["info"]["limits"]) == ("v2", ["memory", "cpus", "pids"])
    assert told["shown"]["out"].split("\n")[:4] == ["33554432", "0", "20000 100000", "9"]


@pytest.mark.parametrize("place", _LIMITED)
def test_a_child_killed_for_memory_is_counted(seen: Seen, place: str) -> None:
    """The kernel's own counter tells it, although the payload went on and exited with 0."""
    ended = seen[place]["child"]

    assert (ended["exit_code"], ended["oom_kills"]) == (0, 1)
    assert ended["max_rss_bytes"] <= on_version_2.MEMORY


@pytest.mark.parametrize("place", _FULLY)
def test_memory_is_told_from_other_ends(seen: Seen, place: str) -> None:
    """A payload killed for memory has the count, one that failed by itself has none."""
    dies, fits = seen[place]["dies"], seen[place]["fits"]

    assert (dies["signal"], dies["oom_kills"], dies["why"]) == (9, 1, None)
    assert (fits["exit_code"], fits["oom_kills"], fits["out"]) == (3, 0, "4000000\n")


@pytest.mark.parametrize("place", _FULLY)
def test_processes_and_processor_time_are_held(seen: Seen, place: str) -> None:
    """The twentieth process is the last, and who computes all the time is throttled."""
    bomb, busy = seen[place]["bomb"], seen[place]["busy"]
    counted = dict(line.split() for line in busy["out"].splitlines())

    assert bomb["out"].split()[-1] == "19"
    assert int(counted["nr_throttled"]) > 0
    assert busy["cpu_s"] * 1e6 >= int(counted["usage_usec"])


@pytest.mark.parametrize("place", _UNLIMITED)
def test_a_group_with_processes_is_left_alone(seen: Seen, place: str) -> None:
    """What cannot be enforced is refused; trees are held all the same, and nothing is changed."""
    told = seen[place]

    assert (told["info"]["cgroup"], told["info"]["limits"]) == ("v2", [])
    assert told["info"]["tree_kill"] == "certain"
    assert "no control group here limits memory_bytes, cpus, pids" in told["shown"]["refused"]
    assert not told["self"]


@pytest.mark.parametrize("place", [*_LIMITED, *_UNLIMITED])
def test_a_tree_is_frozen_and_killed(seen: Seen, place: str) -> None:
    """All of it, in a session of its own or not, and no group is left when the launcher is gone."""
    told = seen[place]

    assert "frozen 1" in told["frozen"]
    assert (told["tree"]["signal"], told["tree"]["why"]) == (9, "terminated")
    assert told["gone"]
    assert told["left"] == []


@pytest.mark.parametrize("place", ["scope", "container", "user"])
def test_who_owns_a_group_moves_into_a_leaf(seen: Seen, place: str) -> None:
    """Only there; a worker in a leaf already, and one in the root, stay where they are."""
    assert seen[place]["self"]
    assert not seen["leaf"]["self"]
    assert not seen["root"]["self"]
