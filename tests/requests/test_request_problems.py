"""What a person reads when a request is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from temporal_fabric.requests import admit
from tests.requests.examples import PROCESS, body, with_payload
from tests.requests.test_request_codes import rejected

CANARY = "hunter2-canary"


def test_all_problems_at_once_with_lines() -> None:
    """Syntax, unknown fields, types, expressions and contradictions come in one answer."""
    text = """\
id: Foo
id: bar
priorty: 3
class: cpu_shrt
requirements: {constraints: ["a =="]}
objective: deadline
payload:
  process: {command: [x], env: {A: 1.10}}
"""

    found = [(p.code, p.path, p.line) for p in rejected(text)]

    assert found == [
        ("E_DUP_KEY", "/id", 2),
        ("E_UNKNOWN_FIELD", "/priorty", 3),
        ("E_RANGE", "/class", 4),
        ("E_EXPR_SYNTAX", "/requirements/constraints/0", 5),
        ("E_CONFLICT", "/objective", 6),
        ("E_TYPE", "/payload/process/env/A", 8),
    ]


@pytest.mark.parametrize(
    ("case", "hint"),
    [
        (body(priorty=3), "did you mean 'priority'?"),
        ({"id": "a", "payload": {"proces": {}}}, "did you mean 'process'?"),
        (with_payload("process", comand=["a"]), "did you mean 'command'?"),
        (body(retry={"max_atempts": 3}), "did you mean 'max_attempts'?"),
        (body(requirements={"resources": {"mem": 1}}), "known"),
        (body(requirements={"resources": {"memry": 1}}), "did you mean 'memory'?"),
        (body(requirements={"resources": [{"type": "cpu", "core": 1}]}), "did you mean 'cores'?"),
        ({**body(), "class": "cpu_shrt"}, "did you mean 'cpu_short'?"),
        (body(retry={"on": ["TIMOUT"]}), "did you mean 'TIMEOUT'?"),
        (with_payload("process", isolation="sandbx"), "did you mean 'sandbox'?"),
        (body() | {"id": "My Run"}, "'my-run'"),
        (body(limits={"wall_s": "1 hour"}), "1h30m"),
        ({"id": "a", "payload": {"execution": {"comand": []}}}, "did you mean 'command'?"),
        (b"#!/bin/sh\n#SBATCH --memm=1G", "did you mean --mem?"),
    ],
)
def test_message_says_what_to_do(case: Any, hint: str) -> None:
    """A slip of the pen is answered with what was probably meant."""
    assert any(hint in problem.message for problem in rejected(case))


@pytest.mark.parametrize("text", ["tags: [1.10]", '{"tags": [1.10]}'])
def test_number_for_a_string_is_quoted_as_spelled(text: str) -> None:
    """The advice repeats the number as it was written, not as it was read."""
    hints = [problem.message for problem in rejected(text)]

    assert 'must be a string; quote it: "1.10"' in hints


def test_twenty_problems_the_first_by_line() -> None:
    """Of many problems the first twenty are reported, in the order of the file."""
    text = "".join(f"unknown{index}: 1\n" for index in range(50))

    problems = rejected(text)

    assert [problem.line for problem in problems] == [1, 1, *range(1, 19)]


def test_values_are_cut_and_escaped() -> None:
    """No control character and nothing longer than 80 characters is echoed."""
    problems = rejected(body() | {"id": "\x1b[31m\u202e" + "x" * 500})

    assert len(str(problems[0].actual)) == 80
    assert str(problems[0].actual).startswith("\\x1b[31m\\u202e")


def test_pointers_are_escaped() -> None:
    """A key with slashes, tildes or control characters gives a readable pointer."""
    problems = rejected(body() | {"a/b~c\n": 1})

    assert problems[0].path == "/a~1b~0c\\x0a"


@pytest.mark.parametrize(
    "case",
    [
        with_payload("process", env={"DB_PASSWORD": CANARY}),
        with_payload("process", env={"API_KEY": 5, "DB_SECRET": CANARY + "\0"}),
        with_payload(
            "process", inputs=[{"source_uri": f"https://me:{CANARY}@a.org/x", "mount_path": "a"}]
        ),
        with_payload(
            "process", inputs=[{"source_uri": f"ftp://me:{CANARY}@a.org/x", "mount_path": "a"}]
        ),
        with_payload(
            "process", inputs=[{"source_uri": f"https://a.org/x?token={CANARY}", "mount_path": "a"}]
        ),
        body(workdir=f"https://{CANARY}@a.org/x"),
        body(secrets=[{"name": "T", "ref": CANARY}]),
        body(secrets=[{"name": "T", "ref": "secret://env/T", "value": CANARY}]),
        body(secrets=CANARY),
        body(password=CANARY),
        body(backends=[f"https://u:{CANARY}@host"]),
        body(notify=[{"url": f"http://u:{CANARY}@host"}]),
        f"#!/bin/sh\n#SBATCH --export=DB-PASSWORD={CANARY}\n#SBATCH --array=1",
    ],
)
def test_credentials_are_never_echoed(case: Any) -> None:
    """What could be a credential appears in no part of the answer."""
    answer = json.dumps([problem.as_dict() for problem in rejected(case)])

    assert CANARY not in answer


def test_known_credential_forms_are_masked() -> None:
    """A token of a well-known form is masked also where nobody expects one."""
    problems = rejected({**body(), "class": "ghp_" + "a1" * 18})

    assert problems[0].actual == "***"


def test_settings_that_only_sound_secret_are_accepted() -> None:
    """A variable is not a credential because of its name alone."""
    env = {"MAX_TOKENS": "512", "PAD_TOKEN": "[PAD]", "TOKENIZERS_PARALLELISM": "false", "KEY": "a"}

    assert admit(with_payload("process", env=env)).request.kind == "process"


def test_a_hole_is_reported_once() -> None:
    """A value that the reader refused is not refused again by the models."""
    problems = rejected("id: a\npayload: *gone\npriority: &p 3\n")

    assert [(p.code, p.path) for p in problems] == [
        ("E_YAML_FEATURE", "/payload"),
        ("E_YAML_FEATURE", "/priority"),
    ]


@pytest.mark.parametrize(
    ("workflow_id", "code", "path"),
    [
        ("experiment/default/other", "E_CONFLICT", "/id"),
        ("experiment/acme/p", "E_CONFLICT", "/tenant"),
        ("experiment/p", "E_NAME", ""),
        ("something", "E_NAME", ""),
    ],
)
def test_workflow_id_must_agree(workflow_id: str, code: str, path: str) -> None:
    """Id and tenant of the body and of the workflow id are the same or the request is refused."""
    problems = rejected({**PROCESS, "tenant": "default"}, workflow_id=workflow_id)

    assert [(p.code, p.path) for p in problems] == [(code, path)]


def test_an_engines_own_words_are_printable() -> None:
    """A character that a terminal cannot show is escaped, also where the CEL engine quotes it."""
    problems = rejected(body(requirements={"constraints": ["a \ufeff b"]}))

    assert all(problem.message.isprintable() for problem in problems)
    assert "\\ufeff" in problems[0].message
