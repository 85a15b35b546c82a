"""Settings and where they come from: flag > ``FABRIC_...`` > ./fabric.toml > user's file.

Connection settings are Temporal's own environment configuration and never stand here.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import tomllib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_fabric import flow_settings, names, tenants, watch_settings
from temporal_fabric.errors import Problem, RequestRejected
from temporal_fabric.reach import REACH_KEYS, Reach, check_table, reach
from temporal_fabric.shapes import is_list, is_table

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIG_FILE = "fabric.toml"
DEFAULT_POOLS = (names.DEFAULT_POOL,)

_OWN_TABLES = ("backends", "secrets", "artifacts", "notify", "tenants")
_TABLES = (*_OWN_TABLES, *watch_settings.TABLES, *flow_settings.TABLES)
_TOP_KEYS = ("store", "pools", *_TABLES)
_SECRETS = ("env", "folder")
_AMOUNTS = ("max_bytes", "max_seconds", "upload_bytes", "upload_files")
_ARTIFACTS = (*REACH_KEYS, *_AMOUNTS)
_BACKEND_KEYS = ("kind", "slots", "labels", "options", "patience_s")
_PATIENCE_S = 300.0
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")


@dataclass(frozen=True, slots=True)
class BackendConfig:
    """One configured backend."""

    name: str
    kind: str = "local"
    slots: int | None = None
    """Attempts that run at once; None means one per CPU core."""

    labels: dict[str, Any] = field(default_factory=dict[str, Any])
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    patience_s: float = _PATIENCE_S
    """How long its worker may leave a granted attempt untaken before that is looked into."""


@dataclass(frozen=True, slots=True)
class SecretsConfig:
    """Which secrets of this host a request may refer to; nothing by default."""

    env: tuple[str, ...] = ()
    """Names of the worker's variables: ``secret://env/NAME``."""

    folder: str = ""
    """Folder of files: ``secret://file/NAME``."""


@dataclass(frozen=True, slots=True)
class ArtifactsConfig(Reach):
    """What transfers of inputs may reach, and how much they may take."""

    max_bytes: int = 10**12
    """Of all inputs of one attempt together."""

    max_seconds: int = 24 * 3600
    """For all inputs of one attempt together."""

    upload_bytes: int = 2 * 1024**3
    """Of all files together that one request brings along."""

    upload_files: int = 10_000
    """How many files one request may bring along."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the fabric can be told, resolved once at start."""

    home: Path
    store: str
    """Root URI of capsules and request records."""

    pools: tuple[str, ...] = DEFAULT_POOLS
    backends: tuple[BackendConfig, ...] = (BackendConfig("local"),)
    secrets: SecretsConfig = SecretsConfig()
    artifacts: ArtifactsConfig = ArtifactsConfig()
    notify: Reach = field(default_factory=Reach)
    """Who may be told of events, besides receivers in the public network."""

    metrics: watch_settings.MetricsSettings = field(default_factory=watch_settings.MetricsSettings)
    tracing: watch_settings.TracingSettings = field(default_factory=watch_settings.TracingSettings)
    flows: flow_settings.FlowSettings = field(default_factory=flow_settings.FlowSettings)
    tenants: tenants.TenantsConfig = field(default_factory=tenants.TenantsConfig)
    source: str = "defaults"
    """The configuration file that was read, for ``doctor``."""

    @property
    def runs(self) -> Path:
        """Host-local working folders of live experiments."""
        return self.home / "runs"

    @property
    def environments(self) -> Path:
        """What was installed for payloads: one folder per content, used by many runs."""
        return self.home / "environments"

    @property
    def launcher(self) -> Path:
        """Folder of the launcher: socket, lock, attempt records."""
        return self.home / "launcher"

    @property
    def worker_lock(self) -> Path:
        """The file that the host's one worker holds locked."""
        return self.home / "worker.lock"

    @property
    def logs(self) -> Path:
        """Log files of server and worker."""
        return self.home / "logs"

    @classmethod
    def load(
        cls,
        *,
        home: Path | str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Settings:
        """Resolve the settings.

        Args:
            home: ``FABRIC_HOME`` given by a flag, which wins over the environment.
            env: Environment to read; the process's own by default.
            cwd: Folder whose ``fabric.toml`` is the project's; the current one by default.

        Raises:
            RequestRejected: a configuration file is wrong; every problem is listed.
        """
        env = os.environ if env is None else env
        root = Path(home or env.get("FABRIC_HOME") or default_home()).expanduser().absolute()
        table, source = _read_first((cwd or Path.cwd()) / CONFIG_FILE, root / CONFIG_FILE)
        problems = [*_check(table), *tenants.check(table), *watch_settings.check(table, env)]
        problems += flow_settings.check(table, env)
        if problems:
            raise RequestRejected(problems, source=source)
        store = env.get("FABRIC_STORE") or str(table.get("store") or root.as_uri())
        pools = env.get("FABRIC_POOLS")
        return cls(
            home=root,
            store=store.rstrip("/"),
            pools=tuple(pools.split(",")) if pools else tuple(table.get("pools") or DEFAULT_POOLS),
            backends=_backends(table.get("backends"), env),
            secrets=_secrets(table.get("secrets", {})),
            artifacts=_artifacts(table.get("artifacts", {})),
            notify=reach(table.get("notify", {})),
            metrics=watch_settings.metrics(table, env),
            tracing=watch_settings.tracing(table, env),
            flows=flow_settings.flows(table, env),
            tenants=tenants.tenants(table),
            source=source,
        )


def default_home() -> Path:
    """Return the platform's user data folder for the fabric."""
    from platformdirs import user_data_path  # noqa: PLC0415 - `--help` must not pay for it

    return user_data_path("temporal-fabric")


def host_id(home: Path, env: Mapping[str, str] | None = None) -> str:
    """Return this host's stable id, made once and kept in ``home``.

    A queue name carries it, so it must survive restarts: a host name alone changes with
    every container, and two homes on one machine are two hosts.

    Raises:
        RequestRejected: ``FABRIC_HOST_ID`` is not a name.
    """
    env = os.environ if env is None else env
    given = env.get("FABRIC_HOST_ID")
    if given:
        if not _NAME.match(given):
            message = "FABRIC_HOST_ID must match [a-z0-9][a-z0-9._-]{0,62}"
            raise RequestRejected([Problem("E_NAME", "/host_id", message, actual=given[:80])])
        return given
    path = home / "host_id"
    home.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().lower()).strip("-")[:40] or "host"
    # An earlier start has made it: that it stays is the point.
    with suppress(FileExistsError), path.open("x") as file:
        file.write(f"{stem}-{secrets.token_hex(3)}\n")
        file.flush()
        os.fsync(file.fileno())
    return path.read_text().strip()


