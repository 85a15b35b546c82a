"""Which lens fits a flow, and how its scales weigh: probes of the coefficients at the start.

Nothing here is a certificate. A probe says what is likely to be sparse; whether the flow may run
with it is decided afterwards, like for a lens that somebody wrote down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from temporal_fabric.flows.adjusting import adjusted
from temporal_fabric.flows.remedies import Settings
from temporal_fabric.flows.term_kinds import SMOOTH, SPARSE
from temporal_fabric.flows.tuner import NEIGHBOURS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from temporal_fabric.flows.compiling import Compiled
    from temporal_fabric.flows.energy import NonsmoothTerm
    from temporal_fabric.flows.spec import FlowSpec

__all__ = ["probed", "ranked", "seeds", "spread", "universal_lambda"]

_HELD = 0.99
"""Share of the energy that compressibility asks for."""

_KEPT = 0.1
"""Share of the coefficients that a reconstruction is made from."""

_NORMAL = 0.6745
"""The median of |x| for x normal with variance 1."""


def probed(spec: FlowSpec, folder: Path | None) -> dict[str, dict[str, float]]:
    """Return what each candidate's probe measures, by the lens's name; empty without a policy.

    ``compressibility`` is the share of coefficients that is not needed for 99 % of the energy,
    ``reconstruction_error`` the relative error of what the largest tenth gives back.
    """
    # Compiling is a matter of every lens; its module is not needed where there is no policy.
    from temporal_fabric.flows.compiling import compile_flow  # noqa: PLC0415

    found: dict[str, dict[str, float]] = {}
    for one in spec.lens.candidates if spec.lens else ():
        compiled = compile_flow(adjusted(spec, Settings(lens=one.type)), folder)
        measured = _measured(compiled)
        wanted = spec.lens.probe_metrics if spec.lens else ()
        found[one.type] = {name: measured[name] for name in wanted}
    return found


def ranked(spec: FlowSpec, probes: dict[str, dict[str, float]]) -> tuple[str, ...]:
    """Return the candidates, the best one by the policy's rule first."""
    if spec.lens is None:
        return ()
    if spec.lens.rule == "min_reconstruction_error":
        return tuple(sorted(probes, key=lambda name: probes[name]["reconstruction_error"]))
    return tuple(sorted(probes, key=lambda name: -probes[name]["compressibility"]))


def seeds(compiled: Compiled) -> tuple[float, ...]:
    """Return a factor of lambda for each scale: the finest has 1, and wider ones weigh less.

    For coefficients of a Laplace distribution the most probable answer has lambda_j inversely
    proportional to their spread (Chang, Yu, Vetterli, IEEE Trans. Image Process. 9, 2000, section
    II). Adjacent factors differ by at most 2, as everywhere in a run.
    """
    rule = compiled.spec.gap_dial.per_scale_seed
    if rule is None:
        return ()
    term = _sparse(compiled)
    levels = _levels(term)
    if levels is None:
        return ()
    u = _coefficients(compiled, term)
    spreads = [spread(u[levels == level], rule) for level in range(int(levels.max()) + 1)]
    factors = [1.0]
    for coarse, fine in zip(spreads[-2::-1], spreads[:0:-1], strict=True):
        ratio = fine / coarse if coarse > 0 else 1.0
        factors.insert(0, factors[0] * float(np.clip(ratio, 1 / NEIGHBOURS, NEIGHBOURS)))
    return tuple(factors)


def universal_lambda(compiled: Compiled) -> float:
    """Return sigma sqrt(2 log n), the lambda that noise alone does not pass.

    sigma is the spread of the finest coefficients of grad f(0), which is what the data make of
    noise (Donoho, Johnstone, Biometrika 81, 1994, sections 2.2 and 4.2).

    Args:
        compiled: The flow; its sparsity has an adaptive rule.
    """
    term = _sparse(compiled)
    levels = _levels(term)
    zero = {slot: jnp.zeros_like(x) for slot, x in compiled.start.items()}
    u = np.asarray(term.operator.matvec(compiled.energy.grad_f(zero)[term.variable]))
    fine = u if levels is None else u[levels == levels.max()]
    rule = compiled.spec.sparsity.adaptive_rule
    return spread(fine, rule) * float(np.sqrt(2 * np.log(max(u.size, 2))))


def spread(u: NDArray[Any], rule: str) -> float:
    """Return a standard deviation that few large entries do not move.

    Args:
        u: Entries.
        rule: ``median`` of the moduli, or ``mad``, the same about the median.
    """
    middle = np.median(u) if rule == "mad" else 0.0
    return float(np.median(np.abs(u - middle))) / _NORMAL


def _sparse(compiled: Compiled) -> NonsmoothTerm:
    """Return the first sparse term of a flow that has one; terms stand in the order of the spec."""
    rough = [term for term in compiled.spec.terms if term.type not in SMOOTH]
    number = next(n for n, term in enumerate(rough) if term.type in SPARSE)
    return compiled.energy.nonsmooth[number]


def _levels(term: NonsmoothTerm) -> NDArray[Any] | None:
    found = getattr(term.operator, "levels_of", lambda: None)()
    return None if found is None else np.asarray(found)


def _coefficients(compiled: Compiled, term: NonsmoothTerm) -> NDArray[Any]:
    """Return W x at the start; of -grad f where the start is zero."""
    x = compiled.start[term.variable]
    if not np.any(np.asarray(x)):
        x = -compiled.energy.grad_f(compiled.start)[term.variable]
    return np.asarray(term.operator.matvec(x))


def _measured(compiled: Compiled) -> dict[str, float]:
    term = _sparse(compiled)
    u = _coefficients(compiled, term)
    size = np.sort(np.abs(u).reshape(-1))[::-1]
    energy = np.cumsum(size**2)
    needed = int(np.searchsorted(energy, _HELD * energy[-1])) + 1
    smallest = size[max(int(_KEPT * size.size) - 1, 0)]
    lens: Any = term.operator
    back = getattr(lens, "inverse", lens.adjoint)
    both = u, np.where(np.abs(u) >= smallest, u, 0)
    whole, part = (np.asarray(back(jnp.asarray(v))) for v in both)
    error = float(np.linalg.norm(whole - part) / max(float(np.linalg.norm(whole)), 1e-300))
    return {"compressibility": 1 - needed / size.size, "reconstruction_error": error}
