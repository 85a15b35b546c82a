"""How a request is run: limits, retries, checkpoint, environment, notices, secrets."""

import re
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from temporal_fabric.requests import limits
from temporal_fabric.requests.fields import (
    AlsoAccepts,
    Bytes,
    HttpsUri,
    Image,
    Items,
    Model,
    Path,
    PathOrUri,
    Seconds,
    SecretRef,
    Sha256,
    has_control,
    refuse,
)
from temporal_fabric.requests.payloads import Inputs, Outputs
from temporal_fabric.requests.quantities import (
    duration_seconds,
    format_number,
    growth_factor,
    size_gigabytes,
)
from temporal_fabric.shapes import is_rows, is_table

__all__ = [
    "Artifacts",
    "Change",
    "Checkpoint",
    "Environment",
    "Limits",
    "Notification",
    "Reason",
    "Retry",
    "SecretUse",
]

Reason = Literal[
    "EXIT_CODE",
    "SIGNAL",
    "OOM",
    "TIMEOUT",
    "LOST",
    "SETUP",
    "OUTPUT_MISSING",
    "INTEGRITY",
    "CERT_FAIL",
    "BUDGET",
    "PREEMPTED",
    "NO_BACKEND",
    "REFUSED",
    "INTERNAL",
]


def _growth(value: str) -> str:
    factor = growth_factor(value)
    if factor is None:
        raise refuse("E_TYPE", "is not a factor; write x2 or x1.5")
    if not 1 < factor <= limits.GROWTH:
        raise refuse("E_RANGE", "is not a factor above 1 and at most 100", limit=limits.GROWTH)
    return f"x{format_number(factor)}"


Growth = Annotated[
    str, AfterValidator(_growth), Field(json_schema_extra={"pattern": "^x[0-9]+([.][0-9]+)?$"})
]


class Change(Model):
    """What a retry changes; empty retries unchanged."""

    cpu: Growth | None = None
    memory: Growth | None = None
    disk: Growth | None = None
    gpu: Growth | None = None
    wall_s: Growth | None = None
    max: (
        Annotated[
            float, Field(gt=0, le=1e9), AlsoAccepts({"type": "string", "examples": ["256GB", "2h"]})
        ]
        | None
    ) = None
    """Ceiling of the one thing that grows: gigabytes, seconds or a count."""

    @model_validator(mode="before")
    @classmethod
    def _read_max(cls, data: Any) -> Any:
        if not is_table(data):
            return data
        body = data
        top = body.get("max")
        if not isinstance(top, str):
            return body
        read = duration_seconds if "wall_s" in body else size_gigabytes
        number = read(top)
        # Left as it is, the field itself reports the type.
        return body if number is None else {**body, "max": number}

    @model_validator(mode="after")
    def _max_of_one(self) -> Self:
        grows = [n for n in ("cpu", "memory", "disk", "gpu", "wall_s") if getattr(self, n)]
        if self.max is not None and len(grows) != 1:
            raise refuse("E_CONFLICT", "takes `max` only where exactly one thing grows")
        return self


def _reasons(value: Any) -> Any:
    """Read a list of reasons, or ``OOM:`` with nothing behind it, as a mapping."""
    unchanged: dict[str, Any] = {}
    if is_rows(value):
        if all(isinstance(reason, str) for reason in value):
            return dict.fromkeys(value, unchanged)
        raise refuse("E_TYPE", "lists something that is no reason token")
    if is_table(value):
        return {key: unchanged if change is None else change for key, change in value.items()}
    return value


class Retry(Model):
    """When a failed attempt is followed by another."""

    max_attempts: int = Field(default=1, ge=1, le=1000)
    """Attempts in all; preemption and lost backends do not count."""
    initial_interval_s: Seconds = 1.0
    backoff: float = Field(default=2.0, ge=1, le=100)
    max_interval_s: Seconds = 300.0
    lost_after: Seconds = 300.0
    """How long a silent backend is waited for before a person is asked what became of it."""
    on: (
        Annotated[
            dict[Reason, Change],
            BeforeValidator(_reasons),
            AlsoAccepts({"type": "array", "items": {"enum": list(get_args(Reason))}}),
        ]
        | None
    ) = None
    """Reasons that are retried, with what changes; unset takes the fabric's own rule."""