def _read_first(*paths: Path) -> tuple[dict[str, Any], str]:
    for path in paths:
        try:
            return (tomllib.loads(path.read_text()), str(path))
        except FileNotFoundError:
            continue
        except tomllib.TOMLDecodeError as exc:
            problem = Problem("E_PARSE", "", f"{path} is not TOML: {exc}")
            raise RequestRejected([problem], source=str(path)) from exc
    return ({}, "defaults")


def _check(table: Mapping[str, Any]) -> list[Problem]:
    problems = [
        Problem("E_UNKNOWN_FIELD", f"/{key}", f"unknown setting {key!r}", allowed=_TOP_KEYS)
        for key in table
        if key not in _TOP_KEYS
    ]
    if not isinstance(table.get("store", ""), str):
        problems.append(
            Problem("E_TYPE", "/store", "store is a URI: file:///path or s3://bucket/prefix")
        )
    problems += _check_secrets(table.get("secrets", {}))
    problems += _check_artifacts(table.get("artifacts", {}))
    problems += check_table("notify", table.get("notify", {}))
    backends = table.get("backends", {})
    if not is_table(backends):
        return [*problems, Problem("E_TYPE", "/backends", "write one [backends.NAME] table each")]
    for name, entry in backends.items():
        problems += _check_backend(name, entry)
    return problems


def _check_secrets(table: Any) -> list[Problem]:
    if not is_table(table):
        return [Problem("E_TYPE", "/secrets", "secrets is a table with env and folder")]
    found = [
        Problem("E_UNKNOWN_FIELD", f"/secrets/{key}", f"unknown setting {key!r}", allowed=_SECRETS)
        for key in table
        if key not in _SECRETS
    ]
    env = table.get("env", [])
    if not is_list(env) or not all(isinstance(name, str) for name in env):
        found.append(Problem("E_TYPE", "/secrets/env", "env is a list of variable names"))
    if not isinstance(table.get("folder", ""), str):
        found.append(Problem("E_TYPE", "/secrets/folder", "folder is a path"))
    return found


def _secrets(table: Mapping[str, Any]) -> SecretsConfig:
    return SecretsConfig(tuple(table.get("env", ())), str(table.get("folder", "")))


def _check_artifacts(table: Any) -> list[Problem]:
    found = list(check_table("artifacts", table, _ARTIFACTS))
    for key in _AMOUNTS if is_table(table) else ():
        value = table.get(key, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            found.append(Problem("E_RANGE", f"/artifacts/{key}", f"{key} is a number from 1 on"))
    return found


def _artifacts(table: Mapping[str, Any]) -> ArtifactsConfig:
    given: dict[str, Any] = {**table, "networks": tuple(table.get("networks", ()))}
    return ArtifactsConfig(**given)


def _check_backend(name: str, entry: Any) -> list[Problem]:
    at = f"/backends/{name}"
    if not is_table(entry):
        return [Problem("E_TYPE", at, "a backend is a table with a kind")]
    found = [
        Problem("E_UNKNOWN_FIELD", f"{at}/{key}", f"unknown setting {key!r}", allowed=_BACKEND_KEYS)
        for key in entry
        if key not in _BACKEND_KEYS
    ]
    if not _NAME.match(name):
        found.append(
            Problem("E_NAME", at, "a backend's name is lower case [a-z0-9._-], 63 at most")
        )
    slots = entry.get("slots")
    if slots is not None and (not isinstance(slots, int) or isinstance(slots, bool) or slots < 1):
        found.append(Problem("E_RANGE", f"{at}/slots", "slots is a whole number from 1 on"))
    patience = entry.get("patience_s", 1)
    if not isinstance(patience, int) or isinstance(patience, bool) or patience < 1:
        found.append(
            Problem("E_RANGE", f"{at}/patience_s", "patience_s is whole seconds from 1 on")
        )
    found += [
        Problem("E_TYPE", f"{at}/{key}", f"{key} is a table")
        for key in ("labels", "options")
        if not isinstance(entry.get(key, {}), dict)
    ]
    return found


def _backends(table: Mapping[str, Any] | None, env: Mapping[str, str]) -> tuple[BackendConfig, ...]:
    slots = env.get("FABRIC_SLOTS")
    default_slots = int(slots) if slots and slots.isdecimal() and int(slots) > 0 else None
    if not table:
        return (BackendConfig("local", slots=default_slots),)
    return tuple(
        BackendConfig(
            name=name,
            kind=str(entry.get("kind", "local")),
            slots=entry.get("slots", default_slots),
            labels=dict(entry.get("labels", {})),
            options=dict(entry.get("options", {})),
            patience_s=float(entry.get("patience_s", _PATIENCE_S)),
        )
        for name, entry in table.items()
    )
