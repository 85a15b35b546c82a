"""What is done over the API once a server listens: wait for it, set up its namespace."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.namespace.v1 import NamespaceConfig
from temporalio.api.operatorservice.v1 import (
    AddSearchAttributesRequest,
    ListSearchAttributesRequest,
)
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    GetClusterInfoRequest,
    UpdateNamespaceRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError

from temporal_fabric.errors import DevServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NAMESPACE = "default"
RETENTION_S = 30 * 24 * 3600

_KINDS = {
    "Bool": IndexedValueType.INDEXED_VALUE_TYPE_BOOL,
    "Datetime": IndexedValueType.INDEXED_VALUE_TYPE_DATETIME,
    "Double": IndexedValueType.INDEXED_VALUE_TYPE_DOUBLE,
    "Int": IndexedValueType.INDEXED_VALUE_TYPE_INT,
    "Keyword": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    "KeywordList": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD_LIST,
    "Text": IndexedValueType.INDEXED_VALUE_TYPE_TEXT,
}
_RETRY_S = 0.02


async def prepare(
    address: str,
    search_attributes: Mapping[str, str],
    *,
    alive: Callable[[], bool],
    deadline: float,
) -> str:
    """Wait until the server answers, set up its namespace, return the server's version.

    Args:
        address: Where it listens.
        search_attributes: Name to type of what must be registered.
        alive: Whether the process still runs.
        deadline: On the monotonic clock.

    Raises:
        DevServerError: it does not answer in time, or refuses a search attribute.
    """
    client = await _connected(address, alive, deadline)
    try:
        await _keep_history(client)
        await _register(client, search_attributes)
        service = client.workflow_service
        return (await service.get_cluster_info(GetClusterInfoRequest(), retry=True)).server_version
    except RPCError as exc:
        raise DevServerError(
            f"the server refused its set-up: {exc.message} [address={address}]"
        ) from exc


async def _connected(address: str, alive: Callable[[], bool], deadline: float) -> Client:
    while True:
        try:
            client = await Client.connect(address, namespace=NAMESPACE)
            if await client.service_client.check_health():
                return client
            problem = "it is not serving"
        except (RuntimeError, RPCError) as exc:
            problem = str(exc)
        if not alive() or time.monotonic() > deadline:
            raise DevServerError(f"the server does not answer: {problem} [address={address}]")
        await asyncio.sleep(_RETRY_S)


async def _keep_history(client: Client) -> None:
    """Raise the retention of closed workflows; a longer one set by a person stays."""
    service = client.workflow_service
    asked = DescribeNamespaceRequest(namespace=NAMESPACE)
    found = await service.describe_namespace(asked, retry=True)
    if found.config.workflow_execution_retention_ttl.ToSeconds() >= RETENTION_S:
        return
    config = NamespaceConfig(workflow_execution_retention_ttl=Duration(seconds=RETENTION_S))
    raised = UpdateNamespaceRequest(namespace=NAMESPACE, config=config)
    await service.update_namespace(raised, retry=True)


async def _register(client: Client, wanted: Mapping[str, str]) -> None:
    """Register what is missing: the server's own flag works on a new database only."""
    service = client.operator_service
    asked = ListSearchAttributesRequest(namespace=NAMESPACE)
    listed = await service.list_search_attributes(asked, retry=True)
    known = dict(listed.custom_attributes)
    kinds = {name: _kind(name, kind) for name, kind in wanted.items()}
    for name, kind in kinds.items():
        if name in known and known[name] != kind:
            raise DevServerError(
                f"the database has this search attribute with another type [name={name}, "
                f"wanted={wanted[name]}]; rename it, or use another FABRIC_HOME"
            )
    missing = {name: kind for name, kind in kinds.items() if name not in known}
    if missing:
        request = AddSearchAttributesRequest(search_attributes=missing, namespace=NAMESPACE)
        await service.add_search_attributes(request, retry=True)


def _kind(name: str, kind: str) -> IndexedValueType.ValueType:
    if kind not in _KINDS:
        raise DevServerError(
            f"unknown search attribute type [name={name}, type={kind}]; use one of {list(_KINDS)}"
        )
    return _KINDS[kind]
