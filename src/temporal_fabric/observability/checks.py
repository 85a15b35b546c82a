"""What ``doctor`` says of metrics and traces."""

from __future__ import annotations

import http.client
import importlib.util
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from temporal_fabric.errors import MetricsRefused

if TYPE_CHECKING:
    from temporal_fabric.config import Settings
    from temporal_fabric.watch_settings import MetricsSettings

_PATIENCE_S = 2.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    verdict: str
    """``ok``, ``warn`` or ``fail``."""

    detail: str
    remedy: str = ""


def watching(settings: Settings) -> list[Check]:
    """Look at how this fabric is watched."""
    return [_metrics(settings.metrics), _tracing(settings)]


def _metrics(wanted: MetricsSettings) -> Check:
    if wanted.port is None:
        return Check("metrics", "ok", "off: set metrics.port in fabric.toml to serve them")
    try:
        wanted.token()
    except MetricsRefused as exc:
        what, _, remedy = str(exc).partition("]: ")
        return Check("metrics", "fail", f"{what}]", remedy)
    where = f"{wanted.host}:{wanted.port}"
    if wanted.port == 0:
        return Check("metrics", "ok", f"on {where}, a free port that the worker names")
    if not _answers(wanted.host, wanted.port):
        return Check("metrics", "warn", f"nothing answers on {where}", "start a worker")
    return Check("metrics", "ok", f"served on {where}, with a token")


def _answers(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=_PATIENCE_S)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _exporter_installed() -> bool:
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:  # of a package above it
        return False


def _tracing(settings: Settings) -> Check:
    endpoint = settings.tracing.endpoint
    if not endpoint:
        return Check("tracing", "ok", "off: payloads still get a TRACEPARENT")
    if not _exporter_installed():
        remedy = "pip install 'temporal-fabric[otlp]'"
        return Check("tracing", "warn", f"spans for {endpoint} are not exported", remedy)
    return Check("tracing", "ok", f"spans go to {endpoint}")
