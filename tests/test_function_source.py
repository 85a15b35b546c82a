"""What of a module travels with one of its functions."""

from __future__ import annotations

import importlib
import linecache
import runpy
import sys
from typing import TYPE_CHECKING, Any

import pytest

from temporal_fabric.function_source import function_source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODULE = '''"""A module that submits its own functions."""

from __future__ import annotations

import json
import math as m
from dataclasses import dataclass
from typing import TYPE_CHECKING

import nowhere
from nowhere import fabric

if TYPE_CHECKING:
    from elsewhere import Thing

try:
    import tomllib
except ImportError:
    tomllib = None

client = fabric.connect()
TABLE = {}
TABLE["two"] = 2
LIMIT: int = 40
LIMIT += 2
TABLE.copy()


@dataclass
class Point:
    x: float

    def norm(self) -> float:
        return m.sqrt(self.x)


@fabric.task(cpus=1)
def helper(text: str = json.dumps("d")) -> str:
    return text


@fabric.task(
    cpus=4,
    memory="1GB",
)
def main(value: Thing) -> list:
    client = "a local name"
    inner = [len(other) for other in (helper(), client)]
    return [Point(value).norm(), TABLE["two"], LIMIT, tomllib is not None, inner]


if __name__ == "__main__":
    client.run(main)
'''


@pytest.fixture
def author(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The module as its author has it, beside a package that is nowhere else."""
    (tmp_path / "nowhere.py").write_text(
        "class fabric:\n"
        "    connect = staticmethod(lambda: None)\n"
        "    task = staticmethod(lambda **_: lambda function: function)\n"
    )
    (tmp_path / "authored.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path / "authored.py"
    for name in ("authored", "nowhere"):
        sys.modules.pop(name, None)


def test_a_module_that_connects_ships_a_function_that_does_not(author: Path) -> None:
    """Imports, classes, helpers, constants and their changes travel; connections do not."""
    lines = function_source(importlib.import_module("authored").main)[1]
    author.write_text("\n".join(lines))
    (author.parent / "nowhere.py").unlink()

    shipped = runpy.run_path(str(author))["main"]

    assert shipped(9.0) == [3.0, 2, 42, True, [3, 12]]
    assert not [line for line in lines if "nowhere" in line or "TABLE.copy" in line]


def test_lines_stay_where_they_were(author: Path) -> None:
    """A traceback of the shipped source names the line of the author's file."""
    file, lines = function_source(importlib.import_module("authored").main)

    original = author.read_text().splitlines()
    assert file == "authored.py"
    assert all(line in {"", original[place]} for place, line in enumerate(lines))


def test_a_cell_of_a_notebook_is_a_module() -> None:
    """A cell with a number for a name and an await outside a function ships its function."""
    name, text = "/kernel/1234.py", "import math\ndef main(x): return math.floor(x)\n"
    cell = f"{text}await main(3)\n"
    lines = list[str](cell.splitlines(keepends=True))
    linecache.cache[name] = (len(cell), None, lines, name)
    space: dict[str, Any] = {}
    exec(compile(text, name, "exec"), space)  # noqa: S102 - as a notebook does

    file, shipped = function_source(space["main"])

    assert file == "cell.py"
    assert shipped == text.splitlines()


@pytest.mark.parametrize("unfit", [len, print, int, lambda: 1], ids=str)
def test_what_has_no_source_is_refused(unfit: Any) -> None:
    """Builtins, classes and lambdas are refused with a sentence."""
    with pytest.raises(TypeError, match="not a function at the top level"):
        function_source(unfit)


def test_a_function_typed_into_an_interpreter_is_refused() -> None:
    """Without a file there is no source to ship."""
    space: dict[str, Any] = {}
    exec("def main(): pass", space)  # noqa: S102 - as typed into an interpreter

    with pytest.raises(TypeError, match="is not to be found"):
        function_source(space["main"])
