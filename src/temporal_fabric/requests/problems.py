"""From pydantic's errors to problems: code, pointer, line, and a sentence that helps.

Values are shown short and escaped, and never where they could be a credential.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from temporal_fabric.errors import Problem
from temporal_fabric.requests import limits
from temporal_fabric.requests.texts import is_sensitive_name, printable, show
from temporal_fabric.requests.trees import HOLE
from temporal_fabric.requests.wording import Fault, message
from temporal_fabric.shapes import is_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic_core import ErrorDetails

    from temporal_fabric.requests.fields import Model
    from temporal_fabric.requests.locating import Locator, Path

__all__ = ["code_of", "model_problems", "not_below", "ordered"]

_CODES = {
    "missing": "E_MISSING",
    "union_tag_not_found": "E_MISSING",
    "extra_forbidden": "E_UNKNOWN_FIELD",
    "greater_than": "E_RANGE",
    "greater_than_equal": "E_RANGE",
    "less_than": "E_RANGE",
    "less_than_equal": "E_RANGE",
    "multiple_of": "E_RANGE",
    "finite_number": "E_RANGE",
    "literal_error": "E_RANGE",
    "enum": "E_RANGE",
    "union_tag_invalid": "E_RANGE",
    "too_short": "E_RANGE",
    "string_too_short": "E_RANGE",
    "bytes_too_short": "E_RANGE",
    "value_error": "E_RANGE",
    "assertion_error": "E_RANGE",
    "string_not_ascii": "E_RANGE",
    "int_parsing_size": "E_RANGE",
    "too_long": "E_TOO_LARGE",
    "string_too_long": "E_TOO_LARGE",
    "bytes_too_long": "E_TOO_LARGE",
    "url_too_long": "E_TOO_LARGE",
    "string_pattern_mismatch": "E_NAME",
    "string_unicode": "E_ENCODING",
    "bytes_invalid_encoding": "E_ENCODING",
    "recursion_loop": "E_DEPTH",
    "recursion_depth_exceeded": "E_DEPTH",
    "url_scheme": "E_URI_SCHEME",
    "url_syntax_violation": "E_URI_HOST",
}
_RANGE = (
    "_past",
    "_future",
    "_digits",
    "_places",
    "_naive",
    "_aware",
    "_offset",
    "_version",
)
_TYPE = ("_type", "_parsing", "_inexact", "_invalid", "_error", "_argument", "_required")
_ODD_TYPES = frozenset(
    {
        "no_such_attribute",
        "needs_python_object",
        "frozen_field",
        "frozen_instance",
        "invalid_key",
        "default_factory_not_called",
        "int_from_float",
        "is_instance_of",
        "is_subclass_of",
        "set_item_not_hashable",
        "multiple_argument_values",
        "json_invalid",
    }
)
# Behind every line that a body can have.
_NO_LINE = limits.BODY_BYTES + 1
_LIMITS = ("ge", "gt", "le", "lt", "max_length", "min_length", "multiple_of", "pattern")
_LENGTHS = ("too_short", "too_long")
_LISTED = ("literal_error", "enum", "union_tag_invalid")
_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'")


def code_of(kind: str) -> str | None:
    """Return the contract's code for a pydantic error type; None for one not considered."""
    known = _CODES.get(kind)
    if known is not None:
        return known
    if kind.endswith(_RANGE):
        return "E_RANGE"
    return "E_TYPE" if kind.endswith(_TYPE) or kind in _ODD_TYPES else None


def model_problems(
    errors: Iterable[ErrorDetails],
    locator: Locator,
    models: Mapping[int, type[Model]],
    reported: Iterable[Problem] = (),
) -> list[Problem]:
    """Word pydantic's errors, one for each place and code: the first ones by line.

    Args:
        errors: As pydantic lists them.
        locator: Finds their places in the body.
        models: The model that was asked to read a mapping, by the mapping's identity.
        reported: Problems of reading the body; a fault at or below their place follows from them.
    """
    faults = [_fault(error, locator) for error in errors]
    parents = {fault.path[:depth] for fault in faults for depth in range(len(fault.path))}
    worse = {fault.path for fault in faults if fault.code != "E_TYPE"}
    places = _places(reported)
    found: dict[tuple[str, Path], Problem] = {}
    for fault in sorted(faults, key=lambda fault: fault.line):
        if (fault.code, fault.path) in found or _follows(fault, parents, worse):
            continue
        if not _covered(locator.pointer(fault.path), places):
            found[fault.code, fault.path] = _problem(fault, locator, models)
        if len(found) == limits.PROBLEMS:
            # Looking for near names in thousands of faults would take seconds.
            break
    return list(found.values())


