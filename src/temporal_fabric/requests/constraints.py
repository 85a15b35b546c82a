"""Constraints of a request: checked at admission, evaluated against a backend's labels."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from temporal_fabric.requests import limits
from temporal_fabric.requests.expressions import (
    ExpressionRefused,
    compile_expression,
    nest_labels,
)
from temporal_fabric.requests.fields import refuse

__all__ = [
    "ConstraintText",
    "ConstraintVerdict",
    "ScoreText",
    "check_constraint",
    "check_constraints",
    "score",
]

OBJECTIVES = ("speed", "cost", "balanced", "deadline")


@dataclass(frozen=True, slots=True)
class ConstraintVerdict:
    """Whether one backend meets one constraint, and why."""

    constraint: str
    ok: bool
    text: str
    """One sentence for a person."""

    missing: tuple[str, ...] = ()
    """Labels that the constraint names and the backend lacks."""


def _constraint_text(value: str) -> str:
    try:
        expression = compile_expression(value)
    except ExpressionRefused as error:
        limit = limits.EXPRESSION_BYTES if "longer" in error.what else None
        raise refuse(error.code, error.what, limit=limit) from None
    if expression.gives not in ("BOOL", "DYN"):
        raise refuse(
            "E_EXPR_SYNTAX", f"gives {expression.gives.lower()}; compare it with something"
        )
    return value


def _score_text(value: str) -> str:
    if value in OBJECTIVES:
        return value
    try:
        expression = compile_expression(value)
    except ExpressionRefused as error:
        raise refuse(error.code, error.what, allowed=OBJECTIVES) from None
    if expression.gives not in ("INT", "UINT", "DOUBLE", "DYN"):
        raise refuse("E_EXPR_SYNTAX", f"gives {expression.gives.lower()}; an objective is a number")
    return value


ConstraintText = Annotated[
    str,
    AfterValidator(_constraint_text),
    Field(json_schema_extra={"maxLength": limits.EXPRESSION_BYTES, "format": "cel"}),
]
ScoreText = Annotated[
    str,
    AfterValidator(_score_text),
    Field(json_schema_extra={"maxLength": limits.EXPRESSION_BYTES, "format": "cel"}),
]


def check_constraint(text: str, labels: Mapping[str, Any]) -> ConstraintVerdict:
    """Evaluate one constraint of an admitted request against a backend's labels.

    A label that the backend lacks means that the constraint is not met, never an error.

    Args:
        text: A constraint that admission has accepted.
        labels: The backend's labels; a dotted name may be written as a path.

    Returns:
        The verdict; its text names a missing label and the nearest one that exists.
    """
    expression = compile_expression(text)
    nested = nest_labels(labels)
    outcome = expression.evaluate(nested)
    if outcome.value is True:
        return ConstraintVerdict(text, ok=True, text=f"{text}: met")
    missing = tuple(name for name in expression.names if name not in nested)
    if missing:
        return ConstraintVerdict(
            text, ok=False, text=_missing(text, missing, labels), missing=missing
        )
    if outcome.fault is not None:
        return ConstraintVerdict(text, ok=False, text=f"{text}: {outcome.fault}")
    if outcome.value is not False:
        return ConstraintVerdict(text, ok=False, text=f"{text}: gives no true or false")
    found = ", ".join(
        f"{name} is {nested[name]!r}" for name in expression.names if name != "labels"
    )
    return ConstraintVerdict(text, ok=False, text=f"{text}: not met{': ' if found else ''}{found}")


def _missing(text: str, missing: tuple[str, ...], labels: Mapping[str, Any]) -> str:
    name = missing[0]
    near = difflib.get_close_matches(name, list(labels), n=1)
    hint = f"; the nearest label is {near[0]!r}" if near else ""
    return f"{text}: the backend has no label {name!r}{hint}"


def check_constraints(
    texts: Sequence[str], labels: Mapping[str, Any]
) -> tuple[ConstraintVerdict, ...]:
    """Evaluate every constraint against one backend's labels, in order."""
    return tuple(check_constraint(text, labels) for text in texts)


def score(objective: str, labels: Mapping[str, Any]) -> float | None:
    """Evaluate an objective that is an expression; None where it gives no number.

    Args:
        objective: The expression; the four named objectives give None.
        labels: The backend's labels and the planner's estimates.
    """
    if objective in OBJECTIVES:
        return None
    value = compile_expression(objective).evaluate(nest_labels(labels)).value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value)
