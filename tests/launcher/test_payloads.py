"""What a payload gets, how its end is told, and how it is ended."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from temporal_fabric.errors import PermanentBackendError, TransientBackendError
from temporal_fabric.launcher import syscalls
from tests.launcher.place import until

if TYPE_CHECKING:
    from tests.launcher.place import Place

ORPHANS = 'setsid sleep "$NAP" & (setsid sh -c \'sleep "$NAP" & sleep "$NAP"\' &); '


async def test_exit_code_and_signal_are_told_apart(every_place: Place) -> None:
    """Exit 137 and a kill by signal 9 are different ends."""
    client = await every_place.connect()
    for key, script in (("exit", "exit 137"), ("kill", "kill -9 $$"), ("good", "true")):
        assert (await client.start(every_place.spec(key, script))).key == key
    exited, killed, good = [await client.wait(key, 10) for key in ("exit", "kill", "good")]

    assert [each.state for each in (exited, killed, good)] == ["ended"] * 3
    assert [each.why for each in (exited, killed, good)] == [None] * 3
    assert (exited.exit_code, exited.signal) == (137, None)
    assert (killed.exit_code, killed.signal) == (None, 9)
    assert (good.exit_code, good.signal) == (0, None)


async def test_program_that_does_not_exist(place: Place) -> None:
    """A failed exec is an end with a sentence and without an exit code."""
    client = await place.connect()
    spec = place.spec("none", "")
    record = await client.start(replace(spec, argv=("no-such-program",)))

    assert (record.state, record.why, record.exit_code) == ("ended", "exec", None)
    assert record.error == "No such file or directory: 'no-such-program'"


@pytest.mark.parametrize("field", ["cwd", "stdout"])
async def test_folder_that_does_not_exist(place: Place, field: str) -> None:
    """The sentence names the folder or file that is missing."""
    client = await place.connect()
    changes: dict[str, Any] = {field: "/no/such/place"}
    record = await client.start(replace(place.spec(field, "true"), **changes))

    assert (record.state, record.why) == ("ended", "exec")
    assert record.error == "No such file or directory: '/no/such/place'"


async def test_running_record_names_the_process(every_place: Place) -> None:
    """Pid and start time are those that the host sees."""
    client = await every_place.connect()
    record = await client.start(every_place.spec("a", 'exec sleep "$NAP"'))

    assert record.state == "running"
    assert record.pid is not None
    assert syscalls.start_time(record.pid) == record.start_time
    assert record.boot_id == syscalls.boot_id()
    assert await client.keys() == [record]
    assert await client.wait("a", 0.05) == record


async def test_surroundings_of_a_payload(place: Place) -> None:
    """A payload has its own session, no descriptors, default signals and the marker."""
    code = "import os,json,signal; print(json.dumps([os.getpid(), os.getsid(0),"
    code += " sorted(map(int, os.listdir('/proc/self/fd')))[:-1], os.readlink('/proc/self/fd/0'),"
    code += " dict(os.environ), len(signal.pthread_sigmask(0, [])), os.getcwd()]))"
    spec = replace(place.spec("a", ""), argv=(sys.executable, "-S", "-c", code))
    client = await place.connect()
    await client.start(spec)
    ended = await client.wait("a", 10)
    said = json.loads((place.folder / "a.out").read_text())

    assert ended.exit_code == 0
    assert said[0] == said[1]
    assert said[2:4] == [[0, 1, 2], "/dev/null"]
    assert said[4].items() >= (spec.env | {"FABRIC_ATTEMPT_KEY": "a"}).items()
    assert said[5:] == [0, str(place.folder)]
    assert (place.folder / "a.out").stat().st_mode & 0o777 == 0o600


async def test_twenty_starts_are_one_run(either_place: Place) -> None:
    """Starting is idempotent, at the same time and after the end."""
    first, second = await either_place.connect(), await either_place.connect()
    spec = either_place.spec("a", f'echo ran >> "{either_place.evidence}"; exit 7')
    records = await asyncio.gather(*(c.start(spec) for c in (first, second) for _ in range(10)))
    ended = await first.wait("a", 10)

    assert len({record.pid for record in records}) == 1
    assert await second.start(spec) == ended
    assert either_place.runs() == ["ran"]


async def test_orphans_go_before_the_end_is_told(every_place: Place) -> None:
    """A payload that leaves daemons behind ends without them."""
    client = await every_place.connect()
    await client.start(every_place.spec("a", ORPHANS + "sleep 0.1; exit 5"))
    ended = await client.wait("a", 10)

    assert (ended.state, ended.exit_code) == ("ended", 5)
    assert every_place.nappers() == 0


async def test_terminate_takes_the_whole_tree(every_place: Place) -> None:
    """A payload that ignores SIGTERM and its orphans are gone when the call returns."""
    client = await every_place.connect()
    script = f"trap '' TERM; {ORPHANS} : > ready; while :; do sleep 0.05; done"
    await client.start(every_place.spec("a", script))
    assert await until((every_place.folder / "ready").exists)
    ended = await client.terminate("a", 0.2)

    assert (ended.state, ended.signal, ended.why) == ("ended", 9, "terminated")
    assert every_place.nappers() == 0


async def test_terminate_lets_a_payload_say_goodbye(either_place: Place) -> None:
    """Within the grace a payload chooses its own exit code."""
    client = await either_place.connect()
    script = "trap 'exit 3' TERM; : > ready; while :; do sleep 0.02; done"
    await client.start(either_place.spec("a", script))
    assert await until((either_place.folder / "ready").exists)
    ended, same = await asyncio.gather(client.terminate("a", 30), client.terminate("a", 30))

    assert (ended.exit_code, ended.why) == (3, "terminated")
    assert same == ended


async def test_terminate_of_an_absent_key_forbids_it(place: Place) -> None:
    """A start that comes too late runs nothing."""
    client = await place.connect()
    assert (await client.query("a")).state == "absent"
    forbidden = await client.terminate("a", 1)
    late = await client.start(place.spec("a", f'echo ran > "{place.evidence}"'))

    assert (forbidden.state, forbidden.why) == ("ended", "forbidden")
    assert late == await client.query("a") == forbidden
    assert place.runs() == []


async def test_wall_limit(either_place: Place) -> None:
    """The limit is SIGTERM, then the grace, then SIGKILL."""
    client = await either_place.connect()
    script = "trap '' TERM; while :; do sleep 0.02; done"
    await client.start(either_place.spec("a", script, wall_s=0.3, grace_s=0.2))
    ended = await client.wait("a", 10)

    assert (ended.state, ended.signal, ended.why) == ("ended", 9, "wall")
    assert ended.started_at is not None
    assert ended.ended_at is not None
    assert 0.5 <= ended.ended_at - ended.started_at < 5


async def test_memory_kills_are_counted(place: Place) -> None:
    """A signal 9 from the kernel is told apart from any other by the group's counter."""
    client = await place.connect()
    limit = place.memory_limit("a")
    if limit is None:
        pytest.skip("no control group counts memory here")
    script = "while [ ! -e go ]; do sleep 0.02; done; "
    await client.start(place.spec("a", f"{script} exec {sys.executable} -c 'bytes([1]) * 10**8'"))
    limit.write_text(str(32 << 20))
    (place.folder / "go").touch()
    ended = await client.wait("a", 20)

    assert (ended.signal, ended.oom_kills, ended.why) == (9, 1, None)
    assert ended.max_rss_bytes is not None
    assert ended.max_rss_bytes <= 32 << 20


