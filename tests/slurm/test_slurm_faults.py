"""Slurm that fails half-way, people who interfere: one job, a true end."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest

from temporal_fabric.adapters.contract import JobHandle, JobStatus, Phase
from temporal_fabric.adapters.slurm_batch import SCRIPT
from temporal_fabric.errors import PermanentBackendError, TransientBackendError
from temporal_fabric.states import Reason
from temporal_fabric.testing.slurm_site import PYTHON
from tests.slurm.adapting import adapter_with

if TYPE_CHECKING:
    from collections.abc import Callable

    from temporal_fabric.adapters.contract import AttemptKey
    from temporal_fabric.testing.slurm_bench import SlurmBench
    from temporal_fabric.testing.slurm_site import SlurmSite

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEADER = "JOBID|NAME|STATE|REASON|START_TIME|NODELIST|COMMENT"
REPORTING = "report('start'); time.sleep({}); report('end')"


@pytest.fixture
def commands(site: SlurmSite) -> Callable[[str, str], str]:
    """Make a folder of Slurm's commands in which one is a script of the test's own."""

    def make(name: str, script: str) -> str:
        folder = site.home / f"bin{time.monotonic_ns()}"
        folder.mkdir()
        for known in ("sbatch", "squeue", "scancel", "sinfo", "sacct", "scontrol"):
            (folder / known).symlink_to(shutil.which(known) or "")
        (folder / name).unlink()
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
        return str(folder)

    return make


async def _end(bench: SlurmBench, key: AttemptKey) -> JobStatus:
    return await bench.adapter().wait(JobHandle(key, ""), 60)


async def _begun(bench: SlurmBench, key: AttemptKey) -> None:
    async with asyncio.timeout(60):
        while not bench.effects(key, "start"):
            await asyncio.sleep(0.05)


async def _job_id(bench: SlurmBench, key: AttemptKey) -> str:
    return (await bench.adapter().find(key)).native_id.removeprefix("job ")


async def test_an_sbatch_that_fails_after_it_was_accepted_is_one_job(
    bench: SlurmBench, commands: Callable[[str, str], str]
) -> None:
    """The error of a lost reply is looked through: the job is found by its name, and runs once."""
    script = '[ "$1" = --version ] && exec /usr/bin/sbatch "$@"\n'
    script += "/usr/bin/sbatch \"$@\" > /dev/null; echo 'Socket timed out on send/recv' >&2; exit 1"
    key = bench.key()
    attempt = bench.attempt(key, REPORTING.format(0.2))

    async with adapter_with(bench, bin=commands("sbatch", script)) as adapter:
        job = await adapter.submit(attempt)
    status = await _end(bench, key)

    assert (status.exit_code, status.native_id) == (0, job.native_id)
    assert (bench.effects(key, "start"), bench.effects(key, "end")) == (1, 1)
    await bench.settle()


async def test_a_refusal_for_good_forbids_the_attempt(bench: SlurmBench) -> None:
    """What Slurm never accepts is permanent, and no job of it can run any more."""
    key = bench.key()

    async with adapter_with(bench, partition="nowhere") as adapter:
        with pytest.raises(PermanentBackendError, match="invalid partition"):
            await adapter.submit(bench.attempt(key, "report('start')"))
    status = await bench.adapter().find(key)

    assert status.phase is Phase.LOST
    await bench.settle()


@pytest.mark.parametrize(
    "said",
    [
        "",
        "echo perhaps",
        f"echo '{HEADER}'; echo 'half a line'",
        "echo down >&2; exit 1",
        "sleep 9",
    ],
    ids=["nothing", "noise", "half", "error", "hanging"],
)
async def test_a_squeue_without_a_list_is_unknown(
    bench: SlurmBench, commands: Callable[[str, str], str], said: str
) -> None:
    """Without a list that begins with its header nobody is told that there is no job."""
    async with adapter_with(bench, bin=commands("squeue", said), answer_s=2) as adapter:
        with pytest.raises(TransientBackendError, match="squeue"):
            await adapter.find(bench.key())
    await bench.settle()


async def test_a_second_job_of_an_attempt_ends_before_its_payload(
    bench: SlurmBench, site: SlurmSite
) -> None:
    """A twin, as a lost reply and a restarted login node can make one, finds the claim taken."""
    key = bench.key()
    await bench.adapter().submit(bench.attempt(key, REPORTING.format(2)))
    await _begun(bench, key)
    jobs = list((site.home / ".temporal-fabric/conformance/jobs").iterdir())
    job_id = await _job_id(bench, key)
    folder = next(path for path in jobs if os.readlink(path / "claim") == f"job.{job_id}.0")  # noqa: PTH115

    script = str(folder / "batch.sh")
    output = f"--output={folder}/twin.log"
    argv = ["sbatch", "--parsable", "--wait", output, script, PYTHON, str(folder), ""]
    twin = await asyncio.to_thread(site.run_as_user, *argv)
    status = await _end(bench, key)

    assert twin.returncode == 0, twin.stderr
    assert "belongs to" in (folder / "twin.log").read_text()
    assert status.exit_code == 0
    assert bench.effects(key, "start") == 1
    assert (folder / "batch.sh").read_text() == SCRIPT
    assert (folder / "launch.json").stat().st_mode & 0o777 == 0o600
    await bench.settle()


async def test_a_requeued_job_does_not_run_again(bench: SlurmBench, site: SlurmSite) -> None:
    """A job that its administrator requeues is no success, and its payload ran once."""
    key = bench.key()
    await bench.adapter().submit(bench.attempt(key, REPORTING.format(120)))
    await _begun(bench, key)
    job_id = await _job_id(bench, key)

    site.run("scontrol", "update", f"JobId={job_id}", "Requeue=1")
    assert site.run("scontrol", "requeue", job_id).returncode == 0
    async with asyncio.timeout(60):
        while (await bench.adapter().find(key)).phase is Phase.RUNNING:
            # Slurm lets a requeued job wait for two minutes.
            site.run("scontrol", "update", f"JobId={job_id}", "StartTime=now")
            await asyncio.sleep(0.3)
    status = await bench.adapter().find(key)

    # Slurm's signal ends the payload; which of the two is seen first is a matter of time.
    assert status.reason in {Reason.LOST, Reason.SIGNAL}, status
    assert (bench.effects(key, "start"), bench.effects(key, "end")) == (1, 0)
    await bench.settle()


async def test_a_person_who_cancels_in_slurm_is_told_of(bench: SlurmBench, site: SlurmSite) -> None:
    """A job that somebody ends by scancel did not choose its end, and the message says who."""
    key = bench.key()
    await bench.adapter().submit(bench.attempt(key, REPORTING.format(120)))
    await _begun(bench, key)

    site.run("scancel", await _job_id(bench, key))
    status = await _end(bench, key)

    assert (status.phase, status.reason) == (Phase.ENDED, Reason.SIGNAL)
    assert "cancelled in Slurm" in status.message
    await bench.settle()


async def test_slurms_own_limit_lets_the_payload_save_its_state(
    bench: SlurmBench, site: SlurmSite
) -> None:
    """Before Slurm's limit the payload hears SIGTERM; its checkpoint is kept, the end TIMEOUT."""
    key = bench.key()
    saving = (
        "def save(*args):\n"
        "    open(os.environ['FABRIC_CHECKPOINT_DIR'] + '/state', 'w').write('saved')\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, save)\nreport('start')\ntime.sleep(150)"
    )
    await bench.adapter().submit(bench.attempt(key, saving))
    await _begun(bench, key)

    site.run("scontrol", "update", f"JobId={await _job_id(bench, key)}", "TimeLimit=1")
    status = await _end(bench, key)

    assert (status.phase, status.reason) == (Phase.ENDED, Reason.TIMEOUT)
    assert (bench.place(key).checkpoints / "state").read_text() == "saved"
    await bench.settle()


