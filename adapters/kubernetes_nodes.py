"""The nodes of a cluster, as far as the worker's account may see them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters.kubernetes_objects import part
from temporal_fabric.errors import PermanentBackendError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from temporal_fabric.adapters.kubernetes_api import KubernetesApi

_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)([munkKMGTPE]?i?)\Z")
_UNITS = {
    "": 1.0,
    "n": 1e-9,
    "u": 1e-6,
    "m": 1e-3,
    "k": 1e3,
    **{letter: 1000.0 ** (place + 2) for place, letter in enumerate("MGTPE")},
    **{f"{letter}i": 1024.0 ** (place + 1) for place, letter in enumerate("KMGTPE")},
}


@dataclass(frozen=True, slots=True)
class Node:
    """What one node offers to pods."""

    name: str
    labels: dict[str, str]
    allocatable: dict[str, float]
    """Amounts by resource: cores, bytes, devices."""


def nodes_of(api: KubernetesApi) -> list[Node] | None:
    """Return the nodes that take pods; None where the account may not see nodes.

    Raises:
        BackendUnknown: no answer, or one that means nothing.
    """
    try:
        rows = api.rows("/api/v1/nodes")
    except PermanentBackendError:
        return None
    return [_node(row) for row in rows if not part(row, "spec").get("unschedulable")]


def amount(text: Any) -> float:
    """Return a quantity of Kubernetes as a number; 0 for what is none."""
    found = _AMOUNT.match(str(text))
    return float(found[1]) * _UNITS.get(found[2], 0.0) if found else 0.0


def _node(row: Mapping[str, Any]) -> Node:
    offered = part(part(row, "status"), "allocatable")
    return Node(
        name=str(row["metadata"]["name"]),
        labels=part(row["metadata"], "labels"),
        allocatable={name: amount(value) for name, value in offered.items()},
    )