def _follows(fault: Fault, parents: set[Path], worse: set[Path]) -> bool:
    """Return whether a fault only follows from another one.

    A wrong item also makes its list "too short". A value that may be of several types, and is
    wrong as one of them, is also none of the others.
    """
    if fault.kind in _LENGTHS:
        return fault.path in parents
    return fault.code == "E_TYPE" and (fault.path in parents or fault.path in worse)


def not_below(problems: Iterable[Problem], others: Iterable[Problem]) -> list[Problem]:
    """Return the problems that are not at or below the place of another one.

    A hole in the tree is of the wrong type everywhere; the reader has said why it is there.
    """
    places = _places(others)
    return [problem for problem in problems if not _covered(problem.path, places)]


def _places(problems: Iterable[Problem]) -> set[str]:
    # A problem of the whole body (its size, say) does not excuse those of its fields.
    return {problem.path for problem in problems} - {""}


def _covered(place: str, places: set[str]) -> bool:
    while place:
        if place in places:
            return True
        place = place.rpartition("/")[0]
    return False


def _fault(error: ErrorDetails, locator: Locator) -> Fault:
    kind = error["type"]
    context: Mapping[str, Any] = error.get("ctx") or {}
    code = context["code"] if kind == "fabric_refused" else code_of(kind)
    path, value = locator.resolve(error["loc"], keep_last=kind == "missing")
    if kind.startswith("union_tag"):
        tag = str(context.get("discriminator", "")).strip("'")
        path = (*path, tag)
        value = value.get(tag, HOLE) if is_table(value) else HOLE
    mark = locator.mark(path)
    line = _NO_LINE if mark.line is None else mark.line
    return Fault(kind, code or "E_TYPE", path, value, context, line, mark.source)


def _problem(fault: Fault, locator: Locator, models: Mapping[int, type[Model]]) -> Problem:
    allowed = _allowed(fault, locator, models)
    return Problem(
        fault.code,
        locator.pointer(fault.path),
        message(fault, allowed),
        _limit(fault),
        None if _is_secret(fault) else _actual(fault.value),
        allowed,
        None if fault.line == _NO_LINE else fault.line,
    )


def _is_secret(fault: Fault) -> bool:
    names = [part for part in fault.path if isinstance(part, str)]
    coded = fault.code in ("E_SECRET", "E_URI_CRED")
    return coded or "secrets" in names or any(is_sensitive_name(name) for name in names)


def _limit(fault: Fault) -> str | int | float | None:
    if fault.refused:
        limit: str | int | float | None = fault.context["limit"]
        return limit
    return next((fault.context[key] for key in _LIMITS if key in fault.context), None)


def _allowed(
    fault: Fault, locator: Locator, models: Mapping[int, type[Model]]
) -> tuple[str, ...] | None:
    if fault.refused:
        allowed: tuple[str, ...] | None = fault.context["allowed"]
        return allowed
    if fault.kind == "extra_forbidden":
        model = models.get(id(locator.node(fault.path[:-1])))
        return None if model is None else model.field_names()
    listed = fault.context.get("expected_tags", fault.context.get("expected"))
    if fault.kind in _LISTED and listed is not None:
        return tuple(_QUOTED.findall(str(listed)))
    return None


def _actual(value: Any) -> str | int | float | None:
    if isinstance(value, str):
        return show(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, (int, float)) else None


def ordered(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return the first problems by line, as many as the contract allows.

    An engine may quote the body in its own words, so every message is made printable here.
    """
    by_line = sorted(problems, key=lambda problem: problem.line or _NO_LINE)
    first = by_line[: limits.PROBLEMS]
    return tuple(replace(found, message=printable(found.message)) for found in first)
