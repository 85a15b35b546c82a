"""The contract of `Objects`, over every kind of store."""

from __future__ import annotations

import hashlib
import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from temporal_fabric.errors import StoreError
from temporal_fabric.store import open_objects, probe

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.store import Objects

LARGE = random.Random(3).randbytes(20_000_000)
ODD = ("x y", "ä", "100%", "a#b", "a\\b", "a?b", "q'uote", "new\nline", "a%20b", "[x]", "~", "a+b")


def race(objects: Objects, key: str) -> list[bool]:
    """Let twenty writers create one name at once; return who heard of success."""

    def write(number: int) -> bool:
        return objects.create(key, bytes([number]))

    with ThreadPoolExecutor(20) as threads:
        return list(threads.map(write, range(20)))


def test_it_passes_its_own_probe(objects: Objects) -> None:
    """What doctor and a starting worker try works, and leaves nothing behind."""
    probe(objects)

    assert objects.names("probes") == []


def test_create_is_exclusive(objects: Objects) -> None:
    """Of twenty writers of one name exactly one wins, and its content stands."""
    wins = race(objects, "a/b")

    assert wins.count(True) == 1
    assert objects.read("a/b") == bytes([wins.index(True)])
    assert objects.names("a") == ["b"]


def test_replace_and_delete(objects: Objects) -> None:
    """The last content stands; what is deleted is absent, and may be deleted again."""
    objects.replace("k", b"1")
    objects.replace("k", b"2")
    assert objects.read("k") == b"2"

    objects.delete("k")
    objects.delete("k")

    assert objects.read("k") is None
    assert objects.create("k", b"3")


def test_what_is_not_there(objects: Objects) -> None:
    """Absence is None or empty where it is asked for, and an error where content is wanted."""
    assert (objects.read("a/b"), objects.piece("a/b", 0, 9), objects.names("a")) == (None, None, [])
    with pytest.raises(StoreError):
        list(objects.chunks("a/b"))


def test_pieces(objects: Objects) -> None:
    """A piece ends where the object ends."""
    objects.replace("k", b"0123456789")

    assert [objects.piece("k", *at) for at in ((0, 4), (8, 4), (10, 4), (99, 4))] == [
        b"0123",
        b"89",
        b"",
        b"",
    ]


def test_a_large_file_arrives_whole(objects: Objects, tmp_path: Path) -> None:
    """Twenty megabytes, more than one part, come back as they went."""
    (tmp_path / "large").write_bytes(LARGE)
    digest = hashlib.sha256(LARGE).hexdigest()

    assert objects.put_file("d/large", tmp_path / "large", digest) == (len(LARGE), digest)

    assert b"".join(objects.chunks("d/large")) == LARGE
    assert objects.names("d") == ["large"]


def test_an_empty_file_is_a_file(objects: Objects, tmp_path: Path) -> None:
    """No content is content, too."""
    (tmp_path / "empty").write_bytes(b"")

    assert objects.put_file("empty", tmp_path / "empty")[0] == 0

    assert objects.read("empty") == b""
    assert list(objects.chunks("empty")) == []


@pytest.mark.parametrize("size", [0, 10, len(LARGE)])
def test_other_content_than_expected_is_not_stored(
    objects: Objects, tmp_path: Path, size: int
) -> None:
    """A file that changed since it was hashed stores nothing, however large it is."""
    (tmp_path / "f").write_bytes(LARGE[:size])

    with pytest.raises(StoreError, match="differs"):
        objects.put_file("f", tmp_path / "f", "0" * 64)

    assert objects.read("f") is None
    assert objects.names("") == []


def test_keys_stay_inside(objects: Objects) -> None:
    """A key cannot leave the store."""
    for key in ("../x", "/etc/x", "a/../../x"):
        with pytest.raises(StoreError):
            objects.create(key, b"")


@pytest.mark.parametrize("name", ODD)
def test_any_file_name_is_a_name(objects: Objects, name: str) -> None:
    """Names that payloads give their outputs come back as they are."""
    objects.replace(f"d/{name}/f", b"1")
    objects.replace(f"d/{name}.txt", b"2")

    assert objects.names("d") == sorted([name, f"{name}.txt"])
    assert objects.read(f"d/{name}/f") == b"1"


def test_hidden_names_are_not_listed(objects: Objects) -> None:
    """Names with a leading dot are somebody's unfinished work."""
    objects.replace("d/.part", b"")
    objects.replace("d/whole", b"")

    assert objects.names("d") == ["whole"]


def test_a_link_is_not_stored(objects: Objects, tmp_path: Path) -> None:
    """A link that a payload planted is refused instead of followed."""
    (tmp_path / "secret").write_text("s")
    (tmp_path / "link").symlink_to(tmp_path / "secret")

    with pytest.raises(StoreError):
        objects.put_file("kept", tmp_path / "link")

    assert objects.read("kept") is None


@pytest.mark.parametrize("uri", ["ftp://host/x", "s3:///x", "s3://bucket/a b", "file://host/x"])
def test_other_uris_are_refused(uri: str) -> None:
    """A URI without a store is an error that names the setting."""
    with pytest.raises(StoreError, match="unsupported store"):
        open_objects(uri)
