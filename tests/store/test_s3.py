"""What is particular to a store in a bucket: the network, and who may do what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from temporal_fabric.errors import StoreError
from temporal_fabric.store import open_objects, probe
from tests.store.proxy import Proxy
from tests.store.test_objects import race

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from temporal_fabric.store import Objects
    from tests.artifacts.servers import S3Server


@pytest.fixture
def proxy(
    s3: S3Server, in_bucket: Objects, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Proxy, Objects]]:
    """A proxy before the server, and the same store through it."""
    found = Proxy(s3.env["AWS_ENDPOINT_URL"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", found.endpoint)
    yield (found, open_objects(in_bucket.root))
    found.close()


def test_a_lost_reply_to_a_creation(proxy: tuple[Proxy, Objects]) -> None:
    """The server created it and the reply is lost: it is found to be one's own."""
    line, objects = proxy
    line.lose = 1

    assert objects.create("k", b"1")

    assert line.lose == 0
    assert not objects.create("k", b"1")
    assert objects.read("k") == b"1"


def test_lost_replies_in_a_race(proxy: tuple[Proxy, Objects]) -> None:
    """Of twenty writers, five of whom lose a reply, exactly one wins and knows it."""
    line, objects = proxy
    line.lose = 5

    wins = race(objects, "k")

    assert wins.count(True) == 1
    assert objects.read("k") == bytes([wins.index(True)])


def test_a_lost_reply_to_a_replacement(proxy: tuple[Proxy, Objects]) -> None:
    """Writing whole is repeated: the content is there, and the caller hears of no trouble."""
    line, objects = proxy
    line.lose = 1

    objects.replace("k", b"1")

    assert (line.writes, objects.read("k")) == (2, b"1")


def test_a_torn_upload_shows_nothing(proxy: tuple[Proxy, Objects], tmp_path: Path) -> None:
    """A line that is cut after the first part leaves the older object as it was."""
    line, objects = proxy
    objects.replace("k", b"older")
    (tmp_path / "large").write_bytes(b"x" * 20_000_000)
    line.parts = 1

    with pytest.raises(StoreError, match="cannot write"):
        objects.put_file("k", tmp_path / "large")

    assert objects.read("k") == b"older"
    line.parts = -1
    assert objects.put_file("k", tmp_path / "large")[0] == 20_000_000


def test_nonsense_is_never_an_absence(proxy: tuple[Proxy, Objects]) -> None:
    """A captive portal's page is an error where names are listed, not an empty store."""
    line, objects = proxy
    objects.replace("d/k", b"1")
    line.garble = True

    with pytest.raises(StoreError, match="cannot list"):
        objects.names("d")


def test_a_server_without_conditional_writes_is_found_out(proxy: tuple[Proxy, Objects]) -> None:
    """A server that lets everybody create a name fails the probe, which says why."""
    line, objects = proxy
    line.forgets = True

    with pytest.raises(StoreError, match="If-None-Match"):
        probe(objects)


def test_nobody_there(in_bucket: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unreachable server is an error for every call, not an absence."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    away = open_objects(in_bucket.root)

    with pytest.raises(StoreError, match="AWS_ENDPOINT_URL"):
        away.read("k")
    with pytest.raises(StoreError, match="AWS_ENDPOINT_URL"):
        away.create("k", b"")


@pytest.mark.usefixtures("in_bucket")
def test_no_bucket_is_not_an_absence() -> None:
    """A bucket that does not exist is an error that says so, also where one only reads."""
    objects = open_objects("s3://other-bucket/fabric")

    for ask in (objects.read, objects.names):
        with pytest.raises(StoreError, match="create the bucket"):
            ask("k")
    with pytest.raises(StoreError, match="create the bucket"):
        probe(objects)


def test_wrong_secret(in_bucket: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong secret is an error that names the variable and not the secret."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    objects = open_objects(in_bucket.root)

    with pytest.raises(StoreError, match="mend AWS_SECRET_ACCESS_KEY") as caught:
        objects.read("k")

    assert "canary" not in str(caught.value)
