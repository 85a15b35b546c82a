"""Uploads that a killed process left are ended, those of others are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from temporal_fabric.store.unfinished import end_unfinished

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.artifacts.servers import S3Server

KEYS = ("a/.x", "a/é +&<%2F'~", "b")


@pytest.fixture
def left(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server with two unfinished uploads of each key and of one with a longer name."""
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    for key in (*KEYS, *KEYS, "a/.x2"):
        s3.begin_upload(key)
    yield s3
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    for key in s3.unfinished():
        end_unfinished("bucket", key)


@pytest.mark.parametrize("key", KEYS)
def test_the_uploads_of_one_key_are_ended(left: S3Server, key: str) -> None:
    """Every upload of exactly this key ends, whatever its characters; the others go on."""
    end_unfinished("bucket", key)

    assert left.unfinished() == sorted([*({*KEYS} - {key}), *({*KEYS} - {key}), "a/.x2"])


@pytest.mark.parametrize(
    "variables",
    [
        {"AWS_SECRET_ACCESS_KEY": "wrong"},
        {"AWS_ACCESS_KEY_ID": ""},
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
        {"AWS_ENDPOINT_URL": "nonsense"},
    ],
    ids=str,
)
def test_a_server_that_does_not_help(
    left: S3Server, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    """Refused, without credentials or unreachable: nothing ends and nothing is raised."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    end_unfinished("bucket", "b")

    assert left.unfinished().count("b") == 2
