"""The same code at every door: the command line refuses, a direct start fails the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

from temporal_fabric import names
from temporal_fabric.cli.app import main
from temporal_fabric.requests import CODES
from tests.bodies import shell
from tests.requests.test_request_codes import CASES

if TYPE_CHECKING:
    from collections.abc import Callable

    from temporal_fabric.client import Fabric
    from temporal_fabric.testing.environment import FabricEnvironment


def _file(case: Any) -> bytes | None:
    """Return a case as the content of a file, None where no file can hold it."""
    if isinstance(case, bytes):
        return case
    if isinstance(case, str):
        return case.encode("utf-8", "surrogatepass")
    try:
        return json.dumps(case).encode() if isinstance(case, dict) else None
    except TypeError:
        return None


def _value(case: Any) -> Any:
    """Return a case as the JSON input of a workflow, None where JSON cannot hold it."""
    if isinstance(case, bytes):
        try:
            return case.decode()
        except UnicodeDecodeError:
            return None
    return case if isinstance(case, str) or _file(case) is not None else None


def _first(form: Callable[[Any], Any]) -> dict[str, Any]:
    """Return for each code that admission raises one body in the form of a door."""
    found: dict[str, Any] = {}
    for code, path, case in CASES:
        # Every door has an id for a body without one: the file's name, the workflow id.
        named = (code, path) == ("E_MISSING", "/id")
        if code not in found and not named and (value := form(case)) is not None:
            found[code] = value
    return found


FILES, VALUES = _first(_file), _first(_value)
NEEDED = {code for code, entry in CODES.items() if entry.admission}
ELSEWHERE = {
    "E_TENANT": "test_tenants.py",
    "E_QUOTA": "test_tenants.py",
    "E_RATE": "test_tenants.py",
    "E_HOSTKEY": "slurm/test_slurm_experiments.py",
    "E_DATA": "artifacts/test_travel.py",
    "E_NO_BACKEND": "test_error_doors.py",
}
"""Codes that need more than a request: where both doors are tried for them."""

ONE_DOOR = {"E_AUTH": "test_access.py"}
"""A server that refuses the caller refuses the start itself: there is no run that could fail."""


def test_every_code_of_admission_is_tried() -> None:
    """No code that a request alone can raise is left out."""
    assert set(FILES) >= NEEDED
    assert set(VALUES) >= NEEDED


def test_every_other_code_is_tried_elsewhere() -> None:
    """No code of the contract is without a test of every door that it can come through."""
    folder = Path(__file__).parent
    others = ELSEWHERE | ONE_DOOR

    assert set(others) == set(CODES) - NEEDED
    assert [c for c, name in others.items() if c not in (folder / name).read_text()] == []


@pytest.mark.parametrize("code", sorted(FILES))
def test_the_command_line_refuses_with_the_code(
    code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`validate` ends with 2 and prints the code with its place, and nothing is written."""
    path = tmp_path / ("request.json" if FILES[code].startswith(b"{") else "request.yaml")
    path.write_bytes(FILES[code])

    with pytest.raises(SystemExit) as ended:
        main(["validate", str(path), "-o", "json"], hard_exit=False)

    answer = json.loads(capsys.readouterr().out)
    found = {problem["code"] for problem in answer["problems"]}
    assert ended.value.code == 2
    assert code in found
    assert found <= set(CODES)
    assert all({"code", "path", "message"} <= set(problem) for problem in answer["problems"])


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("code", sorted(VALUES))
async def test_a_direct_start_fails_with_the_code(fabric: Fabric, code: str) -> None:
    """The run fails at once, not retryable, its type an error code and its details all of them."""
    workflow_id = names.workflow_id("default", f"code-{code.lower().replace('_', '-')}")

    assert code in await _direct(fabric, VALUES[code], workflow_id)


async def _direct(fabric: Fabric, body: Any, workflow_id: str) -> list[str]:
    """Start a run that is refused; return the codes of all its problems."""
    handle = await fabric.client.start_workflow(
        names.WORKFLOW_EXPERIMENT, body, id=workflow_id, task_queue=names.QUEUE
    )
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    cause = caught.value.cause
    assert isinstance(cause, ApplicationError)
    found = [problem["code"] for problem in cause.details[0]]
    assert cause.non_retryable
    assert cause.type == found[0]
    return found


@pytest.mark.asyncio(loop_scope="module")
async def test_a_code_reaches_the_submitter(
    environment: FabricEnvironment, fabric: Fabric, tmp_path: Path
) -> None:
    """E_NO_BACKEND, which needs a worker to know, comes from `submit`, `plan` and a start."""
    path = tmp_path / "big.yaml"
    path.write_text(
        "id: big\nrequirements: {resources: {cpu: 4000, gpu: A100:2}}\n"
        "payload: {process: {command: [a]}}\n"
    )

    submitted = environment.cli("submit", str(path), "-o", "json")
    planned = environment.cli("plan", str(path), "-o", "json")
    dry = environment.cli("submit", "--dry-run", str(path))
    listed = environment.cli("list", "-o", "json")
    asked = shell("true", requirements={"resources": {"cpu": 4000}}) | {"id": "direct-big"}
    direct = await _direct(fabric, asked, names.workflow_id("default", "direct-big"))

    problem = json.loads(submitted.stdout)["problems"][0]
    answer = json.loads(planned.stdout)
    assert (submitted.returncode, planned.returncode, dry.returncode) == (2, 2, 2)
    assert problem["code"] == "E_NO_BACKEND"
    assert "nearest change" in problem["message"]
    assert direct == ["E_NO_BACKEND"]
    assert len(answer["verdicts"][0]["reasons"]) == 2
    assert answer["nearest_change"].count("/requirements/resources/") == 2
    assert "big" not in {entry["request_id"] for entry in json.loads(listed.stdout)}
