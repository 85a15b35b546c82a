"""Contradictions between fields of a request, found in the plain body.

The models cannot look for these: a check of a whole model is skipped as soon as one of its
fields is wrong, and its finding would then only be reported on the second try. So a body is
searched as it came, whatever its types are, unless it was accepted: then in its normal form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from temporal_fabric.requests import limits
from temporal_fabric.shapes import is_rows, is_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Contradiction", "contradictions"]


class Contradiction(NamedTuple):
    """Two places of a body that cannot both hold."""

    code: str
    path: tuple[str | int, ...]
    what: str


Body = dict[str, Any]
_FIGURES = ("certificates.json", "summary.json")
"""Outputs of a flow without data: what it is worth, and statistics of its result."""

_ONCE_A_REQUEST = ("cpu", "memory", "disk", "nodes")


def contradictions(body: Body) -> list[Contradiction]:
    """Return every contradiction in a body; values of a wrong type are passed over."""
    return [found for check in _CHECKS for found in check(body)]


def _at(body: Any, *path: str) -> Any:
    for part in path:
        body = body.get(part) if is_table(body) else None
    return body


def _items(body: Any, *path: str) -> Iterator[tuple[int, Body]]:
    found = _at(body, *path)
    if is_rows(found):
        yield from ((index, row) for index, row in enumerate(found) if is_table(row))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _repeated(body: Body, path: tuple[str, ...], key: str, noun: str) -> Iterator[Contradiction]:
    seen: dict[str, int] = {}
    for index, row in _items(body, *path):
        value = row.get(key)
        if not isinstance(value, str):
            continue
        if value in seen:
            yield Contradiction(
                "E_CONFLICT", (*path, index, key), f"repeats {noun} of item {seen[value]}"
            )
        else:
            seen[value] = index


def _payload_paths(body: Body) -> Iterator[tuple[str, ...]]:
    payload = _at(body, "payload")
    if is_table(payload):
        yield from (("payload", kind) for kind in payload)
    yield ("artifacts",)


def _files(body: Body) -> Iterator[Contradiction]:
    for path in _payload_paths(body):
        yield from _repeated(body, (*path, "inputs"), "mount_path", "the mount path")
        yield from _repeated(body, (*path, "outputs"), "name", "the name")
        yield from _repeated(body, (*path, "outputs"), "target_uri", "the target")
        yield from _repeated(body, (*path, "outputs"), "source_path", "the source path")


def _redacted(body: Body) -> Iterator[Contradiction]:
    if _at(body, "payload", "flow", "redact_artifacts") is not True:
        return
    for path in (("payload", "flow", "outputs"), ("artifacts", "outputs")):
        for index, row in _items(body, *path):
            source = row.get("source_path")
            if isinstance(source, str) and source.removeprefix("/output/") not in _FIGURES:
                what = f"is not kept with `redact_artifacts`; only {' and '.join(_FIGURES)} are"
                yield Contradiction("E_CONFLICT", (*path, index, "source_path"), what)


def _rollback(body: Body) -> Iterator[Contradiction]:
    yield from _repeated(body, ("rollback",), "name", "the name")


def _steps(body: Body) -> Iterator[Contradiction]:
    yield from _repeated(body, ("payload", "lab", "steps"), "command_id", "the command id")


def _secrets(body: Body) -> Iterator[Contradiction]:
    yield from _repeated(body, ("secrets",), "name", "the name")
    for kind_path in _payload_paths(body):
        env = _at(body, *kind_path, "env")
        for index, row in _items(body, "secrets"):
            name = row.get("name")
            by_env = row.get("as", "env") == "env"
            if by_env and is_table(env) and isinstance(name, str) and name in env:
                what = "names a variable that the payload's `env` also sets"
                yield Contradiction("E_CONFLICT", ("secrets", index, "name"), what)


def _resources(body: Body) -> Iterator[Contradiction]:
    seen: set[str] = set()
    for index, row in _items(body, "requirements", "resources"):
        kind = row.get("type", next(iter(row), None))
        if kind in seen:
            what = f"asks for {kind} a second time; write one entry"
            yield Contradiction("E_CONFLICT", ("requirements", "resources", index), what)
        elif isinstance(kind, str) and kind in _ONCE_A_REQUEST:
            seen.add(kind)


def _retry(body: Body) -> Iterator[Contradiction]:
    first = _number(_at(body, "retry", "initial_interval_s"))
    longest = _number(_at(body, "retry", "max_interval_s"))
    if first is not None and longest is not None and longest < first:
        what = "is below `initial_interval_s`"
        yield Contradiction("E_CONFLICT", ("retry", "max_interval_s"), what)


def _objective(body: Body) -> Iterator[Contradiction]:
    if _at(body, "objective") == "deadline" and _at(body, "deadline") is None:
        what = "is deadline, but the request has no `deadline`"
        yield Contradiction("E_CONFLICT", ("objective",), what)


def _environment(body: Body) -> Iterator[Contradiction]:
    has_image = _at(body, "environment", "image") is not None
    if has_image and is_table(_at(body, "payload", "container")):
        what = "names an image beside the container's own"
        yield Contradiction("E_CONFLICT", ("environment", "image"), what)


def _backends(body: Body) -> Iterator[Contradiction]:
    names = _at(body, "backends")
    if not is_rows(names):
        return
    for index, name in enumerate(names):
        # Only as many as a list may have: beyond, its length is the problem.
        if isinstance(name, str) and index < limits.BACKENDS and name in names[:index]:
            yield Contradiction("E_CONFLICT", ("backends", index), "is listed twice")


_CHECKS: tuple[Callable[[Body], Iterator[Contradiction]], ...] = (
    _files,
    _redacted,
    _rollback,
    _steps,
    _secrets,
    _resources,
    _retry,
    _objective,
    _environment,
    _backends,
)