async def test_what_a_job_waits_for_is_told_in_slurms_words(
    bench: SlurmBench, site: SlurmSite
) -> None:
    """A pending job has not begun; its reason is Slurm's own, and terminating it forbids it."""
    key = bench.key()
    site.run("scontrol", "update", "PartitionName=main", "State=DOWN")
    try:
        await bench.adapter().submit(bench.attempt(key, "report('start')"))
        status = await bench.adapter().wait(JobHandle(key, ""), 1)
        async with asyncio.timeout(30):
            while "PartitionDown" not in status.message:
                status = await bench.adapter().wait(JobHandle(key, ""), 1)
        ended = await bench.adapter().terminate(key, 0)
    finally:
        site.run("scontrol", "update", "PartitionName=main", "State=UP")

    assert (status.phase, status.started_at) == (Phase.RUNNING, None)
    assert status.message.startswith("waits in Slurm's queue: ")
    assert ended.phase is Phase.LOST
    assert bench.effects(key, "start") == 0
    await bench.settle()


async def test_no_shell_reads_what_a_request_says(bench: SlurmBench, site: SlurmSite) -> None:
    """Arguments and variables arrive as they are, whatever a shell would make of them."""
    canary = site.home / "canary"
    bad = f"$(touch {canary}) `touch {canary}`; touch {canary}\n#SBATCH --hold '\"\\ \u00e9 | > <"
    key = bench.key()
    code = (
        "import hashlib\n"
        "told = [sys.argv[1].encode(), os.environ['BAD'].encode()]\n"
        "print(*(hashlib.sha256(text).hexdigest() for text in told))"
    )
    attempt = bench.attempt(key, code)
    payload = attempt.request.payload.process
    assert payload is not None
    more = {"command": (*payload.command, bad), "env": {**payload.env, "BAD": bad}}
    body = {"payload": {"process": more}, "id": "bad"}
    await bench.adapter().submit(_with_request(attempt, type(attempt.request).from_mapping(body)))
    await _end(bench, key)

    wanted = hashlib.sha256(bad.encode()).hexdigest()
    assert bench.place(key).stdout.read_text().split() == [wanted, wanted]
    assert not canary.exists()
    await bench.settle()


