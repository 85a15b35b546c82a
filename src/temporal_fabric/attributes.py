"""Search attributes: registered at start where that is allowed, done without elsewhere."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import (
    AddSearchAttributesRequest,
    ListSearchAttributesRequest,
)
from temporalio.service import RPCError, RPCStatusCode

from temporal_fabric import names

if TYPE_CHECKING:
    from temporalio.client import Client

_TYPES = {
    "Keyword": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    "KeywordList": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD_LIST,
    "Int": IndexedValueType.INDEXED_VALUE_TYPE_INT,
}

log = logging.getLogger(__name__)


async def missing(client: Client) -> list[str]:
    """Return the search attributes the namespace does not know.

    Raises:
        RPCError: the server does not let this client list them.
    """
    answer = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=client.namespace)
    )
    return [name for name in names.SEARCH_ATTRIBUTES if name not in answer.custom_attributes]


async def register(client: Client) -> bool:
    """Register what is missing; return whether all of them can be used.

    An upsert of an unknown attribute wedges a workflow, so the answer decides whether any
    experiment may use them.
    """
    try:
        absent = await missing(client)
        if absent:
            wanted = {name: _TYPES[names.SEARCH_ATTRIBUTES[name]] for name in absent}
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(namespace=client.namespace, search_attributes=wanted)
            )
            absent = await missing(client)
    except RPCError as exc:
        if exc.status not in {RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED}:
            log.warning("search attributes cannot be registered: %s", exc)
        return False
    return not absent
