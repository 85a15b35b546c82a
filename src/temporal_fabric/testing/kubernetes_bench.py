"""The conformance bench of the Kubernetes adapter: a cluster, and a relay before its API server."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any, Protocol

from temporal_fabric.adapters.kubernetes_jobs import KubernetesJobsAdapter
from temporal_fabric.config import BackendConfig, Settings
from temporal_fabric.testing.bench import Bench, Fault
from temporal_fabric.testing.http_relay import PortRelay, http_answer

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.adapters.contract import Adapter

_JOBS = r"/apis/batch/v1/\S*/jobs"
_LOOKS = rf"GET {_JOBS}/|GET /api/v1/\S*/pods\?"
_CALLS = {
    "submit": rf"POST {_JOBS}(?!\S*dryRun)",
    "find": _LOOKS,
    "get_status": _LOOKS,
    "wait": _LOOKS,
    "terminate": rf"(POST|PATCH) {_JOBS}|DELETE /api/v1/\S*/pods/|{_LOOKS}",
    "forget": rf"DELETE /api/v1/\S*/pods/|{_LOOKS}",
}
"""The requests behind a call of the adapter."""

_ANSWER_S = 4


class Cluster(Protocol):
    """What the bench needs of a cluster."""

    @property
    def address(self) -> str:
        """Where the API server listens: an ``https`` address."""
        ...

    @property
    def authority(self) -> Path:
        """Certificate that the API server is known by."""
        ...

    def kubeconfig(self, user: str = "admin", server: str = "") -> Path:
        """Write and return a client configuration, for another address of the API server."""
        ...

    def lose_containers(self) -> None:
        """Let the node crash with what runs on it, and come back."""
        ...


class KubernetesBench(Bench):
    """Adapters of one namespace.

    Args:
        folder: A folder of the test's own.
        cluster: A cluster that runs; stays with its owner.
        image: An image with Python, a shell and tar, which the nodes have.
        host: An IP address of this machine that pods reach.
    """

    def __init__(self, folder: Path, cluster: Cluster, image: str, host: str) -> None:
        super().__init__(folder, host=host)
        self._cluster, self._image = cluster, image
        self._relays: list[PortRelay] = []

    def make(self) -> Adapter:
        """Return an adapter of the cluster."""
        return self.adapter_with(self._cluster.kubeconfig())

    async def make_faulty(self, call: str, fault: Fault) -> Adapter:
        """Return an adapter that reaches the API server through a relay."""
        host, _, port = self._cluster.address.removeprefix("https://").rpartition(":")
        trust = ssl.create_default_context(cafile=str(self._cluster.authority))
        # It speaks plain HTTP with the adapter.
        relay = PortRelay(host, int(port), _CALLS[call], fault, _garble, trust=trust)
        await relay.start()
        self._relays.append(relay)
        server = f"http://127.0.0.1:{relay.port}"
        return self.adapter_with(self._cluster.kubeconfig(server=server))

    async def lose_jobs(self) -> None:
        """Kill every container at once, as a crash of the node does."""
        await asyncio.to_thread(self._cluster.lose_containers)

    def body(self, code: str) -> dict[str, Any]:
        """Return a process payload for the backend's image."""
        env = {"EVIDENCE": self.ledger.address}
        command = ["python3", "-S", "-E", "-c", code]
        return {"payload": {"process": {"command": command, "env": env}}}

    async def settle(self) -> None:
        """End what a case has left behind, its relays too."""
        await super().settle()
        for relay in self._relays:
            await relay.aclose()
        self._relays = []

    def adapter_with(self, kubeconfig: Path, **more: Any) -> KubernetesJobsAdapter:
        """Return an adapter of the bench's folders.

        Args:
            kubeconfig: How it reaches the cluster.
            more: Further options.
        """
        options = kubernetes_test_options(kubeconfig, self._image) | more
        config = BackendConfig("kubernetes", "kubernetes", options=options)
        settings = Settings(home=self.folder, store=self.folder.as_uri())
        return KubernetesJobsAdapter(config, settings, "conformance")


def kubernetes_test_options(kubeconfig: Path, image: str) -> dict[str, Any]:
    """Return the options of a backend that is a cluster of tests."""
    return {
        "kubeconfig": str(kubeconfig),
        "image": image,
        "image_pull_policy": "Never",
        "answer_s": _ANSWER_S,
        "poll_s": 0.3,
    }


def _garble(answer: bytes, turn: int) -> bytes:
    """Return no answer: noise, half of one, or what has the form of one and no meaning."""
    metadata = {"name": "another", "namespace": "default", "uid": "1", "resourceVersion": "1"}
    another = {"kind": "Job", "apiVersion": "batch/v1", "metadata": metadata, "spec": {}}
    missing = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": "NotFound",
        "message": "the server could not find the requested resource",
        "code": 404,
    }
    shapes = (
        b"\x00\xff\r\n\r\n",
        answer[: len(answer) // 2],
        http_answer(200, another),
        http_answer(200, {"kind": "JobList", "items": [None]}),
        http_answer(200, None),
        http_answer(404, "<html>page not found</html>"),
        http_answer(404, missing),
        http_answer(500, {}),
    )
    return shapes[turn % len(shapes)]
