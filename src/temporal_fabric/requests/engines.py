"""Payloads that an engine of the fabric runs: flow, pipeline, agent, lab.

Only what a request itself can get wrong is checked here; each engine checks the rest when it
has read the files that the payload names.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, model_validator

from temporal_fabric.requests import limits
from temporal_fabric.requests.fields import (
    Bytes,
    EntryPoint,
    Items,
    Model,
    Name,
    PathOrUri,
    Seconds,
    Title,
    choice,
    refuse,
)
from temporal_fabric.requests.payloads import Env, Inputs, Outputs
from temporal_fabric.shapes import is_rows, is_table

__all__ = ["AgentPayload", "FlowPayload", "LabPayload", "LabStep", "PipelinePayload", "Quantity"]

Json = dict[str, JsonValue]


def _energy(value: Json) -> Json:
    parts = value.get("terms", value.get("atoms"))
    if not isinstance(parts, list) or not parts:
        raise refuse("E_FLOW", "has no terms; list them under `terms` (or `atoms`)")
    for index, part in enumerate(parts):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise refuse("E_FLOW", f"has a term without a `type`, at position {index}")
    if not isinstance(value.get("state"), dict):
        raise refuse("E_FLOW", "has no `state` that gives the shape of each variable")
    return value


class FlowPolicy(Model):
    """How the flow moves; what is unset is the specification's `flow`."""

    family: (
        Literal[
            "gradient",
            "preconditioned",
            "proximal",
            "accelerated",
            "primal_dual",
            "hamiltonian_damped",
        ]
        | None
    ) = None
    discretization: Literal["explicit", "symplectic"] | None = None
    preconditioner: Title | None = None


class FlowSchedule(Model):
    """When finer scales are switched on; what is unset is the specification's `multiscale`."""

    mode: Literal["residual_driven", "fixed_schedule"] | None = None
    levels: int | None = Field(default=None, ge=1, le=20)
    tau: float | None = Field(default=None, gt=0, le=1e6)
    """residual_driven: a scale joins when its residual is above tau times that of the others."""
    every: int | None = Field(default=None, ge=1, le=10**9)
    """fixed_schedule: iterations for each scale."""


class FlowCertificates(Model):
    """What must hold before and while the flow runs; unset is as the specification says."""

    profile: (
        Literal["strict", "strongly_convex", "convex", "nonconvex", "manifold", "hamiltonian"]
        | None
    ) = None
    eta_max: float | None = Field(default=None, ge=0, le=1e6)
    gamma_min: float | None = Field(default=None, ge=0, le=1e12)
    tolerances: Annotated[dict[str, float], Field(max_length=64)] | None = None
    """Bounds that replace the profile's own."""
    refinement_test: bool | None = None


class FlowBudgets(Model):
    """What the flow may spend over all its attempts; unset is the specification's `budget`."""

    iterations: int | None = Field(default=None, ge=1, le=10**12)
    trials: int | None = Field(default=None, ge=1, le=10**6)
    rollbacks: int | None = Field(default=None, ge=0, le=10**6)
    wall_s: Seconds | None = None


class FlowPayload(Model):
    """A certified flow: an energy, and how to descend it.

    Exactly one of `spec`, `energy` and `entry_point` says what the energy is.
    """

    spec: PathOrUri | None = None
    """File of the submitting machine that holds the specification; `submit` reads it."""
    energy: Annotated[Json, AfterValidator(_energy)] | None = None
    """The energy specification itself: terms (or atoms) and state."""
    entry_point: EntryPoint | None = None
    """Function that returns the energy specification."""
    parameters: Json = Field(default={})
    """Passed to the entry point, or recorded."""
    policy: FlowPolicy = FlowPolicy()
    schedule: FlowSchedule = FlowSchedule()
    certificates: FlowCertificates = FlowCertificates()
    budgets: FlowBudgets = FlowBudgets()
    lens: Json = Field(default={})
    """Candidate transforms and the rule that chooses among them."""
    sparsity: Json = Field(default={})
    """Penalty, thresholding and how thresholds adapt."""
    seed: int | None = Field(default=None, ge=0, le=limits.INT_MAX)
    redact_artifacts: bool = False
    """Keep statistics of the result only: no arrays, pictures, checkpoints or data in files."""
    inputs: Inputs = ()
    outputs: Outputs = ()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [
            name for name in ("spec", "energy", "entry_point") if getattr(self, name) is not None
        ]
        _exactly_one(given, ("spec", "energy", "entry_point"), "the energy")
        return self


