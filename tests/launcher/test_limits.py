"""Limits that the kernel holds a payload to, by whatever groups this host has."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from temporal_fabric.errors import PermanentBackendError
from temporal_fabric.launcher.limits import Limits
from temporal_fabric.launcher.protocol import LaunchSpec
from tests.isolation.place import BOMB

if TYPE_CHECKING:
    from temporal_fabric.launcher import LauncherClient, LaunchRecord
    from tests.launcher.place import Place


async def _run(place: Place, client: LauncherClient, key: str, code: str, **limits: float) -> str:
    """Run a Python payload under limits, return what it printed."""
    await _ended(place, client, key, code, **limits)
    return (place.folder / f"{key}.out").read_text()


async def _ended(
    place: Place, client: LauncherClient, key: str, code: str, **limits: float
) -> LaunchRecord:
    lacking = {name for name in _names(limits) if name not in (await client.info())["limits"]}
    if lacking:
        pytest.skip(f"no control group limits {', '.join(lacking)} here")
    argv = (sys.executable, "-I", "-S", "-c", code)
    held = Limits.from_dict(limits)
    await client.start(replace(place.spec(key, ""), argv=argv, limits=held))
    return await client.wait(key, 30)


def _names(limits: dict[str, float]) -> set[str]:
    by_group = {"memory_bytes": "memory", "cpus": "cpus", "pids": "pids"}
    return {by_group[name] for name in limits if name in by_group}


async def test_a_fork_bomb_stops(every_place: Place) -> None:
    """No more than the limit's processes ever run, and a neighbour starts all the same."""
    client = await every_place.connect()
    started = await _run(every_place, client, "bomb", BOMB, pids=20)
    await client.start(every_place.spec("neighbour", "exit 7"))

    assert int(started) == 19
    assert (await client.wait("neighbour", 10)).exit_code == 7
    assert every_place.nappers() == 0


async def test_memory_is_held(every_place: Place) -> None:
    """A payload beyond its memory dies of it; one within does not."""
    client = await every_place.connect()
    fits = await _ended(every_place, client, "fits", "bytes([1]) * 10**7", memory_bytes=64 << 20)
    dies = await _ended(every_place, client, "dies", "bytes([1]) * 10**8", memory_bytes=64 << 20)

    assert (fits.exit_code, fits.oom_kills) == (0, 0)
    assert (dies.signal, dies.oom_kills, dies.why) == (9, 1, None)


async def test_processor_time_is_held(every_place: Place) -> None:
    """A tenth of a core is what a busy payload gets, over some periods."""
    code = "import time; end = time.monotonic() + 2\nwhile time.monotonic() < end: pass\n"
    code += "print(time.process_time())"
    client = await every_place.connect()
    used = float(await _run(every_place, client, "busy", code, cpus=0.1))

    assert used < 0.5


async def test_open_files_and_core_files_are_held(either_place: Place) -> None:
    """Resource limits need no control group."""
    code = "import resource as r\n"
    code += "print(r.getrlimit(r.RLIMIT_NOFILE), r.getrlimit(r.RLIMIT_CORE))\n"
    code += "files = [open('/dev/null') for _ in range(70)]"
    client = await either_place.connect()
    said = await _run(either_place, client, "a", code, open_files=64, no_core=True)
    ended = await client.query("a")

    assert said == "(64, 64) (0, 0)\n"
    assert ended.exit_code == 1
    assert "Too many open files" in (either_place.folder / "a.err").read_text()


async def test_a_limit_that_cannot_be_held_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its controller a limit is a permanent error, and nothing has run."""
    monkeypatch.setenv("FABRIC_LAUNCHER_CGROUP", "none")
    client = await place.connect()
    for name in ("memory_bytes", "cpus", "pids"):
        spec = place.spec("a", f"echo ran >> {place.evidence}")
        with pytest.raises(PermanentBackendError, match=f"no control group here limits {name}"):
            await client.start(replace(spec, limits=Limits.from_dict({name: 10**7})))

    assert (await client.query("a")).state == "absent"
    assert place.runs() == []


async def test_a_limit_the_kernel_refuses_runs_nothing(place: Place) -> None:
    """More open files than this user may have is an end without a run."""
    client = await place.connect()
    most = (await client.info())["most_open_files"]
    spec = place.spec("a", f"echo ran >> {place.evidence}")
    record = await client.start(replace(spec, limits=Limits(open_files=2**30)))

    assert (record.state, record.why) == ("ended", "exec")
    assert record.error
    assert most < 2**30
    assert place.runs() == []


async def test_a_plain_spec_is_that_of_the_first_protocol(place: Place) -> None:
    """A launcher from before an upgrade goes on to take payloads that ask for nothing new."""
    spec = place.spec("a", "true")
    limited = replace(spec, limits=Limits(pids=3))

    assert not {"limits", "sandbox"} & spec.as_dict().keys()
    assert LaunchSpec.from_dict(limited.as_dict()) == limited
    assert limited.as_dict()["limits"] == {"pids": 3}
