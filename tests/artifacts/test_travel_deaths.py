"""The worker dies while inputs arrive and while outputs leave: one result, nothing half there."""

from __future__ import annotations

import asyncio
import hashlib
import random
from typing import TYPE_CHECKING, Any

from temporal_fabric import Capsule, Fabric
from temporal_fabric.connection import connect
from tests.artifacts.servers import HOST
from tests.bodies import shell

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from temporal_fabric.handle import ExperimentHandle
    from temporal_fabric.testing.environment import FabricEnvironment
    from tests.artifacts.servers import WebServer

SIZE = 20_000_000
DATA = random.Random(1).randbytes(SIZE)
DIGEST = hashlib.sha256(DATA).hexdigest()
PARTS = 100


async def _submit(env: FabricEnvironment, body: dict[str, Any]) -> ExperimentHandle:
    env.start_worker()
    fabric = Fabric(await connect(env.settings, address=env.address), env.settings)
    return await fabric.submit(body)


async def _until(seen: Callable[[], object]) -> None:
    async with asyncio.timeout(40):
        while not seen():
            await asyncio.sleep(0)


async def test_death_in_stage_in(
    own_environment: FabricEnvironment, web: WebServer, tmp_path: Path
) -> None:
    """A worker killed in the middle of a download is replaced; the payload sees the whole file."""
    env = own_environment
    (env.home / "fabric.toml").write_text(
        f"[artifacts]\nca_file = '{web.ca_file}'\nhosts = {{'{HOST}' = '127.0.0.1'}}\n"
    )
    web.pages["/data"], web.slow_s = DATA, 0.01
    body = shell(
        "sha256sum < $FABRIC_INPUT_DIR/d; cp $FABRIC_INPUT_DIR/d $FABRIC_OUTPUT_DIR/d",
        outputs=[{"source_path": "d", "target_uri": (tmp_path / "out").as_uri()}],
    )
    body["payload"]["process"]["inputs"] = [{"source_uri": web.uri("/data"), "mount_path": "d"}]
    handle = await _submit(env, body)
    place = env.settings.runs / "default" / handle.id / "1"
    await _until(lambda: [p for p in place.glob("staging/0/file") if p.stat().st_size > 1 << 20])

    env.kill_worker()
    half = list((place / "input").iterdir())
    env.start_worker()
    result = await handle.result()

    capsule = Capsule.open(result.capsule)
    assert half == []
    assert len(web.seen) == 2
    assert (capsule.folder / "logs/1/stdout.log").read_text() == f"{DIGEST}  -\n"
    assert result.attempts[0].inputs[0].sha256 == result.outputs[0].sha256 == DIGEST
    assert _names(tmp_path) == ["cert.pem", "out"]
    assert (tmp_path / "out").read_bytes() == DATA


def _split(out: Path, **more: Any) -> dict[str, Any]:
    """Return a body that stores 20 MB under ``PARTS`` names."""
    script = (
        "mkdir $FABRIC_OUTPUT_DIR/d; cd $FABRIC_OUTPUT_DIR/d; "
        f"split -b {SIZE // PARTS} -d -a 3 $FABRIC_INPUT_DIR/x"
    )
    body = shell(script, outputs=[{"source_path": "d", "target_uri": out.as_uri()}], **more)
    source = out.parent / "source"
    source.write_bytes(DATA)
    body["payload"]["process"]["inputs"] = [{"source_uri": source.as_uri(), "mount_path": "x"}]
    return body


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _named(out: Path) -> list[Path]:
    return sorted(out.glob("x*"))


async def _assert_one_result(handle: ExperimentHandle, out: Path) -> None:
    result = await handle.result()
    assert (result.state, result.epoch, len(result.attempts)) == ("SUCCEEDED", 1, 1)
    assert Capsule.open(result.capsule).verify() == []
    assert len(_names(out)) == len(_named(out)) == PARTS
    assert b"".join(path.read_bytes() for path in _named(out)) == DATA


async def test_death_before_the_commit(own_environment: FabricEnvironment, tmp_path: Path) -> None:
    """A worker killed while outputs are prepared leaves no final name; then all appear."""
    env, out = own_environment, tmp_path / "out"
    handle = await _submit(env, _split(out))
    await _until(lambda: list(out.glob(".fabric-*")))

    env.kill_worker()
    named, sealed = _named(out), list(env.home.glob("capsules/*/*/*/manifest.toml"))
    env.start_worker()

    assert (named, sealed) == ([], [])
    await _assert_one_result(handle, out)


async def test_death_in_the_commit(own_environment: FabricEnvironment, tmp_path: Path) -> None:
    """A worker killed while names are given has sealed before; every name is a whole file."""
    env, out = own_environment, tmp_path / "out"
    handle = await _submit(env, _split(out))
    await _until(lambda: _named(out))

    env.kill_worker()
    named, sealed = _named(out), list(env.home.glob("capsules/*/*/*/manifest.toml"))
    sizes = {path.stat().st_size for path in named}
    env.start_worker()

    assert 0 < len(named) < PARTS
    assert (sizes, len(sealed)) == ({SIZE // PARTS}, 1)
    await _assert_one_result(handle, out)
