"""Every code that admission can raise, by a body that raises it at the right place."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic_core.core_schema import ErrorType

from temporal_fabric.errors import Problem, RequestRejected
from temporal_fabric.requests import CODES, admit
from temporal_fabric.requests.problems import code_of
from temporal_fabric.shapes import is_table
from tests.requests.examples import TASK, body, with_payload

URI = "https://example.org/data"


def _input(uri: str, path: str = "in") -> dict[str, Any]:
    return with_payload("process", inputs=[{"source_uri": uri, "mount_path": path}])


def _constraint(text: str) -> dict[str, Any]:
    return body(requirements={"constraints": [text]})


def _output(**fields: Any) -> dict[str, Any]:
    return with_payload("process", outputs=[{"source_path": "out", **fields}])


def _step(**fields: Any) -> dict[str, Any]:
    step = {"command_id": "s", "feature": "F", "command": "C", **fields}
    return with_payload("lab", steps=[step])


_IN = "/payload/process/inputs/0"
_OUT = "/payload/process/outputs/0"
_ENV = "/payload/process/env"
_CON = "/requirements/constraints/0"

CASES: list[tuple[str, str, Any]] = [
    ("E_TOO_LARGE", "", b"#" * 262_145),
    ("E_TOO_LARGE", "/name", body(name="x" * 257)),
    ("E_TOO_LARGE", "/context/a", body(context={"a": "x" * 16_385})),
    ("E_TOO_LARGE", "/tags", body(tags=[f"t{i}" for i in range(65)])),
    ("E_TOO_LARGE", _ENV, with_payload("process", env={f"K{i}": "" for i in range(129)})),
    (
        "E_TOO_LARGE",
        "/payload/process/command",
        with_payload("process", command=["x" * 16_000] * 5),
    ),
    ("E_TOO_LARGE", "/requirements/constraints", body(requirements={"constraints": ["a"] * 65})),
    (
        "E_TOO_LARGE",
        "/requirements/resources",
        body(requirements={"resources": dict.fromkeys(map(str, range(65)), 1)}),
    ),
    ("E_ENCODING", "", b"id: \xff"),
    ("E_ENCODING", "", "id: \ud800"),
    ("E_ENCODING", "/name", b'{"name": "\\ud800"}'),
    ("E_PARSE", "", b'{"id": }'),
    ("E_PARSE", "", b"id: [a"),
    ("E_PARSE", "", b"[a]: b"),
    ("E_DUP_KEY", "/id", b"id: a\nid: b"),
    ("E_DUP_KEY", "/id", b'{"id": "a", "id": "b"}'),
    ("E_YAML_FEATURE", "/id", b"id: &a b"),
    ("E_YAML_FEATURE", "/name", b"id: b\nname: *a"),
    ("E_YAML_FEATURE", "/priority", b"priority: !!int 3"),
    ("E_YAML_FEATURE", "/<<", b"<<: {id: a}"),
    ("E_YAML_FEATURE", "", b"%YAML 1.1\n---\nid: a"),
    ("E_YAML_FEATURE", "", b"id: a\n---\nid: b"),
    ("E_YAML_FEATURE", "", "id: a\u2028b"),
    ("E_DEPTH", "/context" + "/0" * 31, b"context: " + b"[" * 40),
    ("E_UNKNOWN_FIELD", "/priorty", body(priorty=3)),
    ("E_UNKNOWN_FIELD", "/payload/proces", {"id": "a", "payload": {"proces": {}}}),
    ("E_UNKNOWN_FIELD", "/request_class", body(request_class="gpu")),
    ("E_MISSING", "/id", {"payload": {"process": {"command": ["a"]}}}),
    ("E_MISSING", "/payload", {"id": "a"}),
    ("E_MISSING", "/payload", {"id": "a", "payload": {}}),
    ("E_MISSING", "/payload", {"id": "a", "payload": {"process": None}}),
    ("E_MISSING", "/payload/process/command", {"id": "a", "payload": {"process": {}}}),
    (
        "E_MISSING",
        "/requirements/resources/0/type",
        body(requirements={"resources": [{"cores": 1, "x": 1}]}),
    ),
    ("E_MISSING", "/environment", body(environment={})),
    ("E_MISSING", "/payload/flow", {"id": "a", "payload": {"flow": {}}}),
    ("E_TYPE", "", b"- a"),
    ("E_TYPE", "", b""),
    ("E_TYPE", "", None),
    ("E_TYPE", "/priority", body(priority="5")),
    ("E_TYPE", "/priority", body(priority=True)),
    ("E_TYPE", "/priority", body(priority=5.0)),
    ("E_TYPE", "/context/a", body(context={"a": object()})),
    ("E_TYPE", "/context", {"context": {1: 2}}),
    ("E_TYPE", "/limits/wall_s", body(limits={"wall_s": "soon"})),
    ("E_TYPE", "/limits/log_bytes", body(limits={"log_bytes": "10 furlongs"})),
    ("E_TYPE", "/requirements/resources/gpu", body(requirements={"resources": {"gpu": "A100:x"}})),
    ("E_TYPE", "/retry/on/OOM/memory", body(retry={"on": {"OOM": {"memory": "twice"}}})),
    ("E_TYPE", "/deadline", body(deadline="tomorrow")),
    ("E_RANGE", "/priority", body(priority=11)),
    ("E_RANGE", "/priority", body(priority=2**63)),
    ("E_RANGE", "/class", {**body(), "class": "huge"}),
    ("E_RANGE", "/budget_usd", b'{"budget_usd": NaN}'),
    ("E_RANGE", "/budget_usd", body(budget_usd=float("inf"))),
    (
        "E_RANGE",
        "/requirements/resources/0/type",
        body(requirements={"resources": [{"type": "tpu"}]}),
    ),
    ("E_RANGE", "/requirements/resources/tpu", body(requirements={"resources": {"tpu": 1}})),
    ("E_RANGE", "/retry/on/0", body(retry={"on": ["OMM"]})),
    ("E_RANGE", "/retry/on/OMM", body(retry={"on": {"OMM": None}})),
    ("E_RANGE", "/retry/on/OOM/memory", body(retry={"on": {"OOM": {"memory": "x0.5"}}})),
    ("E_RANGE", "/deadline", body(deadline="2026-12-24T18:00:00")),
    ("E_RANGE", "/deadline", body(deadline="0001-01-01T00:00:00+14:00")),
    ("E_NAME", "/id", body() | {"id": "Bad Name"}),
    ("E_NAME", "/id", body() | {"id": "a" * 64}),
    ("E_NAME", "/tenant", body(tenant="../x")),
    ("E_NAME", "/tags/0", body(tags=["a b"])),
    ("E_NAME", "/name", body(name="a\x1b[31mb")),
    ("E_NAME", _IN + "/source_uri", _input("capsule://default/Bad/out")),
    ("E_CONFLICT", "/payload", {"id": "a", "payload": {"process": {"command": ["a"]}, "lab": {}}}),
    ("E_CONFLICT", "/environment", body(environment={"image": "a", "lock": "b"})),
    ("E_CONFLICT", "/environment/image", body("container", environment={"image": "a"})),
    (
        "E_CONFLICT",
        "/retry/max_interval_s",
        body(retry={"initial_interval_s": 9, "max_interval_s": 3}),
    ),
    (
        "E_CONFLICT",
        "/retry/on/OOM",
        body(retry={"on": {"OOM": {"memory": "x2", "cpu": "x2", "max": 3}}}),
    ),
    ("E_CONFLICT", "/retry/max_interval_s", body(retry={"max_interval_s": "1ms"})),
    ("E_CONFLICT", "/objective", body(objective="deadline")),
    ("E_CONFLICT", "/backends/1", body(backends=["a", "a"])),
    (
        "E_CONFLICT",
        "/requirements/resources/1",
        body(requirements={"resources": [{"cpu": 1}, {"cpu": 2}]}),
    ),
    (
        "E_CONFLICT",
        _OUT[:-1] + "1/source_path",
        with_payload("process", outputs=[{"source_path": "a"}] * 2),
    ),
    (
        "E_CONFLICT",
        "/secrets/0/name",
        with_payload("process", env={"T": "1"})
        | {"secrets": [{"name": "T", "ref": "secret://env/T"}]},
    ),
    (
        "E_CONFLICT",
        "/payload/lab/steps/1/command_id",
        with_payload("lab", steps=[{"command_id": "s", "feature": "F", "command": "C"}] * 2),
    ),
    ("E_EXPR_SYNTAX", _CON, _constraint("a ==")),
    ("E_EXPR_SYNTAX", _CON, _constraint("1 + 1")),
    ("E_EXPR_SYNTAX", "/objective", body(objective="price >")),
    ("E_EXPR_SYNTAX", "/objective", body(objective="price > 1")),
    ("E_EXPR_NAME", _CON, _constraint("lookup(a)")),
    ("E_EXPR_COST", _CON, _constraint("[1].exists(a, a > 0) && [2].exists(b, b > 0)")),
    ("E_EXPR_COST", _CON, _constraint("(" * 64 + "1" + ")" * 64)),
    ("E_EXPR_COST", _CON, _constraint("a" * 513)),
    ("E_IMAGE", "/payload/container/image", with_payload("container", image="Not An Image")),
    ("E_IMAGE", "/environment/image", body(environment={"image": "a:b:c"})),
    ("E_ISOLATION", "/payload/process/isolation", with_payload("process", isolation="vm")),
    ("E_ISOLATION", "/payload/container/network", with_payload("container", network="host")),
    (
        "E_ISOLATION",
        "/payload/agent/isolation",
        with_payload("agent", isolation={"level": "none", "cpu_quota": 1}),
    ),
    ("E_COMMAND", "/payload/process/command", with_payload("process", command=[])),
    ("E_COMMAND", "/payload/process/command", with_payload("process", command=["--help"])),
    ("E_COMMAND", "/payload/process/command", with_payload("process", command=["@file"])),
    ("E_COMMAND", "/payload/process/command/1", with_payload("process", command=["a", "b\0c"])),
    ("E_ENV", _ENV + "/A-B", with_payload("process", env={"A-B": "1"})),
    ("E_ENV", _ENV + "/FABRIC_EPOCH", with_payload("process", env={"FABRIC_EPOCH": "1"})),
    ("E_ENV", _ENV + "/LD_PRELOAD", with_payload("process", env={"LD_PRELOAD": "1"})),
    ("E_ENV", _ENV + "/A", with_payload("process", env={"A": "a\0"})),
    (
        "E_ENTRYPOINT",
        "/payload/python/entry_point",
        with_payload("python", entry_point="package.module"),
    ),
    ("E_ENTRYPOINT", "/payload/agent/entry_point", with_payload("agent", entry_point="a b:c")),
    ("E_URI_SCHEME", _IN + "/source_uri", _input("ftp://example.org/a")),
    ("E_URI_SCHEME", _IN + "/source_uri", _input("data.csv")),
    ("E_URI_SCHEME", _OUT + "/target_uri", _output(target_uri=URI)),
    ("E_URI_SCHEME", "/notify/0/url", body(notify=[{"url": "http://example.org"}])),
    ("E_URI_HOST", _IN + "/source_uri", _input("https://127.1/a")),
    ("E_URI_HOST", "/notify/0/url", body(notify=[{"url": "https://[::1]/"}])),
    ("E_URI_CRED", _IN + "/source_uri", _input("https://me:hunter2@example.org/a")),
    ("E_URI_CRED", _IN + "/source_uri", _input(f"{URI}?X-Amz-Signature=abc")),
    ("E_PATH", _IN + "/mount_path", _input(URI, "../../etc/passwd")),
    ("E_PATH", _IN + "/mount_path", _input(URI, "/proc/self/mem")),
    ("E_PATH", _IN + "/mount_path", _input(URI, "/")),
    ("E_PATH", _IN + "/source_uri", _input("file:///data/%2e%2e/x")),
    ("E_PATH", "/workdir", body(workdir="~/code")),
    ("E_PATH", "/environment/requirements/0", body(environment={"requirements": ["-r other.txt"]})),
    ("E_PATH", "/payload/pipeline/deployment", with_payload("pipeline", deployment="a/../b")),
    ("E_OUTPUT_KIND", _OUT + "/type", _output(type="spreadsheet")),
    ("E_ARCHIVE", "/environment/conda_pack", body(environment={"conda_pack": "env.rar"})),
    ("E_SECRET", "/secrets/0/ref", body(secrets=[{"name": "T", "ref": "hunter2"}])),
    ("E_SECRET", _ENV + "/DB_PASSWORD", with_payload("process", env={"DB_PASSWORD": "hunter2"})),
    ("E_SECRET", _ENV + "/X", with_payload("process", env={"X": "ghp_" + "a1" * 18})),
    (
        "E_SECRET",
        "/payload/python/source/1",
        with_payload(
            "python", entry_point="a.py:f", source=["def f():", f"    return 'ghp_{'a1' * 18}'"]
        ),
    ),
    (
        "E_URI_CRED",
        "/environment/requirements/0",
        body(environment={"requirements": ["a @ https://user:word@example.org/a.whl"]}),
    ),
    ("E_PATH", "/environment/requirements/0", body(environment={"requirements": ["a${HOME}"]})),
    (
        "E_SECRET",
        "/payload/process/command/1",
        with_payload("process", command=["a", "--t=ghp_" + "a1" * 18]),
    ),
    ("E_SLURM_FIELD", "", b"#!/bin/sh\n#SBATCH --array=1-10\n"),
    ("E_SLURM_FIELD", "", b"#!/usr/bin/perl\n#SBATCH -N 1\n"),
    ("E_SSH_TARGET", "/backends/0", body(backends=["ssh://ada@login.example.org"])),
    ("E_SSH_TARGET", "/backends/1", body(backends=["local", "ada@login.example.org:22"])),
    (
        "E_INTEGRITY",
        _IN + "/sha256",
        with_payload("process", inputs=[{"source_uri": URI, "mount_path": "a", "sha256": "abc"}]),
    ),
    ("E_FLOW", "/payload/flow/energy", with_payload("flow", energy={"terms": [], "state": {}})),
    ("E_FLOW", "/payload/flow/energy", with_payload("flow", energy={"atoms": [{"type": "l1"}]})),
    (
        "E_PIPELINE",
        "/payload/pipeline/architecture",
        with_payload("pipeline", architecture={"system": {}}),
    ),
    ("E_AGENT", "/payload/agent", with_payload("agent", count=9, max_agents=3)),
    ("E_AGENT", "/payload/agent/scheduler", with_payload("agent", scheduler={"policy": "custom"})),
    ("E_LAB", "/payload/lab/steps/0", _step(parameters={"v": 3}, limits={"v": {"max": 2}})),
    ("E_LAB", "/payload/lab/steps/0", _step(limits={"v": {"max": 2}})),
    (
        "E_LAB",
        "/payload/lab/steps/0",
        _step(parameters={"v": {"value": 3, "unit": "mL"}}, limits={"v": {"max": 2, "unit": "µL"}}),
    ),
    (
        "E_LAB",
        "/payload/lab/steps/0/limits/v",
        _step(parameters={"v": 3}, limits={"v": {"min": 3, "max": 2}}),
    ),
    (
        "E_UNKNOWN_FIELD",
        "/payload/execution/timeout",
        {"id": "a", "payload": {"execution": {"command": ["x"], "timeout": 5}}},
    ),
    (
        "E_ISOLATION",
        "/payload/execution/mounts/0",
        {
            "id": "a",
            "payload": {
                "execution": {"command": ["x"], "mounts": [{"host_path": "/a", "mount_path": "/b"}]}
            },
        },
    ),
    (
        "E_TYPE",
        "/payload/execution/timeout_seconds",
        {**TASK, "payload": {"execution": {"command": ["x"], "timeout_seconds": "soon"}}},
    ),
]


def rejected(case: Any, **more: Any) -> tuple[Problem, ...]:
    """Return the problems of a body that must be refused."""
    with pytest.raises(RequestRejected) as refused:
        admit(case, **more)
    return refused.value.problems


@pytest.mark.parametrize(
    ("code", "path", "case"), CASES, ids=[f"{code}-{n}" for n, (code, _, _) in enumerate(CASES)]
)
def test_code_at_its_place(code: str, path: str, case: Any) -> None:
    """A fault is reported under its code, at the place where it is."""
    found = {(problem.code, problem.path) for problem in rejected(case)}

    assert (code, path) in found


def test_every_code_of_admission_has_a_case() -> None:
    """No code is promised that nothing can raise."""
    promised = {code for code, row in CODES.items() if row.admission}

    assert promised == {code for code, _, _ in CASES}


def test_single_faults_give_single_problems() -> None:
    """One fault is one problem: nothing else is reported in its wake."""
    alone = [
        (code, path, case)
        for code, path, case in CASES
        if is_table(case) and {"id", "payload"} <= case.keys()
    ]

    for code, path, case in alone:
        assert [(problem.code, problem.path) for problem in rejected(case)] == [(code, path)], case


@pytest.mark.parametrize("kind", get_args(ErrorType))
def test_every_pydantic_error_has_a_code(kind: str) -> None:
    """A new error type of pydantic must be given a code before it is met."""
    assert code_of(kind) in CODES


def test_table_of_codes_is_written_out() -> None:
    """Each code has a title, a meaning and a remedy that are sentences."""
    for code, row in CODES.items():
        assert code == row.code
        assert row.title
        assert row.meaning.endswith(".")
        assert row.remedy.endswith(".")
