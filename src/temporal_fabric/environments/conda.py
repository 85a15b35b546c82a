"""A packed conda environment, as conda-pack makes it: unpacked, then told where it lies."""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from temporal_fabric import durable
from temporal_fabric.environments.recipe import host_file
from temporal_fabric.errors import EnvironmentFailed

if TYPE_CHECKING:
    from collections.abc import Generator

    from temporal_fabric.environments.commands import Commands
    from temporal_fabric.requests.settings import Environment

_FORMAT = 1
"""Raised when the same archive would be unpacked into something else."""

ARCHIVES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
FETCHED = ("https://", "s3://")

_UNPACK = Path(__file__).with_name("unpack.py")
_DIGEST = "sha256 "


class Fetch(Protocol):
    """How an archive gets to this host."""

    max_bytes: int
    """What an archive may hold."""

    async def __call__(self, uri: str, target: Path) -> None:
        """Write the file behind a URI to a path.

        Raises:
            EnvironmentFailed: it cannot be had.
        """
        ...


class CondaPack:
    """An archive made by conda-pack; see `temporal_fabric.environments.building.Source`.

    Args:
        archive: Path or URI.
        sha256: Its digest, in hex.
        fetch: Brings it where it is not a file of this host.
    """

    def __init__(self, archive: str, sha256: str, fetch: Fetch) -> None:
        self._archive = archive
        self._sha256 = sha256
        self._fetch = fetch
        facts = f"conda_pack {_FORMAT} {sha256} {platform.machine()}"
        self.digest = hashlib.sha256(facts.encode()).hexdigest()

    @classmethod
    def asked(cls, asked: Environment, fetch: Fetch) -> CondaPack:
        """Name what a request asks for; a file without a digest is read for it.

        Raises:
            EnvironmentFailed: the file cannot be read.
        """
        archive = asked.conda_pack or ""
        expected = (asked.sha256 or "").removeprefix("sha256:")
        path = host_file(archive)
        if path is not None and not expected:
            try:
                expected = durable.hash_file(path.resolve())[1]
            except OSError as exc:
                raise EnvironmentFailed(
                    f"cannot read the archive [path={path}]: {exc.strerror}"
                ) from exc
        if not expected:
            raise EnvironmentFailed(f"an archive elsewhere needs its sha256 [uri={archive}]")
        return cls(archive, expected, fetch)

    def whole(self, folder: Path) -> bool:
        """Say yes: nothing of it lies outside its folder."""
        del folder
        return True

    async def make(self, folder: Path, commands: Commands) -> list[str]:
        """Fetch and unpack the archive, run its ``conda-unpack``, return what is inside."""
        with self._aside(folder) as aside:
            path = host_file(self._archive)
            if path is None:
                await self._fetch(self._archive, aside)
                path = aside
            await self._unpack(path, folder, commands)
        if (folder / "bin" / "conda-unpack").is_file():
            commands.say("telling the environment where it lies")
            # By name: the script asks `env` for its interpreter, which is the unpacked one.
            search = f"{folder / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
            unpack = str(folder / "bin" / "conda-unpack")
            await commands.run("conda-unpack", unpack, cwd=folder, env={"PATH": search})
        installed = await asyncio.to_thread(_installed, folder)
        return [f"# conda_pack {self._archive} sha256:{self._sha256}", *installed]

    async def _unpack(self, archive: Path, folder: Path, commands: Commands) -> None:
        commands.say("unpacking the environment")
        found = ""

        def heard(line: str) -> None:
            nonlocal found
            if line.startswith(_DIGEST):
                found = line.removeprefix(_DIGEST)
            else:
                commands.say(f"unpacking the environment: {line}")
            commands.log(line)

        script = (sys.executable, "-I", "-S", str(_UNPACK))
        arguments = (str(archive), str(folder), str(self._fetch.max_bytes))
        await commands.run("unpacking", *script, *arguments, cwd=folder.parent, each=heard)
        if found != self._sha256:
            raise EnvironmentFailed(
                "the archive is not what was expected "
                f"[archive={self._archive}, sha256={found}, expected={self._sha256}]"
            )

    @contextmanager
    def _aside(self, folder: Path) -> Generator[Path]:
        """Yield a path for the fetched archive, on the same disk; it is gone afterwards."""
        aside = folder.with_name(f"{folder.name}.archive")
        try:
            yield aside
        finally:
            aside.unlink(missing_ok=True)


def _installed(folder: Path) -> list[str]:
    """Return name, version and build of each conda package, as their records are named."""
    return sorted(path.stem for path in (folder / "conda-meta").glob("*.json"))
