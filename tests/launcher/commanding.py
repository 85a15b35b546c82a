"""Running a command beside a payload to its end, for tests of the launcher."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from temporal_fabric.launcher import LauncherClient


async def fetched(client: LauncherClient, key: str, name: str) -> tuple[bytes, bytes, Any]:
    """Fetch a command to its end; return both streams and its exit code or minus its signal."""
    said = [b"", b""]
    while True:
        told = await client.fetch(key, name, (len(said[0]), len(said[1])), 10)
        said[0] += base64.b64decode(told["stdout"])
        said[1] += base64.b64decode(told["stderr"])
        if told["ended"]:
            end = -told["signal"] if "signal" in told else told["exit_code"]
            return (said[0], said[1], told["error"] or end)


async def ran(client: LauncherClient, key: str, script: str) -> tuple[bytes, bytes, Any]:
    """Run a shell script beside a payload."""
    await client.execute(key, script[:20], ["sh", "-c", script])
    return await fetched(client, key, script[:20])
