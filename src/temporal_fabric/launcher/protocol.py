"""What worker and launcher say to each other: one JSON object per line.

A request is ``{"id", "op", "args"}``; its answer is ``{"id", "ok"}`` or ``{"id", "error"}``.
Answers come in any order. Every operation but ``shutdown`` may be repeated safely.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, cast

from temporal_fabric.launcher.limits import Limits
from temporal_fabric.launcher.sandboxed import Sandbox

if TYPE_CHECKING:
    from collections.abc import Mapping

PROTOCOL = 3
"""Raised with every change that an older launcher would not understand."""

MAX_LINE = 8 << 20
"""Longest request or answer in bytes; the kernel takes no longer command line and environment."""

SOCKET = "launcher.sock"

KEY_ENV = "FABRIC_ATTEMPT_KEY"
HOME_ENV = "FABRIC_HOME_ID"
"""Two homes of one host may use the same key: a process is ours only if this matches as well."""

PERMANENT, TRANSIENT = "permanent", "transient"

_KEY = re.compile(r"[A-Za-z0-9._@-]{1,200}\Z")
_ADDED = ("limits", "sandbox")
_STATES = frozenset({"intent", "running", "ended", "lost", "absent"})


class RefusedError(Exception):
    """The launcher declines a request; `kind` says whether the same request may succeed later."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """What to run, completely: nothing is added but the markers of the attempt."""

    key: str
    """Unique name of the attempt: 1 to 200 of ``A-Za-z0-9._@-``."""

    argv: tuple[str, ...]
    env: dict[str, str]
    """The complete environment."""

    cwd: str
    stdout: str
    """Absolute path, opened for appending, created with mode 0600."""

    stderr: str
    wall_s: float | None = None
    """Limit on the run time; then SIGTERM, the grace, SIGKILL."""

    grace_s: float = 10.0
    limits: Limits = field(default_factory=Limits)
    sandbox: Sandbox | None = None
    """None runs the program as any other process of this user."""

    def check(self) -> None:
        """Refuse what the kernel would refuse, or take for something else.

        Raises:
            ValueError: the sentence says which field is wrong.
        """
        check_key(self.key)
        if not self.argv or not self.argv[0]:
            raise ValueError("argv names no program")
        for path in (self.cwd, self.stdout, self.stderr):
            if not path.startswith("/"):
                raise ValueError(f"not an absolute path: {path!r}")
        if any(not name or "=" in name for name in self.env):
            raise ValueError("env has a name that is empty or contains '='")
        texts = (*self.argv, *self.env, *self.env.values(), self.cwd, self.stdout, self.stderr)
        if any("\0" in text for text in texts):
            raise ValueError("a string contains a NUL character")
        if self.wall_s is not None and not 0 < self.wall_s < float("inf"):
            raise ValueError(f"wall_s is not a positive number: {self.wall_s}")
        if not 0 <= self.grace_s < float("inf"):
            raise ValueError(f"grace_s is not a number of seconds: {self.grace_s}")
        self.limits.check()
        if self.sandbox is not None:
            self.sandbox.check()

    def as_dict(self) -> dict[str, Any]:
        """Return the spec as a JSON object.

        Limits and sandbox stand in it only where there are any, so that a launcher from before
        an upgrade goes on to take plain payloads, and refuses what it could not hold.
        """
        found = asdict(self) | {"limits": self.limits.as_dict()}
        return {name: found[name] for name in found if name not in _ADDED or found[name]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LaunchSpec:
        """Rebuild a spec from `as_dict`; unknown fields are refused."""
        values: dict[str, Any] = {**data, "argv": tuple(data["argv"])}
        values["limits"] = Limits.from_dict(data.get("limits") or {})
        sandbox = data.get("sandbox")
        values["sandbox"] = None if sandbox is None else Sandbox.from_dict(sandbox)
        return cls(**values)


@dataclass(frozen=True, slots=True)
class LaunchRecord:
    """What is known about an attempt."""

    key: str
    state: str
    """``intent``, ``running``, ``ended``, ``lost`` or ``absent``."""

    pid: int | None = None
    """The payload's pid as the host sees it."""

    start_time: int | None = None
    """Clock ticks from boot to the payload's start: with it a pid names one process for ever."""

    boot_id: str | None = None
    incarnation: str | None = None
    """Which launcher ran it."""

    started_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    """Set if, and only if, the payload exited."""

    signal: int | None = None
    """Set if, and only if, a signal killed the payload."""

    oom_kills: int = 0
    """Processes of the tree that the kernel killed for memory; 0 where nobody counts."""

    why: str | None = None
    """Why it ended, if not by itself.

    ``terminated``, ``wall``, ``exec`` or ``forbidden``; of a lost one ``launcher``, ``boot``
    or ``torn``.
    """

    error: str | None = None
    max_rss_bytes: int | None = None
    cpu_s: float | None = None
    log_dropped_bytes: int = 0
    """What was given up of the payload's output, under its cap."""
    frozen_at: float | None = None
    """Since when the whole tree stands still; None while it may run."""

    frozen_s: float = 0.0
    """Seconds it has stood still before; they do not count towards the wall limit."""

    def as_dict(self) -> dict[str, Any]:
        """Return the record as a JSON object."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LaunchRecord:
        """Rebuild a record from `as_dict`; fields of a newer launcher are skipped.

        Raises:
            ValueError: this is no record.
        """
        known = {found.name: data[found.name] for found in fields(cls) if found.name in data}
        if known.get("state") not in _STATES or not isinstance(known.get("key"), str):
            raise ValueError(f"no record: {data!r:.200}")
        return cls(**known)


def check_key(key: str) -> None:
    """Raise ValueError unless the key may name a file and a control group."""
    if not _KEY.match(key):
        raise ValueError(f"not a key of 1 to 200 characters of A-Za-z0-9._@-: {key!r:.240}")


def encode(message: Mapping[str, Any]) -> bytes:
    """Return the line of a message."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """Return the message of a line.

    Raises:
        ValueError: the line is no JSON object.
    """
    message: object = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("not an object")  # noqa: TRY004 - one error for all bad lines
    return cast("dict[str, Any]", message)
