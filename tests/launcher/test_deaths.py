"""What is left, and what is said, after a worker or a launcher died."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from temporal_fabric.errors import BackendUnknown
from temporal_fabric.launcher import LaunchRecord, syscalls
from tests.launcher.place import until
from tests.launcher.test_payloads import ORPHANS

if TYPE_CHECKING:
    from temporal_fabric.launcher import LauncherClient
    from tests.launcher.place import Place

CAMPAIGN = 200 if os.environ.get("FABRIC_CAMPAIGN") == "1" else 4
SEED = int(os.environ.get("FABRIC_CAMPAIGN_SEED", "7"))

WORKER = """
async def work():
    client = await LauncherClient.connect(HOME)
    for key, code in {payloads!r}:
        script = f"echo {{key}} >> evidence; sleep {nap}; exit {{code}}"
        streams = (f"{{FOLDER}}/{{key}}.out", f"{{FOLDER}}/{{key}}.err")
        spec = LaunchSpec(key, ("sh", "-c", script), dict(os.environ), FOLDER, *streams)
        await client.start(spec)
    print("started", flush=True)
    await asyncio.sleep(600)
asyncio.run(work())
"""


def _worker(place: Place, payloads: list[tuple[str, int]], nap: float) -> subprocess.Popen[bytes]:
    code = WORKER.format(payloads=payloads, nap=nap)
    return subprocess.Popen(place.python(code), stdout=subprocess.PIPE)


def _end(worker: subprocess.Popen[bytes]) -> None:
    worker.kill()
    worker.wait()
    if worker.stdout is not None:
        worker.stdout.close()


async def test_worker_death_does_not_matter(either_place: Place) -> None:
    """A new worker finds the payload running and learns its true end."""
    worker = _worker(either_place, [("a", 9)], 0.3)
    assert worker.stdout is not None
    assert await asyncio.to_thread(worker.stdout.readline) == b"started\n"
    _end(worker)
    client = await either_place.connect()
    running = await client.query("a")
    ended = await client.wait("a", 10)

    assert (running.state, ended.state, ended.exit_code) == ("running", "ended", 9)
    assert ended.pid == running.pid
    assert either_place.runs() == ["a"]


async def test_launcher_death_takes_the_tree(every_place: Place) -> None:
    """Nothing runs on without its launcher; the attempt is lost and stays so."""
    client = await every_place.connect()
    spec = every_place.spec("a", f'echo a >> evidence; {ORPHANS} sleep "$NAP"')
    await client.start(spec)
    assert await until(lambda: every_place.nappers() == 4)
    await every_place.kill_launcher()
    if (await client.info())["mode"] == "plain":
        # The parent-death signal reaches children only; the rest falls to the next launcher.
        assert every_place.nappers() == 0
    lost = await client.query("a")

    assert (lost.state, lost.why) == ("lost", "launcher")
    assert every_place.nappers() == 0
    assert await client.start(spec) == lost
    assert await client.terminate("a", 1) == lost
    assert every_place.runs() == ["a"]


async def test_namespace_needs_no_successor(place: Place) -> None:
    """In a namespace even processes without a mark are dead as soon as the launcher is."""
    client = await place.connect()
    if (await client.info())["mode"] == "plain":
        pytest.skip("this host permits no pid namespace")
    await client.start(place.spec("a", 'env -i setsid sleep "$NAP" & sleep "$NAP"'))
    assert await until(lambda: place.nappers() == 2)
    await place.kill_launcher()

    assert place.nappers() == 0


async def test_torn_record_is_lost(place: Place) -> None:
    """An empty or strange file is never taken for an absent attempt."""
    client = await place.connect()
    spec = place.spec("torn", "true")
    for content in (b"", b"[1]", b'{"key":"other","state":"running"}'):
        place.tear("torn", content)

        assert (await client.query("torn")).why == "torn"
        assert (await client.start(spec)).state == "lost"
    await client.shutdown()
    after = await client.query("torn")

    assert (after.state, after.why) == ("lost", "torn")
    await client.shutdown()
    assert await client.query("torn") == after


async def test_records_of_an_earlier_launcher(place: Place) -> None:
    """An intent of this boot never ran; everything else that is open is lost."""
    client = await place.connect()
    await client.shutdown()
    boot = syscalls.boot_id()
    place.edit(LaunchRecord("intent", "intent", boot_id=boot))
    place.edit(LaunchRecord("running", "running", boot_id=boot))
    place.edit(LaunchRecord("old-intent", "intent", boot_id="another"))
    place.edit(LaunchRecord("old-running", "running", boot_id="another"))
    keys = ("intent", "running", "old-intent", "old-running")
    found = [await client.query(key) for key in keys]

    assert [each.state for each in found] == ["absent", "lost", "lost", "lost"]
    assert [each.why for each in found] == [None, "launcher", "boot", "boot"]


async def test_silence_is_not_absence(place: Place) -> None:
    """A stopped launcher makes every answer unknown, and is not replaced."""
    await place.connect()  # a start may take its time
    client = await place.connect(timeout_s=1)
    os.kill(client.launcher_pid, signal.SIGSTOP)
    try:
        for call in (client.query("a"), client.wait("a", 0.1), client.keys()):
            with pytest.raises(BackendUnknown):
                await call
        for start in (True, False):
            with pytest.raises(BackendUnknown):
                await place.connect(start=start, timeout_s=0.5)
    finally:
        os.kill(client.launcher_pid, signal.SIGCONT)

    assert (await client.query("a")).state == "absent"


async def test_sigterm_does_not_take_payloads_along(place: Place) -> None:
    """A launcher leaves on SIGTERM only when nothing runs."""
    client = await place.connect()
    pid = client.launcher_pid
    await client.start(place.spec("a", "sleep 0.3"))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(pid, number)
    ended = await client.wait("a", 10)
    assert (ended.exit_code, client.launcher_pid) == (0, pid)
    os.kill(pid, signal.SIGTERM)

    assert await until(lambda: place.launchers() == 0)
    assert await client.query("a") == ended


async def test_end_that_cannot_be_written_is_not_told(place: Place) -> None:
    """While the disk refuses the end record the payload counts as running."""
    client = await place.connect()
    await client.start(place.spec("a", "sleep 0.2; exit 6"))
    records, away = place.home / "attempts", place.home / "away"
    records.rename(away)
    assert (await client.wait("a", 1.0)).state == "running"
    away.rename(records)

    assert (await client.wait("a", 10)).exit_code == 6


@pytest.mark.timeout(1200 if CAMPAIGN > 4 else 60)
async def test_kills_at_random_instants(every_place: Place) -> None:
    """However often workers and launchers die, no payload runs twice and no end is invented."""
    chance = random.Random(SEED)
    payloads: list[tuple[str, int]] = []
    for turn in range(CAMPAIGN):
        batch = [(f"r{turn}-{number}", chance.randrange(256)) for number in range(5)]
        payloads += batch
        worker = _worker(every_place, batch, round(chance.uniform(0, 0.3), 3))
        await asyncio.sleep(chance.uniform(0.1, 0.7))
        if chance.random() < 0.5:
            await every_place.kill_launcher()
        _end(worker)
    client = await every_place.connect()
    records = [await client.wait(key, 10) for key, _ in payloads]
    for record, (_, code) in zip(records, payloads, strict=True):
        _judge(every_place, record, code)
    print(sorted(Counter(record.state for record in records).items()))
    await _nothing_runs(client, every_place)


def _judge(place: Place, record: LaunchRecord, code: int) -> None:
    runs = place.runs().count(record.key)
    assert record.state in {"ended", "lost", "absent"}
    if record.state == "ended":
        assert (record.exit_code, record.signal, runs) == (code, None, 1)
    else:
        assert runs <= (record.state == "lost")


async def _nothing_runs(client: LauncherClient, place: Place) -> None:
    assert await client.keys() == []
    assert len(place.runs()) == len(set(place.runs()))
    assert place.temporaries() == []
