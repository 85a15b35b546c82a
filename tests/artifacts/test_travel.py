"""Experiments with inputs and outputs that travel, on a real server with a real worker."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from temporal_fabric import Capsule, ExperimentFailed, Fabric, RequestRejected, names
from temporal_fabric.errors import CapsuleError, ExperimentNotFinished, Problem
from tests.bodies import shell

if TYPE_CHECKING:
    from collections.abc import Mapping

    from temporal_fabric.testing.environment import FabricEnvironment
    from tests.artifacts.servers import S3Server

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def worker_env(s3: S3Server) -> Mapping[str, str]:
    """The worker has credentials for S3."""
    return s3.env


def _body(
    script: str, inputs: dict[str, str] | None = None, outputs: tuple[Any, ...] = (), **more: Any
) -> dict[str, Any]:
    body = shell(script, outputs=list(outputs), **more)
    rows = [{"source_uri": uri, "mount_path": path} for path, uri in (inputs or {}).items()]
    body["payload"]["process"]["inputs"] = rows
    return body


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_an_input_and_outputs_at_two_kinds_of_target(
    fabric: Fabric, s3: S3Server, tmp_path: Path
) -> None:
    """What comes in from a file goes out to a file, a folder and S3, and all is recorded."""
    (tmp_path / "in").write_bytes(b"data")
    outputs = (
        {"source_path": "/output/one", "target_uri": (tmp_path / "out/one").as_uri()},
        {"source_path": "all", "target_uri": (tmp_path / "out/all").as_uri()},
        {"source_path": "two", "target_uri": "s3://bucket/out/two"},
    )
    script = (
        "cd $FABRIC_OUTPUT_DIR; cp $FABRIC_INPUT_DIR/x one; mkdir all; cp one all/a; cp one two"
    )
    body = _body(script, {"/input/x": (tmp_path / "in").as_uri()}, outputs)

    result = await (await fabric.submit(body)).result()

    capsule = Capsule.open(result.capsule)
    staged = result.attempts[0].inputs[0]
    assert (tmp_path / "out/one").read_bytes() == b"data"
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == ["a", "all", "one"]
    assert s3.objects() == {"out/two": b"data"}
    assert (staged.path, staged.sha256) == ("x", _sha256(b"data"))
    assert capsule.manifest.experiment["inputs"][0]["sha256"] == _sha256(b"data")
    assert {output.path: output.target_uri for output in result.outputs} == {
        "all/a": outputs[1]["target_uri"] + "/a",
        "one": outputs[0]["target_uri"],
        "two": "s3://bucket/out/two",
    }


@pytest.mark.parametrize(
    ("uri", "reason", "words"),
    [
        ("file:///no/such/file", "SETUP", "file:///no/such/file"),
        ("s3://bucket/none", "SETUP", "s3://bucket/none"),
        ("capsule://default/no-such-run/x", "SETUP", "no such experiment"),
    ],
)
async def test_a_missing_input_fails_before_the_payload(
    fabric: Fabric, uri: str, reason: str, words: str
) -> None:
    """The failure names the URI, and the payload never ran."""
    handle = await fabric.submit(_body("echo ran", {"x": uri}))

    with pytest.raises(ExperimentFailed, match=words) as caught:
        await handle.result()

    assert caught.value.reason == reason
    assert not (Capsule.open(caught.value.result["capsule"]).folder / "logs/1/stdout.log").exists()


async def test_a_failed_run_stores_nothing(fabric: Fabric, tmp_path: Path) -> None:
    """Outputs of a run that fails, or that cannot all be stored, appear nowhere."""
    (tmp_path / "folder").mkdir()
    good = {"source_path": "a", "target_uri": (tmp_path / "a").as_uri()}
    bad = {"source_path": "b", "target_uri": (tmp_path / "folder").as_uri()}
    script = "cd $FABRIC_OUTPUT_DIR; echo 1 > a; echo 2 > b"
    failing = await fabric.submit(_body(f"{script}; exit 1", outputs=(good, bad)))
    blocked = await fabric.submit(_body(script, outputs=(good, bad)))

    with pytest.raises(ExperimentFailed):
        await failing.result()
    with pytest.raises(ExperimentFailed, match="folder") as caught:
        await blocked.result()

    capsule = Capsule.open((await blocked.status()).capsule)
    assert caught.value.reason == "OUTPUT_MISSING"
    assert capsule.result["reason"] == "OUTPUT_MISSING"
    assert capsule.verify() == []
    assert _names(tmp_path) == ["folder"]


async def test_output_bytes_is_enforced(fabric: Fabric) -> None:
    """More output than the limit is BUDGET; exactly the limit is fine."""
    script = "head -c 1000 /dev/zero > $FABRIC_OUTPUT_DIR/x"
    fits = await fabric.submit(_body(script, limits={"output_bytes": 1000}))
    exceeds = await fabric.submit(_body(script, limits={"output_bytes": 999}))

    await fits.result()
    with pytest.raises(ExperimentFailed, match="1000 bytes") as caught:
        await exceeds.result()

    assert caught.value.reason == "BUDGET"


async def test_a_chain_of_two(fabric: Fabric) -> None:
    """The second waits with DEPENDENCY while the first runs, then reads its output."""
    named = {"source_path": "/output/model.bin", "name": "model"}
    first = _body("sleep 5; echo 42 > $FABRIC_OUTPUT_DIR/model.bin", outputs=(named,))
    uri = f"capsule://default/{first['id']}/model"
    second = _body("cat $FABRIC_INPUT_DIR/m", {"m": uri})
    upstream = await fabric.submit(first)

    downstream = await fabric.submit(second)
    live: dict[str, Any] = {}
    while not live.get("waits_for"):
        live = (await downstream.status(detail=False)).live
        await asyncio.sleep(0.1)
    assert not (await upstream.status(detail=False)).final
    result = await downstream.result()

    capsule, given = Capsule.open(result.capsule), result.attempts[0].inputs[0]
    assert live == {"reason": "DEPENDENCY", "waits_for": f"default/{first['id']}"}
    assert (capsule.folder / "logs/1/stdout.log").read_text() == "42\n"
    assert (given.tenant, given.request_id) == ("default", first["id"])
    assert given.capsule == (await upstream.result()).capsule
    assert capsule.manifest.experiment["inputs"] == [
        {
            "path": "m",
            "uri": uri,
            "size": 3,
            "sha256": _sha256(b"42\n"),
            "tenant": "default",
            "request_id": first["id"],
            "capsule": given.capsule,
        }
    ]


async def test_a_failed_upstream_fails_the_downstream(fabric: Fabric) -> None:
    """The downstream ends with SETUP and the upstream's end, and can be retried after it."""
    mark = Path(tempfile.mkdtemp()) / "go"
    first = _body(f"sleep 1; test -e {mark} && echo 1 > $FABRIC_OUTPUT_DIR/x")
    upstream = await fabric.submit(first)
    second = _body("cat $FABRIC_INPUT_DIR/x", {"x": f"capsule://default/{first['id']}/x"})
    downstream = await fabric.submit(second)

    with pytest.raises(ExperimentFailed, match="FAILED EXIT_CODE") as caught:
        await downstream.result()
    mark.touch()
    await upstream.retry()
    await downstream.retry()

    assert caught.value.reason == "SETUP"
    assert (await downstream.result()).state == "SUCCEEDED"


