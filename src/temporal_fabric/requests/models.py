"""The request: one model, the same from YAML, JSON and Python."""

from collections.abc import Iterable, Mapping
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal, Self, TypeVar, cast

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    JsonValue,
    ValidationInfo,
    model_validator,
)

from temporal_fabric.names import DEFAULT_POOL, DEFAULT_TENANT
from temporal_fabric.requests import limits
from temporal_fabric.requests.consistency import contradictions
from temporal_fabric.requests.constraints import ScoreText
from temporal_fabric.requests.engines import (
    AgentPayload,
    FlowPayload,
    LabPayload,
    PipelinePayload,
)
from temporal_fabric.requests.fields import (
    AlsoAccepts,
    Folder,
    Items,
    Model,
    Name,
    Seconds,
    Title,
    has_control,
    is_models,
    refuse,
)
from temporal_fabric.requests.moments import read_deadline
from temporal_fabric.requests.payloads import (
    ContainerPayload,
    Input,
    Output,
    ProcessPayload,
    PythonPayload,
)
from temporal_fabric.requests.resources import Requirements
from temporal_fabric.requests.rollback import Rollback
from temporal_fabric.requests.settings import (
    Artifacts,
    Checkpoint,
    Environment,
    Limits,
    Notifications,
    Retry,
    Secrets,
)
from temporal_fabric.shapes import is_table

__all__ = ["KINDS", "SCHEMA_VERSION", "ExecutionRequest", "Payload"]

T = TypeVar("T")

SCHEMA_VERSION = "1"

PayloadKind = Literal["container", "process", "python", "flow", "pipeline", "agent", "lab"]
KINDS: tuple[PayloadKind, ...] = (
    "container",
    "process",
    "python",
    "flow",
    "pipeline",
    "agent",
    "lab",
)
AnyPayload = (
    ContainerPayload
    | ProcessPayload
    | PythonPayload
    | FlowPayload
    | PipelinePayload
    | AgentPayload
    | LabPayload
)

Tag = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/=-]{0,62}$")]


def _no_target(value: Any) -> Any:
    # A name has no colon; `ssh://me@login` and `me@login:22` have one.
    if isinstance(value, str) and ":" in value:
        what = "is an SSH target; give the name of the backend that is configured for it"
        raise refuse("E_SSH_TARGET", what)
    return value


BackendName = Annotated[
    str,
    BeforeValidator(_no_target),
    Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}(@[A-Za-z0-9][A-Za-z0-9._-]{0,62})?$"),
]


