"""The digest of a request: equal exactly where the work asked for is equal.

Canonical JSON of the body without defaults: a field added later, with a default, leaves the
digests of older requests as they are. Id and tenant are not part of it; the workflow id holds
them. What the digest covers is frozen by `tests/requests/test_digests.py`.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from temporal_fabric.shapes import is_rows, is_table

if TYPE_CHECKING:
    from temporal_fabric.requests.models import ExecutionRequest

__all__ = ["canonical_json", "digest", "field_digests", "shape"]

_DOMAIN = b"fabric-request/1\n"
_IDENTITY = ("id", "tenant")
_SHORT = 12
_LABELS = ("name", "tags", "priority")
_WHAT = ("command", "args", "kwargs", "env", "source")


def canonical_json(value: Any) -> bytes:
    """Return the one spelling of a JSON value: sorted keys, no blanks, UTF-8."""
    text = _dump(value)
    if "-0.0" in text:
        text = _dump(_without_negative_zero(value))
    # A lone surrogate is refused by admission, yet a model built in Python may hold one.
    return text.encode("utf-8", "surrogatepass")


def _dump(value: Any) -> str:
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def _without_negative_zero(value: Any) -> Any:
    if is_table(value):
        return {key: _without_negative_zero(item) for key, item in value.items()}
    if is_rows(value):
        return [_without_negative_zero(item) for item in value]
    return 0.0 if isinstance(value, float) and not value else value


def digest(request: ExecutionRequest) -> str:
    """Return ``sha256:<hex>`` of what a request asks for."""
    return _digest_of(_content(request))


def field_digests(request: ExecutionRequest) -> dict[str, str]:
    """Return a short digest of each field, so that a conflict can name the fields that differ."""
    content = _content(request)
    return {
        name: hashlib.sha256(canonical_json(content[name])).hexdigest()[:_SHORT]
        for name in sorted(content)
    }


def shape(request: ExecutionRequest) -> str:
    """Return one text for all requests that can run in the same places.

    It covers all but the request's names and the program's own words: what is run does not
    decide where it can.
    """
    content = {key: value for key, value in _content(request).items() if key not in _LABELS}
    kind = request.kind
    program = {key: item for key, item in content["payload"][kind].items() if key not in _WHAT}
    return canonical_json(content | {"payload": {kind: program}}).decode("utf-8", "surrogatepass")


def _content(request: ExecutionRequest) -> dict[str, Any]:
    return {key: value for key, value in request.to_body().items() if key not in _IDENTITY}


def _digest_of(content: dict[str, Any]) -> str:
    return f"sha256:{hashlib.sha256(_DOMAIN + canonical_json(content)).hexdigest()}"
