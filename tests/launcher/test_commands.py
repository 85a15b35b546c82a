"""Commands beside a live payload: in its tree, never twice, and never longer than it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from temporal_fabric.errors import PermanentBackendError
from temporal_fabric.launcher.limits import Limits
from tests.launcher.commanding import fetched, ran
from tests.launcher.place import until

if TYPE_CHECKING:
    from tests.launcher.place import Place

WAITS = "while :; do sleep 0.2; done"


async def test_a_command_runs_as_the_payload_does(every_place: Place) -> None:
    """Same folder, variables but those withheld, streams apart, exit code and signal told."""
    client = await every_place.connect()
    spec = every_place.spec("a", WAITS)
    await client.start(replace(spec, env=spec.env | {"KEPT": "yes", "WITHHELD": "no"}))

    await client.execute("a", "1", ["sh", "-c", "pwd; echo $KEPT$WITHHELD; echo e >&2; exit 7"])
    await client.execute("a", "2", ["sh", "-c", "echo $KEPT$WITHHELD"], ["WITHHELD"])
    told, withheld = await fetched(client, "a", "1"), await fetched(client, "a", "2")
    killed = await ran(client, "a", "kill -9 $$")
    await client.execute("a", "3", ["no-such-program"])

    assert told == (f"{every_place.folder}\nyesno\n".encode(), b"e\n", 7)
    assert withheld[0] == b"yes\n"
    assert killed == (b"", b"", -9)
    assert (await fetched(client, "a", "3"))[2] == "No such file or directory: 'no-such-program'"


async def test_a_command_ends_with_the_payload(every_place: Place) -> None:
    """Terminated with a command and its daemon beside it: nothing of either is left."""
    client = await every_place.connect()
    await client.start(every_place.spec("a", WAITS))
    await client.execute(
        "a", "1", ["sh", "-c", f"setsid sleep {every_place.naptime} & exec sleep 600"]
    )
    assert await until(lambda: every_place.nappers() == 1)

    record = await client.terminate("a", 0.0)

    assert (record.state, record.why) == ("ended", "terminated")
    assert every_place.nappers() == 0
    assert (await fetched(client, "a", "1"))[2] == -9


async def test_a_command_waits_for_its_reader(either_place: Place) -> None:
    """Three megabytes arrive whole, though the launcher holds a fraction of that."""
    client = await either_place.connect()
    await client.start(either_place.spec("a", WAITS))

    said, _, code = await ran(client, "a", "head -c 3000000 /dev/zero")

    assert (len(said), code) == (3_000_000, 0)


async def test_the_same_name_runs_once(either_place: Place) -> None:
    """Asked for three times at once and once more after its end, it has run once."""
    client = await either_place.connect()
    await client.start(either_place.spec("a", WAITS))
    asked = ["sh", "-c", f"echo x >> {either_place.evidence}"]

    await asyncio.gather(*(client.execute("a", "1", asked) for _ in range(3)))
    await fetched(client, "a", "1")
    await client.execute("a", "1", asked)

    assert either_place.runs() == ["x"]


async def test_a_command_is_ended(either_place: Place) -> None:
    """SIGTERM at once, SIGKILL a moment later for one that does not hear it."""
    client = await either_place.connect()
    await client.start(either_place.spec("a", WAITS))
    for name, script in (("1", "exec sleep 600"), ("2", f"trap : TERM; echo on; {WAITS}")):
        await client.execute("a", name, ["sh", "-c", script])
    await client.fetch("a", "2", (0, 0), 10)  # its trap is set

    for name in ("1", "2"):
        await client.end("a", name)

    assert (await fetched(client, "a", "1"))[2] == -15
    assert (await fetched(client, "a", "2"))[2] == -9
    assert (await client.query("a")).state == "running"


async def test_no_command_without_a_running_payload(either_place: Place) -> None:
    """Absent, frozen and ended payloads take none, and say why."""
    client = await either_place.connect()
    with pytest.raises(PermanentBackendError, match="no live payload"):
        await client.execute("a", "1", ["true"])
    await client.start(either_place.spec("a", WAITS))
    await client.freeze("a")
    with pytest.raises(PermanentBackendError, match="paused: resume it first"):
        await client.execute("a", "1", ["true"])
    await client.thaw("a")
    assert (await ran(client, "a", "true"))[2] == 0
    await client.terminate("a", 0.0)

    with pytest.raises(PermanentBackendError, match="no live payload"):
        await client.execute("a", "2", ["true"])
    with pytest.raises(PermanentBackendError, match="no such command"):
        await client.fetch("a", "2", (0, 0), 1)


async def test_a_command_counts_for_the_payload(place: Place) -> None:
    """Its memory is the attempt's: beyond the limit the kernel kills it, and that is counted."""
    client = await place.connect()
    if "memory" not in (await client.info())["limits"]:
        pytest.skip("this host limits no memory")
    limits = Limits(memory_bytes=32 << 20)
    await client.start(replace(place.spec("a", WAITS), limits=limits))

    _, _, end = await ran(client, "a", "head -c 200000000 /dev/zero | tail > /dev/null")
    record = await client.terminate("a", 0.0)

    assert end != 0
    assert record.oom_kills > 0
