"""Submissions that bring along files of the submitting machine, on a real server and worker."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

from temporal_fabric import Capsule, Fabric, RequestRejected, names
from temporal_fabric.config import Settings
from temporal_fabric.connection import connect
from temporal_fabric.handle import ExperimentHandle
from temporal_fabric.testing.environment import FabricEnvironment
from tests.bodies import shell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def waiting() -> AsyncIterator[FabricEnvironment]:
    """A server whose worker starts when a test says so."""
    home = Path(tempfile.mkdtemp(prefix="fab"))
    found = FabricEnvironment(home)
    found.start_server()
    try:
        yield found
    finally:
        await found.close()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder to bring along, with something in it that must stay."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/fit.sh").write_text(
        "#!/bin/sh\necho fit $1 $(ls -A) > $FABRIC_OUTPUT_DIR/f\n"
    )
    (tmp_path / "tree/fit.sh").chmod(0o755)
    (tmp_path / "tree/.gitignore").write_text(".env\n")
    (tmp_path / "tree/.env").write_text("TOKEN=1")
    return tmp_path / "tree"


async def _wrote(handle: ExperimentHandle) -> str:
    result = await handle.result()
    return Capsule.open(result.capsule).read("artifacts/f").decode().strip()


def _body(tree: Path, request_id: str, **more: Any) -> dict[str, Any]:
    return shell("./fit.sh 1", **more) | {"id": request_id, "workdir": str(tree)}


async def test_what_was_submitted_is_what_runs(
    waiting: FabricEnvironment, tree: Path, tmp_path: Path
) -> None:
    """The folder and a file are gone before a worker is there: it runs with what was sent."""
    (tmp_path / "data").write_text("data")
    client = await connect(waiting.settings, address=waiting.address)
    body = _body(tree, "away")
    body["payload"]["process"]["command"] = ["sh", "-c", "./fit.sh $(cat $FABRIC_INPUT_DIR/x)"]
    row = {"source_uri": (tmp_path / "data").as_uri(), "mount_path": "x"}
    body["payload"]["process"]["inputs"] = [row]
    handle = await Fabric(client, waiting.settings).submit(body)
    shutil.rmtree(tree)
    (tmp_path / "data").write_text("other")

    waiting.start_worker()

    assert await _wrote(handle) == "fit data .gitignore fit.sh"
    result = await handle.result()
    manifest = Capsule.open(result.capsule).manifest.experiment
    data, folder = manifest["inputs"]
    assert data["uri"] == row["source_uri"]
    assert (folder["uri"], len(folder["sha256"])) == (f"tree://sha256/{folder['sha256']}", 64)


async def test_same_id_same_folder_same_experiment(fabric: Fabric, tree: Path) -> None:
    """The same folder joins, also from another place; a changed one is a conflict that says so."""
    handle = await fabric.submit(_body(tree, "twice"))
    await handle.result()
    copy = Path(shutil.copytree(tree, tree.parent / "copy"))
    (copy / ".env").write_text("TOKEN=2")

    again = await fabric.submit(_body(copy, "twice"))
    (copy / "fit.sh").write_text("#!/bin/sh\nexit 3\n")

    assert (await again.result()).epoch == 1
    with pytest.raises(RequestRejected, match="working folder was another") as caught:
        await fabric.submit(_body(copy, "twice"))
    assert caught.value.code == "E_CONFLICT"


async def test_a_changed_input_is_a_conflict(fabric: Fabric, tmp_path: Path) -> None:
    """The same body with a file that has changed since is refused, and says why."""
    (tmp_path / "x").write_text("1")
    body: dict[str, Any] = shell("true") | {"id": "input"}
    uri = (tmp_path / "x").as_uri()
    body["payload"]["process"]["inputs"] = [{"source_uri": uri, "mount_path": "x"}]
    await fabric.submit(body)
    (tmp_path / "x").write_text("2")

    with pytest.raises(RequestRejected, match="content of an input was another"):
        await fabric.submit(body)


async def test_a_clone_runs_with_the_folder_of_the_original(
    environment: FabricEnvironment, fabric: Fabric, tree: Path
) -> None:
    """The folder is gone, the store has it: a clone and a retry need nothing else."""
    first = await fabric.submit(_body(tree, "first"))
    said = await _wrote(first)
    shutil.rmtree(tree)

    cloned = environment.cli("clone", "first", "--id", "second")

    assert cloned.returncode == 0, cloned.stderr
    assert await _wrote(fabric.get("second")) == said


async def test_a_command_with_its_folder(environment: FabricEnvironment, tree: Path) -> None:
    """`submit --workdir` runs a command in a copy of the folder."""
    done = environment.cli("submit", "-f", "--workdir", str(tree), "--", "sh", "-c", "ls -A; pwd")

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == [".gitignore", "fit.sh"]
    assert done.stdout.splitlines()[2].endswith("/task")


async def test_a_schedule_keeps_the_folder_of_the_day(
    environment: FabricEnvironment, fabric: Fabric, tree: Path, tmp_path: Path
) -> None:
    """A schedule brings the folder along when it is created."""
    body = _body(tree, "nightly") | {"id": "nightly"}
    (tmp_path / "r.json").write_text(json.dumps(body))
    made = environment.cli(
        "schedule", "create", "nightly", str(tmp_path / "r.json"), "--every", "9999"
    )
    shutil.rmtree(tree)

    fired = environment.cli("schedule", "trigger", "nightly")

    assert (made.returncode, fired.returncode) == (0, 0), made.stderr
    while not (found := [s for s in await fabric.list() if s.request_id.startswith("nightly-")]):
        await asyncio.sleep(0.2)
    only = found[0]
    handle = ExperimentHandle(fabric, only.tenant, only.request_id, only.workflow_id)
    assert (await _wrote(handle)).startswith("fit 1")


async def test_a_direct_start_with_a_folder_is_refused(fabric: Fabric, tree: Path) -> None:
    """Nobody uploaded it: refused with a code, the place and what to do; nothing is recorded."""
    for number, (workdir, code) in enumerate(
        ((str(tree), "E_PATH"), (f"tree://sha256/{'0' * 64}", "E_DATA"))
    ):
        body = _body(tree, f"direct-{number}") | {"workdir": workdir}
        with pytest.raises(WorkflowFailureError) as caught:
            await fabric.client.execute_workflow(
                names.WORKFLOW_EXPERIMENT,
                body,
                id=names.workflow_id("default", f"direct-{number}"),
                task_queue=names.QUEUE,
            )
        cause = caught.value.cause
        assert isinstance(cause, ApplicationError)
        assert (cause.type, cause.details[0][0]["path"]) == (code, "/workdir")
        assert "submit" in cause.message
        record = fabric.record("default", f"direct-{number}")
        assert record is not None
        assert await record.digest() is None


async def test_client_and_worker_without_a_common_store(
    environment: FabricEnvironment, tree: Path, tmp_path: Path
) -> None:
    """A client with another store is refused before anything is sent, and told what to set."""
    own = Settings(home=tmp_path, store=(tmp_path / "own").as_uri())
    client = await connect(environment.settings, address=environment.address)

    with pytest.raises(RequestRejected, match="FABRIC_STORE") as caught:
        await Fabric(client, own).submit(_body(tree, "apart"))

    assert (caught.value.code, caught.value.problems[0].path) == ("E_DATA", "/workdir")
    assert not (tmp_path / "own").exists()
    assert not await Fabric(client, environment.settings).get("apart").exists()