class Payload(Model):
    """What to run: exactly one kind."""

    container: ContainerPayload | None = None
    process: ProcessPayload | None = None
    python: PythonPayload | None = None
    flow: FlowPayload | None = None
    pipeline: PipelinePayload | None = None
    agent: AgentPayload | None = None
    lab: LabPayload | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_kind(cls, data: Any) -> Any:
        if not is_table(data):
            return data
        given = [kind for kind in KINDS if data.get(kind) is not None]
        if len(given) > 1:
            raise refuse("E_CONFLICT", f"has several kinds: {', '.join(given)}", allowed=KINDS)
        if not given and all(key in KINDS for key in data):
            raise refuse("E_MISSING", "does not say what to run", allowed=KINDS)
        return data

    @property
    def kind(self) -> PayloadKind:
        """The one kind that is given."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def body(self) -> AnyPayload:
        """The payload of that kind."""
        return cast("AnyPayload", getattr(self, self.kind))


def _pointed(at: str, items: Iterable[T]) -> dict[str, T]:
    return {f"{at}/{place}": item for place, item in enumerate(items)}


def _provenance(value: str) -> str:
    if has_control(value):
        raise refuse("E_NAME", "has a control character; remove it")
    return value


class ExecutionRequest(Model):
    """A request to run one experiment, independent of where it will run.

    Frozen; `model_copy(update=...)` does not validate, so change the body and build anew.
    Building one from Python raises pydantic's own error; the `from_...` constructors raise
    `RequestRejected` with every problem at once.
    """

    id: Name
    """Identity within the tenant: the same id and body is the same experiment."""
    tenant: Name = DEFAULT_TENANT
    schema_version: Literal["1"] = "1"
    name: Title | None = None
    """For people; need not be unique."""
    tags: Annotated[tuple[Tag, ...], Items, Field(max_length=limits.TAGS)] = ()
    provenance_hash: (
        Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_provenance)] | None
    ) = None
    """Opaque; kept in the manifest."""
    priority: int = Field(default=5, ge=1, le=10)
    """1 to 10, 10 most urgent."""
    request_class: Literal["cpu_short", "cpu_long", "gpu", "gpu_slurm"] | None = Field(
        default=None, validation_alias="class", serialization_alias="class"
    )
    """Task class, a hint to the planner."""
    pool: Name = DEFAULT_POOL
    backends: Annotated[tuple[BackendName, ...], Items, Field(max_length=limits.BACKENDS)] = ()
    """Names of backends to try, in order; empty leaves the choice to the planner."""
    requirements: Requirements = Requirements()
    payload: Payload
    limits: Limits = Limits()
    retry: Retry = Retry()
    checkpoint: Checkpoint | None = None
    objective: ScoreText = "balanced"
    """speed, cost, balanced, deadline, or a CEL expression: the highest number wins."""
    deadline: (
        Annotated[
            str | float,
            AfterValidator(read_deadline),
            AlsoAccepts({"type": "string", "format": "date-time"}),
        ]
        | None
    ) = None
    """A moment with its time zone, or a duration after submission."""
    budget_usd: float | None = Field(default=None, ge=0, le=1e9)
    queue_timeout: Seconds | None = None
    """How long it may wait for a backend."""
    workdir: Folder | None = None
    """Folder brought along into FABRIC_TASK_DIR; `submit` uploads it and puts its digest here."""
    environment: Environment | None = None
    secrets: Secrets = ()
    notify: Notifications = ()
    rollback: Rollback = ()
    """Run after a failure or a cancellation, the last one first."""
    context: dict[str, JsonValue] = Field(default={})
    """Free fields for audit, kept in the manifest."""
    artifacts: Artifacts = Artifacts()

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> Self:
        # Admission looks for contradictions itself, over the whole body, so that they are
        # reported beside the faults of single fields. This is for requests built in Python.
        if not is_models(info.context):
            for found in contradictions(self.to_full_body()):
                raise refuse(found.code, found.what)
        return self

    @property
    def kind(self) -> PayloadKind:
        """The payload's kind."""
        return self.payload.kind

    @property
    def inputs(self) -> dict[str, Input]:
        """Every input, of the payload and beside it, by its JSON pointer."""
        given = getattr(self.payload.body, "inputs", ())
        return _pointed(f"/payload/{self.kind}/inputs", given) | _pointed(
            "/artifacts/inputs", self.artifacts.inputs
        )

    @property
    def outputs(self) -> dict[str, Output]:
        """Every declared output, of the payload and beside it, by its JSON pointer."""
        given = getattr(self.payload.body, "outputs", ())
        return _pointed(f"/payload/{self.kind}/outputs", given) | _pointed(
            "/artifacts/outputs", self.artifacts.outputs
        )

    @staticmethod
    def from_file(path: str | FilePath) -> "ExecutionRequest":
        """Read a request from a YAML, JSON, task or script file.

        Raises:
            RequestRejected: with every problem; an unreadable file is one too.
        """
        # Admission imports this module; importing it late is what lets both exist.
        from temporal_fabric.requests import admission  # noqa: PLC0415

        return admission.admit(admission.read_file(FilePath(path)), source=str(path)).request

    @staticmethod
    def from_text(text: str | bytes, *, source: str | None = None) -> "ExecutionRequest":
        """Read a request from text.

        Raises:
            RequestRejected: with every problem.
        """
        from temporal_fabric.requests import admission  # noqa: PLC0415 - as above

        return admission.admit(text, source=source).request

    @staticmethod
    def from_mapping(mapping: Mapping[str, Any]) -> "ExecutionRequest":
        """Read a request from a mapping.

        Raises:
            RequestRejected: with every problem.
        """
        from temporal_fabric.requests import admission  # noqa: PLC0415 - as above

        return admission.admit(mapping).request

    def to_body(self) -> dict[str, Any]:
        """Return the request as a JSON object without defaults; admitting it gives it back."""
        return self.model_dump(mode="json", exclude_defaults=True, by_alias=True)

    def to_full_body(self) -> dict[str, Any]:
        """Return the request as plain values with its defaults, but for those that are null."""
        return self.model_dump(by_alias=True, exclude_none=True)

    def to_yaml(self) -> str:
        """Return the request as YAML; admitting it gives it back."""
        from temporal_fabric.requests.writing import to_yaml  # noqa: PLC0415 - rarely needed

        return to_yaml(self.to_body())
