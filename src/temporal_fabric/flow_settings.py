"""Settings of certified flows: ``[flows]`` and its variables."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from temporal_fabric.errors import Problem
from temporal_fabric.shapes import is_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TABLES = ("flows",)

_KEYS = ("copy_every_s",)
_EVERY_S = 30.0
_VARIABLE = "FABRIC_FLOW_COPY_EVERY_S"


@dataclass(frozen=True, slots=True)
class FlowSettings:
    """How a worker runs certified flows."""

    copy_every_s: float = _EVERY_S
    """Least time between two copies of a flow's checkpoint in the store; 0: none is made."""


def flows(table: Mapping[str, Any], env: Mapping[str, str]) -> FlowSettings:
    """Return the settings of a checked configuration."""
    own: Mapping[str, Any] = table.get("flows", {})
    given = env.get(_VARIABLE) or own.get("copy_every_s", _EVERY_S)
    return FlowSettings(copy_every_s=float(given))


def check(table: Mapping[str, Any], env: Mapping[str, str]) -> Iterator[Problem]:
    """Yield every problem of the table and its variables."""
    own = table.get("flows", {})
    if not is_table(own):
        yield Problem("E_TYPE", "/flows", "write a [flows] table")
        own = {}
    for key in own:
        if key not in _KEYS:
            yield Problem(
                "E_UNKNOWN_FIELD", f"/flows/{key}", f"unknown setting {key!r}", allowed=_KEYS
            )
    if not _is_time(own.get("copy_every_s", 0)):
        yield Problem("E_RANGE", "/flows/copy_every_s", "copy_every_s is seconds, 0 for never")
    given = env.get(_VARIABLE)
    if given:
        try:
            sound = _is_time(float(given))
        except ValueError:
            sound = False
        if not sound:
            message = f"{_VARIABLE} is seconds, 0 for never"
            yield Problem("E_RANGE", "/flows/copy_every_s", message, actual=given[:80])


def _is_time(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= 0
