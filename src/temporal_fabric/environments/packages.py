"""An environment of Python packages, made by uv."""

from __future__ import annotations

import asyncio
import platform
import shutil
import sys
from typing import TYPE_CHECKING

from temporal_fabric.environments.recipe import Recipe, read_recipe
from temporal_fabric.errors import EnvironmentFailed

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.environments.commands import Commands
    from temporal_fabric.requests.settings import Environment


class Packages:
    """The packages that a request lists; see `temporal_fabric.environments.building.Source`.

    Args:
        recipe: What to install.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self.digest = recipe.digest

    @classmethod
    def asked(cls, asked: Environment) -> Packages:
        """Read what a request asks to be installed.

        Raises:
            EnvironmentFailed: its file cannot be read, or holds more than requirements.
        """
        return cls(read_recipe(asked))

    def whole(self, folder: Path) -> bool:
        """Say whether a finished folder still works."""
        # The interpreter is a link into the worker's installation, which an upgrade may remove.
        return (folder / "bin" / "python").exists()

    async def make(self, folder: Path, commands: Commands) -> list[str]:
        """Make a virtual environment, install, and return what is installed."""
        uv, recipe = _find_uv(), self._recipe
        python = ["--python", str(folder / "bin" / "python")]

        async def call(*args: str) -> list[str]:
            what = f"uv {' '.join(args[: 1 + (args[0] == 'pip')])}"
            quiet = ("--no-progress", "--color=never")
            return await commands.run(what, uv, *args, *quiet, cwd=folder.parent)

        commands.say("making a virtual environment")
        await call("venv", "--python", sys.executable, "--no-project", str(folder))
        wanted = folder / "requirements.txt"
        await asyncio.to_thread(wanted.write_text, recipe.text)
        commands.say("installing packages")
        options = ["--require-hashes"] if recipe.locked else []
        options += ["--refresh"] if recipe.local else []
        await call("pip", "install", *python, *options, "-r", str(wanted))
        installed = await call("pip", "freeze", *python, "--quiet")
        return [f"# python {platform.python_version()} {platform.machine()}", *sorted(installed)]


def _find_uv() -> str:
    try:
        from uv import find_uv_bin  # noqa: PLC0415 - only a build needs it

        return find_uv_bin()
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if found is None:
        raise EnvironmentFailed("no installer: there is no 'uv' package and no uv on PATH")
    return found
