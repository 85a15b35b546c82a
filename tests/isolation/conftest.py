"""Fixtures: a launcher whose payloads run in the sandbox that the adapter makes."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest

from temporal_fabric.isolation import bubblewrap
from tests.backends import missing
from tests.isolation.place import SandboxPlace
from tests.launcher.conftest import folder, forced, place

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

__all__ = ["folder", "place"]

SANDBOX_KINDS = ("pidns", "userns", "plain-none")


@cache
def _reason() -> str:
    try:
        bubblewrap.probe(bubblewrap.find())
    except bubblewrap.Unavailable as exc:
        return str(exc)
    return ""


@pytest.fixture
def needs_bubblewrap() -> None:
    """Skip where this machine has no sandbox."""
    if _reason():
        missing("bubblewrap", _reason())


@pytest.fixture
async def sandboxes(folder: Path, needs_bubblewrap: None) -> AsyncIterator[SandboxPlace]:
    """A home whose launcher runs in the host's best way."""
    del needs_bubblewrap
    found = SandboxPlace(folder)
    yield found
    await found.close()


@pytest.fixture(params=SANDBOX_KINDS)
async def every_sandbox(
    folder: Path,
    needs_bubblewrap: None,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> AsyncIterator[SandboxPlace]:
    """A home whose launcher is forced into one mode."""
    del needs_bubblewrap
    async for found in forced(folder, monkeypatch, str(request.param), SandboxPlace):
        yield found
