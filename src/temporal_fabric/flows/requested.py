"""A flow as a request says it: the specification with the request's own settings over it.

Everything here is looked at before anything runs: by the client when it submits, and by the
first activity. Nothing is computed, so no JAX is needed.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_fabric.errors import Problem, RequestRejected
from temporal_fabric.flows.chosen import check_profile
from temporal_fabric.flows.reading import read_spec
from temporal_fabric.flows.seed_form import is_seed_form, translated
from temporal_fabric.requests.limits import BODY_BYTES
from temporal_fabric.requests.reading import decode, read_text
from temporal_fabric.shapes import is_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["files_of", "problems", "spec_of", "with_energy"]

_AT = "/payload/flow"
_SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "policy": {
        "family": ("flow", "family"),
        "discretization": ("flow", "discretization"),
        "preconditioner": ("flow", "preconditioner"),
    },
    "schedule": {
        "mode": ("multiscale", "mode"),
        "levels": ("multiscale", "levels"),
        "tau": ("multiscale", "tau"),
        "every": ("multiscale", "every"),
    },
    "certificates": {
        "profile": ("certification", "profile"),
        "tolerances": ("certification", "tolerances"),
        "refinement_test": ("certification", "refinement_test"),
        "eta_max": ("gap_dial", "eta_max"),
        "gamma_min": ("gap_dial", "gamma_min"),
    },
    "budgets": {
        "iterations": ("budget", "iterations"),
        "trials": ("budget", "trials"),
        "rollbacks": ("budget", "rollbacks"),
        "wall_s": ("budget", "wall_s"),
    },
}
"""Where each setting of a request stands in a specification."""

_WHOLE = ("lens", "sparsity", "seed")


def spec_of(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the specification that an admitted payload means, as plain data.

    Args:
        payload: The payload as `ExecutionRequest.to_body` gives it: defaults are left out, so
            that what the request does not say is the specification's.
    """
    energy: Any = copy.deepcopy(payload["energy"])
    spec: dict[str, Any] = translated(energy) if is_seed_form(energy) else energy
    for section, fields in _SECTIONS.items():
        given = payload.get(section)
        for name, value in (given if is_table(given) else {}).items():
            if name in fields:
                inner, key = fields[name]
                known = spec.get(inner)
                spec[inner] = (known if is_table(known) else {}) | {key: value}
    return spec | {name: payload[name] for name in _WHOLE if payload.get(name)}


def problems(body: Mapping[str, Any]) -> list[Problem]:
    """Return what a request's flow gets wrong, each with its place in the request.

    Args:
        body: A request's body with a flow payload; of one whose energy lies in a file nothing
            is known here.
    """
    payload: Any = body["payload"]["flow"]
    if not is_table(payload) or not is_table(payload.get("energy")):
        return []
    try:
        spec = read_spec(spec_of(_without_texts(payload)))
        check_profile(spec)
    except RequestRejected as exc:
        return [_placed(one, payload) for one in exc.problems]
    brought = body.get("workdir") or payload.get("inputs")
    return [
        Problem(
            "E_FLOW",
            f"{_AT}/energy/data/{name}/path",
            "names a file that is not brought along; give the request its folder as `workdir`, "
            "or the file as an input",
            actual=path,
        )
        for name, path in _files(spec.model_dump())
        if not brought and not Path(path).is_absolute()
    ]


def _without_texts(payload: dict[str, Any]) -> dict[str, Any]:
    """Return a payload without durations as texts, which admission judges and makes numbers."""
    budgets = payload.get("budgets")
    if not is_table(budgets) or not isinstance(budgets.get("wall_s"), str):
        return payload
    return payload | {"budgets": {k: v for k, v in budgets.items() if k != "wall_s"}}


def with_energy(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a body whose energy stands in it, read from the file that the payload names.

    Raises:
        RequestRejected: the file cannot be read, or is no specification.
    """
    changed = copy.deepcopy(dict(body))
    payload: Any = changed["payload"].get("flow")
    if not is_table(payload) or not isinstance(payload.get("spec"), str):
        return changed
    path = Path(payload.pop("spec").removeprefix("file://"))
    place = f"{_AT}/spec"
    try:
        with path.open("rb") as file:
            text = decode(file.read(BODY_BYTES + 1))
    except OSError as exc:
        message = f"cannot be read: {exc.strerror}; name a file of this machine"
        raise RequestRejected([Problem("E_PATH", place, message, actual=str(path))]) from None
    if isinstance(text, Problem):
        raise RequestRejected([text])
    document = read_text(text, source=str(path))
    if document.problems or not is_table(document.tree):
        what = "; ".join(str(one) for one in document.problems) or "is not a mapping"
        raise RequestRejected([Problem("E_FLOW", place, what, actual=str(path))])
    payload["energy"] = document.tree
    return changed


def files_of(spec: Mapping[str, Any], folders: Sequence[Path]) -> dict[str, str]:
    """Return where the data in files lie: in the first folder that has them, else as named."""
    return {
        name: str(next((at / path for at in folders if (at / path).is_file()), Path(path)))
        for name, path in _files(spec)
    }


def _files(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the data that stand in files of their own, and not in a package."""
    data = spec.get("data")
    for name, one in (data if is_table(data) else {}).items():
        if is_table(one) and one.get("type") == "file" and not one.get("package"):
            yield name, str(one.get("path", ""))


def _placed(problem: Problem, payload: Mapping[str, Any]) -> Problem:
    """Return a problem of the specification at its place in the request."""
    parts = problem.path.split("/")[1:]
    place = f"{_AT}/energy{problem.path}"
    for section, fields in _SECTIONS.items():
        given = payload.get(section)
        for name in given if is_table(given) else {}:
            if fields.get(name) == tuple(parts[:2]):
                place = f"{_AT}/{section}/{name}"
    if parts and parts[0] in _WHOLE and payload.get(parts[0]):
        place = f"{_AT}{problem.path}"
    # Lines count in a file that is not the request.
    return Problem(
        problem.code,
        place,
        problem.message,
        limit=problem.limit,
        actual=problem.actual,
        allowed=problem.allowed,
    )
