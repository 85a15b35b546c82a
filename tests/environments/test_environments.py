"""Environments: built once per content, recorded, locked, and safe against dying builders."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from temporal_fabric import Capsule, ExperimentCanceled, ExperimentFailed, Fabric, RequestRejected
from temporal_fabric.connection import connect
from tests.bodies import function, process
from tests.environments.packages import TinyPackage

if TYPE_CHECKING:
    from collections.abc import Callable

    from temporal_fabric.testing.environment import FabricEnvironment

pytestmark = pytest.mark.asyncio(loop_scope="module")

_NUMBER = "import tiny\ndef main(): return tiny.NUMBER"
_LOCK = Path(__file__).parents[2] / "requirements.lock"


def _with(*requirements: str, **more: Any) -> dict[str, Any]:
    return function(_NUMBER, environment={"requirements": list(requirements)}, **more)


async def _until(met: Callable[[], bool], limit_s: float = 60) -> None:
    async with asyncio.timeout(limit_s):
        while not met():
            await asyncio.sleep(0.05)


async def _logs(fabric: Fabric, body: dict[str, Any]) -> Path:
    result = await (await fabric.submit(body)).result()
    return Capsule.open(result.capsule).folder / "logs/1"


async def test_a_program_runs_in_its_environment(fabric: Fabric, tmp_path: Path) -> None:
    """The environment's programs come first on PATH, and what is installed is recorded."""
    package = TinyPackage(tmp_path)
    command = ["sh", "-c", 'command -v python; echo "$VIRTUAL_ENV"; python -c "import tiny"']
    body = process(*command, environment={"requirements": [package.requirement]})

    logs = await _logs(fabric, body)

    python, environment = (logs / "stdout.log").read_text().split()
    installed = (logs / "environment.txt").read_text().splitlines()
    assert python == f"{environment}/bin/python"
    assert installed[0] == f"# environment {Path(environment).name}"
    assert installed[2:] == [package.requirement]
    assert re.search(r"Built tiny|Installed 1 package", (logs / "environment.log").read_text())


async def test_the_second_use_finds_it_and_a_change_builds_another(
    fabric: Fabric, tmp_path: Path
) -> None:
    """The same content is not built again; a changed local package is."""
    package = TinyPackage(tmp_path)
    first = await (await fabric.submit(_with(package.requirement))).value()
    second = await _logs(fabric, _with(package.requirement))
    built_before = package.builds()
    package.set_number(2)
    changed = await (await fabric.submit(_with(package.requirement))).value()

    assert (first, changed) == (1, 2)
    assert built_before == ["start", "end"]
    assert "was built before" in (second / "environment.log").read_text()


async def test_two_at_once_build_once(fabric: Fabric, tmp_path: Path) -> None:
    """Attempts that need the same environment at the same time share one build."""
    package = TinyPackage(tmp_path, seconds=2)

    handles = [await fabric.submit(_with(package.requirement)) for _ in range(2)]
    values = await asyncio.gather(*(handle.value() for handle in handles))

    assert values == [1, 1]
    assert package.builds() == ["start", "end"]


async def test_what_cannot_be_built_is_a_setup_failure(fabric: Fabric, tmp_path: Path) -> None:
    """The installer's last words are the excerpt, its whole output is in the capsule."""
    package = TinyPackage(tmp_path, broken=True)
    handle = await fabric.submit(_with(package.requirement))

    with pytest.raises(ExperimentFailed) as caught:
        await handle.result()

    logs = Capsule.open(caught.value.result["capsule"]).folder / "logs/1"
    assert caught.value.reason == "SETUP"
    assert "no luck" in caught.value.stderr_excerpt
    assert "no luck" in (logs / "environment.log").read_text()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("--index-url https://example.org\n", "an option where a requirement belongs"),
        ("tiny @ https://example.org/${HOME}\n", "a variable in a requirement"),
        (None, "cannot read the environment's file"),
    ],
    ids=["option", "variable", "missing"],
)
async def test_a_file_with_more_than_requirements_is_refused(
    fabric: Fabric, tmp_path: Path, lines: str | None, words: str
) -> None:
    """A file may name packages; where they come from is the host's business."""
    file = tmp_path / "requirements.txt"
    if lines is not None:
        file.write_text(lines)
    handle = await fabric.submit(function(_NUMBER, environment={"requirements": str(file)}))

    with pytest.raises(ExperimentFailed, match=words) as caught:
        await handle.result()

    assert caught.value.reason == "SETUP"


