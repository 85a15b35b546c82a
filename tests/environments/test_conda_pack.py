"""Packed environments: unpacked once by rules of our own, told their place, recorded."""

from __future__ import annotations

import gzip
import hashlib
import platform
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from temporal_fabric import Capsule, ExperimentFailed, Fabric, RequestRejected
from temporal_fabric.environments import conda
from tests.artifacts.servers import S3Server
from tests.bodies import function, process
from tests.environments.channel import conda_packed
from tests.environments.packed import archive_of, packed_prefix

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

UNPACK = Path(conda.__file__).with_name("unpack.py")
FILE, FOLDER, LINK, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server with one bucket."""
    found = S3Server(tmp_path_factory.mktemp("s3"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def worker_env(s3: S3Server) -> Mapping[str, str]:
    """The worker has credentials for S3."""
    return s3.env


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of a Python prefix."""
    return packed_prefix(tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="module")
def uri(packed: Path, s3: S3Server) -> str:
    """Where the same archive lies elsewhere."""
    s3.put("packed.tar.gz", packed.read_bytes())
    return "s3://bucket/packed.tar.gz"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive that conda-pack made."""
    return conda_packed(tmp_path_factory.mktemp("conda"))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _unpack(archive: Path, folder: Path, limit: int = 10**9) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(UNPACK), str(archive), str(folder), str(limit)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.asyncio(loop_scope="module")
async def test_a_packed_prefix_runs(fabric: Fabric, packed: Path, uri: str) -> None:
    """Programs and functions run in it, by path and by URI; it is unpacked once and recorded."""
    by_path: dict[str, Any] = {"conda_pack": str(packed)}
    by_uri = {"conda_pack": uri, "sha256": _sha256(packed)}

    first = await (
        await fabric.submit(process("sh", "-c", "tool; echo $CONDA_PREFIX", environment=by_uri))
    ).result()
    code = "import tiny\ndef main(): return tiny.NUMBER"
    second = await fabric.submit(function(code, environment=by_path))

    logs = Capsule.open(first.capsule).folder / "logs/1"
    prefix, number, again = (logs / "stdout.log").read_text().split()
    recorded = (logs / "environment.txt").read_text().splitlines()
    log = (logs / "environment.log").read_text()
    assert (number, again) == ("7", prefix)
    assert recorded == [
        f"# environment {Path(prefix).name}",
        f"# conda_pack {uri} sha256:{_sha256(packed)}",
        "tiny-1.0-0",
    ]
    assert "unpacked" in log
    assert f"prefix is {prefix}" in log
    assert await second.value() == 7
    later = Capsule.open((await second.result()).capsule).folder / "logs/1/environment.log"
    assert "was built before" in later.read_text()


@pytest.mark.asyncio(loop_scope="module")
async def test_what_conda_pack_made_runs(fabric: Fabric, real: Path) -> None:
    """Its programs run; text and binary files name the place it has now; it is unpacked once."""
    with tarfile.open(real) as archive:
        names = Counter(archive.getnames())
    environment: dict[str, Any] = {"conda_pack": str(real), "sha256": _sha256(real)}
    command = "tool; tiny-home; cd $CONDA_PREFIX/share; pwd; cat tiny.conf shared; cat tiny.bin >&2"
    code = "import sys, tiny\ndef main(): return [sys.prefix, tiny.NUMBER]"

    first = await fabric.submit(process("sh", "-c", command, environment=environment))
    logs = Capsule.open((await first.result()).capsule).folder / "logs/1"
    second = await fabric.submit(function(code, environment=environment))

    assert names["bin/activate"] == names["share/shared.txt"] == names["share/shared"] == 2
    home, number, again, share, conf, *shared = (logs / "stdout.log").read_text().split()
    assert shared == ["in", "both"]
    assert (number, again, share) == ("7", home, f"{home}/share")
    assert conf == f"home={share}"
    in_binary = (logs / "stderr.log").read_bytes()
    assert in_binary.rstrip(b"\0\xfe") == b"\xff\0" + share.encode()
    assert len(in_binary) == len(b"\xff\0\0\xfe") + 255 + len("/share")
    assert (logs / "environment.txt").read_text().splitlines() == [
        f"# environment {Path(home).name}",
        f"# conda_pack {real} sha256:{_sha256(real)}",
        f"python-{platform.python_version()}-0",
        "tiny-1.0-0",
    ]
    assert await second.value() == [home, 7]
    later = Capsule.open((await second.result()).capsule).folder / "logs/1/environment.log"
    assert "was built before" in later.read_text()


@pytest.mark.asyncio(loop_scope="module")
async def test_another_archive_than_expected_is_not_used(fabric: Fabric, packed: Path) -> None:
    """A wrong digest is SETUP with both digests, and nothing stays of what was unpacked."""
    wrong = {"conda_pack": str(packed), "sha256": "0" * 64}
    handle = await fabric.submit(process("true", environment=wrong))

    with pytest.raises(ExperimentFailed, match=_sha256(packed)) as caught:
        await handle.result()

    assert caught.value.reason == "SETUP"


@pytest.mark.asyncio(loop_scope="module")
async def test_what_cannot_be_unpacked_here_is_refused(fabric: Fabric) -> None:
    """Another format, no digest and a digest of nothing are refused before anything runs."""
    for environment, words in (
        ({"conda_pack": "/srv/env.zip"}, "conda-pack --format tar.gz"),
        ({"conda_pack": "https://example.org/env.tar.gz"}, "/environment/sha256"),
        ({"requirements": ["x"], "sha256": "0" * 64}, "only beside `conda_pack`"),
        ({"image": "python:3.12"}, "a backend that runs containers"),
    ):
        with pytest.raises(RequestRejected, match=words):
            await fabric.submit(process("true", environment=environment))


def test_what_stays_inside_is_unpacked(tmp_path: Path) -> None:
    """Files with their modes, folders, and links of both kinds, wherever they stand."""
    archive = archive_of(
        tmp_path / "a.tar.gz",
        ("lib/early", LINK, "late/file"),
        ("lib/late/file", FILE, "content"),
        ("lib/hard", HARD, "lib/late/file"),
        ("up", LINK, "lib/../lib/late"),
        ("lib/late/back", LINK, "../.."),
        ("dangling", LINK, "no/such"),
    )

    code, said = _unpack(archive, tmp_path / "out")

    assert code == 0, said
    assert said.split()[-1] == _sha256(archive)
    assert (tmp_path / "out/lib/early").read_text() == "content"
    assert (tmp_path / "out/lib/hard").read_text() == "content"
    assert (tmp_path / "out/up/file").read_text() == "content"


def test_of_two_with_one_name_the_last_counts(tmp_path: Path) -> None:
    """Files and links replace each other, and nothing is written through the earlier one."""
    (tmp_path / "canary").write_text("alive")
    archive = archive_of(
        tmp_path / "a.tar.gz",
        ("file", FILE, "first"),
        ("file", FILE, "second"),
        ("was-link", LINK, "../canary"),
        ("was-link", FILE, "content"),
        ("was-file", FILE, "content"),
        ("was-file", LINK, "file"),
        ("link", LINK, "../canary"),
        ("link", LINK, "was-link"),
        ("hard", FILE, "content"),
        ("hard", HARD, "file"),
    )

    code, said = _unpack(archive, tmp_path / "out")

    out = tmp_path / "out"
    assert code == 0, said
    assert [(out / name).read_text() for name in ("file", "was-link", "was-file")] == [
        "second",
        "content",
        "second",
    ]
    assert not (out / "was-link").is_symlink()
    assert (out / "link").read_text() == "content"
    assert (out / "hard").samefile(out / "file")
    assert (tmp_path / "canary").read_text() == "alive"


@pytest.mark.parametrize(
    "entries",
    [
        [("../out2", FILE, "x")],
        [("/etc/canary", FILE, "x")],
        [("a/../../canary", FILE, "x")],
        [("a", LINK, "/etc")],
        [("a", LINK, "../canary")],
        [("d", LINK, "."), ("e", LINK, "d/..")],
        [("x/y/z", FILE, "x"), ("s", LINK, "x/y"), ("t", LINK, "s/../../..")],
        [("a", LINK, ".."), ("a/canary", FILE, "x")],
        [("a/b", FILE, "x"), ("a", LINK, "b")],
        [("a", FOLDER, ""), ("a", FILE, "y")],
        [("a", FILE, "x"), ("b", HARD, "a"), ("a", FILE, "y")],
        [("a", FILE, "x"), ("a", HARD, "a")],
        [("a", FILE, "x"), ("a", LINK, "../canary")],
        [("a", LINK, "b"), ("a", FOLDER, "")],
        [("a", HARD, "../canary")],
        [("a", HARD, "/etc/hostname")],
        [("l", LINK, "f"), ("a", HARD, "l"), ("f", FILE, "x")],
        [("a", tarfile.FIFOTYPE, "")],
        [("a", tarfile.CHRTYPE, "")],
        [("a", FILE, "x"), ("a/b", FILE, "x")],
        [("a\nb", FILE, "x")],
        [("a", FILE, "x" * 2000)],
    ],
)
def test_what_leads_outside_is_refused(
    tmp_path: Path, entries: list[tuple[str, bytes, str]]
) -> None:
    """Names and links that lead out, through links, twice, or to devices: none is written."""
    (tmp_path / "canary").write_text("alive")
    archive = archive_of(tmp_path / "a.tar.gz", *entries)

    code, said = _unpack(archive, tmp_path / "out", limit=1000)

    assert (code, "refused: " in said) == (1, True), said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "canary", "out"]
    assert (tmp_path / "canary").read_text() == "alive"


def test_bombs_and_ruins_end_with_a_word(tmp_path: Path) -> None:
    """A dense archive, one cut off, one damaged and one of noise end without a traceback."""
    dense = archive_of(tmp_path / "dense.tar.gz", ("zeros", FILE, "\0" * (100 << 20)))
    good = archive_of(tmp_path / "good.tar.gz", ("a", FILE, "x" * 50_000)).read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(good[: len(good) // 2])
    raw = bytearray(good)
    raw[len(raw) // 2] ^= 0xFF
    (tmp_path / "damaged.tar.gz").write_bytes(raw)
    (tmp_path / "noise.tar.gz").write_bytes(gzip.compress(b"no archive" * 1000))

    for archive in (dense, *(tmp_path / f"{n}.tar.gz" for n in ("cut", "damaged", "noise"))):
        code, said = _unpack(archive, tmp_path / f"{archive.name}.out")
        assert code == 1, archive
        assert "Traceback" not in said, said
        assert said.splitlines()[-1].startswith(("refused: ", "cannot be unpacked: ")), said
