"""The sentence of a problem: what is wrong, then what to do."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from temporal_fabric.requests import limits
from temporal_fabric.requests.codes import remedy
from temporal_fabric.requests.fields import NAME_PATTERN
from temporal_fabric.requests.texts import show

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from temporal_fabric.requests.locating import Path

__all__ = ["Fault", "message"]

_NOUNS = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
}
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


@dataclass(frozen=True, slots=True)
class Fault:
    """One of pydantic's errors at its place in the body."""

    kind: str
    code: str
    path: Path
    value: Any
    context: Mapping[str, Any]
    line: int
    source: str | None
    """How the value was spelled, where it is a number, a truth value or null."""

    @property
    def refused(self) -> bool:
        """Whether a check of this package refused the value, in its own words."""
        return self.kind == "fabric_refused"


def message(fault: Fault, allowed: Sequence[str] | None) -> str:
    """Return the sentence for a fault."""
    if fault.refused:
        return _refusal(fault, allowed)
    write = _BY_CODE.get(fault.code)
    if write is not None:
        return write(fault, allowed)
    if allowed is not None:
        then = _near(fault, allowed) or _listing(allowed)
        return _sentence("is not one of the known values", then)
    return _bound(fault)


def _refusal(fault: Fault, allowed: Sequence[str] | None) -> str:
    what = str(fault.context["what"])
    general = remedy(fault.code)
    # A check that says itself what to do has the last word, and "what the message names" is no
    # advice inside the message.
    says_more = ";" in what or "the message names" in general
    return _sentence(
        what, _near(fault, allowed) or _listing(allowed) or ("" if says_more else general)
    )


def _unknown(fault: Fault, allowed: Sequence[str] | None) -> str:
    return _sentence("is not a field here", _near(fault, allowed) or _listing(allowed))


def _missing(_fault: Fault, _allowed: Sequence[str] | None) -> str:
    return _sentence("is missing", "add it")


def _type(fault: Fault, _allowed: Sequence[str] | None) -> str:
    noun = _NOUNS.get(fault.kind)
    if noun is None:
        return _sentence("has the wrong type", remedy("E_TYPE"))
    if fault.kind == "string_type" and fault.source is not None:
        return _sentence("must be a string", f"quote it: {json.dumps(show(fault.source))}")
    if noun == "a whole number" and isinstance(fault.value, float):
        return _sentence("must be a whole number", "write it without a decimal point")
    return _sentence(f"must be {noun}", f"it is {_kind_of(fault.value)}")


def _name(fault: Fault, _allowed: Sequence[str] | None) -> str:
    pattern = str(fault.context.get("pattern", ""))
    if pattern != NAME_PATTERN:
        return _sentence("has characters that do not belong here", f"it must match {pattern}")
    slug = _slug(fault.value) if isinstance(fault.value, str) else ""
    example = f", for example {slug!r}" if slug else ""
    return _sentence("is not a valid name", f"{remedy('E_NAME').rstrip('.')}{example}")


_BY_CODE = {
    "E_UNKNOWN_FIELD": _unknown,
    "E_MISSING": _missing,
    "E_TYPE": _type,
    "E_NAME": _name,
}


def _bound(fault: Fault) -> str:
    for key, words in _BOUNDS.items():
        if key in fault.context:
            return f"must be {words} {fault.context[key]}"
    if "max_length" in fault.context:
        return _sentence(f"is longer than {fault.context['max_length']}", remedy("E_TOO_LARGE"))
    if "min_length" in fault.context:
        return f"needs at least {fault.context['min_length']}"
    return _sentence("is not accepted", remedy(fault.code))


def _near(fault: Fault, allowed: Sequence[str] | None) -> str:
    given = fault.value
    is_key = not isinstance(given, str) and fault.code == "E_RANGE"
    if fault.path and (fault.code == "E_UNKNOWN_FIELD" or is_key):
        given = fault.path[-1]
    if not allowed or not isinstance(given, str) or len(given) > limits.NAME_CHARS + 1:
        return ""
    near = difflib.get_close_matches(given, allowed, n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def _sentence(what: str, then: str) -> str:
    return f"{what}; {then[0].lower()}{then[1:]}".rstrip(".") if then else what


def _listing(allowed: Sequence[str] | None) -> str:
    return f"known here: {', '.join(allowed)}" if allowed else ""


def _slug(text: str) -> str:
    lower = text[: 2 * limits.NAME_CHARS].lower()
    return re.sub(r"[^a-z0-9._-]+", "-", lower).strip("._-")[: limits.NAME_CHARS]


def _kind_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    names = {str: "a string", int: "a number", float: "a number", dict: "a mapping", list: "a list"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), "something else")
