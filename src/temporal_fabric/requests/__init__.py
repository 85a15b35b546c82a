"""Requests: bytes or a Python object in, a validated `ExecutionRequest` or every problem out.

Importing this package costs nothing: pydantic, PyYAML and CEL are loaded on first use.
It touches neither network nor disk (but for `ExecutionRequest.from_file`) and never imports a
backend's SDK.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from temporal_fabric.requests.admission import Admission, admit, convert
    from temporal_fabric.requests.codes import CODES
    from temporal_fabric.requests.digests import digest, field_digests
    from temporal_fabric.requests.models import ExecutionRequest
    from temporal_fabric.requests.schema import json_schema

__all__ = [
    "CODES",
    "Admission",
    "ExecutionRequest",
    "admit",
    "convert",
    "digest",
    "field_digests",
    "json_schema",
]

_HOMES = {
    "Admission": "admission",
    "CODES": "codes",
    "ExecutionRequest": "models",
    "admit": "admission",
    "convert": "admission",
    "digest": "digests",
    "field_digests": "digests",
    "json_schema": "schema",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # No module here shares its name with a public name: importing it would replace the other.
    return getattr(import_module(f"{__name__}.{home}"), name)
