"""Slurm that fails half-way, connections that break, people who interfere: one job, a true end."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from temporal_fabric.adapters.contract import JobHandle, JobStatus, Phase
from temporal_fabric.adapters.slurm_batch import SCRIPT
from temporal_fabric.errors import PermanentBackendError, TransientBackendError
from temporal_fabric.states import Reason
from temporal_fabric.testing.slurm_site import PYTHON

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from temporal_fabric.adapters.contract import Adapter, AttemptKey
    from temporal_fabric.testing.slurm_bench import SlurmBench
    from temporal_fabric.testing.slurm_site import SlurmSite

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEADER = "JOBID|NAME|STATE|REASON|START_TIME|NODELIST|COMMENT"
REPORTING = "report('start'); time.sleep({}); report('end')"


@asynccontextmanager
async def adapter_with(bench: SlurmBench, **options: Any) -> AsyncGenerator[Adapter]:
    """Yield an adapter of the site with other options."""
    found = bench.make(**options)
    try:
        yield found
    finally:
        await found.aclose()


@pytest.fixture
def commands(site: SlurmSite) -> Callable[[str, str], str]:
    """Make a folder of Slurm's commands in which one is a script of the test's own."""

    def make(name: str, script: str) -> str:
        folder = site.home / f"bin{time.monotonic_ns()}"
        folder.mkdir()
        for known in ("sbatch", "squeue", "scancel", "sinfo", "sacct"):
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
    script = "/usr/bin/sbatch \"$@\" > /dev/null; echo 'Socket timed out on send/recv' >&2; exit 1"
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


async def test_a_broken_connection_goes_on_where_it_stopped(
    bench: SlurmBench, site: SlurmSite
) -> None:
    """Files that a cut connection has left half-way arrive whole, there and back."""
    content = os.urandom(3 * 2**20)
    key = bench.key()
    code = (
        "data = open('task.bin', 'rb').read()\n"
        "open(os.environ['FABRIC_OUTPUT_DIR'] + '/out.bin', 'wb').write(data[::-1])"
    )
    attempt = bench.attempt(key, code)
    (attempt.folder / "task" / "task.bin").write_bytes(content)
    async with _cutting(site.port, 2**20) as port, adapter_with(bench, port=port) as adapter:
        tries = 0
        while True:
            try:
                tries += 1
                await adapter.submit(attempt)
                break
            except TransientBackendError:
                assert tries < 30
        while True:
            try:
                status = await adapter.wait(JobHandle(key, ""), 30)
                break
            except TransientBackendError:
                tries += 1
                assert tries < 60

    assert tries > 3
    assert status.exit_code == 0
    assert (bench.place(key).output / "out.bin").read_bytes() == content[::-1]
    assert [path.name for path in bench.place(key).output.iterdir()] == ["out.bin"]
    await bench.settle()


@asynccontextmanager
async def _cutting(port: int, after: int) -> AsyncGenerator[int]:
    """Yield a port whose connections are cut after so many bytes in either direction."""
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own = asyncio.current_task()
        assert own is not None
        serving.add(own)
        from_site, to_site = await asyncio.open_connection("127.0.0.1", port)
        left = after

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            nonlocal left
            with suppress(OSError):
                while left > 0 and (data := await source.read(min(2**14, left))):
                    left -= len(data)
                    sink.write(data)
                    await sink.drain()

        ways = ((reader, to_site), (from_site, writer))
        pumps = [asyncio.create_task(pump(*way)) for way in ways]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0.2)  # what was passed on is read
        finally:
            for task in pumps:
                task.cancel()
            writer.close()
            to_site.close()
            await asyncio.gather(
                *pumps, writer.wait_closed(), to_site.wait_closed(), return_exceptions=True
            )

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


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


def _fingerprint(path: Path) -> str:
    said = subprocess.run(
        ["ssh-keygen", "-lf", str(path)], capture_output=True, text=True, check=True
    )
    return said.stdout.split()[1]


@pytest.mark.parametrize("pinned", ["other", "none"])
async def test_a_key_that_is_not_pinned_is_refused(
    bench: SlurmBench, site: SlurmSite, tmp_path: Path, pinned: str
) -> None:
    """A host with another key, or a new one, is refused with its fingerprint and what to do."""
    other = " ".join(site.key.with_suffix(".pub").read_text().split()[:2])
    options = {
        "host_key": other if pinned == "other" else "",
        "known_hosts": str(tmp_path / "none"),
    }
    async with adapter_with(bench, **options) as adapter:
        with pytest.raises(TransientBackendError) as caught:
            await adapter.inventory()
        verdict = await adapter.can_fulfill(bench.request("pass"))

    message = str(caught.value)
    assert "E_HOSTKEY" in message
    assert _fingerprint(site.folder / "ssh" / "host.pub") in message
    assert f'host_key = "{site.host_key}"' in message
    assert ("changed" if pinned == "other" else "not known") in message
    assert [shortfall.code for shortfall in verdict.shortfalls] == ["E_HOSTKEY"]


async def test_the_agent_and_a_jump_host_lead_there(
    bench: SlurmBench, site: SlurmSite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Keys of an agent and a host on the way work, with keys pinned in a file."""
    socket = str(site.folder / "agent")
    agent = await asyncio.create_subprocess_exec(
        "ssh-agent", "-D", "-a", socket, stdout=subprocess.DEVNULL
    )
    try:
        while "agent" not in os.listdir(site.folder):  # noqa: PTH208 - only its name
            await asyncio.sleep(0.02)
        monkeypatch.setenv("SSH_AUTH_SOCK", socket)
        subprocess.run(["ssh-add", "-q", str(site.key)], check=True)
        way = {"key": "", "agent": True, "host_key": "", "known_hosts": str(site.known_hosts)}
        way |= {"jump": [f"{site.user}@127.0.0.1:{site.port}"]}
        async with adapter_with(bench, **way) as adapter:
            found = await adapter.inventory()
        async with adapter_with(bench, **way | {"known_hosts": str(tmp_path / "none")}) as adapter:
            with pytest.raises(TransientBackendError, match="E_HOSTKEY"):
                await adapter.inventory()
    finally:
        agent.terminate()
        await agent.wait()
    assert found.healthy


async def test_a_key_that_the_host_does_not_accept_is_told(
    bench: SlurmBench, site: SlurmSite, tmp_path: Path
) -> None:
    """A refused login names the key that was tried and where it belongs."""
    key = tmp_path / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    async with adapter_with(bench, key=str(key)) as adapter:
        with pytest.raises(TransientBackendError) as caught:
            await adapter.inventory()

    assert _fingerprint(key.with_suffix(".pub")) in str(caught.value)
    assert "authorized_keys" in str(caught.value)
    assert site.user in str(caught.value)
