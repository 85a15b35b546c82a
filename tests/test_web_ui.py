"""Temporal's web UI alone tells the story: its pages are read as a person reads them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from temporal_fabric import names
from tests.bodies import python, shell
from tests.browser import frames, opened_page

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page

    from temporal_fabric.testing.environment import FabricEnvironment

TRAINING = """
import json, time
row = {"step": 7, "progress": 0.25, "stage": "warm", "loss": 0.125}
print("::fabric:: " + json.dumps(row), flush=True)
time.sleep(60)
"""


@pytest.fixture
def page() -> Iterator[Page]:
    """A page in a headless browser."""
    with opened_page() as found:
        yield found


def _submit(environment: FabricEnvironment, folder: Path, body: dict[str, object]) -> str:
    path = folder / f"{body['id']}.json"
    path.write_text(json.dumps(body))
    done = environment.cli("submit", str(path))
    assert done.returncode == 0, done.stderr
    return str(body["id"])


def _open(page: Page, environment: FabricEnvironment, request_id: str = "") -> None:
    assert environment.server is not None
    address = f"{environment.server.info.ui_url}/namespaces/default/workflows"
    if request_id:
        workflow = names.workflow_id(names.DEFAULT_TENANT, request_id)
        address += f"/{quote(workflow, safe='')}"
    page.goto(address)


def _until(environment: FabricEnvironment, request_id: str, *words: str) -> None:
    deadline = time.monotonic() + 30
    while not all(word in (said := environment.cli("status", request_id).stdout) for word in words):
        assert time.monotonic() < deadline, said
        time.sleep(0.3)


def test_a_running_experiment(environment: FabricEnvironment, page: Page, tmp_path: Path) -> None:
    """What and for whom, the backend, the state, progress and metrics stand on its pages."""
    body = python(TRAINING, name="training", limits={"grace_s": 1})
    request_id = _submit(environment, tmp_path, body)
    _until(environment, request_id, "RUNNING", "25%")

    _open(page, environment, request_id)
    page.get_by_text("Pending Activities").click()
    page.get_by_text('"progress": 0.25').wait_for()
    activities = page.locator("main").inner_text()
    page.get_by_text("User Metadata").click()
    told = frames(page, "backend")
    environment.cli("cancel", request_id, "--wait")

    assert all(word in activities for word in ("attempt", '"stage": "warm"', '"loss": 0.125'))
    assert all(word in told for word in ("training: ", "for default", "RUNNING", "epoch 1"))
    assert "backend local@" in told


def test_a_failed_experiment(environment: FabricEnvironment, page: Page, tmp_path: Path) -> None:
    """The list says Failed; its page shows the reason, the exit code and the end of stderr."""
    body = shell("echo the door is locked >&2; exit 3", name="locked")
    request_id = _submit(environment, tmp_path, body)
    environment.cli("wait", request_id)

    _open(page, environment)
    row = page.get_by_role("row").filter(has_text=names.workflow_id("default", request_id))
    row.wait_for()
    listed = row.inner_text()
    _open(page, environment, request_id)
    page.get_by_text("EXIT_CODE").first.wait_for()
    told = page.locator("main").inner_text()

    assert "Failed" in listed
    assert "EXIT_CODE" in told
    assert '"exit_code": 3' in told
    assert "_workflow_instance.py" not in told  # no stack of the code that only reports it