async def test_forgotten_keys_are_refused(place: Place) -> None:
    """A tombstone refuses a restart, and keeps the end."""
    client = await place.connect()
    spec = place.spec("a", "sleep 0.2; exit 4")
    await client.start(spec)
    with pytest.raises(TransientBackendError, match="still runs"):
        await client.forget("a")
    ended = await client.wait("a", 10)
    await client.forget("a")
    await client.forget("never")

    assert await client.start(spec) == ended
    assert list((place.home / "attempts").iterdir()) == []


INVALID: list[dict[str, Any]] = [
    {"key": "a/b"},
    {"key": ""},
    {"key": "a" * 201},
    {"argv": ()},
    {"argv": ("a\0b",)},
    {"cwd": "relative"},
    {"env": {"A=B": ""}},
    {"wall_s": -1.0},
    {"grace_s": float("nan")},
]


async def test_invalid_specs_are_refused(place: Place) -> None:
    """A spec that can never run is a permanent error."""
    client = await place.connect()
    for changes in INVALID:
        with pytest.raises(PermanentBackendError):
            await client.start(replace(place.spec("a", "true"), **changes))

    assert (await client.query("a")).state == "absent"


async def test_longest_key_and_odd_environment(place: Place) -> None:
    """200 characters are a key; bytes that are no UTF-8 pass through."""
    client = await place.connect()
    key = "a" * 200
    spec = replace(place.spec("odd", 'printf %s "$ODD"'), key=key)
    await client.start(replace(spec, env=spec.env | {"ODD": "\udcff\N{SNOWMAN}"}))

    assert (await client.wait(key, 10)).exit_code == 0
    assert (place.folder / "odd.out").read_bytes() == b"\xff\xe2\x98\x83"
