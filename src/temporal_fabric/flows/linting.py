"""What a specification's parts say of each other: names, shapes, and what a family can do.

Works on the plain tree, also where the models refused a part of it, so that every problem is
found at once. Each check gives a path and a sentence: what is wrong, then what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from temporal_fabric.flows.cutting import uncut
from temporal_fabric.flows.policy_linting import policies
from temporal_fabric.flows.term_kinds import SMOOTH, WAVELETS
from temporal_fabric.shapes import is_rows, is_table

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["contradictions"]

Path = tuple[str | int, ...]
Finding = tuple[Path, str]


def contradictions(tree: dict[str, Any]) -> Iterator[Finding]:
    """Return every place where the parts of a specification do not fit together."""
    slots, data, operators = (_table(tree, key) for key in ("state", "data", "operators"))
    terms = [(number, term) for number, term in enumerate(_rows(tree, "terms")) if is_table(term)]
    yield from _slots(slots, data)
    yield from _devices(tree.get("devices"), slots)
    yield from _data(data, operators)
    yield from _operators(data, operators)
    for group in ("physics", "holdout"):
        for name, one in _table(tree, group).items():
            if is_table(one):
                yield from _names((group, name), one, slots, data, operators)
    for number, term in terms:
        yield from _names(("terms", number), term, slots, data, operators)
        yield from _numbers(("terms", number), term)
        yield from _lens(("terms", number), term, slots)
    yield from _family(_table(tree, "flow").get("family", "proximal"), terms, slots)
    yield from _schedule(tree, terms)
    yield from policies(tree, terms)


def _table(tree: Any, key: str) -> dict[str, Any]:
    found = tree.get(key) if is_table(tree) else None
    return found if is_table(found) else {}


def _rows(tree: Any, key: str) -> list[Any]:
    found = tree.get(key)
    return list(found) if is_rows(found) else []


def _unknown(path: Path, name: Any, known: Any, noun: str) -> Iterator[Finding]:
    if isinstance(name, str) and name not in known:
        there = ", ".join(sorted(known)) or f"none is declared under `{noun}`"
        yield path, f"names {name!r}, which is not there; known: {there}"


def _slots(slots: dict[str, Any], data: dict[str, Any]) -> Iterator[Finding]:
    for name, slot in slots.items():
        if not is_table(slot):
            continue
        path: Path = ("state", name)
        for key in ("initial", "reference"):
            yield from _unknown((*path, key), slot.get(key), data, "data")
        shape = tuple(_rows(slot, "shape"))[1 if slot.get("product") else 0 :]
        manifold = slot.get("manifold", "euclidean")
        wanted = {"so3": (3, 3), "se3": (4, 4)}.get(manifold, shape)
        if shape != wanted:
            yield (*path, "shape"), f"is {list(shape)}; {manifold} has {list(wanted)}"
        if manifold in ("stiefel", "spd") and len(shape) != 2:  # noqa: PLR2004 - matrices
            yield (*path, "shape"), f"is no matrix; {manifold} is made of matrices"
        elif manifold == "stiefel" and shape[0] < shape[1]:
            yield (*path, "shape"), "has more columns than rows; orthonormal columns need rows"
        elif manifold == "spd" and shape[0] != shape[1]:
            yield (*path, "shape"), "is not square; give both sides the same length"
        for key, one in _table(slot, "invariants").items():
            if is_table(one) and (one.get("kind") == "own") != (one.get("entry_point") is not None):
                yield (
                    (*path, "invariants", key),
                    "an own invariant has an entry_point, and no other has; change one of the two",
                )


def _devices(count: Any, slots: dict[str, Any]) -> Iterator[Finding]:
    if not isinstance(count, int) or count < 2:  # noqa: PLR2004 - one needs no cut
        return
    shapes = {name: _rows(slot, "shape") for name, slot in slots.items() if is_table(slot)}
    sound = {
        name: shape
        for name, shape in shapes.items()
        if all(isinstance(n, int) and n > 0 for n in shape)
    }
    for name, what in uncut(sound, count):
        yield ("state", name, "shape"), what


def _data(data: dict[str, Any], operators: dict[str, Any]) -> Iterator[Finding]:
    for name, one in data.items():
        if not is_table(one) or one.get("type") != "observed":
            continue
        yield from _unknown(("data", name, "source"), one.get("source"), data, "data")
        known = {*operators, "identity"}
        yield from _unknown(("data", name, "operator"), one.get("operator"), known, "operators")
    for name in data:
        if _in_a_circle(name, lambda key: [_table(data, key).get("source")]):
            yield ("data", name), "is made of itself; break the circle"


def _operators(data: dict[str, Any], operators: dict[str, Any]) -> Iterator[Finding]:
    known = {*operators, "identity"}
    for name, one in operators.items():
        if not is_table(one):
            continue
        path: Path = ("operators", name)
        for key in ("matrix", "entries", "kernel", "parameters"):
            yield from _unknown((*path, key), one.get(key), data, "data")
        for number, part in enumerate(_rows(one, "parts")):
            yield from _unknown((*path, "parts", number), part, known, "operators")
        convolves = str(one.get("type", "")).endswith("_convolution")
        if convolves and (one.get("sigma") is None) == (one.get("kernel") is None):
            yield path, "needs a kernel: give either `sigma` or `kernel`"
        if one.get("type") == "fft_convolution" and one.get("boundary", "periodic") != "periodic":
            yield (*path, "boundary"), "an FFT is periodic; use separable_convolution for others"
        if _in_a_circle(name, lambda key: _rows(_table(operators, key), "parts")):
            yield (*path, "parts"), "contains itself; break the circle"


def _in_a_circle(start: str, following: Any) -> bool:
    seen: set[str] = set()
    ahead = [name for name in following(start) if isinstance(name, str)]
    while ahead:
        name = ahead.pop()
        if name == start:
            return True
        if name not in seen:
            seen.add(name)
            ahead += [other for other in following(name) if isinstance(other, str)]
    return False


def _names(
    path: Path,
    term: dict[str, Any],
    slots: dict[str, Any],
    data: dict[str, Any],
    operators: dict[str, Any],
) -> Iterator[Finding]:
    known = {*operators, "identity"}
    yield from _unknown((*path, "variable"), term.get("variable", "x"), slots, "state")
    yield from _unknown((*path, "operator"), term.get("operator"), known, "operators")
    for key in ("target", "linear", "labels", "entries"):
        yield from _unknown((*path, key), term.get(key), data, "data")
    for slot, name in _table(term, "also").items():
        yield from _unknown((*path, "also", slot), slot, slots, "state")
        yield from _unknown((*path, "also", slot), name, known, "operators")


def _numbers(path: Path, term: dict[str, Any]) -> Iterator[Finding]:
    kind = term.get("type")
    if kind == "huber" and term.get("width") is None:
        yield path, "huber needs `width`, from where on it is linear"
    if kind == "kl" and term.get("background") is None:
        yield path, "kl needs a `background` above 0; without one its gradient has no bound"
    if kind == "kl" and term.get("target") is None:
        yield path, "kl needs `target`, the counts"
    if kind == "group_l1" and bool(term.get("axes")) == (term.get("labels") is not None):
        yield path, "needs groups: give either `axes` or `labels`"
    if kind == "box":
        low, high = term.get("low"), term.get("high")
        if low is None and high is None:
            yield path, "a box needs `low`, `high` or both"
        elif isinstance(low, float) and isinstance(high, float) and low > high:
            yield (*path, "low"), f"is above `high`, {high:g}; exchange the two"


def _lens(path: Path, term: dict[str, Any], slots: dict[str, Any]) -> Iterator[Finding]:
    lens = _table(term, "lens")
    wavelet = term.get("wavelet") or (lens.get("type") if lens.get("type") in WAVELETS else None)
    if term.get("type") in ("wavelet_l1", "tree") and wavelet is None:
        wavelet = "haar"
    if lens.get("type") == "graph" and lens.get("edges") is None:
        yield (*path, "lens"), "a graph needs `edges`, the data with its edges"
    shape = _rows(_table(slots, str(term.get("variable", "x"))), "shape")
    if wavelet is None or not shape or not all(isinstance(n, int) and n > 0 for n in shape):
        return
    levels = term.get("levels", lens.get("levels", 2 if "wavelet" in str(term.get("type")) else 1))
    deepest = min((n & -n).bit_length() - 1 for n in shape)
    if isinstance(levels, int) and levels > deepest:
        where = "levels" if "levels" in term else "lens"
        yield (
            (*path, where),
            (
                f"{levels} levels do not fit {shape}: every axis must be a multiple of {2**levels};"
                f" use at most {deepest}, or pad the slot"
            ),
        )


def _family(
    family: Any, terms: list[tuple[int, dict[str, Any]]], slots: dict[str, Any]
) -> Iterator[Finding]:
    rough: dict[str, list[int]] = {}
    for number, term in terms:
        if term.get("type") not in SMOOTH:
            rough.setdefault(str(term.get("variable", "x")), []).append(number)
    curved = [
        name for name in slots if _table(slots, name).get("manifold", "euclidean") != "euclidean"
    ]
    where: Path = ("flow", "family")
    if curved and family not in ("gradient", "proximal"):
        yield where, f"{family} moves flat slots only; use proximal for {', '.join(curved)}"
    if family == "primal_dual":
        return
    if rough and family in ("gradient", "hamiltonian_damped"):
        yield where, f"{family} has no prox for nonsmooth terms; use proximal or accelerated"
    for slot, numbers in rough.items():
        if len(numbers) > 1:
            which = ", ".join(f"terms/{number}" for number in numbers)
            yield (
                where,
                (
                    f"{family} takes one nonsmooth term for each slot, and {slot} has {which};"
                    " use primal_dual"
                ),
            )
    for number, term in terms:
        redundant = _table(term, "lens").get("type") == "graph"
        if term.get("type") == "tv" or (redundant and term.get("type") not in SMOOTH):
            yield (
                ("terms", number),
                f"has no closed prox, which {family} needs; use primal_dual",
            )


def _schedule(tree: dict[str, Any], terms: list[tuple[int, dict[str, Any]]]) -> Iterator[Finding]:
    family = _table(tree, "flow").get("family", "proximal")
    if is_table(tree.get("multiscale")):
        if family not in ("proximal", "accelerated"):
            yield ("multiscale",), f"{family} has no scales; use proximal or accelerated"
        lenses = [_table(term, "lens").get("type", "identity") for _, term in terms]
        kinds = [term.get("type") for _, term in terms]
        if not any(lens != "identity" for lens in lenses) and not {"wavelet_l1", "tree"} & {*kinds}:
            yield ("multiscale",), "no term has a lens with scales; add one, or leave this out"
    if family == "preconditioned" and _table(tree, "flow").get("preconditioner") is None:
        yield ("flow",), "preconditioned needs `preconditioner`: jacobi, or data with a metric"