def _with_request(attempt: Any, request: Any) -> Any:
    return type(attempt)(
        attempt.key, request, attempt.folder, attempt.checkpoints, attempt.number, attempt.env
    )


async def test_a_controller_that_restarts_loses_nothing(bench: SlurmBench, site: SlurmSite) -> None:
    """While slurmctld is away a running job is unknown, never absent; then it is itself again."""
    key = bench.key()
    await bench.adapter().submit(bench.attempt(key, REPORTING.format(3)))
    await _begun(bench, key)

    site.stop_part("slurmctld")
    try:
        async with adapter_with(bench, answer_s=2) as adapter:
            with pytest.raises(TransientBackendError):
                await adapter.find(key)
    finally:
        await asyncio.to_thread(site.start_part, "slurmctld")
    status = await _end(bench, key)

    assert status.exit_code == 0
    assert (bench.effects(key, "start"), bench.effects(key, "end")) == (1, 1)
    await bench.settle()


async def test_several_members_are_one_job(bench: SlurmBench) -> None:
    """A request of two members on a node starts both by srun; one that fails ends the other."""
    key, failing = bench.key(), bench.key()
    resources = {"resources": [{"type": "nodes", "count": 1, "tasks_per_node": 2}]}
    code = "report('rank' + os.environ['SLURM_PROCID'])"
    await bench.adapter().submit(bench.attempt(key, code, requirements=resources))
    bad = "sys.exit(7) if os.environ['SLURM_PROCID'] == '1' else time.sleep(120)"
    await bench.adapter().submit(bench.attempt(failing, bad, requirements=resources))

    status, failed = await _end(bench, key), await _end(bench, failing)

    assert status.exit_code == 0, status
    assert (bench.effects(key, "rank0"), bench.effects(key, "rank1")) == (1, 1)
    assert failed.exit_code not in {0, None}
    await bench.settle()
