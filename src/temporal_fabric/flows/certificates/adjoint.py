"""The adjoint test: <A x, y> = <x, A'y> for random x and y.

Semidefiniteness by construction, every gradient and every gap rest on A' being the adjoint of A.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporal_fabric.flows.certificates.record import Finding, Kind
from temporal_fabric.flows.own_operators import adjoint_defect
from temporal_fabric.flows.precision import CERT_DTYPE, cast

if TYPE_CHECKING:
    from temporal_fabric.flows.operators import Operator

__all__ = ["PROBES", "SMALLEST_PRODUCT", "adjoint"]

PROBES = 8

SMALLEST_PRODUCT = 0.075
"""All of 8 products |g g'| of two normal numbers are below this with probability under 1e-6."""


def adjoint(operator: Operator, name: str, *, seed: int, dtype: str = CERT_DTYPE) -> Finding:
    """Return the largest relative mismatch over fresh Gaussian probes.

    If A' is off by a matrix D of norm s, each |<x, D y>| is at least s |g g'| for two independent
    normal numbers, so all of 8 stay below 0.075 s with probability under 1e-6. An adjoint derived
    by JAX, or written down in this library with its operator, is one by construction; it is
    probed all the same.

    Args:
        operator: The operator and its adjoint.
        name: Of the operator, for the sentence.
        seed: Of the probes.
        dtype: In which the operator will run.
    """
    tested: Operator = cast(operator, dtype)
    value = adjoint_defect(tested, seed=seed, probes=PROBES)
    own = tested.facts().adjoint == "user"
    return Finding(
        name="adjoint",
        value=value,
        kind=Kind.PROBABLE if own else Kind.RIGOROUS,
        delta=1e-6 if own else 0.0,
        method=f"{name}: {PROBES} Gaussian probes" + ("" if own else ", and by construction"),
        found=f"<A x, y> and <x, A'y> of {name} differ by {value:.2g}, relatively",
        meaning="A' is not the adjoint of A: gradients point elsewhere and no bound holds",
        remedy="Mend the adjoint, or leave it out: JAX derives one",
    )
