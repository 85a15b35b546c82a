"""What a value of a plain tree is, in terms that type checkers follow."""

from __future__ import annotations

from typing import Any, TypeGuard


def is_table(value: object) -> TypeGuard[dict[str, Any]]:
    """Return whether a value is a mapping."""
    return isinstance(value, dict)


def is_rows(value: object) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    """Return whether a value is a list, as JSON or as Python has it."""
    return isinstance(value, list | tuple)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Return whether a value is a list that can be changed."""
    return isinstance(value, list)
