"""Experiments on a Kubernetes cluster, from the command line, through what may go wrong."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from temporal_fabric.shapes import is_table
from temporal_fabric.testing.debian_image import NAME as IMAGE
from temporal_fabric.testing.environment import FabricEnvironment
from temporal_fabric.testing.evidence import EvidenceLedger
from temporal_fabric.testing.kubernetes_bench import kubernetes_test_options
from tests import portable
from tests.backends.kubernetes_cluster import HOST_IP, NODE
from tests.kubernetes.queue import FULL, PREEMPTED, Queue, wait_for
from tests.kubernetes.queue import NAME as QUEUE_NAME

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.backends.kubernetes_cluster import KubernetesCluster

pytestmark = pytest.mark.asyncio(loop_scope="module")

_REPORT = """
import json, os, socket
def report(event):
    host, _, port = os.environ['EVIDENCE'].rpartition(':')
    said = {'event': event, 'id': os.environ['FABRIC_REQUEST_ID'],
            'epoch': os.environ['FABRIC_EPOCH']}
    with socket.create_connection((host, int(port))) as link:
        link.sendall(json.dumps(said).encode() + b'\\n')
        link.recv(1)
"""


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EvidenceLedger]:
    """A ledger that pods reach."""
    found = EvidenceLedger(tmp_path_factory.mktemp("e"), HOST_IP)
    yield found
    found.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab(kubernetes: KubernetesCluster) -> AsyncIterator[FabricEnvironment]:
    """A server and a worker whose one backend is the cluster."""
    options = kubernetes_test_options(kubernetes.kubeconfig(), IMAGE)
    options["node_labels"] = {"host": "kubernetes.io/hostname"}
    rows = "\n".join(f"{name} = {_toml(value)}" for name, value in options.items())
    config = f'[backends.cluster]\nkind = "kubernetes"\n\n[backends.cluster.options]\n{rows}\n'
    config += f'[backends.queued]\nkind = "kubernetes"\n\n[backends.queued.options]\n{rows}\n'
    config += f'queue = "{QUEUE_NAME}"\n[backends.local]\nkind = "local"\n'
    async with FabricEnvironment.fresh(config=config) as found:
        yield found


@pytest.fixture(scope="module")
def queue(kubernetes: KubernetesCluster) -> Iterator[Queue]:
    """Who decides which Jobs of the backend `queued` may have pods."""
    found = Queue(kubernetes.kubeconfig())
    found.install()
    yield found
    found.remove()


def _toml(value: Any) -> str:
    if is_table(value):
        return "{ " + ", ".join(f"{key} = {json.dumps(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)


def _submit(lab: FabricEnvironment, folder: Path, body: dict[str, Any]) -> str:
    path = folder / f"{body['id']}.json"
    path.write_text(json.dumps({"backends": ["cluster"], **body}))
    done = lab.cli("submit", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    return str(body["id"])


def _process(evidence: EvidenceLedger, code: str, **more: Any) -> dict[str, Any]:
    env = {"EVIDENCE": evidence.address}
    command = ["python3", "-c", _REPORT + code]
    return {"process": {"command": command, "env": env, **more}}


def _result(lab: FabricEnvironment, name: str) -> dict[str, Any]:
    done = lab.cli("wait", name, "-o", "json", timeout=150)
    assert done.returncode in {0, 100, 103}, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(lab.cli("status", name, "-o", "json").stdout)
    return found | {"returned": done.returncode}


def _until(evidence: EvidenceLedger, name: str, event: str, epoch: str = "1") -> None:
    wait_for(lambda: bool(evidence.lines(id=name, event=event, epoch=epoch)))


def _says(lab: FabricEnvironment, name: str, words: str) -> str:
    """Wait until the status has these words; return it."""
    wait_for(lambda: words in lab.cli("status", name).stdout.replace("\n", " "))
    return str(json.loads(lab.cli("status", name, "-o", "json").stdout))


def _live_jobs(kubernetes: KubernetesCluster) -> list[str]:
    """Return the pods whose processes have not gone."""
    rows = kubernetes.get("/api/v1/namespaces/default/pods")["items"]
    return [row["metadata"]["name"] for row in rows if row["status"]["phase"] == "Running"]


async def test_files_and_telemetry_go_in_and_out(
    lab: FabricEnvironment, evidence: EvidenceLedger, tmp_path: Path
) -> None:
    """An input, a working folder, outputs, telemetry and both exit paths, with a big file."""
    size = 50 * 2**20
    (tmp_path / "given.bin").write_bytes(b"g" * size)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "helper.py").write_text("TEXT = 'from the folder'\n")
    code = """
