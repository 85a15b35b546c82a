"""Payloads that become a program on a backend: container, process, python.

Their inputs and outputs are shared by every kind.
"""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, model_validator

from temporal_fabric.requests import limits
from temporal_fabric.requests.fields import (
    EntryPoint,
    EnvKey,
    Image,
    InputUri,
    Items,
    Model,
    Name,
    OutputUri,
    Path,
    Sha256,
    choice,
    refuse,
)

__all__ = [
    "Command",
    "ContainerPayload",
    "Env",
    "Input",
    "Inputs",
    "Output",
    "Outputs",
    "ProcessPayload",
    "PythonPayload",
]

OUTPUT_TYPES = (
    "file",
    "directory",
    "json",
    "jsonl",
    "csv",
    "parquet",
    "text",
    "yaml",
    "toml",
    "numpy",
    "image",
    "binary",
)


def _argument(value: str) -> str:
    if "\0" in value:
        raise refuse("E_COMMAND", "holds a NUL, which ends an argument")
    return value


def _arguments(value: tuple[str, ...]) -> tuple[str, ...]:
    size = sum(len(item.encode("utf-8", "surrogatepass")) + 1 for item in value)
    if size > limits.ARGV_BYTES:
        raise refuse("E_TOO_LARGE", "is longer than programs receive", limit=limits.ARGV_BYTES)
    return value


def _command(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value or not value[0].strip():
        raise refuse("E_COMMAND", "names no program")
    if value[0].startswith(("-", "@")):
        # A launcher on the way would read it as an option of its own.
        raise refuse("E_COMMAND", f"starts with {value[0][0]!r} where the program belongs")
    return value


def _env_value(value: str) -> str:
    if "\0" in value:
        raise refuse("E_ENV", "holds a NUL, which ends a value")
    return value


def _mount(value: str) -> str:
    if value.strip("/.") == "":
        raise refuse("E_PATH", "would cover the whole root; name a file or folder")
    return value


def _optional_command(value: tuple[str, ...]) -> tuple[str, ...]:
    return _command(value) if value else value


Argument = Annotated[str, AfterValidator(_argument)]
Arguments = Annotated[
    tuple[Argument, ...], Items, Field(max_length=limits.ARGV_ITEMS), AfterValidator(_arguments)
]
Command = Annotated[Arguments, AfterValidator(_command), Field(json_schema_extra={"minItems": 1})]
Env = Annotated[
    dict[EnvKey, Annotated[str, AfterValidator(_env_value)]], Field(max_length=limits.ENV_KEYS)
]
ProcessIsolation = Annotated[
    Literal["none", "limits", "sandbox"],
    choice("E_ISOLATION", "level of isolation", "none", "limits", "sandbox"),
]
Network = Annotated[
    Literal["none", "outbound"], choice("E_ISOLATION", "network", "none", "outbound")
]
OutputType = Annotated[
    Literal[
        "file",
        "directory",
        "json",
        "jsonl",
        "csv",
        "parquet",
        "text",
        "yaml",
        "toml",
        "numpy",
        "image",
        "binary",
    ],
    choice("E_OUTPUT_KIND", "type of output", *OUTPUT_TYPES),
]


class Input(Model):
    """A file or folder brought in before the program starts."""

    source_uri: InputUri
    """file://, s3://, https:// or capsule://tenant/id/output."""
    mount_path: Annotated[Path, AfterValidator(_mount)]
    """Where the program finds it; a relative path is below FABRIC_INPUT_DIR."""
    sha256: Sha256 | None = None
    """Expected digest; another content fails the attempt."""


class Output(Model):
    """A file or folder that must exist when the program has ended."""

    source_path: Path
    """Where the program leaves it; a relative path is below FABRIC_OUTPUT_DIR."""
    target_uri: OutputUri | None = None
    """Where to store it besides the capsule: file:// or s3://."""
    name: Name | None = None
    """Name in capsule://tenant/id/name; the file's name where unset."""
    type: OutputType | None = None


Inputs = Annotated[tuple[Input, ...], Items, Field(max_length=limits.INPUTS)]
Outputs = Annotated[tuple[Output, ...], Items, Field(max_length=limits.OUTPUTS)]


class ContainerPayload(Model):
    """A program in a container image."""

    image: Image
    """Image reference; its digest is resolved and recorded before the first attempt."""
    command: Annotated[Arguments, AfterValidator(_optional_command)] = ()
    """Replaces the image's entry point where given."""
    args: Arguments = ()
    """Arguments after the command, or after the image's entry point."""
    env: Env = Field(default={})
    inputs: Inputs = ()
    outputs: Outputs = ()
    workdir: Path | None = None
    """Working directory in the container."""
    network: Network = "none"
    """none, or outbound for connections that the container opens itself."""


class ProcessPayload(Model):
    """A program of the machine: the portable kind."""

    command: Command
    """The program, then its arguments; no shell reads them."""
    env: Env = Field(default={})
    inputs: Inputs = ()
    outputs: Outputs = ()
    isolation: ProcessIsolation | None = None
    """none, limits or sandbox; unset takes what the backend does by default."""
    network: Network | None = None
    """none or outbound; unset is none in a sandbox, and the host's network outside one."""
    workdir: Path | None = None
    """Working directory; a relative path is below FABRIC_TASK_DIR."""


class PythonPayload(Model):
    """A Python function or file."""

    entry_point: EntryPoint
    """package.module:function, file.py or file.py:function."""
    source: Annotated[tuple[str, ...], Items, Field(max_length=limits.SOURCE_LINES)] = ()
    """Lines of the file that the entry point names; unset where the host has that file."""
    args: Annotated[tuple[JsonValue, ...], Items, Field(max_length=1024)] = ()
    kwargs: Annotated[dict[str, JsonValue], Field(max_length=1024)] = Field(default={})
    env: Env = Field(default={})
    inputs: Inputs = ()
    outputs: Outputs = ()
    isolation: ProcessIsolation | None = None
    """none, limits or sandbox; unset takes what the backend does by default."""
    network: Network | None = None
    """none or outbound; unset is none in a sandbox, and the host's network outside one."""
    workdir: Path | None = None
    """Working directory; a relative path is below FABRIC_TASK_DIR."""

    @model_validator(mode="after")
    def _fits_the_entry_point(self) -> Self:
        file, _, function = self.entry_point.partition(":")
        if self.source and (not file.endswith(".py") or "/" in file):
            raise refuse("E_CONFLICT", "has a `source`, so its entry point is name.py:function")
        if self.kwargs and file.endswith(".py") and not function:
            raise refuse("E_CONFLICT", "has `kwargs` for a file, which takes `args` only")
        return self
