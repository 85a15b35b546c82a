"""Calls the function, or runs the file, of a `python` payload; run as a script.

It stands on the standard library alone, because it runs in the payload's interpreter, which has
neither this package nor the worker's others. A function's return value is written as JSON to
``$FABRIC_OUTPUT_DIR/return.json``; an exception ends the process with code 1, its last line in
``$FABRIC_ERROR_FILE``.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import runpy
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

RETURN = "return.json"


def main(call: str) -> int:
    """Run the call described by a JSON file and return the exit code."""
    asked: dict[str, Any] = json.loads(Path(call).read_text(encoding="utf-8"))
    try:
        _run(asked)
    except Exception as exc:  # noqa: BLE001 - whatever the payload raises is its failure
        _report(exc)
        return 1
    return 0


def _run(asked: dict[str, Any]) -> None:
    where, _, name = asked["entry_point"].rpartition(":")
    if not where:
        file = Path(name).absolute()
        sys.argv = [str(file), *(_text(value) for value in asked["args"])]
        sys.path.insert(0, str(file.parent))
        runpy.run_path(str(file), run_name="__main__")
        return
    function = _function(where, name)
    value = function(*asked["args"], **asked["kwargs"])
    if inspect.iscoroutine(value):
        import asyncio  # noqa: PLC0415 - it costs as much as the rest of the start

        value = asyncio.run(value)
    _keep(value)


def _function(where: str, name: str) -> Callable[..., Any]:
    found: Any = _from_file(Path(where).absolute()) if where.endswith(".py") else _module(where)
    for part in name.split("."):
        found = getattr(found, part)
    function: Callable[..., Any] = found
    return function


def _module(name: str) -> Any:
    sys.path.insert(0, str(Path.cwd()))
    return importlib.import_module(name)


def _from_file(file: Path) -> Any:
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"not a Python file: {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def _keep(value: Any) -> None:
    try:
        text = json.dumps(value, allow_nan=False, default=_plain)
    except ValueError as exc:
        raise TypeError(f"the return value is not JSON: {exc}") from None
    target = Path(os.environ["FABRIC_OUTPUT_DIR"], RETURN)
    target.write_text(f"{text}\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """Return an array, or a number of an array library, as lists and numbers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"the return value is not JSON: it has a {type(value).__name__}")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _report(error: Exception) -> None:
    trace = error.__traceback__
    while trace is not None and _ours(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace)
    said = Path(os.environ.get("FABRIC_ERROR_FILE", os.devnull))
    if said.is_file() and said.stat().st_size:
        return  # the payload said it more precisely itself
    last = traceback.format_exception_only(type(error), error)[-1].strip()
    said.write_text(f"{last}\n", encoding="utf-8")


def _ours(file: str) -> bool:
    return file in {__file__, importlib.__file__} or file.startswith("<frozen ")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
