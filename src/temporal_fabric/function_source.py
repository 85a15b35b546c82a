"""The part of a module's source that one function needs, line for line where it stood.

A module that submits experiments connects to a server, which its functions must not do where
they run, and imports packages that are not there. So only the top-level statements that the
function reaches are kept; all other lines are left empty, and a traceback names the true line.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import symtable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_DECORATOR = "task"
_ALWAYS_THERE = frozenset({*dir(builtins), "__file__", "__name__", "__doc__", "__spec__"})


def function_source(function: Callable[..., Any]) -> tuple[str, list[str]]:
    """Return a file name and the lines of the file that a function is called from.

    Args:
        function: A function at the top level of a module or of a notebook's cell.

    Raises:
        TypeError: it is not such a function, or it uses a name that its module or cell does
            not define at the top level.
    """
    name = getattr(function, "__name__", "")
    if not inspect.isfunction(function) or function.__qualname__ != name or name == "<lambda>":
        raise TypeError(f"not a function at the top level of a module: {function!r}")
    try:
        lines = [line.rstrip("\n") for line in inspect.findsource(function)[0]]
    except OSError as exc:
        raise TypeError(f"the source of {name!r} is not to be found: write it to a file") from exc
    try:
        kept = _Module("\n".join(lines)).needed(name)
    except SyntaxError as exc:
        raise TypeError(f"the source of {name!r} cannot be read: {exc}") from exc
    shipped = [line if number in kept else "" for number, line in enumerate(lines, 1)]
    while not shipped[-1]:
        shipped.pop()
    return (f"{_stem(function)}.py", shipped)


def _stem(function: Callable[..., Any]) -> str:
    stem = Path(inspect.getsourcefile(function) or "").stem
    # A cell of a notebook has a file name that is a number, or none.
    return stem if stem.isidentifier() and stem.isascii() else "cell"


class _Module:
    """The top-level statements of a module, by the names they bind."""

    def __init__(self, text: str) -> None:
        self._table = symtable.symtable(text, "<source>", "exec")
        self._tree = ast.parse(text)
        self._binding: dict[str, list[ast.stmt]] = {}
        for statement in self._tree.body:
            for name in _bound(statement):
                self._binding.setdefault(name, []).append(statement)

    def needed(self, function: str) -> set[int]:
        """Return the numbers of the lines that a function reaches.

        Raises:
            TypeError: it uses a name that nothing binds.
        """
        kept: set[int] = set()
        seen: set[str] = set()
        wanted = [function]
        while wanted:
            name = wanted.pop()
            if name in seen or (name not in self._binding and name in _ALWAYS_THERE):
                continue
            seen.add(name)
            if name not in self._binding:
                raise TypeError(
                    f"{function!r} uses {name!r}, which its module or cell does not define "
                    "at the top level: import or define it inside the function"
                )
            for statement in self._binding[name]:
                kept.update(_lines(statement))
                wanted.extend(self._used(statement))
        for statement in self._tree.body:
            if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
                kept.update(_lines(statement))
        return kept

    def _used(self, statement: ast.stmt) -> Iterator[str]:
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _loaded(statement)
            return
        for table in self._table.get_children():
            if (table.get_name(), table.get_lineno()) in _heads(statement):
                yield from _globals(table)
        for decorator in _kept_decorators(statement):
            yield from _loaded(decorator)
        if isinstance(statement, ast.ClassDef):
            for base in (*statement.bases, *(keyword.value for keyword in statement.keywords)):
                yield from _loaded(base)
        else:
            yield from _loaded(statement.args)
            if statement.returns is not None:
                yield from _loaded(statement.returns)


def _bound(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield from _loaded(node.value)  # TABLE["key"] = value makes TABLE what it is
        elif isinstance(node, ast.alias):
            yield node.asname or node.name.partition(".")[0]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


def _loaded(node: ast.AST) -> Iterator[str]:
    for found in ast.walk(node):
        if isinstance(found, ast.Name) and isinstance(found.ctx, ast.Load):
            yield found.id


def _globals(table: symtable.SymbolTable) -> Iterator[str]:
    for symbol in table.get_symbols():
        if symbol.is_global() and symbol.is_referenced():
            yield symbol.get_name()
    for child in table.get_children():
        yield from _globals(child)


def _heads(statement: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> set[Any]:
    """Return where the symbol table may say that a definition starts."""
    first = [statement.lineno, *(decorator.lineno for decorator in statement.decorator_list)]
    return {(statement.name, line) for line in first}


def _lines(statement: ast.stmt) -> set[int]:
    kept = set(range(statement.lineno, (statement.end_lineno or statement.lineno) + 1))
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        for decorator in _kept_decorators(statement):
            kept.update(range(decorator.lineno, (decorator.end_lineno or decorator.lineno) + 1))
    return kept


def _kept_decorators(
    statement: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef,
) -> list[ast.expr]:
    """Leave out ``@fabric.task(...)``: where the function runs there is no fabric."""
    return [item for item in statement.decorator_list if not _is_task(item)]


def _is_task(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Attribute) and called.attr == _DECORATOR
