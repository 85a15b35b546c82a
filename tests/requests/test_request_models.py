"""The model: what is accepted, in which short forms, and what it becomes."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from temporal_fabric.errors import RequestRejected
from temporal_fabric.requests import ExecutionRequest, admit, digest, json_schema
from temporal_fabric.requests.changes import raised
from temporal_fabric.requests.models import KINDS, Payload
from temporal_fabric.requests.payloads import ProcessPayload
from temporal_fabric.requests.resources import Cpu, Disk, Gpu, Memory
from tests.requests.examples import (
    PAYLOADS,
    PROCESS,
    SEED_YAML,
    SHORT_YAML,
    body,
    with_payload,
)
from tests.requests.test_request_codes import rejected

if TYPE_CHECKING:
    from pathlib import Path


def test_the_seeds_example_is_accepted_verbatim() -> None:
    """The first document's request validates as it stands there."""
    request = admit(SEED_YAML).request

    assert (request.id, request.tenant, request.priority) == ("exec_req_123", "default", 8)
    assert request.provenance_hash == "sha256:..."
    assert request.requirements.resources == (
        Cpu(type="cpu", cores=16),
        Gpu(type="gpu", model="A100", count=2),
        Memory(type="memory", size_gb=128),
    )
    container = request.payload.container
    assert container is not None
    assert container.image == "research/protein-folding:v1.2"
    assert container.command == ("python", "run.py", "--data", "/input/data.bin")
    assert container.outputs[0].target_uri == "s3://foundry-artifacts/results/exec_req_123"


def test_short_forms() -> None:
    """Short forms of resources, sizes, durations and retries become plain numbers."""
    request = admit(SHORT_YAML).request

    assert request.requirements.resources == (
        Cpu(type="cpu", cores=16, at_least=True),
        Gpu(type="gpu", model="A100", count=2),
        Memory(type="memory", size_gb=128),
        Disk(type="disk", size_gb=2**40 / 1e9),
    )
    assert request.limits.wall_s == 5400
    assert request.limits.log_bytes == 10_000_000
    assert request.retry.on is not None
    assert request.retry.on["OOM"].memory == "x2"
    assert request.retry.on["OOM"].max == 256
    assert request.retry.on["TIMEOUT"].max == 14_400
    assert request.deadline == "2026-12-24T17:00:00Z"
    assert request.queue_timeout == 172_800
    assert request.request_class == "gpu"
    assert [use.expose for use in request.secrets] == ["env", "file"]


def test_long_and_short_forms_have_one_digest() -> None:
    """How an amount is written does not change what is asked for."""
    short = body(
        requirements={"resources": {"cpu": "16+", "memory": "64GB"}}, retry={"on": ["OOM"]}
    )
    long = body(
        requirements={
            "type": "computation",
            "resources": [
                {"type": "cpu", "cores": 16, "at_least": True},
                {"memory": {"size_gb": 64.0}},
            ],
            "constraints": [],
        },
        retry={"on": {"OOM": {}}, "max_attempts": 1},
        priority=5,
        env=None,
    )
    del long["env"]

    assert admit(short).digest == admit(long).digest


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_accepted(kind: str) -> None:
    """Each of the seven payloads validates, round trips, and says its kind."""
    admission = admit(body(kind))

    assert set(PAYLOADS) == set(KINDS)
    assert admission.request.kind == kind
    assert admission.request.payload.body is getattr(admission.request.payload, kind)
    assert admit(admission.request.to_body()).digest == admission.digest
    assert admit(admission.request.to_yaml()).digest == admission.digest


def test_defaults() -> None:
    """What others rely on where a request is silent."""
    request = admit(PROCESS).request

    assert (request.priority, request.pool, request.backends, request.tags) == (
        5,
        "default",
        (),
        (),
    )
    assert (request.retry.max_attempts, request.retry.on) == (1, None)
    assert (request.limits.wall_s, request.limits.grace_s) == (None, 10.0)
    assert (request.requirements.type, request.requirements.resources) == ("computation", ())
    assert request.to_body() == PROCESS


@pytest.mark.parametrize("field", sorted(set(ExecutionRequest.model_fields) - {"id", "payload"}))
def test_null_means_absent(field: str) -> None:
    """A key with nothing behind it is as if it were not there."""
    name = "class" if field == "request_class" else field

    assert admit({**PROCESS, name: None}).digest == admit(PROCESS).digest


def test_null_does_not_hide_an_unknown_field() -> None:
    """A misspelled key is reported also with nothing behind it."""
    assert rejected({**PROCESS, "priorty": None})[0].code == "E_UNKNOWN_FIELD"


def test_python_builds_the_same_request() -> None:
    """Keyword arguments, a mapping and YAML give one request; field names are Python's."""
    process = ProcessPayload(command=("true",))
    built = ExecutionRequest(id="p", payload=Payload(process=process), request_class="gpu")

    assert built == ExecutionRequest.from_mapping({**PROCESS, "class": "gpu"})
    assert digest(built) == admit({**PROCESS, "class": "gpu"}).digest


def test_python_constructor_looks_for_contradictions() -> None:
    """Building a request directly refuses what admission refuses."""
    with pytest.raises(ValidationError, match="no `deadline`"):
        ExecutionRequest(**PROCESS, objective="deadline")


def test_request_is_frozen() -> None:
    """A request cannot be changed after it was validated."""
    request = admit(PROCESS).request
    name = "priority"

    with pytest.raises(ValidationError):
        setattr(request, name, 9)


