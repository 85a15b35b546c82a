"""Phase 3: the last steps of a run, in float64.

With a nonsmooth term, or on a manifold, they are steps of the flow's own scheme: what float64
can tell of a gap, float32 cannot. Without one they are F_Con: leapfrog with friction, since
without it energy is conserved and nothing is polished.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import jax.numpy as jnp

from temporal_fabric.flows.precision import CERT_DTYPE, cast
from temporal_fabric.flows.schemes.contract import begin
from temporal_fabric.flows.schemes.hamiltonian import HamiltonianDamped

if TYPE_CHECKING:
    from temporal_fabric.flows.compiling import Compiled
    from temporal_fabric.flows.schemes.contract import Carry

__all__ = ["begun", "widened"]


def widened(compiled: Compiled) -> Compiled:
    """Return the flow with the numbers that it ran with, in float64, and the scheme of phase 3."""
    parts = compiled.problem, compiled.start, compiled.observables
    problem, start, observables = cast(parts, CERT_DTYPE)
    scheme, beta = compiled.scheme, float(problem.beta_up)
    smooth = not problem.energy.nonsmooth and not problem.manifolds
    if smooth and math.isfinite(beta) and not isinstance(scheme, HamiltonianDamped):
        scheme = HamiltonianDamped(quadratic=compiled.is_quadratic)
        problem = replace(problem, alpha=jnp.asarray(1 / math.sqrt(beta), CERT_DTYPE))
    return replace(compiled, problem=problem, start=start, observables=observables, scheme=scheme)


def begun(wide: Compiled, carry: Carry) -> Carry:
    """Return the first carry of phase 3, where a run in the flow's own dtype stands."""
    fresh = begin(wide.scheme, wide.problem, cast(carry.z, CERT_DTYPE))
    return replace(fresh, iteration=carry.iteration, active=carry.active)