def _exactly_one(given: list[str], allowed: tuple[str, ...], noun: str) -> None:
    if not given:
        raise refuse("E_MISSING", f"does not say what {noun} is", allowed=allowed)
    if len(given) > 1:
        raise refuse(
            "E_CONFLICT", f"says twice what {noun} is: {', '.join(given)}", allowed=allowed
        )


def _blueprint(value: Any) -> Any:
    if is_table(value):
        system: Any = value.get("system", value)
        if not is_table(system) or not is_rows(system.get("components")):
            raise refuse("E_PIPELINE", "has no list of `components`")
    return value


class PipelinePayload(Model):
    """A system of streaming components, each part as a file or written inline."""

    architecture: Annotated[PathOrUri | Json, AfterValidator(_blueprint)]
    """architecture.yaml, or its content."""
    deployment: PathOrUri | Json
    """deployment.yaml, or its content."""
    build_lock: PathOrUri | Json | None = None
    """build.lock, or its content: the order of the capabilities."""
    env: Env = Field(default={})
    inputs: Inputs = ()
    outputs: Outputs = ()


class AgentScheduler(Model):
    """Which agent runs when."""

    policy: Literal["fair_share", "priority", "round_robin", "rate_based", "custom"] = "fair_share"
    entry_point: EntryPoint | None = None
    """The policy's function, for `custom`."""
    time_slice: Seconds | None = None
    max_concurrent: int | None = Field(default=None, ge=1, le=10**7)
    preemptive: bool = False

    @model_validator(mode="after")
    def _custom_has_code(self) -> Self:
        if (self.policy == "custom") != (self.entry_point is not None):
            raise refuse("E_AGENT", "takes an `entry_point` with policy custom, and only then")
        return self


class AgentIsolation(Model):
    """What an agent may reach and use."""

    level: Annotated[
        Literal["none", "limits", "sandbox", "process", "container"],
        choice(
            "E_ISOLATION", "level of isolation", "none", "limits", "sandbox", "process", "container"
        ),
    ] = "process"
    memory_limit: Bytes | None = None
    cpu_quota: float | None = Field(default=None, gt=0, le=65536)
    """Cores; 0.5 is half of one."""
    max_file_handles: int | None = Field(default=None, ge=1, le=10**6)
    max_network_connections: int | None = Field(default=None, ge=0, le=10**6)
    filesystem_readonly: bool = False
    network_restricted: bool = True

    @model_validator(mode="after")
    def _limits_need_a_level(self) -> Self:
        if self.level == "none" and (self.memory_limit or self.cpu_quota or self.max_file_handles):
            raise refuse("E_ISOLATION", "sets limits that level none cannot enforce; use limits")
        return self


class AgentBackoff(Model):
    """The wait before a restart."""

    strategy: Literal["fixed", "linear", "exponential"] = "exponential"
    initial: Seconds = 1.0
    max: Seconds = 60.0
    multiplier: float = Field(default=2.0, ge=1, le=100)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.initial:
            raise refuse("E_CONFLICT", "has a `max` below `initial`")
        return self


class AgentSupervision(Model):
    """What happens when an agent fails."""

    restart_policy: Literal["never", "on_failure", "always"] = "on_failure"
    max_restarts: int = Field(default=5, ge=0, le=10**6)
    backoff: AgentBackoff = AgentBackoff()
    health_check_interval: Seconds | None = None


