"""Python payloads: how they are called, what comes back, and functions as experiments."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from temporal_fabric import Capsule, CapsuleError, ExperimentFailed, MapFailed, RequestRejected
from temporal_fabric.outcomes import ExperimentResult
from temporal_fabric.sync import SyncFabric
from tests import functions
from tests.bodies import function, process

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.client import Fabric
    from temporal_fabric.testing.environment import FabricEnvironment

pytestmark = pytest.mark.asyncio(loop_scope="module")


def _entry(entry_point: str, **more: Any) -> dict[str, Any]:
    body = function("")
    body["payload"]["python"] = {"entry_point": entry_point, **more}
    return body


def _shown(thing: Any) -> str:
    html: str = thing._repr_html_()
    return html


async def test_arguments_go_in_and_a_value_comes_out(fabric: Fabric) -> None:
    """Arguments and return value are JSON, and the value is a file of the capsule."""
    code = "def main(x, *, factor):\n    print('called')\n    return {'scaled': [x * factor, None]}"
    handle = await fabric.submit(function(code, 2.5, kwargs={"factor": 2}))

    value = await handle.value()

    capsule = Capsule.open((await handle.result()).capsule)
    assert value == {"scaled": [5.0, None]}
    assert json.loads((capsule.folder / "artifacts/return.json").read_text()) == value
    assert (capsule.folder / "logs/1/stdout.log").read_text() == "called\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def main():\n    raise ValueError('no such row: 17')", "ValueError: no such row: 17"),
        ("def main():\n    return {1, 2}", "TypeError: the return value is not JSON: it has a set"),
        ("def main():\n    return float('nan')", "TypeError: the return value is not JSON"),
        ("def main(missing):\n    pass", "TypeError: main() missing 1 required"),
        ("import pydantic\ndef main():\n    pass", "No module named 'pydantic'"),
    ],
    ids=["raises", "not-json", "nan", "signature", "packages"],
)
async def test_an_exception_is_the_failure(fabric: Fabric, code: str, said: str) -> None:
    """The last line of the traceback is the excerpt; the whole of it is in standard error."""
    handle = await fabric.submit(function(code))

    with pytest.raises(ExperimentFailed) as caught:
        await handle.result()

    logs = Capsule.open(caught.value.result["capsule"]).folder / "logs/1"
    stderr = (logs / "stderr.log").read_text()
    assert (caught.value.reason, caught.value.exit_code) == ("EXIT_CODE", 1)
    assert said in caught.value.stderr_excerpt
    assert said in stderr
    assert "in _run" not in stderr


async def test_outputs_are_declared_as_for_a_process(fabric: Fabric) -> None:
    """A declared output that the function did not write fails the run."""
    body = function("def main(): return 1", outputs=[{"source_path": "/output/gone.csv"}])

    with pytest.raises(ExperimentFailed) as caught:
        await (await fabric.submit(body)).result()

    assert caught.value.reason == "OUTPUT_MISSING"


async def test_files_and_modules_of_the_host(fabric: Fabric, tmp_path: Path) -> None:
    """A file runs as a program with its arguments; a module is found in the working folder."""
    (tmp_path / "own.py").write_text(
        "import sys\n"
        "def main(x=1): return [x, __name__]\n"
        "async def later(): return 'later'\n"
        "if __name__ == '__main__': print(sys.argv[1:])\n"
    )
    program = await fabric.submit(_entry(str(tmp_path / "own.py"), args=["a", 2]))
    called = await fabric.submit(_entry("own:main", workdir=str(tmp_path), args=[7]))
    awaited = await fabric.submit(_entry(f"{tmp_path / 'own.py'}:later"))

    result = await program.result()

    printed = Capsule.open(result.capsule).folder / "logs/1/stdout.log"
    assert printed.read_text() == "['a', '2']\n"
    assert await called.value() == [7, "own"]
    assert await awaited.value() == "later"
    with pytest.raises(CapsuleError, match="no return value"):
        await program.value()


async def test_source_and_entry_point_belong_together(fabric: Fabric) -> None:
    """A source without a plain file name, and keywords for a program, are refused."""
    bodies = [
        _entry("package.module:main", source=["def main(): pass"]),
        _entry("a/b.py:main", source=["def main(): pass"]),
        _entry("file.py", kwargs={"x": 1}),
    ]

    for body in bodies:
        with pytest.raises(RequestRejected) as caught:
            await fabric.submit(body)
        assert caught.value.code == "E_CONFLICT"


async def test_a_task_ships_what_it_needs_and_no_more(fabric: Fabric) -> None:
    """A decorated function runs away from its module, whose other lines stay behind."""
    area = fabric.task(memory="10MB")(functions.area)

    value = await area(2.0)

    source = area.body(2.0)["payload"]["python"]["source"]
    shipped = [line for line in source if line]
    assert value == pytest.approx(12.566370614)
    assert area.function(1.0) == pytest.approx(3.14159265)
    assert not [line for line in shipped if "pytest" in line or "unrelated" in line]
    assert source.index("def area(radius: float) -> float:") == functions.LINE_OF_AREA - 1


async def test_a_task_that_cannot_be_shipped_is_refused_at_once(fabric: Fabric) -> None:
    """A lambda, a local function and a name defined nowhere are errors where they are written."""

    def local() -> int:
        return 1

    for unfit in (lambda: 1, local):
        with pytest.raises(TypeError, match="not a function at the top level"):
            fabric.task()(unfit)
    with pytest.raises(TypeError, match="uses 'defined_nowhere'"):
        fabric.task()(functions.incomplete)


async def test_map_keeps_the_order_and_can_be_repeated(fabric: Fabric) -> None:
    """Ten calls give ten values in order; under the same prefix none of them runs again."""
    square = fabric.task()(functions.square)

    first = await fabric.map(square, range(10), id_prefix="squares", at_once=4)
    ended = (await fabric.get("squares-3").result()).ended_at
    second = await fabric.map(square, range(10), id_prefix="squares")

    assert first == second == [number**2 for number in range(10)]
    assert (await fabric.get("squares-3").result()).ended_at == ended


async def test_map_ends_all_calls_and_names_every_failure(fabric: Fabric) -> None:
    """The first failure is the cause, the others are listed, and the rest has ended."""
    inverse = fabric.task()(functions.inverse)

    with pytest.raises(MapFailed) as caught:
        await fabric.map(inverse, [1, 0, 2, 0])

    cause = caught.value.__cause__
    assert sorted(caught.value.failures) == [1, 3]
    assert isinstance(cause, ExperimentFailed)
    assert "ZeroDivisionError" in cause.stderr_excerpt
    assert str(caught.value).startswith("2 of 4 calls failed\n  item 1:")


async def test_without_await_also_inside_a_loop(environment: FabricEnvironment) -> None:
    """The synchronous facade works where an event loop already runs, as in a notebook."""
    with SyncFabric.connect(environment.address, settings=environment.settings) as fabric:
        square = fabric.task()(functions.square)
        failing = fabric.submit(process("false"))

        assert square(3) == 9
        assert fabric.map(square, [1, 2]) == [1, 4]
        assert square.submit(4).result().state == "SUCCEEDED"
        with pytest.raises(ExperimentFailed):
            failing.result()
        assert fabric.get(failing.id).status().state == "FAILED"
    fabric.close()


async def test_notebooks_show_tables_without_trusting_anybody(fabric: Fabric) -> None:
    """Handle, result and capsule are short tables, and markup in them is text."""
    handle = await fabric.submit(function("def main(): return 1"))
    result = await handle.result()
    hostile = ExperimentResult(state="FAILED", message="<script>alert(1)</script>")

    shown = [_shown(thing) for thing in (handle, result, hostile, Capsule.open(result.capsule))]

    assert all(text.startswith("<table>") for text in shown)
    assert handle.id in shown[0]
    assert "return.json" in shown[1]
    assert "artifacts/return.json" in shown[3]
    assert "<script>" not in shown[2]
    assert "&lt;script&gt;" in shown[2]
