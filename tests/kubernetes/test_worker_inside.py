"""The worker as it is deployed runs in the cluster, with its account's rights and nothing else."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
import tomli_w

from temporal_fabric import Fabric
from temporal_fabric.connection import connect
from temporal_fabric.testing.debian_image import NAME as IMAGE
from temporal_fabric.testing.environment import FabricEnvironment
from tests.backends.kubernetes_cluster import HOST_IP
from tests.cable import Cable
from tests.kubernetes.deployed import create, objects, remove

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.backends.kubernetes_cluster import KubernetesCluster

pytestmark = pytest.mark.asyncio(loop_scope="module")

_SPACE = "inside"
_NAMESPACE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": _SPACE},
}
_ROOT = Path(__file__).parents[2]
_LIBRARY = Path("/usr/lib", f"{os.uname().machine}-linux-gnu", "libstdc++.so.6")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fabric(kubernetes: KubernetesCluster) -> AsyncIterator[Fabric]:
    """A client of a server whose one worker is a StatefulSet of the cluster."""
    shared = await asyncio.to_thread(_shared_folders)
    store = shared / "store"
    async with FabricEnvironment.fresh(worker=False, store=store.as_uri()) as env:
        cable = Cable(env.address, HOST_IP)
        await cable.mend()
        made = [_NAMESPACE, _volume(shared / "home")]
        made += [_overlay(body, cable.address, store) for body in objects()]
        try:
            for body in made:
                said = await asyncio.to_thread(create, kubernetes, body, "", _SPACE)
                assert not said, said
            yield Fabric(await connect(env.settings, address=env.address), env.settings)
        finally:
            for body in made[:2]:
                name = body["metadata"]["name"]
                await asyncio.to_thread(remove, kubernetes, body["kind"], name)
            await cable.cut()
    shutil.rmtree(shared)


def _shared_folders() -> Path:
    """Make a folder whose parts the user of a pod may write."""
    shared = Path(tempfile.mkdtemp(prefix="fab"))
    for path in (shared, shared / "store", shared / "home"):
        path.mkdir(exist_ok=True)
        path.chmod(0o777)
    return shared


def _volume(folder: Path) -> dict[str, Any]:
    """Return a volume that the worker's claim gets."""
    spec = {
        "capacity": {"storage": "100Gi"},
        "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": str(folder)},
        "persistentVolumeReclaimPolicy": "Retain",
    }
    metadata = {"name": "fabric-home"}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec}


def _overlay(body: dict[str, Any], address: str, store: Path) -> dict[str, Any]:
    """Return an object as a site changes it: its image, its server, its store.

    The image is the tests' Python, and this checkout is mounted where it lies. The cluster has no
    proxy for its services, so that the API server is named by its own address.
    """
    options = {"image": IMAGE, "image_pull_policy": "Never", "poll_s": 0.3}
    backends = {"cluster": {"kind": "kubernetes", "options": options}}
    if body["kind"] == "ConfigMap":
        return body | {"data": {"fabric.toml": tomli_w.dumps({"backends": backends})}}
    if body["kind"] != "StatefulSet":
        return body
    packages = [path for path in sys.path if path.endswith("site-packages")]
    folders = {f"v{place}": path for place, path in enumerate([str(_ROOT), str(store), *packages])}
    told = {
        "TEMPORAL_ADDRESS": address,
        "FABRIC_STORE": store.as_uri(),
        "FABRIC_HOME": "/var/lib/fabric",
        "KUBERNETES_SERVICE_HOST": HOST_IP,
        "KUBERNETES_SERVICE_PORT": "6443",
        "PYTHONPATH": ":".join([f"{_ROOT}/src", *packages]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    pod = body["spec"]["template"]["spec"]
    (worker,) = pod["containers"]
    kept = [row for row in worker["env"] if row["name"] not in told]
    worker |= {
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["python3", "-m", "temporal_fabric.cli", "worker"],
        "workingDir": "/home/fabric",
        "env": [*kept, *({"name": name, "value": value} for name, value in told.items())],
        "resources": {},
    }
    folders["library"] = str(_LIBRARY)
    worker["volumeMounts"] += [
        {"name": name, "mountPath": path, "readOnly": path != str(store)}
        for name, path in folders.items()
    ]
    pod["volumes"] += [{"name": name, "hostPath": {"path": path}} for name, path in folders.items()]
    return body


async def test_a_worker_in_the_cluster_runs_an_experiment_there(fabric: Fabric) -> None:
    """It finds the API server by itself, and its account may do all that a Job needs."""
    process = {
        "command": ["python3", "-c", "open('/output/said', 'w').write('from inside')"],
        "outputs": [{"source_path": "said"}],
    }
    handle = await fabric.submit({"id": "k-inside", "payload": {"process": process}})
    async with asyncio.timeout(150):
        result = await handle.result()

    assert result.backend == "cluster@fabric-worker-0"
    assert result.state == "SUCCEEDED"