import shutil, sys, time
sys.path.insert(0, os.getcwd())
import helper
shutil.copy(os.environ['FABRIC_INPUT_DIR'] + '/given.bin', '/output/copy.bin')
open('/output/text', 'w').write(helper.TEXT)
with open(os.environ['FABRIC_TELEMETRY'], 'a') as file:
    for step in range(5):
        file.write(json.dumps({'step': step, 'loss': 1 / (step + 1)}) + '\\n')
print('said')
"""
    given = {"source_uri": (tmp_path / "given.bin").as_uri(), "mount_path": "/input/given.bin"}
    payload = _process(evidence, code, inputs=[given], outputs=[{"source_path": "/output/text"}])
    body = {"id": "k-files", "workdir": str(tmp_path / "work"), "payload": payload}
    found = _result(lab, _submit(lab, tmp_path, body))
    assert found["returned"] == 0, found
    done = lab.cli("get", "k-files", "text", "--to", str(tmp_path / "got"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "got" / "text").read_text() == "from the folder"
    assert "said" in lab.cli("logs", "k-files").stdout
    rows = lab.cli("capsule", "query", "SELECT max(step) FROM telemetry", "k-files").stdout
    assert "4" in rows, rows


async def test_a_python_payload_returns(lab: FabricEnvironment, tmp_path: Path) -> None:
    """A function of a request's own source runs in the backend's image."""
    source = ["def double(x):", "    return {'twice': 2 * x}"]
    python = {"entry_point": "fit.py:double", "source": source, "args": [21]}
    found = _result(lab, _submit(lab, tmp_path, {"id": "k-python", "payload": {"python": python}}))
    assert found["returned"] == 0, found
    lab.cli("get", "k-python", "return.json", "--to", str(tmp_path))
    assert json.loads((tmp_path / "return.json").read_text()) == {"twice": 42}


async def test_a_container_payload_fails_as_it_says(lab: FabricEnvironment, tmp_path: Path) -> None:
    """A container's exit code and last words are told; what looks like a variable stays."""
    container = {
        "image": IMAGE,
        "command": ["sh", "-c"],
        "args": ["echo '$(HOME) stays' >&2; exit 7"],
        "network": "outbound",
    }
    body = {"id": "k-fails", "payload": {"container": container}}
    found = _result(lab, _submit(lab, tmp_path, body))
    assert (found["returned"], found["reason"]) == (100, "EXIT_CODE"), found
    said = lab.cli("result", "k-fails", "-o", "json").stdout
    assert "$(HOME) stays" in said, said


async def test_what_cannot_run_is_refused_or_told(
    lab: FabricEnvironment, evidence: EvidenceLedger, tmp_path: Path
) -> None:
    """A pod that waits says why in Kubernetes' words; what no node has is refused at once."""
    body = {"id": "k-nowhere", "payload": _process(evidence, "pass")}
    body["requirements"] = {"constraints": ["host == 'another'"]}
    path = tmp_path / "nowhere.json"
    path.write_text(json.dumps({"backends": ["cluster"], **body}))
    refused = lab.cli("submit", str(path))
    assert refused.returncode == 2
    assert f"they have: {NODE}" in refused.stdout + refused.stderr
    body = {"id": "k-here", "payload": _process(evidence, "pass")}
    body["requirements"] = {"constraints": [f"host in ['{NODE}']"]}
    assert _result(lab, _submit(lab, tmp_path, body))["returned"] == 0


async def test_the_portable_example_gives_the_same(lab: FabricEnvironment, tmp_path: Path) -> None:
    """The portable example gives the same outputs and telemetry here and as a process."""
    given = portable.make_input(tmp_path)
    found = portable.run_on("cluster", lab, given)

    assert found == portable.run_on("local", lab, given)
    assert set(found[0]) == portable.OUTPUTS
    assert len(found[1]) == portable.ROWS


