"""Inputs arrive whole, verified and recorded, however often the staging is repeated."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from temporal_fabric import ExecutionRequest
from temporal_fabric.artifacts.staging import recorded_inputs, stage_in
from temporal_fabric.config import ArtifactsConfig, Settings
from temporal_fabric.errors import ArtifactFailed
from temporal_fabric.store import open_store
from temporal_fabric.workplace import Workplace
from tests.artifacts.servers import HOST
from tests.bodies import shell

if TYPE_CHECKING:
    from pathlib import Path

    from tests.artifacts.servers import S3Server, WebServer


class Stager:
    """Stages the inputs of one attempt below a folder."""

    def __init__(self, folder: Path) -> None:
        self.place = Workplace.of(folder / "runs", "default", "a", 1)
        self.place.create()
        self.settings = Settings(home=folder, store=folder.as_uri())
        self.store = open_store(folder.as_uri())
        self.said: list[str] = []

    async def stage(self, *inputs: dict[str, Any], config: ArtifactsConfig | None = None) -> None:
        """Stage these inputs."""
        body = shell("true")
        body["payload"]["process"]["inputs"] = list(inputs)
        settings = Settings(
            home=self.settings.home,
            store=self.settings.store,
            artifacts=config or ArtifactsConfig(),
        )
        request = ExecutionRequest.from_mapping(body)
        await stage_in(request, self.place, settings, self.store, self.said.append)


@pytest.fixture
def stager(tmp_path: Path) -> Stager:
    return Stager(tmp_path)


def _given(uri: str, mount_path: str = "x", **more: str) -> dict[str, Any]:
    return {"source_uri": uri, "mount_path": mount_path, **more}


async def test_a_file_and_a_folder_of_this_host(stager: Stager, tmp_path: Path) -> None:
    """Files keep their content, folders their files; each is recorded with its digest."""
    (tmp_path / "set/deep").mkdir(parents=True)
    (tmp_path / "set/a").write_text("1")
    (tmp_path / "set/deep/b").write_text("22")
    uri = (tmp_path / "set").as_uri()

    await stager.stage(_given(f"{uri}/a", "/input/one"), _given(uri, "all"))

    one, folder = recorded_inputs(stager.place)
    lines = "".join(
        f"{hashlib.sha256(text).hexdigest()}  {name}\n"
        for name, text in [("a", b"1"), ("deep/b", b"22")]
    )
    assert (stager.place.input / "one").read_text() == "1"
    assert (stager.place.input / "all/deep/b").read_text() == "22"
    assert (one.path, one.size, one.sha256) == ("one", 1, hashlib.sha256(b"1").hexdigest())
    assert (folder.size, folder.sha256) == (3, hashlib.sha256(lines.encode()).hexdigest())
    assert not (stager.place.folder / "staging/0").exists()


async def test_a_server_in_trouble_is_asked_again(stager: Stager, web: WebServer) -> None:
    """An answer of 503 is waited out; a missing page is not asked for twice."""
    config = ArtifactsConfig(hosts={HOST: "127.0.0.1"}, ca_file=str(web.ca_file))
    web.pages["/x"] = b"content"
    web.busy["/x"] = 1

    await stager.stage(_given(web.uri("/x")), config=config)
    with pytest.raises(ArtifactFailed, match="not found"):
        await stager.stage(_given(web.uri("/x")), _given(web.uri("/gone"), "y"), config=config)

    assert (stager.place.input / "x").read_bytes() == b"content"
    assert web.seen == ["/x", "/x", "/gone"]


async def test_objects_of_s3(stager: Stager, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """One object, all objects below a prefix, and a missing one."""
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    s3.put("in/a", b"1")
    s3.put("in/deep/b", b"22")

    await stager.stage(_given("s3://bucket/in/a"), _given("s3://bucket/in/", "all"))
    with pytest.raises(ArtifactFailed, match="s3://bucket/none"):
        await Stager(stager.settings.home / "other").stage(_given("s3://bucket/none"))

    assert (stager.place.input / "x").read_bytes() == b"1"
    assert (stager.place.input / "all/deep/b").read_bytes() == b"22"


async def test_a_wrong_signature_is_refused(
    stager: Stager, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the right credential nothing is read, and the failure says so."""
    for name, value in (s3.env | {"AWS_SECRET_ACCESS_KEY": "wrong"}).items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ArtifactFailed, match="refused by the server"):
        await stager.stage(_given("s3://bucket/in/a"))


