"""eta_dd: how far L is from a diagonal matrix, in the basis in which the prox works.

eta_dd = max_i sum_{j != i} |L_ij| / L_ii with L_ii > 0. Below 1 it proves gamma > 0, licenses
Jacobi preconditioning, and lets scales move on their own. It is sufficient, not necessary: a
Gaussian blur of half a pixel is the widest that it lets through.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from temporal_fabric.flows.certificates.probing import probed_rows
from temporal_fabric.flows.certificates.record import Finding, Kind
from temporal_fabric.flows.certificates.rows import Rows, in_pixels, in_wavelets, nothing_but_mu
from temporal_fabric.flows.operators import Identity
from temporal_fabric.flows.wavelets import Wavelet

if TYPE_CHECKING:
    from temporal_fabric.flows.certificates.hessian import Hessian
    from temporal_fabric.flows.operators import Operator

__all__ = ["eta_dd", "row_sums"]

_MEANING = "The scales are coupled, and nothing may be promised of one of them alone"


def row_sums(block: Hessian, lens: Operator) -> Rows | None:
    """Return the rows of L in the basis of the prox, None where they cannot be had cheaply.

    Args:
        block: Of the slot that the prox acts on.
        lens: The W of the prox: a transform, or the identity.
    """
    facts = block.exact
    if facts is None or not facts.symmetric:
        return None
    if facts.norm == 0 and isinstance(lens, (Identity, Wavelet)):
        return nothing_but_mu()
    if isinstance(lens, Identity):
        return in_pixels(facts) or probed_rows(block, lens)
    if isinstance(lens, Wavelet):
        return in_wavelets(facts, lens) or probed_rows(block, lens)
    return probed_rows(block, lens)


def eta_dd(block: Hessian, lens: Operator, rows: Rows | None, *, bound: float = 0.9) -> Finding:
    """Return the largest ratio of off-diagonal to diagonal.

    Args:
        block: Of the slot that the prox acts on.
        lens: The W of the prox, for the words.
        rows: From `row_sums`.
        bound: For which a sufficient mu is worked out.
    """
    name = _name(lens)
    if rows is None:
        return Finding(
            name="eta_dd",
            value=None,
            kind=Kind.RIGOROUS,
            method="not computed",
            found=f"the row sums of the Hessian in {name} are not computed",
            meaning="Neither shift invariance nor separability nor a short reach gives them",
            remedy="Choose `strongly_convex` or `convex`, which do not ask for them",
        )
    value = rows.ratio(block.mu)
    mu = rows.mu_for(bound)
    band = rows.worst(block.mu)
    place = f" ({band})" if band else ""
    repair = f"mu >= {mu:.3g} would do, but" if math.isfinite(mu) else "No mu repairs it, and"
    return Finding(
        name="eta_dd",
        value=value,
        kind=Kind.RIGOROUS,
        error=rows.error,
        method=rows.method,
        found=f"off-diagonal row sums are up to {value:.4g} times the diagonal in {name}{place}",
        meaning=_MEANING,
        remedy=f"{repair} changes the problem; try another lens, or choose `strongly_convex` or"
        " `convex`, which only report it",
    )


def _name(lens: Operator) -> str:
    if isinstance(lens, Wavelet):
        return f"{lens.name} with {lens.levels} levels"
    return "pixels" if isinstance(lens, Identity) else type(lens).__name__
