"""The engine against a second evaluator, over thousands of generated expressions."""

from __future__ import annotations

import math
import os
import random
from typing import Any

import pytest

from temporal_fabric.requests.expressions import Expression, ExpressionRefused, compile_expression
from temporal_fabric.shapes import is_list
from tests.requests.cel_reference import ERROR, LABELS, generate, macros, value_of, written

_COUNT = 100_000 if os.environ.get("FABRIC_CAMPAIGN") else 1500


def _same(a: Any, b: Any) -> bool:
    if is_list(a) and is_list(b):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    return type(a) is type(b) and bool(a == b)


def _compiled(text: str) -> Expression | None:
    try:
        return compile_expression(text)
    except ExpressionRefused:
        return None


@pytest.mark.parametrize("seed", range(4))
def test_the_engine_and_the_reference_agree(seed: int) -> None:
    """Whatever is accepted gives the same value, or is an error for both."""
    chance = random.Random(seed)
    agreed = refused = faults = 0

    for _ in range(_COUNT):
        tree = generate(chance, chance.randint(1, 4))
        text = written(tree)
        if macros(tree) > 1 or len(text) > 500:
            continue
        expression = _compiled(text)
        if expression is None:
            refused += 1
            continue
        outcome, wanted = expression.evaluate(LABELS), value_of(tree, LABELS)
        if wanted is ERROR:
            assert outcome.fault is not None, (text, outcome)
            faults += 1
        else:
            assert outcome.fault is None, (text, wanted, outcome)
            assert _same(outcome.value, wanted), (text, wanted, outcome)
            agreed += 1

    print(f"{agreed} values and {faults} errors agree, {refused} refused")
    assert agreed > _COUNT / 6
    assert faults > _COUNT / 6
    assert refused < 2 * _COUNT / 3  # operands of literals whose types cannot go together
