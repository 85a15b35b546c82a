"""What a run's capsule says of it: identity, versions, gates, budgets, seeds, statistics."""

from __future__ import annotations

import hashlib
import math
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from temporal_fabric.flows.adjusting import lens_name
from temporal_fabric.flows.checkpoint import devices_of
from temporal_fabric.flows.chosen import profile_of
from temporal_fabric.flows.precision import CERT_DTYPE
from temporal_fabric.flows.sharding import device_count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from temporal_fabric.flows.checkpoint import Checkpoint
    from temporal_fabric.flows.spec import FlowSpec

__all__ = ["digest_of", "manifest_of", "moved", "statistics", "summary", "validation"]

_PACKAGES = ("temporal-fabric", "jax", "jaxlib", "numpy", "pyarrow")


def manifest_of(spec: FlowSpec, run_id: str, *, redact: bool) -> dict[str, Any]:
    """Return the manifest that a run begins with."""
    profile = profile_of(spec)
    bounds = {
        line.name: line.bound if math.isfinite(line.bound) else str(line.bound)
        for line in profile.requirements
        if line.bound is not None and line.hard
    }
    budget = {key: value for key, value in spec.budget.model_dump().items() if value is not None}
    return {
        "run_id": run_id,
        "flow_name": spec.name,
        "dtype": spec.dtype,
        "cert_dtype": CERT_DTYPE,
        "deterministic": spec.deterministic,
        "devices": device_count(spec),
        "redact_artifacts": redact,
        "lens_name": lens_name(spec),
        "frame_type": "orthonormal" if lens_name(spec) in {"haar", "db4", "db8"} else "identity",
        "invariants_present": any(slot.invariants for slot in spec.state.values()),
        "shapes": {name: list(slot.shape) for name, slot in spec.state.items()},
        "gates": {"profile": profile.label, "bounds": bounds},
        "budgets": budget,
        "seeds": {"seed": spec.seed},
        "versions": _versions(),
    }


def moved(manifest: Mapping[str, Any], spec: FlowSpec, last: Checkpoint) -> dict[str, Any]:
    """Return what a manifest says anew of a run that goes on on other devices than before.

    Args:
        manifest: As it is.
        spec: Of the run.
        last: The checkpoint that it goes on from.

    Returns:
        Nothing, where their number has not changed.
    """
    before, now = devices_of(last), device_count(spec)
    if before == now:
        return {}
    change = {"iteration": int(last.meta["iteration"]), "before": before, "now": now}
    changes = [one for one in manifest.get("devices_changed", []) if one != change]
    return {"devices": now, "devices_changed": [*changes, change]}


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def validation(decisions: Mapping[str, Any], seed: int) -> list[dict[str, Any]]:
    """Return how the transforms were found to keep their class, and with which probes."""
    wanted = ("value", "bound", "kind", "delta", "method", "verdict")
    certificates = decisions.get("before", {}).get("certificates", [])
    return [
        {key: one[key] for key in wanted if one[key] is not None} | {"seed": seed}
        for one in certificates
        if one["name"] == "transform"
    ]


def digest_of(state: Mapping[str, NDArray[Any]]) -> str:
    """Return the sha256 of a state: names, dtypes, shapes and bits, slot by slot."""
    digest = hashlib.sha256()
    for slot, array in sorted(state.items()):
        digest.update(f"{slot} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def summary(
    *,
    verdict: str,
    iteration: int,
    energy: float | None,
    psnr: Mapping[str, Mapping[str, float]],
    settings: Mapping[str, Any],
    state: Mapping[str, NDArray[Any]],
) -> dict[str, Any]:
    """Return what a run came to, in numbers: ``summary.json``."""
    return {
        "verdict": verdict,
        "iteration": iteration,
        "energy": energy if energy is None or math.isfinite(energy) else None,
        "sha256": digest_of(state) if state else "",
        "psnr": dict(psnr),
        "settings": dict(settings),
        "statistics": {slot: statistics(array) for slot, array in state.items()},
    }


def statistics(array: NDArray[Any]) -> dict[str, float | None]:
    """Return what may be kept of an array that must not be."""
    figures = {
        "min": array.min(),
        "max": array.max(),
        "mean": array.mean(),
        "norm": np.linalg.norm(array.reshape(-1)),
    }
    return {name: float(x) if np.isfinite(x) else None for name, x in figures.items()}
