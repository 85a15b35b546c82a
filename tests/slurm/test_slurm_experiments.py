"""Experiments on a Slurm site through the command line, with everything on the way killed once."""

from __future__ import annotations

import asyncio
import json
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import tomli_w
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

from temporal_fabric import names
from temporal_fabric.adapters.slurm_options import check_options
from temporal_fabric.connection import connect
from temporal_fabric.testing.environment import FabricEnvironment
from temporal_fabric.testing.evidence import REPORT, EvidenceLedger
from temporal_fabric.testing.slurm_bench import site_options
from temporal_fabric.testing.slurm_site import PYTHON
from tests import portable
from tests.bodies import process
from tests.slurm.conftest import configuration
from tests.test_docs import ON_SLURM, ROOT, fences, run_page

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.testing.slurm_site import SlurmSite

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def open_ledger(ledger: EvidenceLedger) -> EvidenceLedger:
    """A ledger that the site's user can report to."""
    ledger.socket.parent.chmod(0o711)
    ledger.socket.chmod(0o777)
    return ledger


def _reporting(ledger: EvidenceLedger, seconds: float) -> dict[str, Any]:
    code = f"{REPORT}\nimport time; time.sleep({seconds})\nsys.argv[1] = 'end'\n{REPORT}"
    command = [PYTHON, "-S", "-E", "-c", code, "start"]
    return process(*command, env={"EVIDENCE": str(ledger.socket)})


def _submit(environment: FabricEnvironment, body: dict[str, Any], *options: str) -> Any:
    path = environment.home / f"{body['id']}.json"
    path.write_text(json.dumps(body))
    return environment.cli("submit", str(path), "-o", "json", *options)


