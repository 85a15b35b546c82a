"""Finding the Temporal server and connecting to it.

The address comes from Temporal's own environment configuration (``TEMPORAL_ADDRESS``, then a
profile), then from the embedded server's ``server.json``. Nothing is ever started here.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)
from temporalio.service import RPCError, RPCStatusCode

from temporal_fabric.errors import AccessDenied, FabricError, Problem, ServerUnavailable
from temporal_fabric.observability.submission import SubmitInterceptor

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from temporalio.client import Plugin

    from temporal_fabric.config import Settings
    from temporal_fabric.observability.tracing import Tracing

_REMEDY = (
    "start one with 'temporal-fabric dev', or set TEMPORAL_ADDRESS to a server that runs already"
)


_AWAY = {
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.UNIMPLEMENTED,
}
_DENIED = {
    RPCStatusCode.UNAUTHENTICATED: "does not know this caller",
    RPCStatusCode.PERMISSION_DENIED: "does not let this caller do it",
}
_DENIED_TEXTS = {
    "code: Unauthenticated": RPCStatusCode.UNAUTHENTICATED,
    "code: PermissionDenied": RPCStatusCode.PERMISSION_DENIED,
}
"""A failed connect and a failed worker raise a plain RuntimeError: only its text says more."""


def server_error(error: Exception, what: str) -> FabricError:
    """Return the fabric's error for a call that Temporal's server did not do.

    Args:
        error: What the SDK raised.
        what: What did not happen, for a server that is away.

    Returns:
        AccessDenied where the server refuses the caller's credential, else ServerUnavailable.
    """
    text = str(error)
    status = error.status if isinstance(error, RPCError) else None
    if isinstance(error, RuntimeError):
        status = next((s for mark, s in _DENIED_TEXTS.items() if mark in text), None)
        text = text.partition('message: "')[2].partition('"')[0]
    if status is RPCStatusCode.UNIMPLEMENTED:
        return ServerUnavailable(
            f"the server cannot do what this asks for [server={text}]: 'temporal-fabric doctor' "
            "says what it lacks and how to turn it on"
        )
    if status is None or status not in _DENIED:
        return ServerUnavailable(f"{what}: {error}")
    message = (
        f"the server {_DENIED[status]} [server={text or status.name}]: check TEMPORAL_PROFILE, "
        "TEMPORAL_API_KEY, the TLS settings and the namespace"
    )
    return AccessDenied([Problem("E_AUTH", "", message)])


@contextmanager
def asking() -> Generator[None]:
    """Turn what the server answers to calls within into the fabric's errors.

    Raises:
        AccessDenied: the server refuses the caller's credential.
        ServerUnavailable: the server does not answer.
    """
    try:
        yield
    except (RPCError, RuntimeError) as exc:
        found = server_error(exc, "the server did not answer")
        away = isinstance(exc, RPCError) and exc.status in _AWAY
        if away or isinstance(found, AccessDenied):
            raise found from exc
        raise


def connect_options(
    settings: Settings, *, address: str | None = None, namespace: str | None = None
) -> dict[str, Any]:
    """Return the keyword arguments of `Client.connect`.

    Raises:
        ServerUnavailable: no address is known.
    """
    from temporal_fabric.devserver import read_server_info  # noqa: PLC0415 - only here

    options: dict[str, Any] = dict(ClientConfig.load_client_connect_config())
    if address:
        options["target_host"] = address
    if namespace:
        options["namespace"] = namespace
    if not options.get("target_host"):
        info = read_server_info(settings.home)
        if info is None:
            raise ServerUnavailable(
                f"no Temporal server is known [home={settings.home}]: {_REMEDY}"
            )
        options["target_host"] = info.address
    return options


async def connect(
    settings: Settings,
    *,
    address: str | None = None,
    namespace: str | None = None,
    plugins: Sequence[Plugin] = (),
    quiet: bool = False,
) -> Client:
    """Connect to the resolved server.

    Args:
        settings: Where an embedded server's address is found.
        address: Address that wins over the environment.
        namespace: Namespace that wins over the environment.
        plugins: The client's plugins.
        quiet: Keep the SDK's own warnings off the terminal, for a command that says itself
            what is the matter.

    Raises:
        ServerUnavailable: no address is known, or nothing answers there.
        AccessDenied: the server refuses the caller's credential.
    """
    options = connect_options(settings, address=address, namespace=namespace)
    host = options["target_host"]
    if quiet:
        filtered = LoggingConfig(TelemetryFilter(core_level="ERROR", other_level="ERROR"))
        options["runtime"] = Runtime(telemetry=TelemetryConfig(logging=filtered))
    options["interceptors"] = [SubmitInterceptor(_tracing(settings))]
    try:
        return await Client.connect(**options, plugins=plugins)
    except (RuntimeError, RPCError) as exc:
        found = server_error(exc, "")
        if isinstance(found, AccessDenied):
            raise found from exc
        raise ServerUnavailable(f"no Temporal server answers [address={host}]: {_REMEDY}") from exc


def log_by_python() -> None:
    """Send the SDK's own log lines through `logging`, so that they have its format."""
    loud = TelemetryFilter(core_level="WARN", other_level="ERROR")
    forwarding = LogForwardingConfig(logger=logging.getLogger("temporalio.core"))
    logs = LoggingConfig(loud, forwarding=forwarding)
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=logs)))


def _tracing(settings: Settings) -> Tracing | None:
    if not settings.tracing.endpoint:
        return None
    from temporal_fabric.observability.tracing import open_tracing  # noqa: PLC0415 - rarely on

    return open_tracing(settings.tracing)
