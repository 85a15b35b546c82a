"""Whether a result depends on the mesh: three meshes, Richardson's order, Roache's index.

Roache, J. Fluids Eng. 116 (1994), equation 19, with a safety factor of 1.25 for three meshes. An
estimate: it may close a gate, and proves nothing.
"""

from __future__ import annotations

import math

from temporal_fabric.flows.certificates.record import Finding, Kind

__all__ = ["refinement"]

_SAFETY = 1.25
_APART = 0.5
"""How far the observed order may be from the expected one."""


def refinement(
    coarse: float, middle: float, fine: float, *, order: float, tolerance: float
) -> Finding:
    """Return the worse of two ratios: |p - order| / 0.5, and GCI / tolerance.

    Args:
        coarse: Energy at mesh width h, with lambda scaled to the mesh.
        middle: At h/2.
        fine: At h/4.
        order: Of the discretisation.
        tolerance: For GCI, relative to the fine energy.
    """
    first, second = abs(coarse - middle), abs(middle - fine)
    scale = max(abs(fine), 1e-300)
    if second == 0:
        p, index = math.inf if first else order, 0.0
    elif first == 0:
        p, index = -math.inf, math.inf
    else:
        p = math.log2(first / second)
        index = _SAFETY * second / (2**p - 1) / scale if p > 0 else math.inf
    apart = abs(p - order) / _APART if math.isfinite(p) else (0.0 if p > 0 else math.inf)
    return Finding(
        name="refinement",
        value=max(apart, index / tolerance),
        kind=Kind.ESTIMATE,
        method="three meshes",
        found=f"the observed order is {p:.3g} (expected {order:g}), the grid index {index:.3g}",
        meaning="The result still depends on the mesh",
        remedy="Refine the mesh, and scale lambda with it",
    )
