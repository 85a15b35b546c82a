"""Looking a machine over: what works, what does not, and what to do about it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from typing import TYPE_CHECKING

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, GetSystemInfoRequest
from temporalio.service import RPCError

from temporal_fabric import attributes, durable, names
from temporal_fabric.adapters.experimental import experimental
from temporal_fabric.connection import asking, connect
from temporal_fabric.devserver import read_server_info
from temporal_fabric.errors import FabricError, RequestRejected
from temporal_fabric.gpus import discovery
from temporal_fabric.gpus.reservations import Reservations
from temporal_fabric.isolation.abilities import YES, able_here
from temporal_fabric.isolation.rules import read_rules
from temporal_fabric.observability.checks import Check, watching
from temporal_fabric.pollers import ACTIVITIES, WORKFLOWS, pollers

if TYPE_CHECKING:
    from temporalio.api.enums.v1 import TaskQueueType
    from temporalio.client import Client

    from temporal_fabric.adapters.contract import Adapter
    from temporal_fabric.config import Settings
    from temporal_fabric.isolation.abilities import Abilities
    from temporal_fabric.isolation.rules import Rules

_LOW_DISK = 0.05

__all__ = ["Check", "examine"]


async def examine(
    settings: Settings, *, address: str | None = None, namespace: str | None = None
) -> list[Check]:
    """Look at everything the fabric needs; never raises, every trouble is a check."""
    checks = [_python(), *_home(settings), _store(settings), *watching(settings)]
    checks += [*_adapters(settings), *await _isolation(settings), *await _backends(settings)]
    checks.append(await asyncio.to_thread(_gpus))
    try:
        client = await connect(settings, address=address, namespace=namespace)
    except FabricError as exc:
        return [*checks, Check("server", "fail", str(exc).partition(":")[0], _remedy(str(exc)))]
    try:
        with asking():
            return [*checks, *await _server(client, settings)]
    except FabricError as exc:
        return [*checks, Check("server", "fail", str(exc).partition(":")[0], _remedy(str(exc)))]


def _python() -> Check:
    return Check("python", "ok", f"{sys.version.split()[0]} at {sys.executable}")


def _home(settings: Settings) -> list[Check]:
    home = settings.home
    source = f"settings from {settings.source}"
    try:
        durable.make_folder(home)
        durable.replace(home / ".doctor", b"")
        (home / ".doctor").unlink()
    except OSError as exc:
        remedy = "set FABRIC_HOME to a folder that can be written"
        return [Check("home", "fail", f"{home}: {exc}", remedy)]
    usage = shutil.disk_usage(home)
    free = usage.free / usage.total
    text = f"{usage.free / 1e9:.0f} GB free ({free:.0%})"
    disk = Check("disk", "ok", text)
    if free < _LOW_DISK:
        disk = Check("disk", "warn", text, "free some space: capsules are kept for good")
    return [Check("home", "ok", f"{home}, {source}"), disk]


def _store(settings: Settings) -> Check:
    from temporal_fabric.store import open_objects, probe  # noqa: PLC0415

    try:
        objects = open_objects(settings.store)
        probe(objects)
    except FabricError as exc:
        what, _, remedy = str(exc).rpartition("; ")
        return Check("store", "fail", what or remedy, remedy if what else "set 'store' anew")
    return Check("store", "ok", f"{objects.root}: written, created once, read, listed, deleted")


async def _isolation(settings: Settings) -> list[Check]:
    """Say for each local backend which levels of isolation this host can hold."""
    found: list[Check] = []
    for backend in settings.backends:
        if backend.kind != "local":
            continue
        name = "isolation" if len(settings.backends) == 1 else f"isolation {backend.name}"
        try:
            rules = read_rules(backend.options, backend.name)
        except RequestRejected:
            continue  # told of every backend together
        found.append(_levels(name, rules, await able_here(settings.launcher, rules)))
    return found


async def _backends(settings: Settings) -> list[Check]:
    """Say of each backend that is not this host's own processes whether it can be used."""
    from temporal_fabric.adapters import registry  # noqa: PLC0415 - as `_store`

    try:
        adapters = registry.build_all(settings, "here")
    except RequestRejected as exc:
        remedy = f"mend it in {settings.source}"
        return [Check(p.path.lstrip("/"), "fail", p.message, remedy) for p in exc.problems]
    found: list[Check] = []
    for config, adapter in zip(settings.backends, adapters.values(), strict=True):
        if config.kind != "local":
            found += await _backend(config.name, adapter)
        await adapter.aclose()
    return found


