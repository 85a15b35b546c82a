"""What the worker's account has to be allowed, asked of the API server itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from temporal_fabric.adapters.kubernetes_objects import part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from temporal_fabric.adapters.kubernetes_api import KubernetesApi
    from temporal_fabric.adapters.kubernetes_options import KubernetesOptions

_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class Right(NamedTuple):
    """One verb on one resource of the namespace."""

    verb: str
    resource: str
    group: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{f'.{self.group}' if self.group else ''}"


_NEEDED = (
    *(Right(verb, "jobs", "batch") for verb in ("create", "get", "list", "patch")),
    *(Right(verb, "pods") for verb in ("list", "delete")),
    Right("get", "pods/log"),
    *(Right(verb, "pods/exec") for verb in ("create", "get")),
)
_KUEUE = Right("list", "workloads", "kueue.x-k8s.io")


def lacking_rights(api: KubernetesApi, options: KubernetesOptions) -> list[str]:
    """Return the rights that this account needs and has not, as verb and resource.

    Raises:
        BackendUnknown: the API server does not answer.
    """
    return [str(right) for right in _wanted(options) if not _allowed(api, right)]


def _wanted(options: KubernetesOptions) -> Iterator[Right]:
    yield from _NEEDED
    if options.queue:
        yield _KUEUE


def _allowed(api: KubernetesApi, right: Right) -> bool:
    resource, _, subresource = right.resource.partition("/")
    asked = {
        "namespace": api.namespace,
        "verb": right.verb,
        "group": right.group,
        "resource": resource,
        "subresource": subresource,
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    }
    return part(api.ask("POST", _REVIEWS, body=body), "status").get("allowed") is True