@pytest.mark.parametrize("kind", ["missing", "link", "pipe"])
async def test_what_is_no_file_is_refused(stager: Stager, tmp_path: Path, kind: str) -> None:
    """A missing path, a link inside a folder and a pipe end the staging, named."""
    folder = tmp_path / "in"
    folder.mkdir()
    if kind == "link":
        (folder / "x").symlink_to("/etc/passwd")
    if kind == "pipe":
        os.mkfifo(folder / "x")
    uri = folder.as_uri() + ("/none" if kind == "missing" else "")

    with pytest.raises(ArtifactFailed, match=uri) as caught:
        await stager.stage(_given(uri))

    assert caught.value.reason == "SETUP"
    assert list(stager.place.input.iterdir()) == []


async def test_another_content_than_expected(stager: Stager, tmp_path: Path) -> None:
    """A digest that does not match is INTEGRITY, and the payload never sees the file."""
    (tmp_path / "a").write_text("1")

    with pytest.raises(ArtifactFailed, match="expected") as caught:
        await stager.stage(_given((tmp_path / "a").as_uri(), sha256="0" * 64))

    assert caught.value.reason == "INTEGRITY"
    assert list(stager.place.input.iterdir()) == []


async def test_repeating_keeps_what_is_there(stager: Stager, tmp_path: Path) -> None:
    """A second staging, with or without the first one's record, changes no file."""
    source = tmp_path / "a"
    source.write_text("1")
    await stager.stage(_given(source.as_uri()))
    before = recorded_inputs(stager.place)
    inode = (stager.place.input / "x").stat().st_ino
    source.write_text("other")

    await stager.stage(_given(source.as_uri()))
    (stager.place.folder / "inputs.json").unlink()
    await stager.stage(_given(source.as_uri()))

    assert recorded_inputs(stager.place) == before
    assert (stager.place.input / "x").stat().st_ino == inode


@pytest.mark.timeout(60)
async def test_swapped_links_lead_nowhere(tmp_path: Path) -> None:
    """A folder swapped for a link during the copy never brings in what the link shows."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "f").write_text("SECRET")
    folder = tmp_path / "in"
    (folder / "d").mkdir(parents=True)
    (folder / "d/f").write_text("fine")
    (tmp_path / "link").symlink_to(secret)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(folder / "d", tmp_path / "t")  # noqa: PTH104 - as fast as it goes
            os.rename(tmp_path / "link", folder / "d")  # noqa: PTH104
            os.rename(folder / "d", tmp_path / "link")  # noqa: PTH104
            os.rename(tmp_path / "t", folder / "d")  # noqa: PTH104

    racer = threading.Thread(target=swap)
    racer.start()
    try:
        brought = [await _bring(tmp_path / f"w{number}", folder / "d") for number in range(300)]
    finally:
        stop.set()
        racer.join()

    assert set(brought) <= {"fine", "refused"}
    assert "fine" in brought


async def _bring(work: Path, folder: Path) -> str:
    stager = Stager(work)
    try:
        # The swapped folder is below the one that is named: that one is resolved once.
        await stager.stage(_given(folder.parent.as_uri()))
    except ArtifactFailed:
        return "refused"
    await asyncio.sleep(0)
    found = [path.read_text() for path in stager.place.input.rglob("f")]
    return "SECRET" if "SECRET" in found else "fine"
