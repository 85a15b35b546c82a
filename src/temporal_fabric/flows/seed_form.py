"""The dictionary forms of the seed's own engine: atoms with parameters, terms with operators."""

from __future__ import annotations

from typing import Any

from temporal_fabric.shapes import is_rows, is_table

__all__ = ["is_seed_form", "translated"]


def is_seed_form(body: Any) -> bool:
    """Return whether a mapping has ``atoms``, or ``state`` with ``shapes``."""
    if not is_table(body):
        return False
    state = body.get("state")
    return "atoms" in body or (is_table(state) and "shapes" in state)


def translated(body: dict[str, Any]) -> dict[str, Any]:
    """Return the specification that a seed's dictionary means; what is unknown stays in place.

    Atoms: quadratic and tikhonov {A, b, lambda}, l1, tv and wavelet_l1 {lambda}; the weights
    multiply. Terms: {type, op, weight, variable, target}; a target is a slot that no term moves.
    """
    spec: dict[str, Any] = {"name": str(body.get("flow_name", "flow"))}
    data: dict[str, Any] = {}
    operators: dict[str, Any] = {}
    initial = body.get("initial_state")
    for slot, values in (initial if is_table(initial) else {}).items():
        data[f"{slot}_0"] = {"type": "values", "values": _plain(values)}
    if "atoms" in body:
        spec["terms"] = [
            part
            for number, atom in enumerate(_rows(body["atoms"]))
            for part in _atom(number, atom, data, operators)
        ]
    else:
        spec["terms"] = [_term(term, data) for term in _rows(body.get("terms", []))]
    moved = {term.get("variable") for term in spec["terms"] if is_table(term)}
    spec["state"] = _slots(body.get("state"), moved, data)
    if isinstance(body.get("num_iterations"), int):
        spec["budget"] = {"iterations": body["num_iterations"]}
    if any(is_table(term) and term.get("type") == "tv" for term in spec["terms"]):
        spec["flow"] = {"family": "primal_dual"}
    return {**spec, "data": data, "operators": operators}


def _rows(value: Any) -> list[Any]:
    return list(value) if is_rows(value) else [value]


def _plain(values: Any) -> Any:
    """Return nested lists for an array of numpy or JAX."""
    return values.tolist() if hasattr(values, "tolist") else values


def _atom(
    number: int, atom: Any, data: dict[str, Any], operators: dict[str, Any]
) -> list[dict[str, Any]]:
    if not is_table(atom):
        return [atom]
    params = atom.get("params")
    params = params if is_table(params) else {}
    weight, kind = atom.get("weight", 1.0), atom.get("type")
    base = {"variable": atom.get("variable", "x")}
    strength = float(params.get("lambda", 1.0)) * float(weight)
    if kind not in ("quadratic", "tikhonov"):
        shape: dict[str, Any] = {key: params[key] for key in ("wavelet", "levels") if key in params}
        return [{"type": kind, **base, "weight": strength, **shape}]
    term = {"type": "quadratic", **base, "weight": float(weight)}
    if "A" in params:
        data[f"A_{number}"] = {"type": "values", "values": _plain(params["A"])}
        operators[f"op_{number}"] = {"type": "dense", "matrix": f"A_{number}"}
        term["operator"] = f"op_{number}"
    if "b" in params:
        data[f"b_{number}"] = {"type": "values", "values": _plain(params["b"])}
        term["target"] = f"b_{number}"
    ridge = {"type": "tikhonov", **base, "weight": strength}
    return [term, ridge] if kind == "tikhonov" else [term]


def _term(term: Any, data: dict[str, Any]) -> Any:
    if not is_table(term):
        return term
    kept = {key: value for key, value in term.items() if value is not None and key != "ndim"}
    op = kept.pop("op", "I")
    if kept.get("type") in ("quadratic", "tikhonov"):
        kept["operator"] = "identity" if op == "I" else op
    if "target" in kept and f"{kept['target']}_0" in data:
        kept["target"] = f"{kept['target']}_0"
    if "weight" in kept and isinstance(kept["weight"], int):
        kept["weight"] = float(kept["weight"])
    return kept


def _slots(state: Any, moved: set[Any], data: dict[str, Any]) -> Any:
    if not is_table(state):
        return state
    shapes = state.get("shapes")
    rows: dict[str, Any] = (
        {slot: {"shape": shape} for slot, shape in shapes.items()}
        if is_table(shapes)
        else {slot: dict(one) if is_table(one) else one for slot, one in state.items()}
    )
    for slot, one in rows.items():
        if is_table(one) and f"{slot}_0" in data:
            one["initial"] = f"{slot}_0"
    return {slot: one for slot, one in rows.items() if slot in moved}
