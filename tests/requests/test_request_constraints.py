"""Constraints: compiled once, bounded in cost, evaluated against labels."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from typing import Any

import pytest

from temporal_fabric.requests.constraints import check_constraint, check_constraints, score
from temporal_fabric.requests.expressions import (
    ExpressionRefused,
    compile_expression,
    nest_labels,
)

LABELS: dict[str, Any] = {
    "location": "eu-1",
    "secure_enclave": True,
    "cores": 64,
    "gpu.model": "A100",
    "gpu.memory": 80.0,
    "zones": ["a", "b"],
    "topology.kubernetes.io/zone": "z1",
}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("location == 'us-east-1'", ("location",)),
        ("a.b.c > 1 && d", ("a", "d")),
        ("zones.exists(z, z == want)", ("want", "zones")),
        ("[1, 2].all(x, x < limit || x == y)", ("limit", "y")),
        ("{'k': a}['k'] == b", ("a", "b")),
        ("has(a.b) ? c : d", ("a", "c", "d")),
        ("size(xs) > 0 && type(y) == int", ("xs", "y")),
        ("true", ()),
    ],
)
def test_free_names(text: str, names: tuple[str, ...]) -> None:
    """The names an expression looks up are known; variables of its own are not among them."""
    assert compile_expression(text).names == names


@pytest.mark.parametrize(
    ("text", "ok", "words"),
    [
        ("location == 'eu-1'", True, "met"),
        ("location == 'us-1'", False, "location is 'eu-1'"),
        ("locaton == 'eu-1'", False, "no label 'locaton'; the nearest label is 'location'"),
        ("nothing_like_it > 3", False, "no label 'nothing_like_it'"),
        ("secure_enclave == true", True, "met"),
        ("cores >= 32 && cores < 128.0", True, "met"),
        ("gpu.model == 'A100' && gpu.memory > 40", True, "met"),
        ("gpu.vendor == 'x'", False, "Key not found"),
        ("'b' in zones", True, "met"),
        ("zones.exists(z, z == 'c')", False, "zones is"),
        ("labels['topology.kubernetes.io/zone'] == 'z1'", True, "met"),
        ("location == 'eu-1' || missing == 1", True, "met"),
        ("location > 3", False, "overload"),
        ("cores / 0 > 1", False, "divide by zero"),
        ("location", False, "gives no true or false"),
        ("gpu.exists(k, k == 'model')", True, "met"),
        ("gpu.all(k, k == 'model')", False, "not met"),
        ("labels.exists(k, k.startsWith('topology'))", True, "met"),
        ("zones.filter(z, z > 'a') == ['b']", True, "met"),
        ("(zones + ['c']).map(z, z + 'x') == ['ax', 'bx', 'cx']", True, "met"),
        ("gpu.map(k, k)[0] == 'model'", False, "gpu is a map, which has no order"),
        ("labels.filter(k, true)[0] == 'a'", False, "labels is a map, which has no order"),
    ],
)
def test_verdict(text: str, ok: bool, words: str) -> None:  # noqa: FBT001 - a table
    """Every constraint gets a verdict with a sentence; a missing label is not an error."""
    verdict = check_constraint(text, LABELS)

    assert verdict.ok is ok
    assert verdict.constraint == text
    assert words in verdict.text


@pytest.mark.parametrize(
    "text",
    [
        "{'a': 1}.map(k, k)[0] == 'a'",
        "(c ? a : b).filter(k, true)[0] == 1",
        "f[g].map(k, k)[0] == 1",
    ],
)
def test_what_may_be_a_map_has_no_order(text: str) -> None:
    """`map` and `filter` over what may be a map are refused: each process would see its own."""
    with pytest.raises(ExpressionRefused, match="no order") as refused:
        compile_expression(text)

    assert refused.value.code == "E_EXPR_SYNTAX"


def test_missing_labels_are_listed() -> None:
    """The labels that a backend lacks can be read off the verdicts."""
    verdicts = check_constraints(["a == 1 && b == 2", "location == 'eu-1'"], LABELS)

    assert [verdict.missing for verdict in verdicts] == [("a", "b"), ()]


def test_score_of_an_objective() -> None:
    """An objective expression gives a number; a named objective leaves the choice to others."""
    assert score("cores * 2", LABELS) == 128.0
    assert score("speed", LABELS) is None
    assert score("location", LABELS) is None
    assert score("missing + 1", LABELS) is None


def test_long_label_lists_are_left_out() -> None:
    """A comprehension never runs over more than 64 items."""
    assert "zones" not in nest_labels({"zones": ["a"] * 65})
    assert nest_labels({"gpu": 2, "gpu.model": "A100"}) == {
        "gpu": 2,
        "labels": {"gpu": 2, "gpu.model": "A100"},
    }


def test_compiled_once() -> None:
    """The same text is not compiled again."""
    assert compile_expression("cores > 1") is compile_expression("cores > 1")


ATTACKS = (
    "[[1]]" + ".map(a, a + a)" * 25 + " == []",
    "'x'" + ".map(a, a + a)" * 10,
    "[1].map(a, [a, a]).map(b, [b, b])",
    "zones.exists(a, zones.exists(b, a == b))",
    "(" * 100 + "a" + ")" * 100,
    "[" * 100 + "]" * 100,
    "a" + ".b" * 250,
    "a" + "[0]" * 160,
    "!" * 500 + "a",
    "-" * 500 + "1",
    "a?" * 120 + "b" + ":c" * 120,
    "+".join("a" * 250),
    "__import__('os').system('true')",
    "().__class__.__bases__",
    "''.format(a)",
    "a.matches('(x+x+)+y')",
    "'" + "x" * 480 + "'.matches('(x*)*y')",
    "9223372036854775807 + 1 > 0",
    "timestamp('0001-01-01T00:00:00Z') - duration('999999999s') > timestamp('2026')",
)


EXPRESSION_CODES = {"E_EXPR_SYNTAX", "E_EXPR_NAME", "E_EXPR_COST"}
TOKENS = (
    *("a", "b", "zones", "(", ")", "[", "]", "{", "}", ".", ",", "?", ":", "!", "-", "+", "*", "/"),
    *("%", "==", "!=", "<", ">", "&&", "||", "in", "1", "2.5", "'x'", "true", "null"),
    *("map", "exists", "x", "size"),
)


def _answer(text: str) -> str:
    """Return the code under which an expression is refused, or that it gave a verdict."""
    try:
        compile_expression(text)
    except ExpressionRefused as refused:
        return refused.code
    return str(check_constraint(text, {"a": "x" * 400, **LABELS}).ok)


@pytest.mark.parametrize("text", ATTACKS)
def test_attacks_are_refused_or_cheap(text: str) -> None:
    """An expression is refused under a code or answered at once; it never reaches Python."""
    begun = time.process_time()
    answer = _answer(text)

    assert answer in {*EXPRESSION_CODES, "False"}
    assert time.process_time() - begun < 0.05


def test_random_expressions_never_escape() -> None:
    """Random token soup gives a verdict or a refusal, each within 50 ms."""
    chance = random.Random(7)

    for _ in range(5000):
        text = " ".join(chance.choices(TOKENS, k=chance.randint(1, 25)))
        begun = time.process_time()
        assert _answer(text) in {*EXPRESSION_CODES, "True", "False"}
        assert time.process_time() - begun < 0.05


def test_without_the_engine_constraints_are_refused() -> None:
    """Where CEL has no build, constraints are refused and everything else works."""
    code = (
        "import sys; sys.modules['cel_expr_python'] = None\n"
        "from temporal_fabric.requests import admit\n"
        "from temporal_fabric.errors import RequestRejected\n"
        "body = {'id': 'a', 'payload': {'process': {'command': ['x']}}}\n"
        "assert admit(body).request.id == 'a'\n"
        "try:\n"
        "    admit({**body, 'requirements': {'constraints': ['a == 1']}})\n"
        "except RequestRejected as refused:\n"
        "    assert refused.code == 'E_EXPR_SYNTAX'\n"
        "    assert 'no build for this platform' in str(refused)\n"
        "else:\n"
        "    raise SystemExit('accepted')\n"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
