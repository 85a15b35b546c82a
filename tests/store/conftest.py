"""Fixtures: each kind of store, empty."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from temporal_fabric.store import open_objects

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.store import Objects
    from tests.artifacts.servers import S3Server


@pytest.fixture
def in_bucket(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Objects:
    """An empty store in a bucket."""
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    return open_objects(f"s3://bucket/fabric/{secrets.token_hex(4)}")


@pytest.fixture(params=["file", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    """An empty store of each kind."""
    if request.param == "s3":
        found: Objects = request.getfixturevalue("in_bucket")
        return found
    return open_objects((tmp_path / "store").as_uri())
