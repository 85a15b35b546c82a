"""Bodies of up to 256 KiB that are made to cost time or memory.

``python -m tests.requests.hostile`` admits each in this process and prints what it cost.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import TYPE_CHECKING, Any

from temporal_fabric.errors import RequestRejected
from temporal_fabric.requests import admit

if TYPE_CHECKING:
    from collections.abc import Callable

FULL = 262_144
_HEAD = "id: a\npayload: {process: {command: [x]}}\n"


def _fill(unit: str, head: str = "", tail: str = "") -> bytes:
    room = FULL - len(head.encode()) - len(tail.encode())
    return (head + unit * (room // len(unit.encode())) + tail).encode()


def _json(**fields: Any) -> bytes:
    return json.dumps({"id": "a", "payload": {"process": {"command": ["x"]}}, **fields}).encode()


def _process(**fields: Any) -> bytes:
    return _json(payload={"process": {"command": ["x"], **fields}})


def _constraints(*texts: str) -> bytes:
    return _json(requirements={"constraints": texts})


def _task(**execution: Any) -> bytes:
    return json.dumps({"id": "a", "payload": {"execution": execution}}).encode()


def _nested(depth: int) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for _ in range(depth):
        tree = {"a": tree, "b": [tree]}
    return tree


def _keys(count: int) -> bytes:
    return json.dumps({f"k{index}": index for index in range(count)}).encode()[:FULL]


def _laughs() -> bytes:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 400)]
    return "\n".join(lines).encode()[:FULL]


_BOMB = "[[1]]" + ".map(a,a+a)" * 25 + ".size() > 0"
_DEEP_MAP = "[1,2,3].map(a,[a,a].map(b,[b,b].map(c,[c,c].map(d,d)))).size() > 0"
_WIDE = "[" + ",".join(["1"] * 110) + "].exists(a, [" + ",".join(["2"] * 110) + "] == [a])"
_CHAIN = "||".join(["a"] * 160)

BODIES: dict[str, Callable[[], bytes]] = {
    "yaml flow depth": lambda: _fill("["),
    "yaml flow closed": lambda: b"a: " + b"[" * 100_000 + b"]" * 100_000,
    "yaml flow maps": lambda: _fill("{a: "),
    "yaml block depth": lambda: _fill("- "),
    "yaml explicit keys": lambda: _fill("? "),
    "yaml indent ladder": lambda: "".join(f"{' ' * i}a:\n" for i in range(700)).encode(),
    "yaml laughs": _laughs,
    "yaml aliases": lambda: _fill("- *a\n", "x: &a 1\ny:\n"),
    "yaml anchors": lambda: b"y:\n" + b"".join(b"- &a%d 1\n" % i for i in range(20_000)),
    "yaml tags": lambda: _fill("- !!int 1\n", "y:\n"),
    "yaml directives": lambda: _fill("%TAG ! tag:x,2000:\n"),
    "yaml documents": lambda: _fill("---\na\n"),
    "yaml comments": lambda: _fill("# x\n", _HEAD),
    "yaml blank lines": lambda: _fill("\n", _HEAD),
    "yaml spaces": lambda: _fill(" ", _HEAD),
    "yaml huge scalar": lambda: _fill("x", _HEAD + "name: "),
    "yaml huge quoted": lambda: _fill("\\n", _HEAD + 'name: "', '"'),
    "yaml huge block": lambda: _fill("  line\n", _HEAD + "name: |\n"),
    "yaml folded": lambda: _fill("  a\n\n", _HEAD + "name: >\n"),
    "yaml long key": lambda: _fill("k", "", ": 1"),
    "yaml unknown keys": lambda: "".join(f"k{i}: 1\n" for i in range(20_000)).encode(),
    "yaml same key": lambda: _fill("a: 1\n"),
    "yaml wrong items": lambda: _fill("- 1\n", _HEAD + "tags:\n"),
    "yaml wrong maps": lambda: _fill("- {}\n", _HEAD + "secrets:\n"),
    "yaml flow items": lambda: _fill("1,", _HEAD + "tags: [", "1]"),
    "yaml digits": lambda: _fill("9", _HEAD + "priority: "),
    "yaml exponents": lambda: _fill("- 1e999\n", _HEAD + "tags:\n"),
    "yaml unclosed": lambda: _fill("x", 'a: "'),
    "yaml binary": lambda: b"\x00" * FULL,
    "not utf-8": lambda: b"a: " + b"\xff" * 200_000,
    "utf-16": lambda: ("a: b\n" * 20_000).encode("utf-16"),
    "json depth": lambda: _fill('{"a":'),
    "json list depth": lambda: b'{"a":' + b"[" * 200_000,
    "json ints": lambda: _fill("1,", '{"tags":[', "1]}"),
    "json strings": lambda: _fill('"a",', '{"tags":[', '"a"]}'),
    "json objects": lambda: _fill("{},", '{"secrets":[', "{}]}"),
    "json keys": lambda: _keys(16_000),
    "json same key": lambda: _fill('"a":1,', "{", '"a":1}'),
    "json digits": lambda: _fill("9", '{"priority":', "}"),
    "json escapes": lambda: _fill("\\u0041", '{"name":"', '"}'),
    "json lone surrogates": lambda: _fill('"\\ud800",', '{"tags":[', "1]}"),
    "json blanks": lambda: _fill(" \n", "{", "}"),
    "json nan": lambda: _fill("NaN,", '{"tags":[', "1]}"),
    "json free tree": lambda: _json(context=_nested(9)),
    "json free list": lambda: _json(context={"a": [1] * 45_000}),
    "json free strings": lambda: _json(context={"a": ["x"] * 40_000}),
    "too large": lambda: b"a" * (FULL + 1),
    "far too large": lambda: b"[" * (64 * FULL),
    "cel bombs": lambda: _constraints(*[_BOMB] * 64),
    "cel nested maps": lambda: _constraints(*[_DEEP_MAP] * 64),
    "cel wide": lambda: _constraints(*[f"{_WIDE} || {i} > 1" for i in range(64)]),
    "cel chains": lambda: _constraints(*[f"{_CHAIN}||b{i}" for i in range(64)]),
    "cel parentheses": lambda: _constraints(*[f"{'(' * 250}{i}" for i in range(64)]),
    "cel too many": lambda: _constraints(*[f"a > {i}" for i in range(15_000)]),
    "cel garbage": lambda: _constraints(*[f"{i} = = ! ! ( [ {{" * 20 for i in range(64)]),
    "cel objective": lambda: _json(objective=_BOMB),
    "near names": lambda: _json(**{f"requirement{i}": 1 for i in range(9_000)}),
    "long names": lambda: _json(**{f"{i:04}" + "requirements" * 20: 1 for i in range(900)}),
    "env keys": lambda: _process(env={f"K{i}": "v" for i in range(12_000)}),
    "env credentials": lambda: _process(env={f"K{i}_PASSWORD": "v" * 9 for i in range(7_000)}),
    "argv": lambda: _json(payload={"process": {"command": ["x"] * 45_000}}),
    "inputs": lambda: _process(inputs=[{"source_uri": "s3://b", "mount_path": ".."}] * 4_000),
    "same mounts": lambda: _process(
        inputs=[{"source_uri": "file:///a", "mount_path": "a"}] * 4_000
    ),
    "unknown kinds": lambda: _json(payload={f"kind{i}": {} for i in range(15_000)}),
    "unknown resources": lambda: _json(
        requirements={"resources": {f"r{i}": 1 for i in range(15_000)}}
    ),
    "backends": lambda: _json(backends=["a"] * 40_000),
    "lab steps": lambda: _json(
        payload={
            "lab": {
                "device": "d",
                "steps": [{"command_id": "a", "feature": "f", "command": "c"}] * 4_000,
            }
        }
    ),
    "task mounts": lambda: _task(command=["x"], mounts=[{"host_path": 1}] * 10_000),
    "task unknown": lambda: _task(**{f"k{i}": 1 for i in range(15_000)}),
    "task resources": lambda: _task(resources={f"gpu_coun{i}": 1 for i in range(10_000)}),
    "script options": lambda: _fill("#SBATCH --mem=1G\n", "#!/bin/sh\n"),
    "script unknown": lambda: _fill("#SBATCH --mema=1G\n", "#!/bin/sh\n"),
    "script long option": lambda: _fill("a", "#!/bin/sh\n#SBATCH --"),
    "script placeholders": lambda: _fill("${A:-1}", "#!/bin/sh\n#SBATCH "),
    "script half placeholders": lambda: _fill("${A:-", "#!/bin/sh\n#SBATCH "),
    "script quotes": lambda: _fill("'a' ", "#!/bin/sh\n#SBATCH "),
    "script comments": lambda: _fill("#\n", "", "#SBATCH -N 1\n"),
    "script late": lambda: _fill("#SBATCH -N 1\n", "#!/bin/sh\ntrue\n"),
    "script export": lambda: _fill("A=b,", "#!/bin/sh\n#SBATCH --export="),
    "uri": lambda: _process(inputs=[{"source_uri": "https://" + "a." * 8_000, "mount_path": "a"}]),
    "uri at signs": lambda: _json(workdir="https://" + "a@" * 8_000),
    "image": lambda: _json(payload={"container": {"image": "a-" * 8_000}}),
    "duration": lambda: _json(queue_timeout="1" * 16_000),
    "deadline": lambda: _json(deadline="2026-" + "1" * 16_000),
    "path": lambda: _json(workdir="a/" * 8_000),
    "entry point": lambda: _json(payload={"python": {"entry_point": "a." * 8_000}}),
}


def cost(body: bytes) -> tuple[float, float, int]:
    """Return processor seconds, growth of the largest resident size in MiB, and problems."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.process_time()
    try:
        admit(body)
        problems = 0
    except RequestRejected as rejected:
        problems = len(rejected.problems)
    spent = time.process_time() - begun
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return spent, grown / 1024, problems


def main() -> None:
    """Print the cost of every body, the dearest last."""
    admit(b"id: a\npayload: {process: {command: [x]}}\nrequirements: {constraints: [a]}\n")
    costs = [(*cost(make()), name) for name, make in BODIES.items()]
    for spent, grown, problems, name in sorted(costs):
        sys.stdout.write(f"{spent * 1000:8.1f} ms {grown:7.1f} MiB {problems:3d}  {name}\n")


if __name__ == "__main__":
    main()
