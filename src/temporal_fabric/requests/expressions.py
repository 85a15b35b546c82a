"""CEL expressions: compiled once, with their free names and a bound on their cost.

The engine has no call that lists the names in an expression, so they are read from its
serialized syntax tree (`cel.expr.ParsedExpr`, a protocol buffer). Its own limits stop long
loops but not memory: a few hundred bytes of nested `map` calls build gigabytes. Hence the rule
of at most one comprehension per expression, over label lists of bounded length. A map has
another order in every process, so `map` and `filter`, which would show it, take lists only;
`all` and `exists` give the same in any order and take maps, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from temporal_fabric.requests import limits
from temporal_fabric.shapes import is_rows, is_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Expression", "ExpressionRefused", "Outcome", "compile_expression", "nest_labels"]

_TYPE_NAMES = frozenset(
    {
        "bool",
        "bytes",
        "double",
        "dyn",
        "google",
        "int",
        "list",
        "map",
        "null_type",
        "string",
        "timestamp",
        "type",
        "uint",
    }
)
_POSITION = re.compile(r"<input>:(\d+):(\d+): (?:Syntax error: )?([^\n]*)")
_UNORDERED = "is a map, which has no order: use all or exists"
_LENGTH_DELIMITED = 2
_CONTINUES = 0x80


class ExpressionRefused(ValueError):
    """An expression that will not be run.

    Attributes:
        code: Code of the error contract.
        what: What is wrong; never holds more of the expression than one token.
    """

    def __init__(self, code: str, what: str) -> None:
        self.code = code
        self.what = what
        super().__init__(what)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an expression gave: a value, or the sentence that says why it gave none."""

    value: Any = None
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression."""

    text: str
    names: tuple[str, ...]
    """Free names, sorted: these are looked up among the labels."""

    gives: str
    """Type by the engine's own check: BOOL, INT, DOUBLE, STRING, DYN, ..."""

    program: Any
    listed: tuple[str, ...] = ()
    """Path of the label that `map` or `filter` goes through: it must not be a map."""

    def evaluate(self, labels: Mapping[str, Any]) -> Outcome:
        """Return what the expression gives for a nested label map; never raises for a label."""
        if self.listed and is_table(_at(labels, self.listed)):
            return Outcome(fault=f"{'.'.join(self.listed)} {_UNORDERED}")
        data = {name: labels[name] for name in self.names if name in labels}
        try:
            result = self.program.eval(data=data)
        except (RuntimeError, TypeError, ValueError) as error:
            return Outcome(fault=_first_line(str(error)))
        if str(result.type()).endswith("ERROR"):
            return Outcome(fault=_first_line(str(result.value())))
        return Outcome(value=result.plain_value())