class AgentPayload(Model):
    """Supervised agents."""

    entry_point: EntryPoint
    """The agent's class or function."""
    args: Annotated[tuple[JsonValue, ...], Items, Field(max_length=1024)] = ()
    kwargs: Annotated[Json, Field(max_length=1024)] = Field(default={})
    count: int = Field(default=1, ge=1, le=10**6)
    max_agents: int = Field(default=1000, ge=1, le=10**7)
    scheduler: AgentScheduler = AgentScheduler()
    isolation: AgentIsolation = AgentIsolation()
    supervision: AgentSupervision = AgentSupervision()
    env: Env = Field(default={})
    inputs: Inputs = ()
    outputs: Outputs = ()

    @model_validator(mode="after")
    def _room_for_all(self) -> Self:
        if self.count > self.max_agents:
            raise refuse("E_AGENT", "starts more agents than `max_agents`", limit=self.max_agents)
        return self


class Quantity(Model):
    """A number with its unit."""

    value: float = Field(ge=-1e18, le=1e18)
    unit: Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[A-Za-z%°µμΩ0-9./*^_ -]+$")]


class LabLimit(Model):
    """The range that a parameter must stay in, checked here and again at the device."""

    min: float | None = Field(default=None, ge=-1e18, le=1e18)
    max: float | None = Field(default=None, ge=-1e18, le=1e18)
    unit: Annotated[str, Field(min_length=1, max_length=32)] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min is not None and self.max is not None and self.max < self.min:
            raise refuse("E_LAB", "has a `max` below `min`")
        return self


Parameter = Quantity | bool | int | float | Title
Feature = Annotated[str, Field(max_length=256, pattern=r"^[A-Za-z][A-Za-z0-9._/-]*$")]
Identifier = Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
Parameters = Annotated[dict[Identifier, Parameter], Field(max_length=128)]


class LabCommand(Model):
    """A command to a device."""

    feature: Feature
    command: Identifier
    parameters: Parameters = Field(default={})


class LabStep(LabCommand):
    """One physical step, executed at most once."""

    command_id: Name
    """Identity of the step: the device never executes the same one twice."""
    limits: Annotated[dict[Identifier, LabLimit], Field(max_length=128)] = Field(default={})
    """Range of each parameter that has one."""
    compensate: LabCommand | None = None
    """What undoes the step when a later one fails."""
    timeout: Seconds | None = None

    @model_validator(mode="after")
    def _within_limits(self) -> Self:
        for name, limit in self.limits.items():
            if name not in self.parameters:
                raise refuse("E_LAB", f"limits a parameter that it does not set: {name}")
            _check_limit(name, self.parameters[name], limit)
        return self


def _check_limit(name: str, parameter: Parameter, limit: LabLimit) -> None:
    if isinstance(parameter, (bool, str)):
        raise refuse("E_LAB", f"limits a parameter that is no number: {name}")
    value = parameter.value if isinstance(parameter, Quantity) else parameter
    unit = parameter.unit if isinstance(parameter, Quantity) else None
    if unit != limit.unit:
        raise refuse(
            "E_LAB", f"gives {name} in {unit or 'no unit'}, its limit in {limit.unit or 'none'}"
        )
    if limit.min is not None and value < limit.min:
        raise refuse("E_LAB", f"sets {name} below its limit", limit=limit.min)
    if limit.max is not None and value > limit.max:
        raise refuse("E_LAB", f"sets {name} above its limit", limit=limit.max)


class LabPayload(Model):
    """Steps of a laboratory device, in order."""

    device: Name
    """Name of the device as its backend lists it."""
    steps: Annotated[tuple[LabStep, ...], Items, Field(min_length=1, max_length=limits.STEPS)]
    inputs: Inputs = ()
    outputs: Outputs = ()
