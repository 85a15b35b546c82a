"""The JSON Schema of a request, for editors and other languages.

Admission decides; the schema describes. It is generated from the models, with the noise that
optional fields bring removed.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any

from temporal_fabric.requests.models import SCHEMA_VERSION, ExecutionRequest
from temporal_fabric.shapes import is_rows, is_table

__all__ = ["json_schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
IDENTIFIER = f"urn:temporal-fabric:execution-request:{SCHEMA_VERSION}"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a request body."""
    return copy.deepcopy(_schema())


@lru_cache(maxsize=1)
def _schema() -> dict[str, Any]:
    generated = _quiet(ExecutionRequest.model_json_schema(by_alias=True))
    for name, definition in generated["$defs"].items():
        definition["title"] = name
    payload = generated["$defs"]["Payload"]
    payload["minProperties"] = payload["maxProperties"] = 1
    head = {"$schema": DIALECT, "$id": IDENTIFIER, "title": "ExecutionRequest"}
    return {**head, **generated}


def _quiet(node: Any) -> Any:
    """Drop generated titles, and null beside other types: it means the same as absent."""
    if is_rows(node):
        return [_quiet(item) for item in node]
    if not is_table(node):
        return node
    quiet = {key: _quiet(value) for key, value in node.items() if not _is_noise(key, value)}
    if "patternProperties" in quiet:
        quiet["additionalProperties"] = False
    options = quiet.get("anyOf")
    if is_rows(options):
        kept = [option for option in options if option != {"type": "null"}]
        if len(kept) == 1 and is_table(kept[0]):
            del quiet["anyOf"]
            return {**kept[0], **quiet}
        quiet["anyOf"] = kept
    return quiet


def _is_noise(key: str, value: Any) -> bool:
    # A property named `title` would have a schema as its value, not a string.
    return value is None or (key == "title" and isinstance(value, str))
