"""Payloads that hold their devices, and would notice anybody else on them.

Each locks a file per device that it sees. The kernel frees such a lock at the very end of its
process, so two that hold one device at the same time cannot miss each other, whoever was killed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tests.bodies import python

if TYPE_CHECKING:
    from pathlib import Path

_HOLD = """
import fcntl, os, sys, time
root, devices = sys.argv[1], [d for d in os.environ['CUDA_VISIBLE_DEVICES'].split(',') if d]
assert os.environ['NVIDIA_VISIBLE_DEVICES'] == ','.join(devices)
held = [open(f'{root}/{device}.held', 'a') for device in devices]
for file in held:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        open(f'{root}/shared', 'a').write(file.name)
        sys.exit('shared')
with open(f'{root}/had', 'a') as file:
    file.write(os.environ['FABRIC_REQUEST_ID'] + ' ' + ' '.join(devices) + chr(10))
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end or not os.path.exists(f'{root}/go'):
    time.sleep(0.05)
"""


class Holding:
    """A folder of payloads that hold devices.

    Args:
        root: A folder of the test's own.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def body(self, count: int = 1, *, seconds: float = 0.0, **more: Any) -> dict[str, Any]:
        """Return a request for so many devices, which holds them until `go` at least."""
        body = python(_HOLD, **more)
        body["payload"]["process"]["command"] += [str(self._root), str(seconds)]
        return {"requirements": {"resources": {"gpu": count}}, **body}

    def go(self) -> None:
        """Let all of them end."""
        (self._root / "go").touch()

    @property
    def had(self) -> list[tuple[str, frozenset[str]]]:
        """Who had which devices, in the order of their starts."""
        path = self._root / "had"
        rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [(row[0], frozenset(row[1:])) for row in rows]

    @property
    def shared(self) -> bool:
        """Whether a payload has found another one on its device."""
        return (self._root / "shared").exists()

    async def wait(self, count: int) -> None:
        """Return once so many payloads have begun."""
        async with asyncio.timeout(90):
            while len(self.had) < count:
                await asyncio.sleep(0.1)
