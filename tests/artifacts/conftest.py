"""Fixtures: servers that transfers talk to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.artifacts.servers import WebServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebServer]:
    """An HTTPS server of this test's own."""
    found = WebServer(tmp_path)
    yield found
    found.close()
