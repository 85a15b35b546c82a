"""Telemetry of a flow: the seed's 23 columns, and the checks of each step beside them.

A number that does not apply is null: never NaN, never invented.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from temporal_fabric.flows.chunk import Chunk
    from temporal_fabric.flows.compiling import Compiled

__all__ = ["CHECKS", "COLUMNS", "rows_of"]

COLUMNS: dict[str, str] = {
    "run_id": "string",
    "flow_name": "string",
    "phase": "string",
    "iter": "int64",
    "trial_id": "string",
    "t_wall_ms": "float64",
    "alpha": "float64",
    "lambda": "float64",
    "lambda_j": "string",
    "E": "float64",
    "grad_norm": "float64",
    "eta_dd": "float64",
    "gamma": "float64",
    "sparsity_wx": "float64",
    "phi_residual": "float64",
    "invariant_drift_max": "float64",
    "lens_name": "string",
    "level_active_max": "int64",
    "sparsity_mode": "string",
    "flow_family": "string",
    "metric_ber": "float64",
    "warnings": "string",
    "notes": "string",
}
"""The seed family's columns, schema version 3, with their types; written under these names."""

CHECKS: dict[str, str] = {
    "step_norm": "float64",
    "descent_violation": "float64",
    "curvature_ratio": "float64",
    "rejected": "int64",
    "restarted": "int64",
}
"""What each sampled iteration found out about itself; beyond the seed's columns."""


def rows_of(chunk: Chunk, compiled: Compiled, **given: Any) -> dict[str, list[Any]]:
    """Return a chunk's telemetry, column by column, in the order of the schema.

    Args:
        chunk: From `run_chunk`.
        compiled: The flow that ran.
        **given: Columns that the run knows and the chunk does not: ``run_id``, ``phase``,
            ``t_wall_ms``, ``eta_dd``, ``gamma``, ``trial_id``, ``warnings``, ``notes``; one value
            for all rows, or a list.
    """
    count = len(chunk.rows["iter"])
    known = {**_of_the_flow(compiled), **given}
    table: dict[str, list[Any]] = {}
    for name, kind in {**COLUMNS, **CHECKS}.items():
        if name in chunk.rows:
            values = np.asarray(chunk.rows[name]).tolist()
            table[name] = [_finite(value) if kind == "float64" else value for value in values]
        else:
            value = known.get(name)
            table[name] = list(value) if isinstance(value, list) else [value] * count
    return table


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _of_the_flow(compiled: Compiled) -> dict[str, Any]:
    spec = compiled.spec
    known: dict[str, Any] = {"flow_name": spec.name, "flow_family": spec.flow.family}
    rough = [term for term in spec.terms if term.type in _SPARSE]
    if rough:
        first = rough[0]
        lens = getattr(first, "lens", None)
        known["lambda"] = first.weight
        known["sparsity_mode"] = _SPARSE[first.type]
        known["lens_name"] = getattr(first, "wavelet", None) or (lens.type if lens else "identity")
        factors = getattr(first, "scale_weights", ())
        if factors:
            known["lambda_j"] = json.dumps([first.weight * factor for factor in factors])
    return known


_SPARSE = {"l1": "l1", "l0": "l0", "wavelet_l1": "l1", "group_l1": "group_l1", "tree": "tree"}
