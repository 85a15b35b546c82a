"""Bodies drawn from the published schema: admitted, written and read back unchanged."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from temporal_fabric.errors import RequestRejected
from temporal_fabric.requests import CODES, admit, json_schema

if TYPE_CHECKING:
    from collections.abc import Callable

Strategy = st.SearchStrategy[Any]
SCHEMA = json_schema()
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp", "Cf"]), max_size=30)
FORMATS: dict[str, Strategy] = {
    "uri": st.sampled_from(["file:///data/x", "s3://bucket/key", "https://example.org/a"]),
    "cel": st.sampled_from(["a == 1", "b.c in ['x']", "speed", "0 - price", "true"]),
    "path": st.sampled_from(["a", "/in/b.csv", "./c/d", "ä ö"]),
    "path-or-uri": st.sampled_from(["a/b.yaml", "s3://bucket/key"]),
    "entry-point": st.sampled_from(["a.b:c", "x.py", "d/x.py:run"]),
    "date-time": st.sampled_from(["2027-01-01T00:00:00Z", "2026-12-24T18:00:00+01:00"]),
}


def strategy(schema: dict[str, Any]) -> Strategy:
    """Return a strategy for a JSON Schema of the kind that the request has."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return JSON if name == "JsonValue" else st.deferred(lambda: strategy(SCHEMA["$defs"][name]))
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return st.one_of([strategy(option) for option in schema[key]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "const" in schema:
        return st.just(schema["const"])
    kinds: str | list[str] = schema.get("type", "object")
    options: list[Strategy] = [
        _KINDS[kind](schema) for kind in ([kinds] if isinstance(kinds, str) else kinds)
    ]
    return st.one_of(options)


def _string(schema: dict[str, Any]) -> Strategy:
    pattern = str(schema.get("pattern", ""))
    if schema.get("format") in FORMATS:
        return FORMATS[str(schema["format"])].filter(lambda text: re.match(pattern, text))
    if pattern:
        return st.from_regex(pattern.removesuffix("$") + r"\Z")
    return TEXT.filter(lambda text: len(text) >= schema.get("minLength", 0))


def _number(schema: dict[str, Any]) -> Strategy:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    return st.floats(
        low,
        schema.get("maximum"),
        exclude_min="exclusiveMinimum" in schema,
        allow_nan=False,
        allow_infinity=False,
    )


def _integer(schema: dict[str, Any]) -> Strategy:
    return st.integers(schema.get("minimum", 0), schema.get("maximum", 99))


def _boolean(_schema: dict[str, Any]) -> Strategy:
    return st.booleans()


def _array(schema: dict[str, Any]) -> Strategy:
    items = strategy(schema["items"])
    return st.lists(items, min_size=schema.get("minItems", 0), max_size=3)


def _object(schema: dict[str, Any]) -> Strategy:
    if schema.get("maxProperties") == 1:
        return st.one_of(
            [
                st.fixed_dictionaries({key: strategy(one)})
                for key, one in schema["properties"].items()
            ]
        )
    if "properties" in schema:
        needed = set(schema.get("required", ()))
        fields = {key: strategy(one) for key, one in schema["properties"].items()}
        return st.fixed_dictionaries(
            {key: value for key, value in fields.items() if key in needed},
            optional={key: value for key, value in fields.items() if key not in needed},
        )
    patterns: dict[str, dict[str, Any]] = schema.get("patternProperties", {})
    for pattern, one in patterns.items():
        keys = st.from_regex(pattern.removesuffix("$") + r"\Z")
        return st.dictionaries(keys, strategy(one), max_size=3)
    values = strategy(schema.get("additionalProperties") or {"$ref": "JsonValue"})
    return st.dictionaries(TEXT, values, max_size=3)


JSON: Strategy = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXT
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
_KINDS: dict[str, Callable[[dict[str, Any]], Strategy]] = {
    "string": _string,
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "array": _array,
    "object": _object,
}


OPAQUE = tuple(f"/payload/flow/{name}" for name in ("energy", "lens", "sparsity"))
"""Parts of a specification: to the request's schema any JSON, with a schema of their own."""

# Trees of this size are slow to draw, and that is all that these checks find.
SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)


def test_what_the_schema_allows() -> None:
    """A drawn body is admitted and round trips, or is refused under codes of the contract."""
    accepted: list[str] = []

    @given(strategy(SCHEMA))
    @settings(max_examples=400, deadline=None, suppress_health_check=SLOW)
    def explore(body: dict[str, Any]) -> None:
        try:
            admission = admit(body)
        except RequestRejected as refused:
            codes = {problem.code for problem in refused.problems}
            assert all(CODES[code].admission for code in codes)
            own = {
                problem.code for problem in refused.problems if not problem.path.startswith(OPAQUE)
            }
            assert not own & {"E_UNKNOWN_FIELD", "E_DEPTH", "E_PARSE"}
            return
        accepted.append(admission.digest)
        plain = admission.request.to_body()
        assert admit(plain).digest == admission.digest
        assert admit(json.dumps(plain)).digest == admission.digest
        assert admit(json.dumps(body, ensure_ascii=False)).digest == admission.digest
        assert admit(admission.request.to_yaml()).request == admission.request

    explore()

    assert len(accepted) >= 40
