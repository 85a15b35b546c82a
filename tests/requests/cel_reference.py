"""A second evaluator of the CEL that constraints use, written from the language's definition.

Expressions are generated as trees. Each tree is written as CEL for the engine, and evaluated
here by the rules of https://github.com/google/cel-spec/blob/master/doc/langdef.md: errors are
values, `&&`, `||`, `all` and `exists` absorb them, equality is never an error, and numbers of
different kinds compare by value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from temporal_fabric.shapes import is_list, is_rows

if TYPE_CHECKING:
    import random

ERROR = object()
"""What an expression gives where CEL has an error."""

Tree = tuple[Any, ...]

LABELS: dict[str, Any] = {
    "i": 3,
    "j": -7,
    "big": 2**63 - 1,
    "d": 2.5,
    "e": 3.0,
    "s": "abc",
    "t": "b",
    "yes": True,
    "no": False,
    "l": [1, 2, 3],
    "m": ["a", "b"],
    "n": [],
}
_ABSENT = ("gone",)
_LITERALS: tuple[Any, ...] = (0, 1, 3, 2.5, "b", "", True, False)
_COMPARE = ("<", "<=", ">", ">=")
_ARITHMETIC = ("+", "-", "*", "/", "%")
_MACROS = ("all", "exists", "exists_one", "map", "filter")


def generate(chance: random.Random, depth: int, bound: tuple[str, ...] = ()) -> Tree:
    """Return a random expression; a comprehension is used at most once on every path."""
    if depth == 0 or chance.random() < 0.15:
        pool = [*LABELS, *_ABSENT, *bound, *bound]
        if chance.random() < 0.25:
            return ("value", chance.choice(_LITERALS))
        return ("name", chance.choice(pool))

    def part(*more: str) -> Tree:
        return generate(chance, depth - 1, (*bound, *more))

    kinds = ["==", "!=", "<", ">=", "+", "-", "*", "/", "%", "&&", "||", "&&", "||", "!", "-x"]
    kind = chance.choice([*kinds, "?:", "in", "size", "index", "macro"])
    if kind in {"!", "-x", "size"}:
        return (kind, part())
    if kind == "?:":
        return (kind, part(), part(), part())
    if kind == "macro":
        over = ("name", chance.choice(["l", "m", "n", "s", "gone"]))
        return (kind, chance.choice(_MACROS), over, part("x"))
    return (kind, part(), part())


def macros(tree: Tree) -> int:
    """Return how many comprehensions an expression has; admission takes one."""
    below = (macros(tuple(part)) for part in tree[1:] if is_rows(part))
    return int(tree[0] == "macro") + sum(below)


_WRITTEN = {"!": "!({})", "-x": "-({})", "size": "size({})", "?:": "({} ? {} : {})"}


def written(tree: Tree) -> str:
    """Return an expression as CEL."""
    kind = tree[0]
    if kind in {"value", "name"}:
        value = tree[1]
        if kind == "name" or isinstance(value, (int, float)):
            return str(value).lower() if isinstance(value, bool) else str(value)
        return f"'{value}'"
    if kind == "macro":
        return f"{written(tree[2])}.{tree[1]}(x, {written(tree[3])})"
    parts = [written(part) for part in tree[1:]]
    if kind == "index":
        return "({})[{}]".format(*parts)
    return _WRITTEN.get(kind, f"({{}} {kind} {{}})").format(*parts)


def value_of(tree: Tree, names: dict[str, Any]) -> Any:
    """Return what an expression gives, or ERROR."""
    match tree:
        case ("value", value):
            return value
        case ("name", name):
            return names.get(name, ERROR)
        case ("&&" | "||" as sign, a, b):
            return _absorbing(sign == "||", [value_of(a, names), value_of(b, names)])
        case ("?:", a, b, c):
            chosen = value_of(a, names)
            return value_of(b if chosen else c, names) if isinstance(chosen, bool) else ERROR
        case ("macro", name, over, body):
            return _macro(name, value_of(over, names), body, names)
        case _:
            pass
    parts = [value_of(part, names) for part in tree[1:]]
    return ERROR if any(part is ERROR for part in parts) else _strict(tree[0], parts)


def _absorbing(decides: bool, parts: list[Any]) -> Any:  # noqa: FBT001 - the deciding value
    if any(part is decides for part in parts):
        return decides
    return (not decides) if all(isinstance(part, bool) for part in parts) else ERROR


def _macro(  # noqa: PLR0911 - a rule of the language each
    name: str, over: Any, body: Tree, names: dict[str, Any]
) -> Any:
    if not is_list(over):
        return ERROR
    found = [value_of(body, names | {"x": item}) for item in over]
    if name in {"all", "exists"}:
        return _absorbing(name == "exists", found)
    if any(part is ERROR for part in found):
        return ERROR
    if name == "map":
        return found
    if not all(isinstance(part, bool) for part in found):
        return ERROR
    if name == "exists_one":
        return found.count(True) == 1
    return [item for item, kept in zip(over, found, strict=True) if kept]


def _strict(  # noqa: PLR0911 - a rule of the language each
    sign: str, parts: list[Any]
) -> Any:
    kinds: set[type[Any]] = {type(part) for part in parts}
    if sign in {"==", "!="}:
        return _equal(*parts) is (sign == "==")
    if sign == "!":
        return not parts[0] if kinds == {bool} else ERROR
    if sign == "-x":
        return _whole(-parts[0]) if kinds <= {int, float} else ERROR
    if sign == "size":
        return len(parts[0]) if kinds <= {str, list} else ERROR
    if sign == "in":
        return any(_equal(parts[0], i) for i in parts[1]) if is_list(parts[1]) else ERROR
    if sign == "index":
        return _item(*parts)
    if sign in _COMPARE:
        same = len(kinds) == 1 and kinds <= {int, float, str, bool}
        return _compare(sign, *parts) if same or kinds <= {int, float} else ERROR
    return _arithmetic(sign, *parts) if len(kinds) == 1 else ERROR


def _equal(a: Any, b: Any) -> bool:
    if is_list(a) and is_list(b):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    return bool(a == b)


def _compare(sign: str, a: Any, b: Any) -> bool:
    return bool({"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[sign])


def _item(box: Any, at: Any) -> Any:
    if not is_list(box) or type(at) not in {int, float} or at != int(at):
        return ERROR
    return box[int(at)] if 0 <= at < len(box) else ERROR


def _arithmetic(sign: str, a: Any, b: Any) -> Any:
    if sign == "+" and (isinstance(a, str) or is_list(a)):
        return a + b
    if isinstance(a, float) and sign != "%":
        return _divided(a, b) if sign == "/" else {"+": a + b, "-": a - b, "*": a * b}[sign]
    if isinstance(a, bool) or not isinstance(a, int):
        return ERROR
    if sign in {"/", "%"}:
        if b == 0:
            return ERROR
        quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        return _whole(quotient if sign == "/" else a - b * quotient)
    return _whole({"+": a + b, "-": a - b, "*": a * b}[sign])


def _divided(a: float, b: float) -> float:
    if b:
        return a / b
    return float("nan") if a == 0 or a != a else a * float("inf")  # noqa: PLR0124 - not a number


def _whole(value: Any) -> Any:
    return value if isinstance(value, float) or -(2**63) <= value < 2**63 else ERROR