def _at(labels: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = labels
    for part in path:
        if not is_table(value) or part not in value:
            return None
        value = value[part]
    return value


@lru_cache(maxsize=1)
def _engine() -> Any:
    try:
        return import_module("cel_expr_python.cel")
    except ImportError:
        return None


@lru_cache(maxsize=1024)
def compile_expression(text: str) -> Expression:
    """Compile an expression.

    Args:
        text: The expression, at most 512 bytes.

    Raises:
        ExpressionRefused: with E_EXPR_SYNTAX, E_EXPR_NAME or E_EXPR_COST.
    """
    if len(text.encode("utf-8", "surrogatepass")) > limits.EXPRESSION_BYTES:
        raise ExpressionRefused("E_EXPR_COST", f"is longer than {limits.EXPRESSION_BYTES} bytes")
    engine = _engine()
    if engine is None:
        raise ExpressionRefused(
            "E_EXPR_SYNTAX",
            "needs the package cel-expr-python, which has no build for this platform; "
            "use `backends` and `resources` instead, or submit from another machine",
        )
    tree = _parse(engine, text)
    found = _Found(set(), 0)
    _walk(tree, frozenset(), found)
    if found.unordered:
        raise ExpressionRefused(
            "E_EXPR_SYNTAX",
            "uses map or filter on what may be a map, which has no order; use "
            "all or exists, or go through a list or a label",
        )
    if found.comprehensions > limits.COMPREHENSIONS:
        raise ExpressionRefused(
            "E_EXPR_COST", "has more than one comprehension (all, exists, map, filter)"
        )
    names = tuple(sorted(found.names - _TYPE_NAMES))
    checked = _check(engine, text, names)
    gives = str(checked.return_type()).rpartition(".")[2]
    return Expression(text, names, gives, checked, found.listed)


def _parse(engine: Any, text: str) -> bytes:
    try:
        parsed = engine.NewEnv().compile(text, disable_check=True)
    except (RuntimeError, TypeError, ValueError) as error:
        raise _refusal(str(error)) from None
    wrapped = dict(_messages(parsed.serialize()))
    return dict(_messages(wrapped[2]))[2]


def _check(engine: Any, text: str, names: tuple[str, ...]) -> Any:
    try:
        env = engine.NewEnv(variables=dict.fromkeys(names, engine.Type.DYN))
        return env.compile(text)
    except (RuntimeError, TypeError, ValueError) as error:
        raise _refusal(str(error)) from None


def _refusal(message: str) -> ExpressionRefused:
    if "ecursion" in message or "budget" in message:
        # The engine's position is meaningless here (column 4294967295).
        return ExpressionRefused(
            "E_EXPR_COST", "is nested too deeply, or chains too many operators"
        )
    match = _POSITION.search(message)
    where, what = (f" at column {match[2]}", match[3]) if match else ("", "is not valid CEL")
    if "undeclared reference" in what:
        name = re.search("'([^']*)'", what)
        return ExpressionRefused(
            "E_EXPR_NAME", f"calls an unknown function {name[1] if name else ''!r}{where}"
        )
    # What follows "expecting" lists the whole grammar: no help.
    what = what.split(" expecting ")[0].replace("'<EOF>'", "end of expression")
    return ExpressionRefused("E_EXPR_SYNTAX", f"is not valid CEL{where}: {what}")


def _first_line(message: str) -> str:
    return message.partition("\n")[0].split(": ", 1)[-1][:200]


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (field number, content) of the length-delimited fields of a protocol buffer."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        wire = key & 7
        if wire == _LENGTH_DELIMITED:
            size, position = _varint(data, position)
            yield key >> 3, data[position : position + size]
            position += size
        elif wire == 0:
            _, position = _varint(data, position)
        else:
            position += 8 if wire == 1 else 4


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < _CONTINUES:
            return value, position
        shift += 7


@dataclass(slots=True)
class _Found:
    names: set[str]
    comprehensions: int
    listed: tuple[str, ...] = ()
    unordered: bool = False


# Field numbers of cel.expr.Expr, and of the parts of its messages that hold expressions.
_IDENT, _COMPREHENSION = 4, 9
_FUNCTION = 2
_SELECT, _CALL, _LIST, _STRUCT, _ENTRY = 5, 6, 7, 8, -1
_PARTS = {_SELECT: (1,), _CALL: (1, 3), _LIST: (1,), _STRUCT: (2,), _ENTRY: (3, 4)}
_ITER_VAR, _ITER_RANGE, _ACCU_VAR, _ACCU_INIT, _ITER_VAR_2 = 1, 2, 3, 4, 8


def _walk(expr: bytes, bound: frozenset[str], found: _Found) -> None:
    # Recursion is safe: the parser gives up at 32 levels.
    for kind, node in _messages(expr):
        if kind == _IDENT:
            name = dict(_messages(node))[1].decode()
            found.names.update({name} - bound)
        elif kind == _COMPREHENSION:
            _walk_comprehension(node, bound, found)
        elif kind in _PARTS:
            _walk_parts(kind, node, bound, found)


def _walk_parts(kind: int, node: bytes, bound: frozenset[str], found: _Found) -> None:
    for number, child in _messages(node):
        if number not in _PARTS[kind]:
            continue
        if kind == _STRUCT:
            # The entries of a map are messages around its keys and values.
            _walk_parts(_ENTRY, child, bound, found)
        else:
            _walk(child, bound, found)


def _walk_comprehension(node: bytes, bound: frozenset[str], found: _Found) -> None:
    found.comprehensions += 1
    parts = list(_messages(node))
    if any(number == _ACCU_INIT and _LIST in dict(_messages(child)) for number, child in parts):
        _walk_range(dict(parts)[_ITER_RANGE], found)  # it builds a list: map or filter
    variables = (_ITER_VAR, _ACCU_VAR, _ITER_VAR_2)
    inner = bound | {text.decode() for number, text in parts if number in variables}
    for number, child in parts:
        if number not in variables:
            outside = number in (_ITER_RANGE, _ACCU_INIT)
            _walk(child, bound if outside else inner, found)


def _walk_range(expr: bytes, found: _Found) -> None:
    """Note what `map` or `filter` goes through: a list, a label, or what may be a map."""
    kinds = dict(_messages(expr))
    if _LIST in kinds:
        return
    if _CALL in kinds and dict(_messages(kinds[_CALL]))[_FUNCTION] == b"_+_":
        return  # only lists, numbers and texts can be added
    found.listed = _path(expr) or ()
    found.unordered = not found.listed


def _path(expr: bytes) -> tuple[str, ...] | None:
    """Return the path of a label such as ``a.b``; None for any other expression."""
    kinds = dict(_messages(expr))
    if _IDENT in kinds:
        return (dict(_messages(kinds[_IDENT]))[1].decode(),)
    if _SELECT not in kinds:
        return None
    select = dict(_messages(kinds[_SELECT]))
    below = _path(select[1])
    return None if below is None else (*below, select[2].decode())


def nest_labels(labels: Mapping[str, Any]) -> dict[str, Any]:
    """Return labels with dotted names as nested maps, so that ``gpu.model`` can be written.

    ``labels`` is the whole map, for names that are no identifiers: ``labels['a/b']``.
    Lists beyond 64 items are left out: they would make a comprehension costly.
    """
    nested: dict[str, Any] = {}
    whole: dict[str, Any] = {}
    for name in sorted(labels):
        value = labels[name]
        if is_rows(value):
            if len(value) > limits.LABEL_ITEMS:
                continue
            value = list(value)
        whole[name] = value
        _place(nested, name.split("."), value)
    nested["labels"] = whole
    return nested


def _place(nested: dict[str, Any], parts: list[str], value: Any) -> None:
    box = nested
    for part in parts[:-1]:
        inner = box.setdefault(part, {})
        if not is_table(inner):
            # `gpu` and `gpu.model` cannot both be reached by a path; the shorter one wins.
            return
        box = inner
    box.setdefault(parts[-1], value)
