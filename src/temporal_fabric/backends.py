"""What the backends are and do, asked of their workers; and taking one out of service.

Each pool's queue is asked, which one worker answers for its host. Who else polls it is known
to the server, and those hosts are asked by queues of their own.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from temporalio.client import ActivityFailureError
from temporalio.exceptions import ApplicationError

from temporal_fabric import names
from temporal_fabric.activities.halting import halt_backend
from temporal_fabric.adapters.registry import build
from temporal_fabric.backend_state import (
    SILENT,
    BackendsAnswer,
    BackendState,
    DrainInput,
    HaltAnswer,
    HaltInput,
)
from temporal_fabric.config import host_id
from temporal_fabric.connection import asking
from temporal_fabric.draining import DrainMark
from temporal_fabric.errors import BackendError, Problem, RequestRejected, ServerUnavailable
from temporal_fabric.pollers import polling_hosts

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from temporalio.client import Client

    from temporal_fabric.config import Settings

_T = TypeVar("_T")
_TAKEN = timedelta(seconds=5)
"""A worker that is there takes it at once."""

_DONE = timedelta(seconds=20)
_AWAY = "its worker does not answer: start it with temporal-fabric worker"


async def read_backends(client: Client, settings: Settings) -> list[BackendState]:
    """Return every backend that a worker tells of, and the silent ones this home configures.

    Args:
        client: A connected client.
        settings: Its pools are asked.

    Raises:
        ServerUnavailable: the server does not answer.
    """
    queues = [names.pool_queue(pool) for pool in settings.pools]
    with asking():
        answers = await asyncio.gather(*(_ask_host(client, queue) for queue in queues))
        heard = {answer.host: answer for answer in answers if answer is not None}
        polling = await asyncio.gather(*(polling_hosts(client, queue) for queue in queues))
        others = sorted(set[str]().union(*polling) - heard.keys())
        asked = (_ask_host(client, names.host_queue(host)) for host in others)
        more = await asyncio.gather(*asked)
    found = [told for answer in (*heard.values(), *more) if answer for told in answer.backends]
    told_of = {told.name for told in found}
    found += [own for own in _configured(settings) if not told_of & {own.name, _short(own.name)}]
    hosts = {told.name.partition("@")[2] for told in found}
    found += [_unknown(host) for host in others if host not in hosts]
    return sorted(found, key=lambda told: told.name)


async def set_drained(
    client: Client, settings: Settings, backend: str, *, drained: bool, reason: str = ""
) -> BackendState:
    """Drain a backend or undrain it, by its worker; return it as it is then.

    Args:
        client: A connected client.
        settings: As for `read_backends`.
        backend: Its name, or the part before the ``@`` where only one has that.
        drained: Whether it shall be.
        reason: Why, for those whose experiments wait.

    Raises:
        RequestRejected: E_NAME; no backend has that name, or more than one.
        BackendError: its host could not write that down; nothing has changed.
        ServerUnavailable: neither the server nor the backend's worker answers.
    """
    chosen = _choose(await read_backends(client, settings), backend)
    asked, queue = DrainInput(chosen, drained, reason), names.backend_queue(chosen)
    with asking():
        answer = await _ask(client, names.ACTIVITY_DRAIN, asked, queue, BackendState)
    if answer is not None:
        return answer
    raise ServerUnavailable(
        f"the worker of {chosen} does not answer: start it, or run this on its own host"
    )


async def halt(client: Client, settings: Settings, asked: HaltInput) -> HaltAnswer:
    """Stop the device of a backend at once, by its worker, and place nothing new there.

    Args:
        client: A connected client.
        settings: As for `read_backends`.
        asked: Which, by its name, or the part before the ``@`` where only one has that.

    Raises:
        RequestRejected: E_NAME; no backend has that name, or more than one.
        BackendError: it cannot be stopped so, or nobody knows whether it has stopped.
        ServerUnavailable: neither the server nor the backend's worker answers.
    """
    chosen = _choose(await read_backends(client, settings), asked.backend)
    queue = names.backend_queue(chosen)
    with asking():
        named = replace(asked, backend=chosen)
        answer = await _ask(client, names.ACTIVITY_HALT, named, queue, HaltAnswer)
    if answer is not None:
        return answer
    raise ServerUnavailable(
        f"the worker of {chosen} does not answer, and nobody knows whether the device has "
        "stopped: use its own emergency stop, or run this on the worker's host"
    )


async def halt_here(settings: Settings, asked: HaltInput) -> HaltAnswer | None:
    """Stop the device of a backend of this home at once; needs no worker and no server.

    Returns:
        What became of it; None where the backend is another host's.

    Raises:
        RequestRejected: its options are wrong.
        BackendError: it cannot be stopped so, or nobody knows whether it has stopped.
    """
    own = {told.name: told for told in _configured(settings)}
    name = next((n for n in own if asked.backend in {n, _short(n)}), None)
    if name is None:
        return None
    config = next(c for c in settings.backends if c.name == _short(name))
    adapter = build(config, settings, host_id(settings.home))
    try:
        return await halt_backend(adapter, DrainMark(settings.home, name), asked)
    finally:
        await adapter.aclose()


def set_drained_here(
    settings: Settings, backend: str, *, drained: bool, reason: str = ""
) -> BackendState | None:
    """Drain or undrain a backend of this home while no worker serves it.

    Returns:
        The backend; None where it is another's, or where a worker serves this home: then its
        worker does it.

    Raises:
        BackendError: it could not be written down; nothing has changed.
    """
    own = {told.name: told for told in _configured(settings)}
    name = next((n for n in own if backend in {n, _short(n)}), None)
    if name is None:
        return None
    with _unserved(settings) as unserved:
        if not unserved:
            return None
        try:
            DrainMark(settings.home, name).put(drained=drained, reason=reason)
        except OSError as exc:
            raise BackendError(f"{name}: its mark could not be changed: {exc}") from exc
    return next(told for told in _configured(settings) if told.name == name)


def _configured(settings: Settings) -> list[BackendState]:
    """Return this home's backends as seen without a worker; none where no worker ever was."""
    if not (settings.home / "host_id").exists() and "FABRIC_HOST_ID" not in os.environ:
        return []
    host = host_id(settings.home)
    return [_silent(settings, config.name, config.kind, host) for config in settings.backends]


