"""A canary secret is given to a payload, which shouts it everywhere; it is found nowhere."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from temporal_fabric import Capsule, ExperimentFailed, Fabric, RequestRejected
from temporal_fabric.connection import connect
from temporal_fabric.testing.environment import FabricEnvironment
from tests.bodies import shell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from temporal_fabric.handle import ExperimentHandle

pytestmark = pytest.mark.asyncio(loop_scope="module")

CANARY = f"canary-{secrets.token_hex(8)}"
IN_FILE = f"buried-{secrets.token_hex(8)}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def offering(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[FabricEnvironment]:
    """A worker whose owner offers one variable and one folder of secrets."""
    vault = tmp_path_factory.mktemp("vault")
    (vault / "key").write_text(f"{IN_FILE}\n")
    config = f'[secrets]\nenv = ["CANARY"]\nfolder = "{vault}"\n'
    async with FabricEnvironment.fresh({"CANARY": CANARY}, config=config) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(offering: FabricEnvironment) -> Fabric:
    """A client of that environment."""
    return Fabric(await connect(offering.settings, address=offering.address), offering.settings)


def _forms(value: str) -> Iterator[bytes]:
    yield value.encode()
    yield value.encode().hex().encode()
    yield base64.b64encode(value.encode())[:-4]


def _leaks(folder: Path) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [
        f"{path}: {form!r}"
        for path in files
        for value in (CANARY, IN_FILE)
        for form in _forms(value)
        if form in path.read_bytes()
    ]


async def _failure(handle: ExperimentHandle) -> dict[str, Any]:
    try:
        await handle.result()
    except ExperimentFailed as exc:
        return exc.result
    return {}


def _shouting(*, fails: bool) -> dict[str, Any]:
    script = (
        'f=$(cat "$FABRIC_SECRETS_DIR/key"); for s in "$TOKEN" "$f"; do '
        'echo "it is $s"; echo "it is $s" >&2; printf %s "$s" | base64; '
        'printf %s "$s" | od -An -tx1 | tr -d " \\n"; echo; '
        'echo "said $s" >> "$FABRIC_ERROR_FILE"; '
        'echo "{\\"step\\": 1, \\"event\\": \\"$s\\"}" >> "$FABRIC_TELEMETRY"; done; '
        "sleep 1; "
        f"exit {int(fails)}"
    )
    offered = [
        {"name": "TOKEN", "ref": "secret://env/CANARY", "as": "env"},
        {"name": "key", "ref": "secret://file/key", "as": "file"},
    ]
    return shell(script, secrets=offered)


@pytest.mark.parametrize("fails", [False, True], ids=["success", "failure"])
async def test_the_canary_is_found_nowhere(
    client: Fabric, offering: FabricEnvironment, *, fails: bool
) -> None:
    """Neither server database, capsule, logs, records nor process list hold a secret."""
    handle = await client.submit(_shouting(fails=fails))
    while (status := await handle.status(detail=False)).state != "RUNNING":
        assert not status.final, await handle.status()
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, check=True).stdout
    # What the payload writes by itself is hidden when it has ended; see `scrub`.
    own = ("/error.txt", "/telemetry.jsonl")
    live = [leak for leak in _leaks(offering.home) if not leak.partition(": ")[0].endswith(own)]
    failure = await _failure(handle)
    capsule = Capsule.open((await handle.status()).capsule)

    if fails:
        assert "[redacted]" in failure["stderr_excerpt"]
        assert CANARY not in json.dumps(failure)
    said = (capsule.folder / "logs/1/stdout.log").read_text()
    assert said.count("[redacted]") == 6, said
    assert CANARY.encode() not in listed
    assert live == []
    assert _leaks(offering.home) == []


async def test_files_of_secrets_are_private_and_go(client: Fabric, tmp_path: Path) -> None:
    """A secret file is 0600 in a folder of the attempt's own, and gone after the seal."""
    script = f'stat -c "%a %n" "$FABRIC_SECRETS_DIR/key" > {tmp_path}/seen'
    use = [{"name": "key", "ref": "secret://file/key", "as": "file"}]
    await (await client.submit(shell(script, secrets=use))).result()

    mode, path = (tmp_path / "seen").read_text().split()
    assert mode == "600"
    assert not Path(path).parent.exists()


@pytest.mark.parametrize("ref", ["secret://env/HOME", "secret://env/NOT_LISTED"])
async def test_what_is_not_offered_is_refused(client: Fabric, ref: str) -> None:
    """The worker's own environment is not every request's to read."""
    body = shell("true", secrets=[{"name": "X", "ref": ref, "as": "env"}])

    with pytest.raises(RequestRejected) as caught:
        await client.submit(body)

    assert "E_SECRET" in str(caught.value)
    assert "fabric.toml" in str(caught.value)


async def test_a_missing_secret_is_a_setup_failure(client: Fabric) -> None:
    """An offered secret that is not there fails the attempt before anything starts."""
    use = [{"name": "x", "ref": "secret://file/absent", "as": "file"}]

    with pytest.raises(ExperimentFailed) as caught:
        await (await client.submit(shell("true", secrets=use))).result()

    assert caught.value.reason == "SETUP"
    assert "secret://file/absent" in str(caught.value)


async def test_signals_and_codes_pass_the_filter(client: Fabric) -> None:
    """A payload with secrets fails as it would without them."""
    use = [{"name": "T", "ref": "secret://env/CANARY", "as": "env"}]

    with pytest.raises(ExperimentFailed) as signalled:
        await (await client.submit(shell("kill -SEGV $$", secrets=use))).result()
    with pytest.raises(ExperimentFailed) as coded:
        await (await client.submit(shell("exit 9", secrets=use))).result()

    assert (signalled.value.reason, coded.value.exit_code) == ("SIGNAL", 9)
