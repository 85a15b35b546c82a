"""The SDK's own download of the temporal CLI.

The SDK offers the download only together with starting a server, so one is started in
memory and shut down at once. Where there is no internet this fails within milliseconds.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from temporalio.testing import WorkflowEnvironment

from temporal_fabric.devserver.apart import run_apart
from temporal_fabric.devserver.steps import StepFailed

if TYPE_CHECKING:
    from pathlib import Path

# A network that swallows packets would otherwise hold the whole chain for minutes.
_TIMEOUT_S = 120


def download_cli(version: str, scratch: Path) -> Path:
    """Fetch one version of the CLI into a scratch folder and return the file there.

    Raises:
        StepFailed: the SDK could not fetch it.
    """
    try:
        run_apart(asyncio.wait_for(_fetch(version, scratch), _TIMEOUT_S))
    except TimeoutError as exc:
        raise StepFailed(f"the SDK's download took more than {_TIMEOUT_S} s") from exc
    except RuntimeError as exc:
        raise StepFailed(f"the SDK's download failed: {str(exc).splitlines()[0]}") from exc
    fetched = [path for path in scratch.iterdir() if path.is_file()]
    if len(fetched) != 1:
        raise StepFailed(f"the SDK's download left {len(fetched)} files instead of one")
    return fetched[0]


async def _fetch(version: str, scratch: Path) -> None:
    # The SDK leaves a type parameter of its search attributes open.
    server = await WorkflowEnvironment.start_local(  # pyright: ignore[reportUnknownMemberType]
        download_dest_dir=str(scratch),
        dev_server_download_version=f"v{version}",
        dev_server_log_level="error",
    )
    await server.shutdown()