def test_unvalidated_request_is_refused_not_raised() -> None:
    """A request built around validation is validated by admission."""
    wrong: Any = {"priority": 99, "payload": None}
    garbage: Any = {"priority": object()}

    assert rejected(ExecutionRequest.model_construct(**wrong))
    assert rejected(ExecutionRequest.model_construct(**garbage))
    assert (
        rejected(admit(PROCESS).request.model_copy(update={"priority": 99}))[0].path == "/priority"
    )


def test_from_file(tmp_path: Path) -> None:
    """A file is read; a missing or oversized one is refused like any other fault."""
    file = tmp_path / "request.yaml"
    file.write_text(SEED_YAML)
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * 300_000)

    assert ExecutionRequest.from_file(file).id == "exec_req_123"
    with pytest.raises(RequestRejected) as missing:
        ExecutionRequest.from_file(tmp_path / "none.yaml")
    with pytest.raises(RequestRejected) as too_large:
        ExecutionRequest.from_file(str(large))
    assert missing.value.code == "E_PATH"
    assert too_large.value.code == "E_TOO_LARGE"


@pytest.mark.parametrize(
    ("workflow_id", "fields", "expected"),
    [
        ("experiment/acme/run-1", {}, ("acme", "run-1")),
        ("experiment/acme/run-1", {"id": "run-1", "tenant": "acme"}, ("acme", "run-1")),
        ("experiment/a/r-2026-11-21T08:00:00Z", {}, ("a", "r-20261121t080000z")),
        ("experiment/a/r-2026-11-21T08:00:00Z", {"id": "r"}, ("a", "r-20261121t080000z")),
        (
            "experiment/a/r-2026-11-21T08:00:00Z",
            {"id": "r-20261121t080000z"},
            ("a", "r-20261121t080000z"),
        ),
    ],
)
def test_identity_from_the_workflow_id(
    workflow_id: str, fields: dict[str, str], expected: tuple[str, str]
) -> None:
    """Tenant and id come from the workflow id; each firing of a Schedule is its own request."""
    asked = {"payload": PROCESS["payload"], **fields}

    admission = admit(asked, workflow_id=workflow_id)

    assert (admission.request.tenant, admission.request.id) == expected
    assert admission.digest == admit(PROCESS).digest


def test_a_scheduled_id_must_fit_with_its_time() -> None:
    """A name that leaves no room for the time of a firing is refused."""
    workflow_id = f"experiment/a/{'r' * 60}-2026-11-21T08:00:00Z"

    assert rejected({"payload": PROCESS["payload"]}, workflow_id=workflow_id)[0].code == "E_NAME"


@pytest.mark.parametrize("field", ["id", "tenant", "pool"])
@pytest.mark.parametrize(
    "name", ["", "-a", ".a", "A", "a b", "a/b", "a\n", "ä", "a" * 64, "a;b", "$(a)"]
)
def test_names_take_no_metacharacters(field: str, name: str) -> None:
    """A name is safe in a path, a label and a command line."""
    assert [p.code for p in rejected({**PROCESS, field: name})] == ["E_NAME"]


@pytest.mark.parametrize(
    "image",
    [
        "python",
        "python:3.12-slim",
        "ghcr.io/a/b__c/d-e.f:v1",
        "localhost:5000/a@sha256:" + "0" * 64,
        "REGISTRY.example.org/a",
    ],
)
def test_images(image: str) -> None:
    """References as registries write them are accepted."""
    assert admit(with_payload("container", image=image)).request.kind == "container"


@pytest.mark.parametrize(
    "image", ["", "A", "a:", "a@sha256:1", "a b", "-a", "a/-b", "a:b/c:d", "a" * 513]
)
def test_images_that_are_none(image: str) -> None:
    """Anything else is refused before a registry is asked."""
    assert [p.code for p in rejected(with_payload("container", image=image))] == ["E_IMAGE"]


def test_raised_resources() -> None:
    """A retry asks for more, up to its ceiling, and only of what was asked for."""
    request = admit(SHORT_YAML).request

    after_oom = raised(request, "OOM")
    twice = raised(after_oom, "OOM")

    assert after_oom.requirements.resources[2] == Memory(type="memory", size_gb=256)
    assert twice.requirements.resources[2] == Memory(type="memory", size_gb=256)
    assert raised(request, "TIMEOUT").limits.wall_s == 8100
    assert raised(request, "LOST") == request
    assert raised(request, "SIGNAL") is request


def test_schema_describes_the_request() -> None:
    """The schema names its dialect and itself, and closes every object of ours."""
    schema = json_schema()

    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"].startswith("urn:")
    assert schema["title"] == "ExecutionRequest"
    assert schema["required"] == ["id", "payload"]
    assert "class" in schema["properties"]
    for name, definition in schema["$defs"].items():
        assert name == "JsonValue" or definition["additionalProperties"] is False
        assert name == "JsonValue" or definition["description"]


def test_schema_is_a_copy() -> None:
    """Changing the returned schema changes nothing for the next caller."""
    json_schema()["properties"].clear()

    assert json_schema()["properties"]


def test_importing_the_package_is_cheap() -> None:
    """The command line imports the package without paying for validation."""
    code = (
        "import sys, temporal_fabric.requests as r; "
        "bad = {'pydantic', 'yaml', 'cel_expr_python', 'temporalio'} & sys.modules.keys(); "
        "assert not bad, bad; r.admit; assert 'pydantic' in sys.modules; "
        "bad = {'temporalio', 'docker', 'kubernetes', 'jax'} & sys.modules.keys(); assert not bad"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
