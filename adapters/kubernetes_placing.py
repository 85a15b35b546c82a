"""On which nodes a pod may run: what a request and the backend's owner say of them.

A constraint is an expression over the backend's labels. Where its name stands under
``node_labels`` it is about the single nodes instead: ``zone == "a"`` and ``zone in ["a", "b"]``
become the pod's node affinity.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from temporal_fabric.adapters.kubernetes_options import KubernetesOptions
    from temporal_fabric.requests.models import ExecutionRequest

_TEXT = r"(?:\"[^\"\\]*\"|'[^'\\]*')"
_EQUAL = re.compile(rf"\s*([A-Za-z_]\w*)\s*==\s*({_TEXT})\s*\Z")
_AMONG = re.compile(rf"\s*([A-Za-z_]\w*)\s+in\s+\[\s*({_TEXT}(?:\s*,\s*{_TEXT})*)\s*\]\s*\Z")
_ONE = re.compile(_TEXT)


class NodeRule(NamedTuple):
    """A constraint that is about nodes."""

    place: int
    """Its place among the request's constraints."""

    name: str
    label: str
    values: tuple[str, ...]


def node_rules(request: ExecutionRequest, options: KubernetesOptions) -> Iterator[NodeRule]:
    """Yield the constraints of a request that are about nodes."""
    for place, text in enumerate(request.requirements.constraints):
        found = _EQUAL.match(text) or _AMONG.match(text)
        label = options.node_labels.get(found[1]) if found else None
        if found is not None and label is not None:
            values = tuple(value[1:-1] for value in _ONE.findall(found[2]))
            yield NodeRule(place, found[1], label, values)
    for resource in request.requirements.resources:
        if resource.type == "gpu" and resource.model and options.gpu_model_label:
            yield NodeRule(-1, "gpu model", options.gpu_model_label, (resource.model,))


def placing(request: ExecutionRequest, options: KubernetesOptions) -> dict[str, Any]:
    """Return the fields of a pod that say where it may run."""
    found: dict[str, Any] = {}
    if options.node_selector:
        found["nodeSelector"] = dict(options.node_selector)
    if options.tolerations:
        found["tolerations"] = [dict(row) for row in options.tolerations]
    wanted = [
        {"key": rule.label, "operator": "In", "values": list(rule.values)}
        for rule in node_rules(request, options)
    ]
    if wanted:
        terms = {"nodeSelectorTerms": [{"matchExpressions": wanted}]}
        required = {"requiredDuringSchedulingIgnoredDuringExecution": terms}
        found["affinity"] = {"nodeAffinity": required}
    return found
