"""Settings of metrics and traces: ``[metrics]``, ``[tracing]`` and their variables."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_fabric.errors import MetricsRefused, Problem
from temporal_fabric.shapes import is_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TABLES = ("metrics", "tracing")

_METRICS_KEYS = ("port", "host", "token_file")
_TRACING_KEYS = ("endpoint",)
_TOKEN_CHARACTERS = 16
_LAST_PORT = 65535


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Where the worker's metrics are served; nowhere without a port."""

    port: int | None = None
    """Port of the endpoint; 0 takes a free one."""

    host: str = "127.0.0.1"
    token_file: str = ""

    def token(self, env: Mapping[str, str] | None = None) -> str:
        """Return the bearer token, which is kept in no settings object.

        Raises:
            MetricsRefused: none is configured, it cannot be read, or it is too short.
        """
        env = os.environ if env is None else env
        token = env.get("FABRIC_METRICS_TOKEN", "").strip()
        if not token and self.token_file:
            try:
                token = Path(self.token_file).read_text().strip()
            except (OSError, UnicodeDecodeError) as exc:
                raise MetricsRefused(
                    f"the metrics token cannot be read [file={self.token_file}]: {exc}"
                ) from exc
        if len(token) < _TOKEN_CHARACTERS or not token.isascii() or not token.isprintable():
            what = "the metrics token is no secret" if token else "metrics have no token"
            raise MetricsRefused(
                f"{what} [port={self.port}]: put {_TOKEN_CHARACTERS} or more random ASCII "
                "characters into FABRIC_METRICS_TOKEN, or into a file named by "
                "FABRIC_METRICS_TOKEN_FILE or metrics.token_file"
            )
        return token


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """Where spans go; nowhere without an endpoint."""

    endpoint: str = ""
    """Base URL of an OTLP/HTTP collector, such as ``http://localhost:4318``."""


def metrics(table: Mapping[str, Any], env: Mapping[str, str]) -> MetricsSettings:
    """Return the metrics settings of a checked configuration."""
    own: Mapping[str, Any] = table.get("metrics", {})
    port = env.get("FABRIC_METRICS_PORT") or own.get("port")
    return MetricsSettings(
        port=None if port is None else int(port),
        host=env.get("FABRIC_METRICS_HOST") or own.get("host", "127.0.0.1"),
        token_file=env.get("FABRIC_METRICS_TOKEN_FILE") or own.get("token_file", ""),
    )


def tracing(table: Mapping[str, Any], env: Mapping[str, str]) -> TracingSettings:
    """Return the tracing settings; OpenTelemetry's own variables win over the file."""
    if env.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return TracingSettings()
    if env.get("OTEL_TRACES_EXPORTER", "").lower() == "none":
        return TracingSettings()
    exact = env.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
    base = env.get("OTEL_EXPORTER_OTLP_ENDPOINT") or table.get("tracing", {}).get("endpoint", "")
    return TracingSettings(exact or (f"{base.rstrip('/')}/v1/traces" if base else ""))


def check(table: Mapping[str, Any], env: Mapping[str, str]) -> Iterator[Problem]:
    """Yield every problem of the two tables and their variables."""
    for name, keys in (("metrics", _METRICS_KEYS), ("tracing", _TRACING_KEYS)):
        own = table.get(name, {})
        if not is_table(own):
            yield Problem("E_TYPE", f"/{name}", f"write a [{name}] table")
            continue
        for key, value in own.items():
            at = f"/{name}/{key}"
            if key not in keys:
                yield Problem("E_UNKNOWN_FIELD", at, f"unknown setting {key!r}", allowed=keys)
            elif key == "port":
                if not isinstance(value, int) or isinstance(value, bool):
                    yield Problem("E_TYPE", at, "port is a whole number")
                elif not 0 <= value <= _LAST_PORT:
                    yield Problem("E_RANGE", at, "port is from 0 to 65535", actual=value)
            elif not isinstance(value, str):
                yield Problem("E_TYPE", at, f"{key} is a string")
    port = env.get("FABRIC_METRICS_PORT")
    if port and not (port.isascii() and port.isdecimal() and int(port[:6]) <= _LAST_PORT):
        message = "FABRIC_METRICS_PORT is a port from 0 to 65535"
        yield Problem("E_RANGE", "/metrics/port", message, actual=port[:80])
