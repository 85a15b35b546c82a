"""The same flow on a coarser mesh: what a test of refinement solves beside the run.

The flow as specified is the finest of three meshes. A mesh twice as wide has means of squares for
data, half the Gaussian's pixels, one level less of a wavelet, and every weight times 2^p, where p
is the power of the mesh width that makes the term an integral: d for a sum over the pixels of d
dimensions, one less for each difference of first order in an l1 norm, two less in a quadratic, and
d/2 for coefficients of an orthonormal wavelet. What has no meaning on another mesh is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_fabric.errors import Problem, RequestRejected
from temporal_fabric.flows.building import Builder
from temporal_fabric.flows.certificates.gap import duality_gap
from temporal_fabric.flows.chunk import run_chunk
from temporal_fabric.flows.compiling import compile_flow
from temporal_fabric.flows.data import DataFault, block_means
from temporal_fabric.flows.judging import energy_of
from temporal_fabric.flows.reading import read_spec
from temporal_fabric.flows.schemes.contract import begin

if TYPE_CHECKING:
    from temporal_fabric.flows.spec import FlowSpec

__all__ = ["check_mesh", "coarsened", "coarser_energies"]

_CHUNK = 100
_CONVERGED = 1e-3
"""Share of the tolerance that a coarse energy may be above its minimum."""

_SAME = frozenset({"identity", "mask", "gradient", "sum", "composition"})
_WHOLE = frozenset({"quadratic", "tikhonov", "huber", "kl", "l1"})


def coarser_energies(spec: FlowSpec, folder: Path | None) -> tuple[float, float]:
    """Return the minima at 4 and at 2 times the mesh width of a specification.

    Raises:
        RequestRejected: Some part of it has no meaning on another mesh.
    """
    return _minimum(coarsened(spec, folder, 4)), _minimum(coarsened(spec, folder, 2))


def _minimum(spec: FlowSpec) -> float:
    """Return the least energy that the flow's own scheme reaches within its iterations."""
    compiled = compile_flow(spec)
    carry = begin(compiled.scheme, compiled.problem, compiled.start)
    wanted = _CONVERGED * spec.certification.refinement_tolerance
    for _ in range(0, spec.budget.iterations, _CHUNK):
        chunk = run_chunk(compiled.scheme, compiled.problem, carry, iterations=_CHUNK)
        carry = chunk.carry
        found = duality_gap(compiled.energy, carry.z)
        near = not isinstance(found, str) and found.primal - found.dual <= wanted * abs(
            found.primal
        )
        if near or float(carry.square) == 0:
            break
    return energy_of(compiled, carry.z)


def check_mesh(spec: FlowSpec, folder: Path | None) -> None:
    """Refuse a test of refinement of what has no meaning on a coarser mesh.

    Raises:
        RequestRejected: with every such part.
    """
    if spec.certification.refinement_test:
        coarsened(spec, folder, 4)


def coarsened(spec: FlowSpec, folder: Path | None, by: int) -> FlowSpec:
    """Return a specification on a mesh that is wider by a power of two.

    Raises:
        RequestRejected: with every part that has no meaning there.
    """
    builder = Builder(spec, folder or Path())
    problems: list[Problem] = []
    shapes = {tuple(slot.shape) for slot in spec.state.values()}
    data: dict[str, Any] = {}
    for name in spec.data:
        try:
            array = builder.data.array(name)
            data[name] = {
                "type": "values",
                "values": (
                    block_means(name, array, by) if array.shape in shapes else array
                ).tolist(),
            }
        except DataFault as fault:
            problems.append(fault.problem)
    tree = spec.model_dump(mode="json", exclude_defaults=True)
    tree |= {"data": data, "certification": {"profile": spec.certification.profile}}
    problems += [*_operators(tree, by), *_terms(spec, tree, by), *_slots(tree, by)]
    if problems:
        raise RequestRejected(problems)
    return read_spec(tree)


def _refused(place: str, what: str) -> Problem:
    return Problem("E_FLOW", place, f"{what} on a coarser mesh; leave out refinement_test")


def _slots(tree: dict[str, Any], by: int) -> list[Problem]:
    problems: list[Problem] = []
    for name, slot in tree["state"].items():
        slot["shape"] = [n // by for n in slot["shape"]]
        if "manifold" in slot:
            problems.append(_refused(f"/state/{name}", "a manifold is not the same"))
    for key in ("physics", "holdout", "multiscale", "lens", "gap_dial", "devices"):
        tree.pop(key, None)
    tree.get("flow", {}).pop("polish", None)
    return problems


def _operators(tree: dict[str, Any], by: int) -> list[Problem]:
    problems: list[Problem] = []
    for name, one in tree.get("operators", {}).items():
        if one["type"].endswith("_convolution") and "sigma" in one:
            one["sigma"] /= by
            if "radius" in one:
                one["radius"] = max(one["radius"] // by, 1)
        elif one["type"] not in _SAME:
            problems.append(_refused(f"/operators/{name}", f"nobody knows what {one['type']} is"))
    return problems


def _terms(spec: FlowSpec, tree: dict[str, Any], by: int) -> list[Problem]:
    problems: list[Problem] = []
    for number, (term, plain) in enumerate(zip(spec.terms, tree["terms"], strict=True)):
        dimensions = len(spec.state[term.variable].shape)
        power = _power(spec, term, dimensions)
        if power is None:
            problems.append(_refused(f"/terms/{number}", f"nobody knows what {term.type} is"))
            continue
        plain["weight"] = term.weight * float(by) ** power
        lens = plain if "levels" in plain or term.type == "wavelet_l1" else plain.get("lens", {})
        if term.type == "wavelet_l1" or lens.get("type", "identity") != "identity":
            levels = lens.get("levels", 2 if term.type == "wavelet_l1" else 1)
            lens["levels"] = levels - (by.bit_length() - 1)
            if lens["levels"] < 1 or "scale_weights" in plain:
                what = f"{levels} levels, or weights for each of them, are too few"
                problems.append(_refused(f"/terms/{number}", what))
    return problems


def _power(spec: FlowSpec, term: Any, dimensions: int) -> float | None:
    """Return the power of the mesh width that makes a term an integral; None for none known."""
    if term.type in ("nonnegativity", "box"):
        return 0.0
    if term.type == "tv":
        return dimensions - 1.0
    lens = getattr(term, "lens", None)
    if term.type == "wavelet_l1" or (lens is not None and lens.type in ("haar", "db4", "db8")):
        return dimensions / 2 if term.type in ("wavelet_l1", "l1") else None
    if term.type not in _WHOLE or (lens is not None and lens.type != "identity"):
        return None
    order = _differences(spec, getattr(term, "operator", "identity"))
    return (
        float(dimensions - 2 * order)
        if term.type in ("quadratic", "tikhonov") or not order
        else None
    )


def _differences(spec: FlowSpec, name: str) -> int:
    one: Any = spec.operators.get(name)
    if one is None:
        return 0
    if one.type in ("sum", "composition"):
        return sum(_differences(spec, part) for part in one.parts)
    return int(one.type == "gradient")
