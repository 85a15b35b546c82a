"""The warm processes of one worker: one for each accelerator, and one that has them all.

A flow stays with the process that it was opened in, chosen as the one with the fewest flows; one
that asks for several devices goes to the process with all of them. On a host with one device, or
with its processor alone, there is one process.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from temporal_fabric.flows.engine import FlowEngine, passed_on
from temporal_fabric.shapes import is_table

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FlowEngines"]

_PROBE_S = 120.0
_VIRTUAL = "xla_force_host_platform_device_count"
_SHARED_MEMORY = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""A device has its own process and the one with all devices: none may take all memory at once."""


class FlowEngines:
    """See `FlowEngine`, whose calls these are.

    Args:
        cache: Folder of what was compiled.
        log: File of what the processes say.
    """

    def __init__(self, cache: Path, log: Path) -> None:
        self._cache, self._log = cache, log
        self._forbidden: set[tuple[str, int]] = set()
        self._wide = FlowEngine(cache, log, self._forbidden)
        self._bound: list[FlowEngine] = []
        self._looking = asyncio.Lock()
        self._looked = False
        self._of: dict[str, FlowEngine] = {}

    def native_id(self, folder: Path) -> str:
        """What the process of a run is called on this host; empty where it has none."""
        engine = self._of.get(str(folder))
        return engine.native_id if engine else ""

    async def ask(self, op: str, folder: Path, args: dict[str, Any]) -> dict[str, Any]:
        """Have something done in the run's process; see `FlowEngine.ask`."""
        engine, ended = await self._engine(folder, args), op == "finish"
        try:
            return await engine.ask(op, folder, args)
        except Exception:
            ended = ended or op == "open"
            raise
        finally:
            if ended:
                self._of.pop(str(folder), None)

    async def forbid(self, folder: Path, epoch: int) -> None:
        """Return when nothing of an epoch is being done, and nothing of it ever will be."""
        for engine in (self._wide, *self._bound):
            await engine.forbid(folder, epoch)
        self._of.pop(str(folder), None)

    async def aclose(self) -> None:
        """End the processes."""
        for engine in (self._wide, *self._bound):
            await engine.aclose()

    async def _engine(self, folder: Path, args: dict[str, Any]) -> FlowEngine:
        async with self._looking:
            if not self._looked:
                await self._look()
                self._looked = True
        engine = self._of.get(str(folder))
        if engine is None:
            engine = self._of[str(folder)] = self._chosen(_devices(folder, args))
        return engine

    def _chosen(self, devices: Any) -> FlowEngine:
        if devices != 1 or not self._bound:
            return self._wide
        busy = list(self._of.values())
        return min(self._bound, key=busy.count)

    async def _look(self) -> None:
        """Find out how many devices there are, where there could be several."""
        if not _may_be_several():
            return
        platform, count = await _probed()
        if count < 2:  # noqa: PLR2004 - one needs no choice
            return
        self._wide.set_up(_SHARED_MEMORY, f"{count} devices")
        for number in range(count):
            engine = FlowEngine(self._cache, self._log, self._forbidden)
            env = _SHARED_MEMORY | _binding(platform, number)
            engine.set_up(env, f"device {number} of {count}")
            self._bound.append(engine)


def _devices(folder: Path, args: dict[str, Any]) -> Any:
    """Return for how many devices a run asks."""
    spec = args.get("spec")
    if not is_table(spec):
        try:
            spec = json.loads((folder / "spec.json").read_text())["spec"]
        except (OSError, ValueError, KeyError):
            return 1
    return spec.get("devices", 1)


def _binding(platform: str, number: int) -> dict[str, str]:
    """Return the variables that bind a process to one device before it loads JAX."""
    if platform != "gpu":
        return {"FABRIC_FLOW_DEVICE": str(number)}
    # The variable is read by CUDA and by HIP; it may already choose among the host's devices.
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"CUDA_VISIBLE_DEVICES": given.split(",")[number] if given else str(number)}


def _may_be_several() -> bool:
    """Say whether JAX might find more than the processor; it is not loaded for that."""
    if _VIRTUAL in os.environ.get("XLA_FLAGS", ""):
        return True
    if os.environ.get("JAX_PLATFORMS", "") == "cpu":
        return False
    return bool(entry_points(group="jax_plugins")) or find_spec("libtpu") is not None


async def _probed() -> tuple[str, int]:
    """Return kind and number of JAX's devices; one processor where it cannot be told."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "temporal_fabric.flows.device_probe",
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=DEVNULL,
        env=passed_on() | _SHARED_MEMORY,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), _PROBE_S)
        found = json.loads(said.splitlines()[-1])
        return str(found["platform"]), int(found["count"])
    except (TimeoutError, ValueError, IndexError, KeyError):
        return "cpu", 1
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