async def test_a_gang_is_one_job(
    lab: FabricEnvironment, evidence: EvidenceLedger, tmp_path: Path
) -> None:
    """Members begin together, each with its number, and the job ends badly as soon as one does."""
    code = """
import time
rank = os.environ['JOB_COMPLETION_INDEX']
report('rank ' + rank)
if rank == '1' and os.environ['FABRIC_REQUEST_ID'] == 'k-gang-bad':
    raise SystemExit(5)
time.sleep(2 if os.environ['FABRIC_REQUEST_ID'] == 'k-gang' else 120)
"""
    for name, returned in (("k-gang", 0), ("k-gang-bad", 100)):
        body = {"id": name, "payload": _process(evidence, code)}
        body["requirements"] = {"resources": {"nodes": 2}}
        found = _result(lab, _submit(lab, tmp_path, body))
        assert found["returned"] == returned, found
        for rank in range(2):
            assert len(evidence.lines(id=name, event=f"rank {rank}")) == 1


async def test_an_image_that_is_not_there_is_told(lab: FabricEnvironment, tmp_path: Path) -> None:
    """A pod that waits says why as it waits; an image that nobody has ends the attempt."""
    container = {"image": "nowhere.example/none:1", "network": "outbound"}
    body = {"id": "k-image", "payload": {"container": container}}
    found = _result(lab, _submit(lab, tmp_path, body))
    assert (found["returned"], found["reason"]) == (100, "SETUP"), found
    assert "ErrImageNeverPull" in lab.cli("result", "k-image", "-o", "json").stdout


async def test_a_killed_worker_leaves_the_job_running(
    lab: FabricEnvironment,
    evidence: EvidenceLedger,
    kubernetes: KubernetesCluster,
    tmp_path: Path,
) -> None:
    """A worker killed in the middle, and an API server and a kubelet: one job, one result."""
    code = "import time\nreport('start')\ntime.sleep(8)\nreport('end')\nprint('whole')"
    name = _submit(lab, tmp_path, {"id": "k-killed", "payload": _process(evidence, code)})
    _until(evidence, name, "start")
    lab.kill_worker()
    for part in ("apiserver", "kubelet"):
        kubernetes.kill_part(part)
        kubernetes.start_part(part)
    kubernetes.until_ready()
    lab.start_worker()
    found = _result(lab, name)
    assert found["returned"] == 0, found
    assert len(evidence.lines(id=name, event="start")) == 1
    assert len(evidence.lines(id=name, event="end")) == 1
    assert lab.cli("logs", name).stdout == "whole\n"


async def test_a_cancelled_experiment_leaves_nothing(
    lab: FabricEnvironment,
    evidence: EvidenceLedger,
    kubernetes: KubernetesCluster,
    tmp_path: Path,
) -> None:
    """A cancelled payload hears SIGTERM; when CANCELED is told, its pod has gone."""
    code = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (report('heard'), sys.exit(0)))
