"""Commands beside a payload in a sandbox: as confined as the payload itself."""

from __future__ import annotations

import base64
import sys
from typing import TYPE_CHECKING

from temporal_fabric.launcher.limits import Limits
from tests.isolation.place import BOMB
from tests.launcher.commanding import fetched, ran
from tests.launcher.place import until
from tests.launcher.test_commands import WAITS

if TYPE_CHECKING:
    from tests.isolation.place import SandboxPlace

CONFINED = (
    "CapBnd:\t0000000000000000",
    "CapEff:\t0000000000000000",
    "NoNewPrivs:\t1",
    "Seccomp:\t2",
)


async def test_a_command_is_inside(every_sandbox: SandboxPlace) -> None:
    """Nobody, without capabilities, filtered, in the payload's namespaces and its folder."""
    client = await every_sandbox.connect()
    await client.start(every_sandbox.sandboxed("a", WAITS))

    status, _, _ = await ran(client, "a", "cat /proc/self/status")
    place, _, _ = await ran(client, "a", "pwd; id -u; ls -A /home /work 2>/dev/null | wc -l")
    spaces = "readlink /proc/$p/ns/user /proc/$p/ns/pid /proc/$p/ns/mnt /proc/$p/ns/net"
    mine, _, _ = await ran(client, "a", f"p=self; {spaces}")
    payload, _, _ = await ran(client, "a", f"p=2; {spaces}")

    assert all(line in status.decode().splitlines() for line in CONFINED)
    assert place == f"{every_sandbox.task}\n65534\n0\n".encode()
    assert mine == payload != b""


async def test_ends_are_told_and_streams_kept_apart(sandboxes: SandboxPlace) -> None:
    """Exit code, signal, a program that is not there, and an ending by order."""
    client = await sandboxes.connect()
    await client.start(sandboxes.sandboxed("a", WAITS))

    assert await ran(client, "a", "echo o; echo e >&2; exit 7") == (b"o\n", b"e\n", 7)
    assert (await ran(client, "a", "kill -9 $$"))[2] == -9
    await client.execute("a", "none", ["no-such-program"])
    assert "No such file" in (await fetched(client, "a", "none"))[2]
    await client.execute("a", "long", ["sleep", "600"])
    await client.end("a", "long")
    assert (await fetched(client, "a", "long"))[2] == -15
    assert (await client.query("a")).state == "running"


async def test_a_command_dies_with_the_sandbox(every_sandbox: SandboxPlace) -> None:
    """The payload ends by itself: a command and its daemon are gone, and its end is told."""
    client = await every_sandbox.connect()
    go = every_sandbox.task / "go"
    await client.start(every_sandbox.sandboxed("a", f"until [ -e {go} ]; do sleep 0.05; done"))
    nap = every_sandbox.naptime
    await client.execute("a", "1", ["sh", "-c", f"setsid sleep {nap} & exec sleep 600"])
    assert await until(lambda: every_sandbox.nappers() == 1)

    go.touch()
    record = await client.wait("a", 20)

    assert (record.state, record.exit_code) == ("ended", 0)
    assert every_sandbox.nappers() == 0
    assert (await fetched(client, "a", "1"))[2] == -9


async def test_a_bomb_in_a_command_stays_inside(sandboxes: SandboxPlace) -> None:
    """The payload's limit of processes holds for what is beside it, all together."""
    client = await sandboxes.connect()
    held = "pids" in (await client.info())["limits"]
    limits = Limits(pids=40) if held else Limits(user_processes=40)
    await client.start(sandboxes.sandboxed("a", WAITS, limits=limits))

    await client.execute("a", "bomb", [sys.executable, "-I", "-S", "-c", BOMB])
    told = await client.fetch("a", "bomb", (0, 0), 20)
    await client.terminate("a", 0.0)

    assert 0 < int(base64.b64decode(told["stdout"])) < 40
