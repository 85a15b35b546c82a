"""The conformance bench of the Slurm adapter by slurmrestd: a real one, and faults before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from temporal_fabric.testing.bench import Fault
from temporal_fabric.testing.http_relay import PortRelay, http_answer, read_message
from temporal_fabric.testing.slurm_bench import SlurmBench
from temporal_fabric.testing.slurm_site import PYTHON

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from temporal_fabric.adapters.contract import Adapter
    from temporal_fabric.testing.slurm_site import SlurmSite

VARIANT = "rest"

_LOOKS = r"GET \S*/jobs "
_CALLS = {
    "submit": r"POST \S*/job/submit ",
    "find": _LOOKS,
    "get_status": _LOOKS,
    "wait": _LOOKS,
    "terminate": rf"DELETE \S*/job/|{_LOOKS}",
}
"""The requests behind a call of the adapter; `forget` needs the site's folder alone."""

_NONE = "$^"


class SlurmRestBench(SlurmBench):
    """Adapters that reach one site by its slurmrestd; see `SlurmBench`.

    Jobs are those of root, as who runs the bench is: the folder belongs to whose jobs they are.
    """

    def __init__(self, folder: Path, site: SlurmSite) -> None:
        super().__init__(folder, site, VARIANT)
        self._relays: list[PortRelay] = []

    def options(self) -> dict[str, Any]:
        """Return the options of a backend that is the site."""
        return rest_options(self.site)

    async def make_faulty(self, call: str, fault: Fault) -> Adapter:
        """Return an adapter that reaches slurmrestd through a relay."""
        relay = _RestRelay(
            "127.0.0.1", self.site.rest_port, _CALLS.get(call, _NONE), fault, _garble
        )
        await relay.start()
        self._relays.append(relay)
        options: dict[str, Any] = {"url": f"http://127.0.0.1:{relay.port}"}
        if fault is Fault.AWAY:
            # A folder that is not mounted goes with it: what lies there would be an answer.
            options |= {"answer_s": 2, "folder": str(self.site.shared / "not-mounted")}
        return self.make(**options)

    async def settle(self) -> None:
        """End what a case has left behind, its relays too."""
        await super().settle()
        for relay in self._relays:
            await relay.aclose()
        self._relays = []


class _RestRelay(PortRelay):
    """Reads an answer by its length: slurmrestd 22.05 forgets to answer who wants to close."""

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_message(reader)
        spoiled = self._match.search(request.partition(b"\r\n")[0]) is not None
        if spoiled and self._fault == "lost_request":
            return
        server, client = await self._connect()
        try:
            client.write(request)
            answer = await read_message(server)
        finally:
            client.close()
        writer.write((await self._spoiled(answer) if spoiled else answer) or b"")
        await writer.drain()


def rest_options(site: SlurmSite) -> dict[str, Any]:
    """Return the options of a backend that is a site of tests."""
    token = site.folder / "token"
    if not token.exists():
        token.touch(mode=0o600)
        token.write_text(site.token())
    return {
        "url": f"http://127.0.0.1:{site.rest_port}",
        "user": "root",
        "token": str(token),
        "folder": str(site.shared),
        "python": PYTHON,
        "poll_s": 0.2,
        "settle_s": 2,
    }


def _garble(answer: bytes, turn: int) -> bytes:
    """Return no answer: noise, half of one, or what has the form of one and no meaning."""
    meta = {"Slurm": {"release": "0"}}
    job = {"name": "fab-another", "user_name": "root"}
    shapes = (
        b"\x00\xff\r\n\r\n",
        answer[: len(answer) // 2],
        http_answer(200, None),
        http_answer(200, {"jobs": [], "errors": []}),
        http_answer(200, {"meta": meta, "jobs": [job], "errors": []}),
        http_answer(200, {"meta": meta, "jobs": None, "errors": []}),
        http_answer(404, "<html>page not found</html>"),
        http_answer(500, {"meta": meta, "jobs": [], "errors": [{"error": "no"}]}),
    )
    return shapes[turn % len(shapes)]
