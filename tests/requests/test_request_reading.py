"""Reading: one tree from YAML, JSON and Python, whatever the spelling."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from temporal_fabric.requests import admit
from temporal_fabric.requests.json_reading import read_json
from temporal_fabric.requests.reading import decode, read_object, read_text
from temporal_fabric.requests.writing import to_yaml
from temporal_fabric.requests.yaml_reading import read_yaml
from tests.requests.examples import PROCESS, SEED_YAML
from tests.requests.test_request_codes import rejected

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
# Reading turns -0.0 into 0.0: it has no canonical spelling.
FLOAT = st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)
NUMBER = st.integers(-(2**63), 2**63 - 1) | FLOAT
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
BODY = st.dictionaries(TEXT, JSON, max_size=5)


def _same(left: Any, right: Any) -> bool:
    """Return whether two trees are equal, with 1, 1.0 and true told apart."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


@given(BODY, st.sampled_from([None, 1]), st.booleans())
@settings(max_examples=400, deadline=None)
def test_json_reads_like_the_standard_library(
    tree: dict[str, Any],
    indent: int | None,
    ascii_only: bool,  # noqa: FBT001 - drawn
) -> None:
    """The scanner gives the tree that json.loads gives."""
    text = json.dumps(tree, indent=indent, ensure_ascii=ascii_only)

    found = read_json(text)

    assert not found.problems
    assert _same(found.tree, json.loads(text))


@given(BODY)
@settings(max_examples=400, deadline=None)
def test_yaml_that_is_written_is_read_back(tree: dict[str, Any]) -> None:
    """Writing and reading YAML gives the same tree, strings that look like numbers included."""
    found = read_yaml(to_yaml(tree)) if tree else read_yaml("{}")

    assert not found.problems
    assert _same(found.tree, tree)


@given(BODY)
@settings(max_examples=200, deadline=None)
def test_objects_are_copied(tree: dict[str, Any]) -> None:
    """A Python object gives an equal tree that shares nothing with it."""
    found = read_object(tree)

    assert not found.problems
    assert _same(found.tree, tree)
    assert found.tree is not tree


@given(st.text(max_size=60) | st.binary(max_size=60))
@settings(max_examples=500, deadline=None)
def test_reading_never_raises(text: str | bytes) -> None:
    """Any text gives a document or a problem."""
    decoded = decode(text)

    if isinstance(decoded, str):
        for document in (read_text(decoded), read_json(decoded), read_yaml(decoded)):
            assert document.problems or document.tree is None or document.tree == document.tree


@pytest.mark.parametrize(
    ("spelled", "value"),
    [
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("True", "True"),
        ("012", "012"),
        ("0o17", "0o17"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        (".5", ".5"),
        ("+1", "+1"),
        (".inf", ".inf"),
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("7", 7),
        ("-7", -7),
        ("1.10", 1.1),
        ("1e3", 1000.0),
        ("-0.0", 0.0),
        ("'7'", "7"),
        ('"\\U0001F600"', "\U0001f600"),
        ("|\n  a\n  b\n", "a\nb\n"),
        (">\n  a\n  b\n", "a b\n"),
    ],
)
def test_scalars_of_the_dialect(spelled: str, value: Any) -> None:
    """Unquoted words are what JSON would call them, and strings otherwise."""
    found = read_yaml(f"a: {spelled}")

    assert not found.problems
    assert _same(found.tree, {"a": value})


def test_yaml_and_json_build_the_same_request() -> None:
    """The seed's example has one digest in YAML, JSON and Python."""
    from_yaml = admit(SEED_YAML)
    body = from_yaml.request.to_body()

    assert admit(json.dumps(body)).digest == from_yaml.digest
    assert admit(json.dumps(body, indent=2).encode()).digest == from_yaml.digest
    assert admit(body).digest == from_yaml.digest
    assert admit(from_yaml.request).digest == from_yaml.digest


def test_source_decides_between_json_and_yaml() -> None:
    """A flow mapping in a .yaml file is YAML, and a .json file is never read as YAML."""
    flow = "{id: a, payload: {process: {command: [x]}}}"

    assert admit(flow, source="request.yaml").request.id == "a"
    assert rejected(flow)[0].code == "E_PARSE"
    assert rejected("id: a", source="request.json")[0].code == "E_PARSE"


def test_byte_order_mark_and_blank_lines_are_passed_over() -> None:
    """Files as some editors write them are read."""
    text = '\ufeff\r\n  {"id": "a",\r\n"payload": {"process": {"command": ["x"]}}}'

    assert admit(text).request.id == "a"
    assert admit(text.encode()).request.id == "a"
    assert admit(bytearray(text.encode())).request.id == "a"


class _Colour(StrEnum):
    RED = "red"


class _Endless(dict[str, Any]):
    def items(self) -> Any:
        raise AssertionError("never called")


class _Broken(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("broken")

    def __len__(self) -> int:
        return 1


def test_subclasses_become_plain_values() -> None:
    """String enums, ordered and read-only mappings and tuples are accepted as what they hold."""
    body: OrderedDict[str, Any] = OrderedDict(
        PROCESS, context=MappingProxyType({"colour": _Colour.RED, "pair": (1, 2)})
    )

    assert admit(body).request.context == {"colour": "red", "pair": [1, 2]}
    assert admit(_Endless(PROCESS)).request.id == "p"


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x", 1j, _Broken(), lambda: None])
def test_foreign_objects_are_refused(value: Any) -> None:
    """What JSON does not have is a problem, not an exception."""
    assert rejected(value)[0].code == "E_TYPE"
    assert rejected({**PROCESS, "context": {"a": value}})[0].code == "E_TYPE"


def test_an_object_that_holds_itself_is_too_deep() -> None:
    """A cycle ends at the depth limit."""
    cycle: dict[str, Any] = dict(PROCESS)
    cycle["context"] = cycle

    assert rejected(cycle)[0].code == "E_DEPTH"


def test_object_size_is_limited() -> None:
    """The byte limit holds for Python objects too."""
    assert rejected({**PROCESS, "context": {"a": ["x" * 16_000] * 17}})[0].code == "E_TOO_LARGE"
    assert rejected({**PROCESS, "context": {"a": [0] * 50_001}})[0].code == "E_TOO_LARGE"


def test_limits_are_exact() -> None:
    """A body, a depth and a string at their limits pass; one more does not."""
    head = "id: a\npayload: {process: {command: [x]}}\n#"

    assert admit(head + "#" * (262_144 - len(head)))
    assert rejected(head + "#" * (262_145 - len(head)))[0].code == "E_TOO_LARGE"
    assert admit({**PROCESS, "context": {"a": "x" * 16_384}})
    assert admit({**PROCESS, "context": {"a": json.loads("[" * 30 + "]" * 30)}})
    assert (
        rejected({**PROCESS, "context": {"a": json.loads("[" * 31 + "]" * 31)}})[0].code
        == "E_DEPTH"
    )
