"""The metrics of a capsule as curves of few points that lose no peak.

Of all values that share a pixel's column, the first, lowest, highest and last are kept: the line
through them looks like the line through all (Jugel et al., "M4: A Visualization-Oriented Time
Series Data Aggregation", VLDB 2014).
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from temporal_fabric.capsule.queries import query

if TYPE_CHECKING:
    from temporal_fabric.capsule.reading import Capsule

COLUMNS = 480
"""Into how many columns of pixels the time of a run is cut."""

_REDUCED = """
WITH span AS (SELECT min(epoch_ms(time)) AS low, max(epoch_ms(time)) AS high FROM {rows}),
points AS (
  SELECT name, epoch, seq, epoch_ms(time) AS ms, value,
    floor((epoch_ms(time) - low) * {columns} / greatest(high - low, 1))::INTEGER AS pixel
  FROM {rows}, span WHERE isfinite(value)
)
SELECT name, epoch, pixel,
  [min(ms), arg_min(ms, value), arg_max(ms, value), max(ms)] AS times,
  [arg_min(value, (ms, seq)), min(value), max(value), arg_max(value, (ms, seq))] AS values
FROM points GROUP BY name, epoch, pixel ORDER BY name, epoch, pixel
"""
_TOTALS = """
SELECT name, count(*) AS rows, count_if(NOT isfinite(value)) AS holes,
  arg_max(value, (epoch, seq)) AS last
FROM {rows} GROUP BY name ORDER BY name
"""
_LONG = "telemetry"
_WIDE = """
(UNPIVOT (SELECT epoch, seq, time, {cast} FROM telemetry)
 ON {named} INTO NAME name VALUE value)
"""
_FLOW = (
    "E",
    "step_norm",
    "grad_norm",
    "alpha",
    "lambda",
    "eta_dd",
    "gamma",
    "sparsity_wx",
    "phi_residual",
    "invariant_drift_max",
    "level_active_max",
    "descent_violation",
    "curvature_ratio",
    "rejected",
    "restarted",
)
"""Columns of a certified flow that are numbers."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One metric."""

    name: str
    rows: int
    """How many values were recorded."""

    holes: int
    """How many of them are infinite or no number, and cannot be drawn."""

    last: str
    """The value recorded last, as text where it is not finite."""

    lines: dict[int, list[tuple[float, float]]] = field(
        default_factory=dict[int, "list[tuple[float, float]]"]
    )
    """For each epoch, Unix seconds and value, in the order of time."""


def curves(capsule: Capsule, columns: int = COLUMNS) -> list[Curve]:
    """Return the metrics of a capsule by name.

    Raises:
        CapsuleError: the table is missing or damaged.
    """
    rows = _rows(capsule)
    _, totals = query([capsule], _TOTALS.format(rows=rows))
    found = {
        str(row[0]): Curve(str(row[0]), int(row[1]), int(row[2]), str(row[3])) for row in totals
    }
    if not found:
        return []
    _, reduced = query([capsule], _REDUCED.format(columns=columns, rows=rows))
    lines: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for name, epoch, _pixel, times, values in reduced:
        lines[name, epoch].extend(_points(json.loads(times), json.loads(values)))
    for (name, epoch), points in lines.items():
        found[name].lines[epoch] = points
    return list(found.values())


def _rows(capsule: Capsule) -> str:
    """Return what to select from: a metric in each row, also where each has its own column."""
    there, _ = query([capsule], "SELECT * FROM telemetry LIMIT 0")
    if "value" in there:
        return _LONG
    numbers = [name for name in _FLOW if name in there]
    cast = ", ".join(f'"{name}"::DOUBLE AS "{name}"' for name in numbers)
    named = ", ".join(f'"{name}"' for name in numbers)
    return _WIDE.format(cast=cast, named=named)


def _points(times: list[Any], values: list[Any]) -> list[tuple[float, float]]:
    # What comes twice is one point; of equal times the first value comes first, the last last.
    inner = sorted(zip(times[1:3], values[1:3], strict=True))
    rows = [(times[0], values[0]), *inner, (times[3], values[3])]
    return [(at / 1000, float(value)) for at, value in dict.fromkeys(rows)]
