"""Fixtures: servers that transfers talk to."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.artifacts.servers import S3Server, WebServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebServer]:
    """An HTTPS server of this test's own."""
    found = WebServer(tmp_path)
    yield found
    found.close()


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    """An S3 server with one bucket, ``bucket``."""
    with tempfile.TemporaryDirectory() as folder:
        found = S3Server(Path(folder))
        yield found
        found.close()
