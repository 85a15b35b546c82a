"""Small certified flows that tests share, as specifications and as requests."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.handle import ExperimentHandle

SMALL: dict[str, Any] = {
    "name": "small",
    "data": {
        "truth": {"type": "normal", "shape": [64], "seed": 3},
        "seen": {"type": "observed", "source": "truth", "operator": "blur", "noise": 0.05},
    },
    "operators": {"blur": {"type": "separable_convolution", "sigma": 0.7}},
    "state": {"x": {"shape": [64], "initial": "seen", "invariants": {"sum": {"tolerance": 10.0}}}},
    "terms": [
        {"type": "quadratic", "operator": "blur", "target": "seen"},
        {"type": "wavelet_l1", "wavelet": "haar", "levels": 3, "weight": 0.05},
    ],
    "flow": {"family": "accelerated"},
    "certification": {"profile": "convex"},
    "sample_every": 10,
}
"""Runs in a moment, and meets its exit checks."""


def endless(iterations: int) -> dict[str, Any]:
    """Return one that asks for a smaller gap than there is, and so uses all its iterations."""
    never = {"profile": "convex", "tolerances": {"gap": 1e-300}}
    return SMALL | {"certification": never, "budget": {"iterations": iterations}}


def flow(spec: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a body that runs a specification; ``more`` replaces top-level fields."""
    payload = {"energy": spec, **more.pop("settings", {})}
    return {"id": f"t-{secrets.token_hex(4)}", "payload": {"flow": payload}, **more}


class InProcess:
    """``temporal-fabric flow`` in a process of its own, without a server."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self._folder = folder
        more = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "NO_COLOR": "1"}
        self._env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)} | more

    def run(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Return the result of a specification."""
        file = self._folder / f"{len(list(self._folder.iterdir()))}.yaml"
        file.write_text(yaml.safe_dump(spec))
        return self.answer("run", str(file), "--out", str(file.with_suffix(".run")))

    def answer(self, *arguments: str) -> dict[str, Any]:
        """Return what a command answers."""
        found: dict[str, Any] = json.loads(self._done(*arguments, "-o", "json").stdout)
        return found

    def refused(self, *arguments: str) -> str:
        """Return why a command does nothing."""
        done = self._done(*arguments)
        assert done.returncode, done.stdout
        return done.stderr

    def _done(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "temporal_fabric.cli", "flow", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=self._env,
        )


async def reaches(handle: ExperimentHandle, least: int) -> int:
    """Wait until a flow has made so many iterations; return how many it has made."""
    async with asyncio.timeout(60):
        while (made := (await handle.status()).live.get("iteration", 0)) < least:
            await asyncio.sleep(0.1)
    return int(made)


def die(_parameters: Any, _x: Any) -> None:
    """End the process that computes it."""
    sys.exit(3)


def tells_where(_parameters: Any, x: Any) -> Any:
    """Change nothing, and print the device that a process computes on."""
    import jax  # noqa: PLC0415 - the worker and other tests do without

    config: Any = jax.config
    print(f"computes on {config.jax_default_device}")
    return x
