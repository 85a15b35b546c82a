"""pyarrow, loaded when it is first needed, and typed as what it is for a checker: unknown.

It ships no types, and takes a fifth of a second to load: neither the command line's help nor a
worker without telemetry shall wait for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, TypeAlias

Table: TypeAlias = Any
"""A ``pyarrow.Table``."""

Schema: TypeAlias = Any
"""A ``pyarrow.Schema``."""


def arrow() -> Any:
    """Return the module ``pyarrow``."""
    return import_module("pyarrow")


def parquet() -> Any:
    """Return the module ``pyarrow.parquet``."""
    return import_module("pyarrow.parquet")


def compute() -> Any:
    """Return the module ``pyarrow.compute``."""
    return import_module("pyarrow.compute")
