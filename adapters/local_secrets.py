"""Secrets of a local payload: offered by this host, given at launch, removed at the end."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from temporal_fabric.adapters.contract import Shortfall
from temporal_fabric.errors import PermanentBackendError
from temporal_fabric.secrets.resolving import hand_over, redactor, resolve, unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from temporal_fabric.config import SecretsConfig
    from temporal_fabric.launcher import LaunchSpec
    from temporal_fabric.requests.models import ExecutionRequest
    from temporal_fabric.workplace import Workplace


def lacking(request: ExecutionRequest, config: SecretsConfig) -> Iterator[Shortfall]:
    """Yield what this host does not offer of a request's secrets; no value is read."""
    for ref in unavailable(request.secrets, config):
        yield Shortfall(
            f"{ref} is not offered here (E_SECRET)",
            f"list it under [secrets] in the worker's fabric.toml, or drop {ref} from /secrets",
        )


def with_secrets(spec: LaunchSpec, request: ExecutionRequest, config: SecretsConfig) -> LaunchSpec:
    """Return the launch with its secrets, and with the filter that hides them in its output.

    Raises:
        PermanentBackendError: a secret cannot be read.
    """
    if not request.secrets:
        return spec
    secrets = resolve(request.secrets, config)
    argv, env = hand_over(secrets, spec.key, spec.argv, spec.env)
    return replace(spec, argv=argv, env=env)


def scrub(place: Workplace, request: ExecutionRequest, config: SecretsConfig) -> None:
    """Hide secrets in what the payload wrote past the filter: its error and telemetry files.

    Where a secret cannot be read any more nothing could be hidden, so the files are dropped.
    """
    if not request.secrets:
        return
    files = [place.folder / name for name in ("error.txt", "telemetry.jsonl")]
    try:
        hidden = redactor(resolve(request.secrets, config))
    except PermanentBackendError:
        for path in files:
            path.unlink(missing_ok=True)
        return
    for path in files:
        hidden.file(path)