report('start')
time.sleep(300)
"""
    name = _submit(lab, tmp_path, {"id": "k-cancel", "payload": _process(evidence, code)})
    _until(evidence, name, "start")
    assert lab.cli("cancel", name).returncode == 0
    found = _result(lab, name)
    assert found["returned"] == 103, found
    assert len(evidence.lines(id=name, event="heard")) == 1
    assert not _live_jobs(kubernetes)


async def test_a_parted_node_ends_in_one_result(
    lab: FabricEnvironment,
    evidence: EvidenceLedger,
    kubernetes: KubernetesCluster,
    tmp_path: Path,
) -> None:
    """A payload whose node is cut off for a while ends once, with all that it wrote."""
    code = "import time\nreport('start')\ntime.sleep(6)\nopen('/output/x', 'w').write('x')"
    payload = _process(evidence, code, outputs=[{"source_path": "x"}])
    name = _submit(lab, tmp_path, {"id": "k-parted", "payload": payload})
    _until(evidence, name, "start")
    kubernetes.cut_off_node()
    await asyncio.sleep(10)  # longer than the payload takes: it ends while nobody sees it
    kubernetes.join_node()
    found = _result(lab, name)
    assert found["returned"] == 0, found
    assert len(evidence.lines(id=name, event="start")) == 1
    done = lab.cli("get", name, "x", "--to", str(tmp_path))
    assert done.returncode == 0, done.stderr
    kubernetes.until_ready()


_SAVING = """
import signal, sys, time
saved = os.environ['FABRIC_CHECKPOINT_DIR'] + '/saved'
def save(*_):
    open(saved, 'w').write('half')
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
report('from ' + (open(saved).read() if os.path.exists(saved) else 'nothing'))
while not os.path.exists(saved): time.sleep(0.05)
"""
"""Saves its state when it is told to end, says that it ended well, and goes on from there."""


async def test_what_its_queue_takes_back_goes_on_when_it_may(
    lab: FabricEnvironment, evidence: EvidenceLedger, queue: Queue, tmp_path: Path
) -> None:
    """It waits in its queue's words; what was preempted goes on, under a new epoch."""
    body = {"id": "k-queued", "backends": ["queued"], "payload": _process(evidence, _SAVING)}
    name = _submit(lab, tmp_path, body)
    first = queue.job(name, 1)
    waiting = _says(lab, name, FULL)
    queue.admit(first)
    _until(evidence, name, "from nothing")
    queue.evict(first)
    second = queue.job(name, 2)
    again = _says(lab, name, FULL)
    queue.admit(first)  # nothing of the attempt that is lost may begin once more
    queue.admit(second)
    found = _result(lab, name)

    assert f"QuotaReserved is False, Pending: {FULL}" in waiting
    assert "JobSuspended" not in waiting
    assert f"QuotaReserved is False, Pending: {FULL}" in again
    assert (found["returned"], found["epoch"]) == (0, 2), found
    told = json.loads(lab.cli("result", name, "-o", "json").stdout)["attempts"]
    assert [attempt["reason"] for attempt in told] == ["PREEMPTED", ""]
    assert PREEMPTED in told[0]["message"]
    said = [(row["event"], row["epoch"]) for row in evidence.lines(id=name)]
    assert said == [("from nothing", "1"), ("from half", "2")]
    wait_for(lambda: queue.is_over(first) and queue.is_over(second))


async def test_what_comes_back_unseen_does_not_begin_again(
    lab: FabricEnvironment, evidence: EvidenceLedger, queue: Queue, tmp_path: Path
) -> None:
    """Evicted and let in again while no worker lives, an attempt has a second pod, and no start."""
    body = {"id": "k-unseen", "backends": ["queued"], "payload": _process(evidence, _SAVING)}
    name = _submit(lab, tmp_path, body)
    first = queue.job(name, 1)
    queue.admit(first)
    _until(evidence, name, "from nothing")
    lab.kill_worker()
    (pod,) = queue.pods(first)
    queue.evict(first)
    queue.admit(first)
    wait_for(
        lambda: (
            [one["metadata"]["uid"] for one in queue.pods(first)]
            not in ([], [pod["metadata"]["uid"]])
        )
    )
    lab.start_worker()
    queue.admit(queue.job(name, 2))
    _until(evidence, name, "from nothing", "2")
    assert lab.cli("cancel", name).returncode == 0
    found = _result(lab, name)

    assert found["returned"] == 103, found
    said = [(row["event"], row["epoch"]) for row in evidence.lines(id=name)]
    assert said == [("from nothing", "1"), ("from nothing", "2")]
    wait_for(lambda: queue.is_over(first))


async def test_a_job_that_a_person_suspends_is_no_failure(
    lab: FabricEnvironment, evidence: EvidenceLedger, queue: Queue, tmp_path: Path
) -> None:
    """Without any queue a suspended Job has lost its place as well, and does not run twice."""
    name = _submit(lab, tmp_path, {"id": "k-stopped", "payload": _process(evidence, _SAVING)})
    _until(evidence, name, "from nothing")
    queue.stop(name, 1)
    found = _result(lab, name)

    assert (found["returned"], found["epoch"]) == (0, 2), found
    said = [(row["event"], row["epoch"]) for row in evidence.lines(id=name)]
    assert said == [("from nothing", "1"), ("from half", "2")]
