"""The conformance bench of the Docker adapter: an engine of its own, with a relay before it."""

from __future__ import annotations

import asyncio
import json
from itertools import count
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters.docker_engine import DockerEngineAdapter
from temporal_fabric.config import BackendConfig, Settings
from temporal_fabric.testing.bench import Bench, Fault
from temporal_fabric.testing.docker_daemon import IMAGE
from temporal_fabric.testing.http_relay import HttpRelay

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from temporal_fabric.adapters.contract import Adapter
    from temporal_fabric.testing.docker_daemon import DockerDaemon

_LOOKS = r"GET \S*/containers/[^/]+/(json|logs)"
_CALLS = {
    "submit": r"POST \S*/containers/create",
    "find": _LOOKS,
    "get_status": _LOOKS,
    "wait": _LOOKS,
    "terminate": rf"POST \S*/containers/[^/]+/kill|{_LOOKS}",
    "forget": r"DELETE \S*/containers/",
}
"""The engine's calls behind a call of the adapter."""

_PATIENCE_S = 6.0
_NOTHING: Mapping[str, Any] = MappingProxyType({})

START = "start"
"""The variant in which a submit meets its faults when the container is told to start."""


class DockerBench(Bench):
    """Adapters of one engine.

    Args:
        folder: A folder of the test's own.
        daemon: The engine, with its image; stays with its owner.
        variant: ``start``, or empty.
        options: Of every adapter, besides those that the bench needs.
    """

    def __init__(
        self,
        folder: Path,
        daemon: DockerDaemon,
        variant: str = "",
        options: Mapping[str, Any] = _NOTHING,
    ) -> None:
        super().__init__(folder, variant)
        self._daemon, self._options = daemon, options
        self._relays: list[HttpRelay] = []
        self._numbers = count()
        self.ledger.socket.chmod(0o777)

    def make(self) -> Adapter:
        """Return an adapter of the engine."""
        return self.made_with()

    def made_with(self, **options: Any) -> DockerEngineAdapter:
        """Return an adapter of the engine with other options."""
        return self._adapter_at(self._daemon.host, options)

    async def make_faulty(self, call: str, fault: Fault) -> Adapter:
        """Return an adapter that reaches the engine through a relay."""
        match = _CALLS[call]
        if call == "submit" and self.variant == START:
            match = r"POST \S*/containers/[^/]+/start"
        return await self._behind(match, fault, _garble)

    async def made_where(self, match: str, change: Mapping[str, Any]) -> Adapter:
        """Return an adapter of an engine that answers some requests with other fields."""

        def changed(answer: bytes, turn: int) -> bytes:
            del turn
            return _answer(200, {**_body_of(answer), **change})

        self._adapters.append(await self._behind(match, Fault.GARBAGE, changed))
        return self._adapters[-1]

    async def _behind(
        self, match: str, fault: Fault, garble: Callable[[bytes, int], bytes]
    ) -> Adapter:
        path = self.folder / f"relay{next(self._numbers)}.sock"
        relay = HttpRelay(path, self._daemon.socket, match, fault, garble)
        await relay.start()
        self._relays.append(relay)
        return self._adapter_at(f"unix://{path}")

    async def lose_jobs(self) -> None:
        """Kill the engine and its containers, and let it forget them."""
        await asyncio.to_thread(self._daemon.lose)

    async def settle(self) -> None:
        """End what a case has left behind, its relays too."""
        await super().settle()
        for relay in self._relays:
            await relay.aclose()
        self._relays = []

    def body(self, code: str) -> dict[str, Any]:
        """Return a process payload for the engine's image."""
        env = {"EVIDENCE": str(self.ledger.socket)}
        return {
            "payload": {"process": {"command": ["python3", "-S", "-E", "-c", code], "env": env}}
        }

    def _adapter_at(self, host: str, more: Mapping[str, Any] = _NOTHING) -> DockerEngineAdapter:
        mounts = [str(self.ledger.socket)]
        options = {"host": host, "image": IMAGE, "pull": False, "mounts": mounts}
        options |= {**self._options, **more}
        config = BackendConfig("docker", "docker", slots=64, options=options)
        settings = Settings(home=self.folder, store=self.folder.as_uri())
        return DockerEngineAdapter(config, settings, "conformance", patience_s=_PATIENCE_S)


def _garble(answer: bytes, turn: int) -> bytes:
    """Return no answer: noise, half of one, or what has the form of one and no meaning."""
    shapes = (
        b"\x00\xff\r\n\r\n",
        answer[: len(answer) // 2],
        _answer(200, _container("exited")),
        _answer(200, _container("perhaps")),
        _answer(200, None),
        _answer(200, [1]),
        _answer(404, {"message": "page not found"}),
        _answer(500, {}),
    )
    return shapes[turn % len(shapes)]


def _body_of(answer: bytes) -> dict[str, Any]:
    """Return the JSON object in an answer, also where it came in chunks."""
    text = answer.partition(b"\r\n\r\n")[2].decode()
    found: dict[str, Any] = json.loads(text[text.index("{") : text.rindex("}") + 1])
    return found


def _container(status: str) -> dict[str, Any]:
    """Return what an engine tells of another attempt's container."""
    return {
        "Id": "0" * 64,
        "Config": {"Labels": {"temporal-fabric.attempt": "default@another@1"}},
        "State": {
            "Status": status,
            "ExitCode": 0,
            "OOMKilled": False,
            "StartedAt": "2026-01-01T00:00:00Z",
            "FinishedAt": "2026-01-01T00:00:01Z",
        },
    }


def _answer(status: int, body: object) -> bytes:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} Told\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
