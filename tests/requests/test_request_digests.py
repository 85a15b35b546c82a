"""Digests and defaults are frozen: a change here breaks resubmission across an upgrade."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from temporal_fabric.requests import ExecutionRequest, admit, digest, field_digests, json_schema
from temporal_fabric.requests.digests import canonical_json, shape
from tests.requests.examples import PAYLOADS, PROCESS, SCRIPT, SEED_YAML, SHORT_YAML, TASK, body

GOLDEN = Path(__file__).parent / "golden.json"


def _digests() -> dict[str, str]:
    bodies: dict[str, Any] = {
        "seed": SEED_YAML,
        "short": SHORT_YAML,
        "task": TASK,
        "script": SCRIPT,
        **{kind: body(kind) for kind in PAYLOADS},
    }
    return {name: admit(value).digest for name, value in bodies.items()}


def _defaults(schema: dict[str, Any]) -> dict[str, Any]:
    models = {"ExecutionRequest": schema, **schema["$defs"]}
    return {
        f"{name}.{key}": field["default"]
        for name, model in sorted(models.items())
        for key, field in sorted(model.get("properties", {}).items())
        if "default" in field
    }


def test_golden_digests() -> None:
    """These bodies keep their digests for ever."""
    assert _digests() == json.loads(GOLDEN.read_text())["digests"]


def test_golden_defaults() -> None:
    """A default is part of the meaning of every stored request: within a version none changes.

    A new field may be added to the golden file; an entry in it must not change.
    """
    assert _defaults(json_schema()) == json.loads(GOLDEN.read_text())["defaults"]


def test_identity_is_not_part_of_the_digest() -> None:
    """Id and tenant name the request, they are not what it asks for."""
    other = {**PROCESS, "id": "other", "tenant": "acme"}

    assert admit(other).digest == admit(PROCESS).digest


def test_order_and_explicit_defaults_do_not_matter() -> None:
    """Neither the order of keys nor writing a default out changes the digest."""
    no_rules: dict[str, Any] = {}
    backwards = dict(reversed(PROCESS.items()))
    spelled = {"priority": 5, "pool": "default", "retry": no_rules, **backwards}

    assert admit(spelled).digest == admit(PROCESS).digest


def test_content_matters() -> None:
    """Any other value gives another digest, and its field is named."""
    left = admit({**PROCESS, "priority": 6, "tags": ["a"]})
    right = admit({**PROCESS, "priority": 7, "tags": ["a"]})

    differing = {
        name
        for name in left.field_digests | right.field_digests
        if left.field_digests.get(name) != right.field_digests.get(name)
    }

    assert left.digest != right.digest
    assert differing == {"priority"}


def test_digest_of_a_python_request() -> None:
    """A request built in Python has the digest of its body."""
    request = ExecutionRequest(**PROCESS, context={"zero": -0.0})

    assert digest(request) == admit({**PROCESS, "context": {"zero": 0.0}}).digest
    assert digest(request).startswith("sha256:")
    assert set(field_digests(request)) == {"payload", "context"}


def test_canonical_json() -> None:
    """One spelling: sorted, tight, UTF-8, no negative zero outside strings."""
    value: dict[str, Any] = {"b": [-0.0, 1, True, None, "ä-0.0"], "a": {"z": 1.5, "y": {}}}

    assert canonical_json(value) == '{"a":{"y":{},"z":1.5},"b":[0.0,1,true,null,"ä-0.0"]}'.encode()


def test_the_shape_covers_where_it_can_run_and_not_what_is_run() -> None:
    """One answer about backends serves every request that differs in its words only."""
    payload = {"process": {**PROCESS["payload"]["process"], "command": ["other"]}}
    words = {**PROCESS, "id": "other", "name": "other", "tags": ["x"], "payload": payload}
    place = {**PROCESS, "backends": ["elsewhere"]}

    assert shape(admit(words).request) == shape(admit(PROCESS).request)
    assert shape(admit(place).request) != shape(admit(PROCESS).request)