def _status(environment: FabricEnvironment, name: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(environment.cli("status", name, "-o", "json").stdout)
    return told


async def _until(environment: FabricEnvironment, name: str, state: str) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while (told := _status(environment, name))["state"] != state:
            await asyncio.sleep(0.2)
    return told


async def test_doctor_tells_what_a_site_is_or_lacks(
    environment: FabricEnvironment, site: SlurmSite, tmp_path: Path
) -> None:
    """Version and partitions; a login node that does not answer; the library that is missing."""
    file = environment.home / "fabric.toml"
    kept = file.read_text()
    environment.env["PYTHONPATH"] = str(tmp_path)
    try:
        well = environment.cli("doctor")
        file.write_text(configuration(site, port=1))
        away = environment.cli("doctor")
        (tmp_path / "paramiko.py").write_text("raise ImportError('no module named paramiko')")
        lacking = environment.cli("doctor")
    finally:
        file.write_text(kept)
        del environment.env["PYTHONPATH"]

    assert "main" in _line(well.stdout, "backend cluster")
    assert str(site.port) in _line(well.stdout, "backend cluster")
    assert _line(away.stdout, "backend cluster").startswith("fail")
    assert away.returncode == 1
    assert "Traceback" not in away.stderr
    assert "backends/cluster/kind" in lacking.stdout
    assert "pip install 'temporal-fabric[slurm]'" in lacking.stdout


def _line(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if f" {name} " in line)


_DOUBLE = [
    "import json, os",
    "def double(factor):",
    "    number = int(open(os.environ['FABRIC_INPUT_DIR'] + '/data.txt').read())",
    "    print('read', number)",
    "    line = json.dumps({'step': 1, 'loss': 0.5})",
    "    open(os.environ['FABRIC_TELEMETRY'], 'a').write(line + chr(10))",
    "    open(os.environ['FABRIC_OUTPUT_DIR'] + '/out.txt', 'w').write('kept')",
    "    return number * factor",
]


async def test_inputs_go_there_and_everything_comes_back(
    environment: FabricEnvironment, tmp_path: Path
) -> None:
    """A function with an input returns its value, outputs, log, metrics and its job's id."""
    (tmp_path / "data.txt").write_text("21")
    body = {
        "id": "twice",
        "backends": ["cluster"],
        "requirements": {"resources": {"cpu": 1, "memory": "64MB"}},
        "limits": {"wall_s": 60},
        "payload": {
            "python": {
                "entry_point": "code.py:double",
                "source": _DOUBLE,
                "args": [2],
                "inputs": [
                    {"source_uri": (tmp_path / "data.txt").as_uri(), "mount_path": "data.txt"}
                ],
                "outputs": [{"source_path": "out.txt"}],
            }
        },
    }

    done = _submit(environment, body, "--follow")
    result = json.loads(environment.cli("result", "twice", "-o", "json").stdout)
    environment.cli("get", "twice", "--to", str(tmp_path / "got"))

    assert done.returncode == 0, done.stdout + done.stderr
    assert result["attempts"][0]["native_id"].startswith("job ")
    assert {item["path"] for item in result["outputs"]} == {"out.txt", "return.json"}
    assert json.loads((tmp_path / "got" / "return.json").read_text()) == 42
    assert environment.cli("logs", "twice").stdout == "read 21\n"
    assert not (environment.settings.runs / "default" / "twice").exists()


async def test_the_portable_example_gives_the_same(
    environment: FabricEnvironment, tmp_path: Path
) -> None:
    """The portable example gives the same outputs and telemetry here and as a process."""
    given = portable.make_input(tmp_path)
    found = portable.run_on("cluster", environment, given)
    async with FabricEnvironment.fresh() as other:
        local = await asyncio.to_thread(portable.run_on, "local", other, given)

    assert found == local
    assert set(found[0]) == portable.OUTPUTS
    assert len(found[1]) == portable.ROWS


async def test_what_it_waits_for_is_shown_and_a_cancelled_one_never_starts(
    environment: FabricEnvironment, site: SlurmSite
) -> None:
    """`status` shows Slurm's own reason; after `cancel` nothing of it is in Slurm's queue."""
    body = process("/bin/true")
    site.run("scontrol", "update", "PartitionName=main", "State=DOWN")
    try:
        assert _submit(environment, body).returncode == 0
        async with asyncio.timeout(60):
            while "PartitionDown" not in (shown := environment.cli("status", body["id"]).stdout):
                await asyncio.sleep(0.3)
        cancelled = environment.cli("cancel", body["id"])
        told = await _until(environment, body["id"], "CANCELED")
    finally:
        site.run("scontrol", "update", "PartitionName=main", "State=UP")

    assert "PREPARING" in shown
    assert cancelled.returncode == 0
    assert told["state"] == "CANCELED"
    assert body["id"] not in site.run("squeue", "-h", "-t", "PD,R", "-o", "%k").stdout


async def test_cancel_ends_a_running_job(
    environment: FabricEnvironment, site: SlurmSite, open_ledger: EvidenceLedger
) -> None:
    """Once it is CANCELED no job of it runs."""
    body = _reporting(open_ledger, 120)
    _submit(environment, body)
    await _until(environment, body["id"], "RUNNING")

    environment.cli("cancel", body["id"])
    await _until(environment, body["id"], "CANCELED")

    assert body["id"] not in site.run("squeue", "-h", "-t", "PD,R", "-o", "%k").stdout
    assert not open_ledger.lines(id=body["id"], event="end")


async def test_a_killed_worker_and_controller_cost_nothing(
    environment: FabricEnvironment, site: SlurmSite, open_ledger: EvidenceLedger
) -> None:
    """The worker and slurmctld die under a job; the next worker adopts it, and it runs once."""
    body = _reporting(open_ledger, 4)
    _submit(environment, body)
    await _until(environment, body["id"], "RUNNING")

    environment.kill_worker()
    site.stop_part("slurmctld")
    environment.start_worker()
    await asyncio.to_thread(site.start_part, "slurmctld")
    waited = environment.cli("wait", body["id"], timeout=90)

    assert waited.returncode == 0, waited.stdout + waited.stderr
    events = [line["event"] for line in open_ledger.lines(id=body["id"])]
    assert events == ["start", "end"]
    assert _status(environment, body["id"])["epoch"] == 1


async def test_the_page_about_slurm_does_what_it_says(
    environment: FabricEnvironment, tmp_path: Path
) -> None:
    """Its request runs and brings its answer; its configuration has options that there are."""
    page = ROOT / ON_SLURM

    said = await asyncio.to_thread(run_page, page, environment, tmp_path)

    assert "on node1" in said
    assert "\n42\n" in said
    titles = ("slurm.toml", "containers.toml")
    configs = [f.text for f in fences(page) if any(title in f.info for title in titles)]
    assert len(configs) == len(titles)
    for config in configs:
        options = tomllib.loads(config)["backends"]["cluster"]["options"]
        assert check_options(options | {"key": str(page)}, "cluster") == []


async def test_more_than_the_site_has_is_refused_at_submit(environment: FabricEnvironment) -> None:
    """What no node of the partition has, or a site cannot hold, is said with what to change."""
    more = {"requirements": {"resources": {"cpu": 4000, "gpu": 2}}, "limits": {"wall_s": 86400}}
    done = _submit(environment, process("/bin/true", isolation="sandbox", **more))

    problem = json.loads(done.stdout)["problems"][0]
    assert done.returncode == 2
    assert problem["code"] == "E_NO_BACKEND"
    for part in ("4000 cores", "no GPUs", "86400 s", "isolation"):
        assert part in problem["message"]


async def test_a_host_key_that_is_not_pinned_reaches_every_door(
    site: SlurmSite, tmp_path: Path
) -> None:
    """E_HOSTKEY comes from `submit`, and a direct start fails with it; both say what to pin."""
    config = configuration(site, host_key="", known_hosts=str(tmp_path / "none"))
    async with FabricEnvironment.fresh(config=config) as environment:
        body = process("/bin/true")
        done = _submit(environment, body)
        client = await connect(environment.settings, address=environment.address)
        handle = await client.start_workflow(
            names.WORKFLOW_EXPERIMENT,
            process("/bin/true") | {"id": "direct"},
            id=names.workflow_id("default", "direct"),
            task_queue=names.QUEUE,
        )
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()

    problem = json.loads(done.stdout)["problems"][0]
    cause = caught.value.cause
    assert isinstance(cause, ApplicationError)
    assert (done.returncode, problem["code"], problem["path"]) == (2, "E_HOSTKEY", "/backends")
    assert site.host_key in problem["message"]
    assert (cause.type, cause.non_retryable) == ("E_HOSTKEY", True)
    assert cause.details[0][0]["code"] == "E_HOSTKEY"


async def test_a_worker_names_everything_that_is_wrong_with_its_options(site: SlurmSite) -> None:
    """A worker with wrong options does not start, and says each of them with its place."""
    options = site_options(site) | {"host": "-oProxyCommand=x", "port": 0, "partition": "a b"}
    options |= {"jump": ["me@gate;x"], "speed": 3, "poll_s": "often"}
    table = {"backends": {"cluster": {"kind": "slurm", "options": options}}}
    async with FabricEnvironment.fresh(config=tomli_w.dumps(table), worker=False) as environment:
        done = environment.cli("worker", "--address", environment.address)

    for part in (
        "E_SSH_TARGET at /backends/cluster/options/host",
        "E_SSH_TARGET at /backends/cluster/options/port",
        "E_SSH_TARGET at /backends/cluster/options/jump/0",
        "E_SLURM_FIELD at /backends/cluster/options/partition",
        "E_UNKNOWN_FIELD at /backends/cluster/options/speed",
        "E_RANGE at /backends/cluster/options/poll_s",
    ):
        assert part in done.stderr
    assert done.returncode == 2