class Limits(Model):
    """What an attempt may use before it is stopped."""

    wall_s: Seconds | None = None
    memory_bytes: Bytes | None = None
    """Main memory of all its processes; the amount under `requirements` where unset."""
    cpus: Annotated[float, Field(ge=0.001, le=65536)] | None = None
    """Cores' worth of processor time; the cores under `requirements` where unset."""
    pids: Annotated[int, Field(ge=1, le=4194304)] | None = None
    """Processes and threads at one time; 4096 where unset."""
    open_files: Annotated[int, Field(ge=16, le=1073741816)] | None = None
    """File descriptors of each process."""
    log_bytes: Bytes | None = None
    """What is kept of standard output and error together: their beginnings and ends."""
    output_bytes: Bytes | None = None
    """What all outputs may take; more fails the attempt with BUDGET."""
    grace_s: Annotated[Seconds, Field(le=3600)] = 10.0
    """Time between SIGTERM and SIGKILL."""


class Checkpoint(Model):
    """Where the program leaves checkpoints that a next attempt starts from."""

    path: Path | None = None
    """Folder of the checkpoints; FABRIC_CHECKPOINT_DIR where unset."""
    interval_s: Seconds | None = None
    """How often the program is asked for one."""


_ARCHIVES = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz", ".zip")


def _archive(value: str) -> str:
    if not value.endswith(_ARCHIVES):
        raise refuse("E_ARCHIVE", "is not an archive by its name", allowed=_ARCHIVES)
    return value


_USER_IN_URI = re.compile(r"://[^/?#\s]*@")


def _requirement(value: str) -> str:
    if value.startswith(("-", "@")) or has_control(value):
        # Installers read such a line as an option, and options can run programs.
        raise refuse("E_PATH", "is not a package requirement; write one such as numpy>=2")
    if "${" in value:
        # Installers would put a variable of the worker there.
        raise refuse("E_PATH", "has a variable; write the value out")
    if _USER_IN_URI.search(value):
        raise refuse("E_URI_CRED", "carries a credential, which would be kept in the history")
    return value


Requirement = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_requirement)]
_ENVIRONMENTS = ("requirements", "lock", "image", "conda_pack")


class Environment(Model):
    """What is installed around the program; exactly one of the four."""

    requirements: (
        Annotated[tuple[Requirement, ...], Items, Field(min_length=1, max_length=1024)]
        | PathOrUri
        | None
    ) = None
    """A list of package requirements, or the file that holds them."""
    lock: PathOrUri | None = None
    """A lock file with hashes."""
    image: Image | None = None
    conda_pack: Annotated[PathOrUri, AfterValidator(_archive)] | None = None
    """An archive made by conda-pack."""
    sha256: Sha256 | None = None
    """Digest of the archive; needed where it is not a file of the host."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [name for name in _ENVIRONMENTS if getattr(self, name) is not None]
        if not given:
            raise refuse("E_MISSING", "names nothing to install", allowed=_ENVIRONMENTS)
        if len(given) > 1:
            raise refuse("E_CONFLICT", f"takes one of: {', '.join(given)}", allowed=_ENVIRONMENTS)
        if self.sha256 is not None and self.conda_pack is None:
            raise refuse("E_CONFLICT", "takes `sha256` only beside `conda_pack`")
        return self


Notice = Literal[
    "RUNNING", "HELD", "PAUSED", "RETRYING", "SUCCEEDED", "FAILED", "CANCELED", "ended"
]


class Notification(Model):
    """Who is told when a state is entered."""

    on: Annotated[tuple[Notice, ...], Items, Field(min_length=1, max_length=8)] = ("ended",)
    """States; `ended` stands for all three final ones."""
    url: HttpsUri
    """Receives one JSON object by POST."""


class SecretUse(Model):
    """A secret given to the program, always by reference."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,127}$")]
    """Name of the variable, or of the file."""
    ref: SecretRef
    """secret://env/NAME or secret://file/NAME, read on the host at launch."""
    expose: Literal["env", "file"] = Field(
        default="env", validation_alias="as", serialization_alias="as"
    )
    """As an environment variable, or as a file in a private folder."""


class Artifacts(Model):
    """Inputs and outputs beside those of the payload."""

    inputs: Inputs = ()
    outputs: Outputs = ()


Secrets = Annotated[tuple[SecretUse, ...], Items, Field(max_length=limits.SECRETS)]
Notifications = Annotated[tuple[Notification, ...], Items, Field(max_length=limits.NOTIFICATIONS)]
