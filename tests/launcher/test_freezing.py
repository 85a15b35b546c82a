"""A frozen payload stands still, whole, and goes on as the same processes."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from temporal_fabric.launcher import syscalls
from tests.launcher.place import until

if TYPE_CHECKING:
    from tests.launcher.place import Place

_BUSY = "while :; do :; done"
_TREE = f"trap 'exit 9' TERM; setsid sh -c '{_BUSY}' & ({_BUSY}) & {_BUSY}"


def _ticks(place: Place) -> dict[int, int]:
    """Return the CPU ticks of every process of the test's payload, by pid."""
    mark, found = f"NAP={place.naptime}".encode(), dict[int, int]()
    for path in Path("/proc").iterdir():
        try:
            if path.name.isdigit() and mark in (path / "environ").read_bytes().split(b"\0"):
                stat = syscalls.stat_fields(int(path.name))
                if stat is not None:
                    found[int(path.name)] = int(stat[11]) + int(stat[12])
        except OSError:
            continue
    return found


async def test_a_frozen_tree_uses_no_processor_and_goes_on(every_place: Place) -> None:
    """Not one tick while frozen, also of a daemon; afterwards the same pids count on."""
    client = await every_place.connect()
    await client.start(every_place.spec("a", _TREE))
    assert await until(lambda: len(_ticks(every_place)) == 3)

    frozen = await client.freeze("a")
    again = await client.freeze("a")
    before = _ticks(every_place)
    await asyncio.sleep(1)
    after = _ticks(every_place)
    thawed = await client.thaw("a")

    assert before == after
    assert frozen.frozen_at == again.frozen_at is not None
    assert (thawed.frozen_at, thawed.frozen_s >= 1) == (None, True)
    assert await until(lambda: all(_ticks(every_place)[p] > t for p, t in after.items()))


async def test_the_wall_limit_stands_still(either_place: Place) -> None:
    """A payload with a second left is not stopped in three frozen ones, but after them it is."""
    client = await either_place.connect()
    await client.start(either_place.spec("a", _TREE, wall_s=1.5, grace_s=0.1))
    await client.freeze("a")

    still = await client.wait("a", 3)
    await client.thaw("a")
    ended = await client.wait("a", 20)

    assert still.state == "running"
    assert (ended.state, ended.why, ended.frozen_at) == ("ended", "wall", None)


async def test_a_frozen_payload_hears_its_end(every_place: Place) -> None:
    """SIGTERM reaches the handler of a frozen payload, and its whole tree goes."""
    client = await every_place.connect()
    ready = f"echo ready >> {every_place.evidence}"
    await client.start(every_place.spec("a", f"trap 'exit 9' TERM; {ready}; {_BUSY}"))
    assert await until(lambda: every_place.runs() == ["ready"])
    await client.freeze("a")

    ended = await client.terminate("a", 10)

    assert (ended.exit_code, ended.why) == (9, "terminated")


async def test_a_frozen_payload_is_killed_without_grace(either_place: Place) -> None:
    """Also without a grace period the end comes, and nothing is left standing."""
    client = await either_place.connect()
    await client.start(either_place.spec("a", _TREE))
    await client.freeze("a")

    ended = await client.terminate("a", 0)

    assert ended.signal == signal.SIGKILL
    assert _ticks(either_place) == {}


async def test_it_stays_frozen_without_its_client(place: Place) -> None:
    """Whoever froze it may die: only a thaw, from anyone, lets it go on."""
    first = await place.connect()
    await first.start(place.spec("a", _BUSY))
    await first.freeze("a")
    await first.aclose()
    second = await place.connect()
    before = _ticks(place)
    await asyncio.sleep(0.3)

    assert _ticks(place) == before
    assert (await second.query("a")).frozen_at is not None
    assert (await second.thaw("a")).frozen_at is None


async def test_nothing_to_freeze(place: Place) -> None:
    """A payload that has ended, and one that never was, are told as such."""
    client = await place.connect()
    await client.start(place.spec("a", "exit 0"))
    await client.wait("a", 10)

    assert (await client.freeze("a")).state == "ended"
    assert (await client.thaw("b")).state == "absent"
