"""Fixtures: a home per test, in every way this host can run a launcher."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from temporal_fabric.errors import BackendUnknown
from tests.launcher.place import Place

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

P = TypeVar("P", bound=Place)

KINDS = ("pidns", "pidns-v1", "pidns-none", "userns", "plain", "plain-none")

_missing: dict[str, str] = {}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of its own."""
    with tempfile.TemporaryDirectory(prefix="fab") as name:
        yield Path(name)


@pytest.fixture
async def place(folder: Path) -> AsyncIterator[Place]:
    """A home whose launcher runs in the host's best way."""
    found = Place(folder)
    yield found
    await found.close()


@pytest.fixture(params=KINDS)
async def every_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncIterator[Place]:
    """A home whose launcher is forced into one mode and one kind of control group."""
    async for found in forced(folder, monkeypatch, str(request.param), Place):
        yield found


@pytest.fixture(params=(KINDS[0], KINDS[-1]))
async def either_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncIterator[Place]:
    """A home on the most and on the least able host: for what depends little on the kind."""
    async for found in forced(folder, monkeypatch, str(request.param), Place):
        yield found


async def forced(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str, make: Callable[[Path], P]
) -> AsyncIterator[P]:
    """Yield a home whose launcher is forced into one mode and one kind of control group."""
    mode, _, groups = kind.partition("-")
    monkeypatch.setenv("FABRIC_LAUNCHER_MODE", mode)
    monkeypatch.setenv("FABRIC_LAUNCHER_CGROUP", groups)
    if kind in _missing:
        pytest.skip(_missing[kind])
    found = make(folder)
    try:
        client = await found.connect()
    except BackendUnknown as exc:
        _missing[kind] = f"this host has no {kind}: {exc}"
        pytest.skip(_missing[kind])
    if groups == "v1" and (await client.info())["cgroup"] != groups:
        pytest.skip("this host has no control groups of version 1")
    yield found
    await found.close()
