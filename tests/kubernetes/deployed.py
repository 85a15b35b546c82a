"""What `deploy/kubernetes` has, as objects of an API server."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from tests.backends.kubernetes_cluster import KubernetesCluster

_BASE = Path(__file__).parents[2] / "deploy" / "kubernetes" / "base"
PATHS = {
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "StatefulSet": "/apis/apps/v1/namespaces/{}/statefulsets",
}
"""Of the kinds that are deployed."""

_OF_THE_CLUSTER = {
    "Namespace": "/api/v1/namespaces",
    "PersistentVolume": "/api/v1/persistentvolumes",
}


def create(
    cluster: KubernetesCluster, body: dict[str, Any], query: str = "", namespace: str = "default"
) -> str:
    """Create an object; return what the API server says against it."""
    path = (PATHS | _OF_THE_CLUSTER)[body["kind"]].format(namespace)
    return _ask(cluster, "POST", f"{path}?fieldValidation=Strict{query}", body)


def remove(cluster: KubernetesCluster, kind: str, name: str) -> str:
    """Delete a namespace or a volume; return what the API server says against it."""
    return _ask(cluster, "DELETE", f"{_OF_THE_CLUSTER[kind]}/{name}")


def _ask(
    cluster: KubernetesCluster, method: str, path: str, body: dict[str, Any] | None = None
) -> str:
    asked = urllib.request.Request(  # noqa: S310 - the address is ours
        f"{cluster.address}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {cluster.token()}",
            "Content-Type": "application/json",
        },
        method=method,
    )
    trust = ssl.create_default_context(cafile=str(cluster.authority))
    try:
        with urllib.request.urlopen(asked, timeout=10, context=trust) as answer:  # noqa: S310
            answer.read()
    except urllib.error.HTTPError as exc:
        return str(json.loads(exc.read())["message"])
    return ""


def objects() -> list[dict[str, Any]]:
    """Return what the kustomization makes, as far as it needs no kustomize."""
    told = yaml.safe_load((_BASE / "kustomization.yaml").read_text())
    texts = [(_BASE / name).read_text() for name in told["resources"]]
    found = [body for text in texts for body in yaml.safe_load_all(text)]
    for made in told["configMapGenerator"]:
        data = {name: (_BASE / name).read_text() for name in made["files"]}
        metadata = {"name": made["name"]}
        found.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    return found
