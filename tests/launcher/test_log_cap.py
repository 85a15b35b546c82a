"""A payload that floods its output: it runs on, and the disk does not fill."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from temporal_fabric.holes import closed, has_hole, read_on, read_part
from temporal_fabric.launcher.limits import Limits
from temporal_fabric.launcher.log_cap import BLOCK, why_not
from tests.launcher.place import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.launcher.place import Place

MIB = 1 << 20
CAP = 4 * MIB
FLOOD = (
    'yes "$(seq 1 2000)" | head -c 1073741824; echo; echo the end; echo done >> evidence; exit 6'
)
"""A gibibyte, then a line that must not be lost."""


@pytest.fixture
def capped(place: Place) -> Place:
    """A home on a file system that takes holes."""
    if reason := why_not(str(place.folder)):
        pytest.skip(reason)
    return place


def _on_disk(path: Path) -> int:
    return path.stat().st_blocks * 512


def _text(path: Path) -> bytes:
    fd, offset, found = os.open(path, os.O_RDONLY), 0, b""
    while True:
        data, offset = read_on(fd, offset, 100_000)
        if not data:
            os.close(fd)
            return found
        found += data


@pytest.mark.slow
async def test_a_gibibyte_of_output_is_capped(capped: Place) -> None:
    """The payload ends as it would have; beginning and end are kept, the rest is counted."""
    client, path = await capped.connect(), capped.folder / "a.out"
    spec = replace(capped.spec("a", FLOOD), limits=Limits(log_bytes=CAP))
    await client.start(spec)
    most = 0

    def ended() -> bool:
        nonlocal most
        most = max(most, _on_disk(path))
        return capped.evidence.exists()

    assert await until(ended, 120)
    record = await client.wait("a", 30)
    whole, text = path.stat().st_size, _text(path)

    assert record.exit_code == 6
    assert whole >= 1024 * MIB
    assert record.log_dropped_bytes > whole - CAP
    assert _on_disk(path) <= CAP // 2 + BLOCK
    assert most < whole // 2
    assert text.startswith(b"1\n2\n3\n")
    assert text.endswith(b"\nthe end\n")
    assert b"[temporal-fabric: %d bytes left out]" % record.log_dropped_bytes in text


async def test_both_streams_share_the_cap(capped: Place) -> None:
    """Neither stream takes the other's half; one within its share is left alone."""
    script = f"head -c {3 * MIB} /dev/zero | tr '\\0' x; echo short >&2"
    client = await capped.connect()
    spec = replace(capped.spec("a", script), limits=Limits(log_bytes=MIB))
    await client.start(spec)
    record = await client.wait("a", 20)

    assert record.log_dropped_bytes >= 2 * MIB
    assert _on_disk(capped.folder / "a.out") <= MIB // 2 + BLOCK
    assert (capped.folder / "a.err").read_text() == "short\n"
    assert not has_hole(capped.folder / "a.err")


async def test_a_closed_copy_reads_the_same(capped: Place) -> None:
    """The capsule's copy has no holes; a file that has none is not copied."""
    client = await capped.connect()
    script = f"head -c {2 * MIB} /dev/zero | tr '\\0' x"
    await client.start(replace(capped.spec("a", script), limits=Limits(log_bytes=MIB)))
    await client.start(capped.spec("b", script))
    for key in ("a", "b"):
        await client.wait(key, 20)
    cut, whole = capped.folder / "a.out", capped.folder / "b.out"

    assert closed(cut).read_bytes() == _text(cut)
    assert not has_hole(closed(cut))
    assert closed(whole) == whole
    assert _text(whole) == whole.read_bytes()


def test_a_reader_that_is_behind_meets_the_hole(tmp_path: Path) -> None:
    """Parts end before a hole and begin behind it, from every offset."""
    path = tmp_path / "log"
    path.write_bytes(b"a" * BLOCK + b"b" * BLOCK)
    with path.open("r+b") as file:
        file.seek(4 * BLOCK)
        file.write(b"c" * BLOCK)
    fd = os.open(path, os.O_RDONLY)
    parts = [read_part(fd, offset, 10 * BLOCK) for offset in (0, BLOCK, 2 * BLOCK, 5 * BLOCK)]
    os.close(fd)

    assert [(part.start, len(part.data), part.cut) for part in parts] == [
        (0, 2 * BLOCK, True),
        (BLOCK, BLOCK, True),
        (4 * BLOCK, BLOCK, False),
        (5 * BLOCK, 0, False),
    ]