async def _backend(name: str, adapter: Adapter) -> list[Check]:
    name = f"backend {name}"
    try:
        told = await adapter.inventory()
    except FabricError as exc:
        what, _, remedy = str(exc).partition(": ")
        return [Check(name, "fail", what, remedy)]
    if not told.healthy:
        what, _, remedy = told.unusable.rpartition(": ")
        return [Check(name, "fail", what or remedy, remedy if what else "")]
    about = ", ".join(f"{key} {value}" for key, value in told.about.items())
    checks = [Check(name, "ok", f"{told.kind}, {about}")]
    for warning in told.warnings:
        what, _, remedy = warning.rpartition(": ")
        checks.append(Check(name, "warn", what, remedy))
    return checks


def _adapters(settings: Settings) -> list[Check]:
    found: list[Check] = []
    for kind in sorted({config.kind for config in settings.backends}):
        name, why = f"adapter {kind}", experimental(kind)
        remedy = (
            "try it with temporal_fabric.testing.conformance, and ask who ships it for a report"
        )
        text = f"experimental: {why}" if why else "passes the conformance suite"
        found.append(Check(name, "warn" if why else "ok", text, remedy if why else ""))
    return found


def _gpus() -> Check:
    """Say which GPUs this host has, or why it has none: which is no fault."""
    found, reservations = discovery.find(), Reservations()
    if not found.devices:
        return Check("GPUs", "ok", f"none: {found.none}")
    reserved = reservations.all().keys() & {device.id for device in found.devices}
    names = ", ".join(sorted({device.name or device.id for device in found.devices}))
    text = f"{len(found.devices)} ({names}), {len(reserved)} reserved"
    unfit = "; ".join(f"{d.id} is not given: {d.unfit}" for d in found.devices if d.unfit)
    wrong = reservations.usable() or unfit
    return Check("GPUs", "warn" if wrong else "ok", text, wrong)


def _levels(name: str, rules: Rules, able: Abilities) -> Check:
    levels = able.summary()
    works = ", ".join(level for level, answer in levels.items() if answer == YES)
    text = f"{works}; a request that names none gets {rules.isolation}"
    others = rules.least_of_others
    if others != rules.isolation:
        text += f", and of a tenant other than {rules.owner!r} {others}"
    lacking = {answer: level for level, answer in levels.items() if answer != YES}
    remedy = "; ".join(f"no {level}: {why}" for why, level in lacking.items())
    demanded = levels[rules.isolation] != YES
    return Check(name, "fail" if demanded else "warn" if lacking else "ok", text, remedy)


async def _server(client: Client, settings: Settings) -> list[Check]:
    info = await client.workflow_service.get_system_info(GetSystemInfoRequest())
    embedded = read_server_info(settings.home)
    ui = f", web UI {embedded.ui_url}" if embedded and embedded.ui_url else ""
    where = client.service_client.config.target_host
    checks = [Check("server", "ok", f"{where}, version {info.server_version}{ui}")]
    checks.append(await _attributes(client))
    checks.append(await _standalone(client))
    checks += [await _queue(client, names.QUEUE, WORKFLOWS)]
    for pool in settings.pools:
        queue = names.pool_queue(pool)
        checks.append(await _queue(client, queue, ACTIVITIES))
    checks.append(_cores())
    return checks


async def _attributes(client: Client) -> Check:
    try:
        absent = await attributes.missing(client)
    except RPCError as exc:
        return Check("search attributes", "warn", f"cannot be listed: {exc}", _ATTRIBUTES)
    if absent:
        return Check("search attributes", "warn", f"missing: {', '.join(absent)}", _ATTRIBUTES)
    return Check("search attributes", "ok", f"{len(names.SEARCH_ATTRIBUTES)} registered")


_ATTRIBUTES = (
    "experiments run without them; start a worker with operator rights once, or ask the "
    "server's operator to register them"
)


async def _standalone(client: Client) -> Check:
    request = DescribeNamespaceRequest(namespace=client.namespace)
    try:
        answer = await client.workflow_service.describe_namespace(request)
    except RPCError as exc:
        return Check("standalone activities", "warn", f"cannot be asked about: {exc}", _STANDALONE)
    if answer.namespace_info.capabilities.standalone_activities:
        return Check("standalone activities", "ok", "plan, logs from afar, exec, backends")
    return Check("standalone activities", "warn", "the server has none", _STANDALONE)


_STANDALONE = (
    "experiments run, but nothing is refused before it is submitted, and plan, backends, exec "
    "and logs from another host do not work; set activity.enableStandalone to true in the "
    "server's dynamic configuration, or use a server that knows it (1.31 does)"
)


async def _queue(client: Client, queue: str, kind: TaskQueueType.ValueType) -> Check:
    found = await pollers(client, queue, kind)
    if found:
        return Check(queue, "ok", f"polled by {', '.join(sorted(found))}")
    return Check(queue, "fail", "no worker polls it", "start one: temporal-fabric worker")


def _cores() -> Check:
    return Check("host", "ok", f"{os.cpu_count()} cores")


def _remedy(text: str) -> str:
    return text.partition(": ")[2]
