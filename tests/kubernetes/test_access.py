"""Whether a cluster can be used, and if not, why and what to do; and what is to be deployed."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from temporal_fabric.adapters.contract import Phase
from temporal_fabric.adapters.kubernetes_api import KubernetesApi, NotConfigured
from temporal_fabric.adapters.kubernetes_options import KubernetesOptions
from temporal_fabric.errors import BackendUnknown, PermanentBackendError
from temporal_fabric.testing.conformance_starting import ended
from tests.kubernetes.deployed import PATHS, create, objects

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.testing.kubernetes_bench import KubernetesBench
    from tests.backends.kubernetes_cluster import KubernetesCluster

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_files_to_deploy_are_accepted(kubernetes: KubernetesCluster) -> None:
    """The API server takes every object of the kustomization, with no field that it ignores."""
    said = {body["kind"]: create(kubernetes, body, "&dryRun=All") for body in objects()}
    assert said == dict.fromkeys(PATHS, "")


async def test_the_role_is_enough(kubernetes: KubernetesCluster, bench: KubernetesBench) -> None:
    """An account with the role that is deployed, and nothing else, runs and ends a job."""
    for body in objects():
        if body["kind"] == "Role":
            assert create(kubernetes, body) == ""
        if body["kind"] == "RoleBinding":
            subjects = [
                {"kind": "Group", "name": "fabric", "apiGroup": "rbac.authorization.k8s.io"}
            ]
            assert create(kubernetes, {**body, "subjects": subjects}) == ""
    adapter = bench.adapter_with(kubernetes.kubeconfig("worker"))
    found = await adapter.inventory()
    assert found.healthy, found.unusable
    attempt = bench.attempt(bench.key(), "print('by the role')")
    assert (await adapter.can_fulfill(attempt.request)).ok
    await adapter.submit(attempt)
    status = await ended(adapter, attempt.key)
    assert (status.phase, status.exit_code) == (Phase.ENDED, 0), status
    await adapter.terminate(attempt.key, 1.0)
    await adapter.forget(attempt.key)
    await adapter.aclose()


async def test_missing_rights_are_named(
    kubernetes: KubernetesCluster, bench: KubernetesBench
) -> None:
    """An account without rights is told each verb and resource, and a submit fails for good."""
    adapter = bench.adapter_with(kubernetes.kubeconfig("stranger"))
    found = await adapter.inventory()
    assert not found.healthy
    for right in ("create jobs.batch", "delete pods", "get pods/log", "create pods/exec"):
        assert right in found.unusable
    assert "deploy/kubernetes" in found.unusable
    with pytest.raises(PermanentBackendError, match="forbidden"):
        await adapter.submit(bench.attempt(bench.key(), "pass"))
    await adapter.aclose()


async def test_no_configuration_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a kubeconfig, with a wrong context, and with nobody at the address: three texts."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(NotConfigured, match="run the worker in a pod"):
        KubernetesApi(KubernetesOptions(), "k").connect()
    cluster = {"name": "main", "cluster": {"server": "http://127.0.0.1:1"}}
    context = {"name": "main", "context": {"cluster": "main", "user": "main"}}
    config = tmp_path / "config"
    rows: dict[str, Any] = {
        "clusters": [cluster],
        "contexts": [context],
        "users": [{"name": "main", "user": {}}],
    }
    config.write_text(json.dumps({"kind": "Config", "current-context": "main", **rows}))
    with pytest.raises(NotConfigured, match="context=another"):
        KubernetesApi(KubernetesOptions(str(config), "another"), "k").connect()
    with pytest.raises(BackendUnknown, match="does not answer"):
        await asyncio.to_thread(KubernetesApi(KubernetesOptions(str(config)), "k").get, "/version")


async def test_a_pod_of_its_own_account_is_enough(
    kubernetes: KubernetesCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a cluster nothing is configured: the pod's account and namespace are found."""
    account: Any = __import__("kubernetes.config.incluster_config", fromlist=["x"])
    for name, text in (
        ("token", kubernetes.token()),
        ("namespace", "default\n"),
        ("ca.crt", kubernetes.authority.read_text()),
    ):
        (tmp_path / name).write_text(text)
    host, _, port = kubernetes.address.removeprefix("https://").rpartition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setattr(account, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(account, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setattr("temporal_fabric.adapters.kubernetes_api.ACCOUNT", tmp_path)
    api = KubernetesApi(KubernetesOptions(), "k")
    assert api.namespace == "default"
    found = await asyncio.to_thread(api.rows, "/api/v1/nodes")
    assert len(found) == 1
    api.close()
