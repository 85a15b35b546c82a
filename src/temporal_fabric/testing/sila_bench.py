"""The conformance bench of the lab adapter: a real SiLA server whose command runs a program."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters.sila_lab import SilaLabAdapter
from temporal_fabric.config import BackendConfig, Settings
from temporal_fabric.testing.bench import Bench, Fault, require
from temporal_fabric.testing.sila_program_device import kill_all
from temporal_fabric.testing.sila_relay import SilaRelay

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.adapters.contract import Adapter, AttemptKey, AttemptSpec, JobStatus

_METHODS = {
    "submit": ("/Run",),
    "pause": ("/Pause",),
    "wait": ("/Run_Result",),
    "terminate": ("/CancelCommand", "/CancelAll", "/Run_Result"),
}
"""The calls to the device that an adapter's call comes down to."""

_ANSWER_S = 4.0
"""What the device has for an answer on a busy machine; some cases wait as long."""

_CODE = re.compile(r"exit code (\d+)")
_SEEN = ("FABRIC_REQUEST_ID", "FABRIC_EPOCH")


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class SilaBench(Bench):
    """A device of the bench's own, and a relay before it where a fault is wanted."""

    asks_people = True
    answered_here = frozenset({"find", "get_status", "forget"})

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._settings = Settings(home=folder, store=folder.as_uri())
        self._port = free_port()
        self._relays: list[SilaRelay] = []
        self._programs = folder / "programs"
        self._programs.mkdir()
        self._device = self._start()

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "temporal_fabric.testing.sila_program_device"]
        device = subprocess.Popen(
            [*command, str(self._port), str(self._programs)],
            stdout=subprocess.PIPE,
            text=True,
        )
        if device.stdout is None or device.stdout.readline() != "ready\n":
            raise RuntimeError("the device did not start")
        return device

    def make(self) -> Adapter:
        """Return an adapter of the device."""
        return self._made(self._port)

    def _made(self, port: int) -> Adapter:
        options = {"address": f"127.0.0.1:{port}", "tls": False, "timeout_s": _ANSWER_S}
        config = BackendConfig("device", kind="sila", options=options)
        return SilaLabAdapter(config, self._settings, "conformance")

    async def make_faulty(self, call: str, fault: Fault) -> Adapter:
        """Return an adapter that reaches the device through a relay."""
        relay = SilaRelay(f"127.0.0.1:{self._port}", _METHODS.get(call, ()), fault)
        self._relays.append(relay)
        return self._made(await relay.start())

    async def lose_jobs(self) -> None:
        """Kill the device, which forgets what it performed, and start it anew."""
        self._end_device()
        self._device = self._start()

    def body(self, code: str) -> dict[str, Any]:
        """Return the request whose one step performs a program."""
        path = self._programs / f"{hashlib.sha256(code.encode()).hexdigest()[:16]}.py"
        path.write_text(code)
        step = {
            "command_id": "run",
            "feature": "Programs",
            "command": "Run",
            "parameters": {"Program": str(path)},
        }
        outputs = [{"source_path": "/output/run.json"}]
        lab = {"device": "device", "steps": [step], "outputs": outputs}
        return {"requirements": {"type": "synthesis"}, "payload": {"lab": lab}}

    def attempt(self, key: AttemptKey, code: str, **more: Any) -> AttemptSpec:
        """Return an attempt whose program knows its key: a device is told of no environment."""
        env = self.place(key).variables(tenant=key.tenant, request_id=key.request_id, number=1)
        known = {name: env[name] for name in _SEEN} | {"EVIDENCE": str(self.ledger.socket)}
        return super().attempt(key, f"os.environ.update({known!r})\n{code}", **more)

    def exit_code(self, status: JobStatus) -> int | None:
        """Return the code that the device's error names: the status has the step's number."""
        named = _CODE.search(status.message)
        return int(named[1]) if named else status.exit_code

    def spoken(self, key: AttemptKey, log: bytes) -> bytes:
        """Return what the program has written, from the step's responses."""
        require(b"1/1 run: done" in log, "the log is the protocol of the steps")
        return str(self._answer(key)["said"]).encode()

    def outputs(self, key: AttemptKey) -> dict[str, str]:
        """Return the program's files, from the step's responses."""
        return dict(self._answer(key)["files"])

    def _answer(self, key: AttemptKey) -> dict[str, Any]:
        responses = json.loads((self.place(key).output / "run.json").read_text())
        found: dict[str, Any] = json.loads(responses["Answer"])
        return found

    async def settle(self) -> None:
        """End what a case has left behind, questions and relays too."""
        keys, adapter = list(self._keys), self.make()
        await super().settle()
        for key in keys:
            await adapter.forget(key)
        await adapter.aclose()
        for relay in self._relays:
            await relay.aclose()
        self._relays = []

    async def aclose(self) -> None:
        """End the device."""
        self._end_device()
        await super().aclose()

    def _end_device(self) -> None:
        self._device.kill()
        self._device.communicate()
        kill_all(self._programs)