def _silent(settings: Settings, name: str, kind: str, host: str) -> BackendState:
    mark = DrainMark(settings.home, name).read()
    return BackendState(
        name=f"{name}@{host}",
        kind=kind,
        health=SILENT,
        drained=mark is not None,
        drained_since=mark.since if mark else "",
        drained_reason=mark.reason if mark else "",
        unusable="; ".join([*([str(mark)] if mark else []), _AWAY]),
    )


def _unknown(host: str) -> BackendState:
    why = "a worker of this host was there a moment ago and does not answer"
    return BackendState(f"?@{host}", health=SILENT, unusable=why)


@contextmanager
def _unserved(settings: Settings) -> Generator[bool]:
    """Keep workers from starting on this home; yield False where one runs."""
    with settings.worker_lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _short(name: str) -> str:
    return name.partition("@")[0]


def _choose(found: Sequence[BackendState], wanted: str) -> str:
    known = [told.name for told in found]
    fitting = [name for name in known if wanted in {name, _short(name)}]
    if wanted in fitting:
        return wanted
    if len(fitting) == 1:
        return fitting[0]
    what = "more than one backend has this name" if fitting else "no such backend"
    told = ", ".join(fitting or known) or "none: no worker answers"
    message = f"{what} [backend={wanted}]; known: {told}"
    raise RequestRejected(
        [Problem("E_NAME", "/backend", message, actual=wanted[:80], allowed=tuple(known))]
    )


async def _ask_host(client: Client, queue: str) -> BackendsAnswer | None:
    return await _ask(client, names.ACTIVITY_BACKENDS, None, queue, BackendsAnswer)


async def _ask(client: Client, activity: str, asked: Any, queue: str, kind: type[_T]) -> _T | None:
    """Run a standalone activity; return None where no worker takes it in time."""
    try:
        answer: _T = await client.execute_activity(
            activity,
            *(() if asked is None else (asked,)),
            id=f"{activity}/{secrets.token_hex(8)}",
            task_queue=queue,
            result_type=kind,
            schedule_to_start_timeout=_TAKEN,
            start_to_close_timeout=_DONE,
            schedule_to_close_timeout=_DONE + _TAKEN,
            heartbeat_timeout=_TAKEN,
        )
    except ActivityFailureError as exc:
        if isinstance(exc.cause, ApplicationError):
            raise BackendError(exc.cause.message) from exc
        return None
    return answer
