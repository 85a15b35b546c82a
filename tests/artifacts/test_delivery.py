"""Outputs get their final names whole, from the files that were hashed, and only at the commit."""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from temporal_fabric.artifacts.delivery import Delivery
from temporal_fabric.errors import ArtifactFailed
from temporal_fabric.outcomes import OutputFile

if TYPE_CHECKING:
    from pathlib import Path

    from tests.artifacts.servers import S3Server

GOOD = b"good" * 1000


def _delivery(folder: Path, uri: str, mark: str = "default/a/1", content: bytes = GOOD) -> Delivery:
    source = folder / "output"
    (source / "d").mkdir(parents=True, exist_ok=True)
    (source / "d/f").write_bytes(content)
    output = OutputFile("d/f", len(content), hashlib.sha256(content).hexdigest(), uri)
    return Delivery((output,), source, mark)


def test_nothing_is_named_before_the_commit(tmp_path: Path) -> None:
    """Preparing, twice, leaves the old file; committing replaces it; discarding cleans up."""
    target = tmp_path / "out/x"
    target.parent.mkdir()
    target.write_text("old")
    delivery = _delivery(tmp_path, target.as_uri())

    delivery.prepare()
    delivery.prepare()
    before = target.read_text()
    delivery.commit()
    _delivery(tmp_path, target.as_uri(), "default/a/2").prepare()
    _delivery(tmp_path, target.as_uri(), "default/a/2").discard()

    assert before == "old"
    assert target.read_bytes() == GOOD
    assert [path.name for path in target.parent.iterdir()] == ["x"]


def test_objects_are_named_at_the_commit(
    tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for S3, also when a worker died after the names were given."""
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    delivery = _delivery(tmp_path, "s3://bucket/out/x")

    delivery.prepare()
    before = set(s3.objects())
    delivery.commit()
    delivery.prepare()
    delivery.commit()

    assert len(before) == 1
    assert "out/x" not in before
    assert s3.objects() == {"out/x": GOOD}


@pytest.mark.parametrize("uri", ["file", "s3://bucket/out/bad", "s3://no-such-bucket/x"])
def test_what_cannot_be_stored_is_told(
    tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    """An output that changed is INTEGRITY, a target that refuses is OUTPUT_MISSING."""
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    target = (tmp_path / "out/x").as_uri() if uri == "file" else uri
    delivery = _delivery(tmp_path, target)
    if "no-such" not in uri:
        (tmp_path / "output/d/f").write_bytes(b"evil" * 1000)

    with pytest.raises(ArtifactFailed) as caught:
        delivery.prepare()

    assert caught.value.reason == ("OUTPUT_MISSING" if "no-such" in uri else "INTEGRITY")
    assert not (tmp_path / "out/x").exists()
    assert "out/bad" not in s3.objects()


def test_what_s3_cannot_name_is_refused_before_the_commit(tmp_path: Path) -> None:
    """More than 5 GiB could be uploaded, and then never be given its name."""
    delivery = _delivery(tmp_path, "s3://bucket/out/x")
    large = replace(delivery.outputs[0], size=5 * 1024**3 + 1)

    with pytest.raises(ArtifactFailed, match="5 GiB") as caught:
        replace(delivery, outputs=(large,)).prepare()

    assert caught.value.reason == "OUTPUT_MISSING"


def test_an_upload_that_was_cut_off_is_dropped(
    tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed worker's upload left ends with the next upload, or when all is discarded."""
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    delivery = _delivery(tmp_path, "s3://bucket/out/cut", content=GOOD * 2500)
    delivery.prepare()
    (aside,) = (name for name in s3.sizes() if "/.fabric-" in name)

    s3.begin_upload(aside)
    delivery.prepare()
    repeated = s3.unfinished()
    s3.begin_upload(aside)
    delivery.discard()

    assert repeated == s3.unfinished() == []
    assert aside not in s3.sizes()


@pytest.mark.timeout(60)
def test_a_link_swapped_in_delivers_nothing_else(tmp_path: Path) -> None:
    """A folder of the output swapped for a link is refused or not followed, in every race."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "f").write_text("SECRET")
    target = tmp_path / "out/x"
    delivery = _delivery(tmp_path, target.as_uri())
    folder, link, kept = tmp_path / "output/d", tmp_path / "link", tmp_path / "kept"
    link.symlink_to(secret)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(folder, kept)  # noqa: PTH104 - as fast as it goes
            os.rename(link, folder)  # noqa: PTH104
            os.rename(folder, link)  # noqa: PTH104
            os.rename(kept, folder)  # noqa: PTH104

    racer = threading.Thread(target=swap)
    racer.start()
    try:
        both, reasons, tries = {"", "OUTPUT_MISSING"}, set[str](), 0
        # A busy machine may show only one of the two for a long time.
        while tries < 500 or (reasons != both and tries < 50_000):
            reasons.add(_tried(delivery))
            tries += 1
    finally:
        stop.set()
        racer.join()

    assert reasons == both
    assert target.read_bytes() == GOOD


def _tried(delivery: Delivery) -> str:
    try:
        delivery.prepare()
    except ArtifactFailed as exc:
        return exc.reason
    delivery.commit()
    return ""