@pytest.mark.parametrize(
    ("uri", "code"),
    [("capsule://other/a/x", "E_TENANT"), ("capsule://default/itself-conflict/x", "E_CONFLICT")],
)
async def test_a_chain_that_may_not_be(fabric: Fabric, uri: str, code: str) -> None:
    """Another tenant's output and one's own are refused by their codes."""
    body = _body("true", {"x": uri})
    body |= {"id": f"itself-{code[2:].lower()}"}
    direct = await fabric.submit(body, check=False)

    with pytest.raises(RequestRejected) as planned:
        await fabric.submit(body)
    with pytest.raises(RequestRejected) as caught:
        await direct.result()

    assert planned.value.code == caught.value.code == code


async def test_what_a_finished_experiment_does_not_have(
    fabric: Fabric, environment: FabricEnvironment, tmp_path: Path
) -> None:
    """E_DATA for a missing output, E_INTEGRITY for another digest, all at once, at any door."""
    upstream = await fabric.submit(_body("echo 1 > $FABRIC_OUTPUT_DIR/x"))
    await upstream.result()
    uri = f"capsule://default/{upstream.id}"
    body = _body("true", {"a": f"{uri}/y", "b": f"{uri}/x", "c": f"{uri}/x"})
    inputs = body["payload"]["process"]["inputs"]
    inputs[1]["sha256"], inputs[2]["sha256"] = "0" * 64, _sha256(b"1\n")
    path = tmp_path / "body.json"
    path.write_text(json.dumps(body))

    submitted = environment.cli("submit", str(path), "-o", "json")
    direct = await fabric.client.start_workflow(
        names.WORKFLOW_EXPERIMENT,
        body,
        id=names.workflow_id("default", body["id"]),
        task_queue=names.QUEUE,
    )
    with pytest.raises(RequestRejected) as caught:
        await fabric.get(body["id"]).result()
    del inputs[0], inputs[0]["sha256"]
    await (await fabric.submit(body)).result()

    told = json.loads(submitted.stdout)["problems"]
    at = "/payload/process/inputs"
    assert submitted.returncode == 2
    assert [Problem.from_dict(problem) for problem in told] == list(caught.value.problems)
    assert [(problem["code"], problem["path"]) for problem in told] == [
        ("E_DATA", f"{at}/0/source_uri"),
        ("E_INTEGRITY", f"{at}/1/sha256"),
    ]
    assert "there is x" in told[0]["message"]
    assert direct.id == names.workflow_id("default", body["id"])


