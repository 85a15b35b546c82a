"""Submissions that come together: one array of jobs, and every promise for each of its elements."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from temporal_fabric.adapters.contract import JobHandle, Phase
from temporal_fabric.errors import BackendUnknown
from temporal_fabric.testing.bench import Fault
from tests.slurm.adapting import adapter_with

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from temporal_fabric.adapters.contract import AttemptSpec, JobStatus
    from temporal_fabric.testing.slurm_bench import SlurmBench
    from temporal_fabric.testing.slurm_site import SlurmSite

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

MANY, FEW = 120, 12
REPORTING = "report('start')"


def _attempts(bench: SlurmBench, count: int, code: str = REPORTING) -> list[AttemptSpec]:
    return [bench.attempt(bench.key(), code) for _ in range(count)]


async def _ends(bench: SlurmBench, attempts: Sequence[AttemptSpec]) -> list[JobStatus]:
    adapter = bench.adapter()
    waits = (adapter.wait(JobHandle(attempt.key, ""), 120) for attempt in attempts)
    return await asyncio.gather(*waits)


def _ids(ends: Sequence[JobStatus]) -> list[tuple[str, str]]:
    """Return array and index of each job."""
    found = (end.native_id.removeprefix("job ").partition("_") for end in ends)
    return [(array, index) for array, _, index in found]


def _arrays(site: SlurmSite) -> set[Path]:
    folder = site.home / ".temporal-fabric/conformance/arrays"
    return set(folder.iterdir()) if folder.exists() else set()


def _sbatch(site: SlurmSite, script: str) -> tuple[str, Path]:
    """Return a folder of Slurm's commands with an sbatch of the test's own, and its log."""
    folder = site.home / f"bin{os.urandom(4).hex()}"
    folder.mkdir()
    for name in ("squeue", "scancel", "sinfo", "sacct", "scontrol"):
        (folder / name).symlink_to(f"/usr/bin/{name}")
    log = site.home / f"{folder.name}.log"
    log.touch()
    log.chmod(0o666)
    asked = '[ "$1" = --version ] && exec /usr/bin/sbatch --version'
    (folder / "sbatch").write_text(f'#!/bin/sh\n{asked}\necho "$*" >> {log}\n{script}\n')
    (folder / "sbatch").chmod(0o755)
    return str(folder), log


async def test_many_are_one_array(bench: SlurmBench, site: SlurmSite) -> None:
    """A hundred and twenty submissions are one sbatch; each payload runs once and ends well."""
    attempts = _attempts(bench, MANY)
    own, log = _sbatch(site, 'exec /usr/bin/sbatch "$@"')

    async with adapter_with(bench, bin=own) as adapter:
        await asyncio.gather(*(adapter.submit(attempt) for attempt in attempts))
    ends = await _ends(bench, attempts)

    (call,) = log.read_text().splitlines()
    assert f"--array=0-{MANY - 1}" in call
    ids = _ids(ends)
    assert len({array for array, _ in ids}) == 1
    assert sorted(int(index) for _, index in ids) == list(range(MANY))
    assert {(end.phase, end.exit_code, end.reason) for end in ends} == {(Phase.ENDED, 0, "")}
    assert {bench.effects(attempt.key, "start") for attempt in attempts} == {1}
    await bench.settle()


async def test_one_element_is_stopped_and_the_others_go_on(
    bench: SlurmBench, site: SlurmSite
) -> None:
    """A pending and a running element end alone; what is forgotten leaves no array behind."""
    before = _arrays(site)
    attempts = _attempts(bench, FEW, "report('start'); time.sleep(3); report('end')")
    adapter = bench.adapter()
    site.run("scontrol", "update", "PartitionName=main", "State=DOWN")
    try:
        await asyncio.gather(*(adapter.submit(attempt) for attempt in attempts))
        pending = await adapter.terminate(attempts[3].key, 0)
    finally:
        site.run("scontrol", "update", "PartitionName=main", "State=UP")
    async with asyncio.timeout(60):
        while not bench.effects(attempts[5].key, "start"):
            await asyncio.sleep(0.05)
    running = await adapter.terminate(attempts[5].key, 0)
    ends = await _ends(bench, attempts)
    for attempt in attempts:
        await adapter.forget(attempt.key)

    assert (pending.phase, running.reason) == (Phase.LOST, "SIGNAL")
    rest = [number for number in range(FEW) if number not in {3, 5}]
    assert {(ends[number].phase, ends[number].exit_code) for number in rest} == {(Phase.ENDED, 0)}
    assert {bench.effects(attempts[number].key, "end") for number in rest} == {1}
    assert [bench.effects(attempts[number].key, "end") for number in (3, 5)] == [0, 0]
    assert _arrays(site) == before
    await bench.settle()


async def test_an_array_whose_answer_is_lost_is_submitted_once(
    bench: SlurmBench, site: SlurmSite
) -> None:
    """The connection is cut with the answer; who comes next, one attempt alone, finds the array."""
    attempts = _attempts(bench, FEW)
    own, log = _sbatch(site, 'exec /usr/bin/sbatch "$@"')

    cut = await bench.faulty("submit", Fault.LOST_REPLY)
    submits = (cut.submit(attempt) for attempt in attempts)
    told = await asyncio.gather(*submits, return_exceptions=True)
    async with adapter_with(bench, bin=own) as adapter:
        await adapter.submit(attempts[4])
        await asyncio.gather(*(adapter.submit(attempt) for attempt in reversed(attempts)))
    ends = await _ends(bench, attempts)

    assert {type(each) for each in told} == {BackendUnknown}, told
    assert log.read_text() == ""
    assert len({array for array, _ in _ids(ends)}) == 1
    assert {(end.phase, end.exit_code) for end in ends} == {(Phase.ENDED, 0)}
    assert {bench.effects(attempt.key, "start") for attempt in attempts} == {1}
    await bench.settle()


async def test_an_array_that_was_begun_is_submitted_by_whoever_comes(
    bench: SlurmBench, site: SlurmSite
) -> None:
    """A program that dies before sbatch leaves records; one attempt brings all of them there."""
    attempts = _attempts(bench, FEW)
    dying, _ = _sbatch(site, "kill -9 $PPID; exit 1")
    sound, log = _sbatch(site, 'exec /usr/bin/sbatch "$@"')

    async with adapter_with(bench, bin=dying) as adapter:
        submits = (adapter.submit(attempt) for attempt in attempts)
        told = await asyncio.gather(*submits, return_exceptions=True)
        found = [(await adapter.find(attempt.key)).phase for attempt in attempts]
    async with adapter_with(bench, bin=sound) as adapter:
        await adapter.terminate(attempts[7].key, 0)
        await adapter.submit(attempts[4])
        rest = [attempt for attempt in attempts if attempt is not attempts[7]]
        await asyncio.gather(*(adapter.submit(attempt) for attempt in reversed(rest)))
    ends = await _ends(bench, rest)

    assert {type(each) for each in told} == {BackendUnknown}, told
    assert set(found) == {Phase.ABSENT}
    assert log.read_text().count("--array=") == len(log.read_text().splitlines()) == 1
    assert len({array for array, _ in _ids(ends)}) == 1
    assert {(end.phase, end.exit_code) for end in ends} == {(Phase.ENDED, 0)}
    assert {bench.effects(attempt.key, "start") for attempt in rest} == {1}
    assert bench.effects(attempts[7].key, "start") == 0
    await bench.settle()


async def test_an_array_that_slurm_refuses_goes_as_single_jobs(
    bench: SlurmBench, site: SlurmSite
) -> None:
    """Where a site takes no arrays every attempt is submitted by itself."""
    attempts = _attempts(bench, FEW)
    refusing = (
        'case "$*" in *--array*) echo "sbatch: error: Batch job submission failed: '
        'Invalid job array specification" >&2; exit 1;; esac\nexec /usr/bin/sbatch "$@"'
    )
    own, log = _sbatch(site, refusing)

    async with adapter_with(bench, bin=own) as adapter:
        await asyncio.gather(*(adapter.submit(attempt) for attempt in attempts))
    ends = await _ends(bench, attempts)

    assert log.read_text().count("--array") == 1
    assert len({array for array, _ in _ids(ends)}) == FEW
    assert {bench.effects(attempt.key, "start") for attempt in attempts} == {1}
    await bench.settle()


async def test_those_that_come_alone_or_differ_are_jobs_of_their_own(
    bench: SlurmBench, site: SlurmSite
) -> None:
    """Few at once, and other resources than the rest has, are no elements; 0 means never."""
    attempts = _attempts(bench, FEW)
    cores = {"resources": [{"type": "cpu", "cores": 2}]}
    other = bench.attempt(bench.key(), REPORTING, requirements=cores)
    own, log = _sbatch(site, 'exec /usr/bin/sbatch "$@"')

    async with adapter_with(bench, bin=own) as adapter:
        await asyncio.gather(*(adapter.submit(attempt) for attempt in attempts[:3]))
        await asyncio.gather(*(adapter.submit(attempt) for attempt in [*attempts, other]))
    alone = _attempts(bench, FEW)
    async with adapter_with(bench, bin=own, array_min=0) as adapter:
        await asyncio.gather(*(adapter.submit(attempt) for attempt in alone))
    ends = await _ends(bench, [*attempts, other, *alone])

    assert {end.exit_code for end in ends} == {0}
    assert {bench.effects(attempt.key, "start") for attempt in [*attempts, other]} == {1}
    assert log.read_text().count("--array") == 1
    assert all("_" not in end.native_id for end in ends[:3] + ends[FEW:])
    await bench.settle()
