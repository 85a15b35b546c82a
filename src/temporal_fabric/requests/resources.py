"""What a request asks of a machine: resources, their short forms, and retry changes.

Amounts are per node; ``nodes`` multiplies them.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from temporal_fabric.requests import limits
from temporal_fabric.requests.constraints import ConstraintText
from temporal_fabric.requests.fields import (
    AlsoAccepts,
    Gigabytes,
    Items,
    Model,
    Name,
    refuse,
)
from temporal_fabric.requests.quantities import parse_at_least, parse_gpu, size_gigabytes
from temporal_fabric.shapes import is_table

__all__ = [
    "Cpu",
    "Device",
    "Disk",
    "Gpu",
    "License",
    "Memory",
    "Nodes",
    "Requirements",
    "Resource",
]


def _open_amount(fields: dict[str, Any], key: str) -> dict[str, Any]:
    """Read ``16+`` in one field of a resource."""
    text = fields.get(key)
    if not isinstance(text, str):
        return fields
    amount = parse_at_least(text)
    if amount is None:
        raise refuse(
            "E_TYPE", f"has {key} that is no number; write 16, or 16+ where more is welcome"
        )
    extra = {"at_least": True} if amount.open_ended else {}
    return {**fields, key: amount.value, **extra}


def _cpu(value: Any) -> dict[str, Any]:
    return _open_amount({"type": "cpu", "cores": value}, "cores")


def _gpu(value: Any) -> dict[str, Any]:
    if isinstance(value, int):
        return {"type": "gpu", "count": value}
    ask = parse_gpu(value) if isinstance(value, str) else None
    if ask is None:
        raise refuse("E_TYPE", "is not a number of GPUs; write 2, A100 or A100:2")
    fields: dict[str, Any] = {"type": "gpu", "count": ask.devices}
    if ask.model is not None:
        fields["model"] = ask.model
    if ask.open_ended:
        fields["at_least"] = True
    return fields


def _sized(kind: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, str):
        return {"type": kind, "size_gb": value}
    open_ended = value.endswith("+")
    size = size_gigabytes(value.removesuffix("+"))
    number = parse_at_least(value)
    if size is None and number is None:
        raise refuse("E_TYPE", "is not a size; write 128GB, 512MiB, or gigabytes as a number")
    extra = {"at_least": True} if open_ended else {}
    return {"type": kind, "size_gb": size if number is None else number.value, **extra}


def _memory(value: Any) -> dict[str, Any]:
    return _sized("memory", value)


def _disk(value: Any) -> dict[str, Any]:
    return _sized("disk", value)


def _nodes(value: Any) -> dict[str, Any]:
    return {"type": "nodes", "count": value}


def _device(value: Any) -> dict[str, Any]:
    return {"type": "device", "name": value}


def _license(value: Any) -> dict[str, Any]:
    return {"type": "license", "name": value}


_SHORT = {
    "cpu": _cpu,
    "gpu": _gpu,
    "memory": _memory,
    "disk": _disk,
    "nodes": _nodes,
    "device": _device,
    "license": _license,
}


def _expand(value: Any) -> Any:
    """Read ``{gpu: A100:2}`` and ``{type: cpu, cores: 16+}`` as the full form."""
    if not is_table(value):
        return value
    fields = value
    if "type" not in fields and len(fields) == 1:
        ((kind, amount),) = fields.items()
        if kind not in _SHORT:
            raise refuse("E_RANGE", "is not a known resource", allowed=tuple(_SHORT))
        if is_table(amount):
            return {"type": kind, **amount}
        return _SHORT[kind](amount)
    if fields.get("type") == "cpu":
        return _open_amount(fields, "cores")
    return fields


def _table(value: Any) -> Any:
    """Read the mapping ``{cpu: 16+, gpu: A100:2}`` as a list."""
    if is_table(value):
        if len(value) > limits.RESOURCES:
            raise refuse("E_TOO_LARGE", "has too many entries", limit=limits.RESOURCES)
        return [{kind: amount} for kind, amount in value.items()]
    return value


GpuModel = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]{0,62}$")]


class Cpu(Model):
    """Processor cores."""

    type: Literal["cpu"]
    cores: float = Field(ge=0.001, le=65536)
    """Cores per node; fractions are allowed where the backend can limit them."""
    at_least: bool = False
    """More cores are welcome."""


class Gpu(Model):
    """Accelerators, each given whole to one experiment."""

    type: Literal["gpu"]
    model: GpuModel | None = None
    """Model label such as A100; unset means any."""
    count: int = Field(default=1, ge=0, le=4096)
    memory_gb: Gigabytes | None = None
    """Smallest memory of each device."""
    at_least: bool = False
    """More devices are welcome."""


class Memory(Model):
    """Main memory, enforced as a limit."""

    type: Literal["memory"]
    size_gb: Gigabytes
    """Decimal gigabytes per node."""
    at_least: bool = False
    """More memory is welcome."""


class Disk(Model):
    """Scratch space."""

    type: Literal["disk"]
    size_gb: Gigabytes
    """Decimal gigabytes per node."""
    at_least: bool = False
    """More space is welcome."""


class Nodes(Model):
    """Several machines at once; every other resource is per node."""

    type: Literal["nodes"]
    count: int = Field(ge=1, le=65536)
    tasks_per_node: int = Field(default=1, ge=1, le=65536)


class Device(Model):
    """A physical device or instrument."""

    type: Literal["device"]
    name: Name
    """Name of the device as its backend lists it."""


class License(Model):
    """Floating licences counted by a backend."""

    type: Literal["license"]
    name: Name
    count: int = Field(default=1, ge=1, le=65536)


_SHORT_ITEM: dict[str, Any] = {
    "type": "object",
    "minProperties": 1,
    "maxProperties": 1,
    "additionalProperties": False,
    "properties": {
        "cpu": {"type": ["number", "string"]},
        "gpu": {"type": ["integer", "string"]},
        "memory": {"type": ["number", "string"]},
        "disk": {"type": ["number", "string"]},
        "nodes": {"type": "integer"},
        "device": {"type": "string"},
        "license": {"type": "string"},
    },
}
_SHORT_TABLE = {key: value for key, value in _SHORT_ITEM.items() if key != "maxProperties"}

Resource = Annotated[
    Annotated[Cpu | Gpu | Memory | Disk | Nodes | Device | License, Field(discriminator="type")],
    BeforeValidator(_expand),
    AlsoAccepts(_SHORT_ITEM),
]


class Requirements(Model):
    """What a backend must offer."""

    type: Name = "computation"
    """Kind of work: computation, physical_manipulation, synthesis, ..."""
    resources: Annotated[
        tuple[Resource, ...],
        Items,
        Field(max_length=limits.RESOURCES),
        BeforeValidator(_table),
        AlsoAccepts(_SHORT_TABLE),
    ] = ()
    """A list of resources, or the short form {cpu: 16+, gpu: A100:2, memory: 128GB}."""
    constraints: Annotated[
        tuple[ConstraintText, ...], Items, Field(max_length=limits.CONSTRAINTS)
    ] = ()
    """CEL expressions over a backend's labels; all must be true."""