async def test_a_damaged_upstream_is_not_used(fabric: Fabric) -> None:
    """An output that is no longer what was sealed is INTEGRITY."""
    upstream = await fabric.submit(_body("echo 1 > $FABRIC_OUTPUT_DIR/x"))
    capsule = Capsule.open((await upstream.result()).capsule)
    capsule.output("x").write_text("2\n")
    uri = f"capsule://default/{upstream.id}/x"

    with pytest.raises(ExperimentFailed) as caught:
        await (await fabric.submit(_body("true", {"x": uri}))).result()

    assert caught.value.reason == "INTEGRITY"


async def test_getting_outputs(
    fabric: Fabric, environment: FabricEnvironment, tmp_path: Path
) -> None:
    """Outputs come out by name or all together; damaged ones do not."""
    named = {"source_path": "d", "name": "results"}
    script = "sleep 1; cd $FABRIC_OUTPUT_DIR; mkdir d; echo 1 > d/a; echo 2 > b"
    handle = await fabric.submit(_body(script, outputs=(named,)))
    with pytest.raises(ExperimentNotFinished):
        await handle.get(tmp_path)
    capsule = Capsule.open((await handle.result()).capsule)

    one = await handle.get(tmp_path / "one", "results")
    everything = environment.cli("get", handle.id, "--to", str(tmp_path / "all"), "-o", "json")
    unknown = environment.cli("get", handle.id, "nothing", "--to", str(tmp_path / "none"))
    (capsule.folder / "artifacts/b").write_text("3\n")
    with pytest.raises(CapsuleError, match="differs"):
        await handle.get(tmp_path / "bad", "b")

    assert [path.read_text() for path in one] == ["1\n"]
    assert one == [tmp_path / "one/d/a"]
    assert everything.returncode == 0, everything.stderr
    assert sorted(p.name for p in (tmp_path / "all").rglob("*")) == ["a", "b", "d"]
    assert (unknown.returncode, "results" in unknown.stderr) == (1, True)
    assert list((tmp_path / "bad").iterdir()) == []


@pytest.mark.parametrize("kind", ["process", "python"])
async def test_inputs_and_outputs_beside_the_payload(
    environment: FabricEnvironment, fabric: Fabric, tmp_path: Path, kind: str
) -> None:
    """What stands under /artifacts is staged, required, delivered and named like the payload's."""
    (tmp_path / "in").write_bytes(b"data")
    script = 'cd "$FABRIC_OUTPUT_DIR"; cp "$FABRIC_INPUT_DIR/x" y; cat "$FABRIC_INPUT_DIR/z" > w'
    code = f"import subprocess; subprocess.run({script!r}, shell=True, check=True)"
    (tmp_path / "main.py").write_text(code)
    uri = (tmp_path / "in").as_uri()
    payloads: dict[str, dict[str, Any]] = {
        "process": {"command": ["sh", "-c", script]},
        "python": {"entry_point": str(tmp_path / "main.py")},
    }
    body: dict[str, Any] = {"id": f"beside-{kind}", "payload": {kind: payloads[kind]}}
    body["payload"][kind]["inputs"] = [{"source_uri": uri, "mount_path": "z"}]
    body["artifacts"] = {
        "inputs": [{"source_uri": uri, "mount_path": "x"}],
        "outputs": [
            {"source_path": "y", "name": "copy", "target_uri": (tmp_path / "out").as_uri()}
        ],
    }

    result = await (await fabric.submit(body)).result()

    assert (tmp_path / "out").read_bytes() == b"data"
    assert [given.path for given in result.attempts[0].inputs] == ["z", "x"]
    got = environment.cli("get", f"beside-{kind}", "copy", "--to", str(tmp_path / "got"))
    assert (got.returncode, (tmp_path / "got/y").read_bytes()) == (0, b"data")


async def test_a_missing_output_beside_the_payload(fabric: Fabric) -> None:
    """An output that is declared under /artifacts must exist, too."""
    body = shell("true") | {"artifacts": {"outputs": [{"source_path": "none"}]}}

    with pytest.raises(ExperimentFailed) as caught:
        await (await fabric.submit(body)).result()

    assert caught.value.reason == "OUTPUT_MISSING"


async def test_two_inputs_at_one_place(fabric: Fabric, tmp_path: Path) -> None:
    """The payload's input and one beside it cannot bear the same name, however it is spelt."""
    (tmp_path / "in").write_bytes(b"data")
    row = {"source_uri": (tmp_path / "in").as_uri(), "mount_path": "/input/x"}
    body = _body("true", {"x": (tmp_path / "in").as_uri()}) | {"artifacts": {"inputs": [row]}}

    with pytest.raises(RequestRejected, match="at the place of /payload/process/inputs/0"):
        await fabric.submit(body)