async def test_a_lock_installs_exactly_what_it_names(fabric: Fabric, tmp_path: Path) -> None:
    """A lock brings a small real package from the index, and a wrong hash is refused."""
    entry = re.search(
        r"^packaging==(\S+) \\\n(?:    --hash=\S+(?: \\)?\n)+", _LOCK.read_text(), re.MULTILINE
    )
    assert entry is not None
    right, wrong = tmp_path / "right.txt", tmp_path / "wrong.txt"
    right.write_text(entry[0])
    wrong.write_text(re.sub("sha256:[0-9a-f]{8}", "sha256:00000000", entry[0]))
    code = "import packaging\ndef main(): return packaging.__version__"

    found = await fabric.submit(function(code, environment={"lock": right.as_uri()}))
    refused = await fabric.submit(function(code, environment={"lock": str(wrong)}))

    assert await found.value() == entry[1]
    with pytest.raises(ExperimentFailed) as caught:
        await refused.result()
    assert "hash" in caught.value.stderr_excerpt.lower()


async def test_what_this_host_cannot_prepare_is_refused(fabric: Fabric) -> None:
    """Images and files elsewhere are refused with what to write instead."""
    for environment in (
        {"image": "python:3.12"},
        {"conda_pack": "env.tar.gz"},
        {"lock": "s3://bucket/requirements.lock"},
        {"requirements": "requirements.txt"},
    ):
        with pytest.raises(RequestRejected) as caught:
            await fabric.submit(function(_NUMBER, environment=environment))
        assert caught.value.code == "E_NO_BACKEND"
        assert "/environment/" in str(caught.value)


async def test_progress_is_seen_and_a_cancel_ends_the_installer(
    fabric: Fabric, tmp_path: Path
) -> None:
    """While it is built the state is PREPARING, and a cancellation does not wait for it."""
    package = TinyPackage(tmp_path, seconds=60)
    handle = await fabric.submit(_with(package.requirement))
    await _until(lambda: bool(package.builds()))
    async with asyncio.timeout(30):
        while (status := await handle.status()).live.get("doing") != "installing packages":
            await asyncio.sleep(0.2)

    await handle.cancel()
    with pytest.raises(ExperimentCanceled):
        await handle.result()

    assert status.state == "PREPARING"
    await _until(lambda: not package.building(), limit_s=10)


@pytest.mark.asyncio(loop_scope="function")
async def test_an_installer_ends_with_its_worker(
    running: tuple[FabricEnvironment, Fabric], tmp_path: Path
) -> None:
    """A worker that is killed leaves no installer behind, nor what that had started."""
    env, fabric = running
    package = TinyPackage(tmp_path, seconds=120)
    await fabric.submit(_with(package.requirement))
    await _until(lambda: bool(package.builds()))
    assert package.building()

    env.kill_worker()

    await _until(lambda: not package.building(), limit_s=20)


@pytest.mark.asyncio(loop_scope="function")
async def test_a_worker_killed_during_a_build_costs_only_time(
    own_environment: FabricEnvironment, tmp_path: Path
) -> None:
    """The next worker builds the environment anew under the same epoch, and the run succeeds."""
    env, package = own_environment, TinyPackage(tmp_path, seconds=3)
    env.start_worker()
    fabric = Fabric(await connect(env.settings, address=env.address), env.settings)
    handle = await fabric.submit(_with(package.requirement))
    await _until(lambda: bool(package.builds()))

    env.kill_worker()
    env.start_worker()
    result = await handle.result()

    assert await handle.value() == 1
    assert result.epoch == 1
    assert package.builds().count("start") == 2
