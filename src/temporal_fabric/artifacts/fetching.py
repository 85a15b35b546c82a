"""One file from anywhere that inputs may come from, for what is not an input."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from temporal_fabric.artifacts.https import read_https
from temporal_fabric.artifacts.local_files import read_local
from temporal_fabric.artifacts.s3 import Bucket, bucket_and_key
from temporal_fabric.artifacts.transfer import Transfer
from temporal_fabric.errors import ArtifactFailed, EnvironmentFailed, TransientBackendError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from temporal_fabric.config import ArtifactsConfig

_TRIES = 4
_PAUSE_S = 1.0


class Fetching:
    """Fetches archives of environments under the limits of inputs.

    Args:
        config: What may be reached, and how much.
        say: Told of the progress.
    """

    def __init__(self, config: ArtifactsConfig, say: Callable[[str], None]) -> None:
        self._config = config
        self._say = say
        self.max_bytes = config.max_bytes

    async def __call__(self, uri: str, target: Path) -> None:
        """Write the file behind a URI to a path.

        Raises:
            EnvironmentFailed: it is refused, missing, or cannot be had after some tries.
        """
        for tried in range(1, _TRIES + 1):
            transfer = Transfer(self.max_bytes, self._config.max_seconds, self._say)
            transfer.begin(f"fetching {uri}")
            try:
                await transfer.in_thread(self._write, uri, target, transfer)
            except ArtifactFailed as exc:
                raise EnvironmentFailed(str(exc)) from exc
            except TransientBackendError as exc:
                if tried == _TRIES:
                    raise EnvironmentFailed(f"cannot be fetched: {uri}: {exc}") from exc
                await asyncio.sleep(_PAUSE_S * 2 ** (tried - 1))
            else:
                return

    def _write(self, uri: str, target: Path, transfer: Transfer) -> None:
        with target.open("wb") as file:
            for name, content in self._source(uri, transfer):
                if name:
                    raise ArtifactFailed(f"not one file: {uri}")
                for chunk in transfer.counted(content):
                    file.write(chunk)

    def _source(self, uri: str, transfer: Transfer) -> Iterator[tuple[str, Iterator[bytes]]]:
        parts = urlsplit(uri)
        if parts.scheme == "s3":
            bucket, key = bucket_and_key(uri)
            yield from Bucket(bucket).read(key, uri)
        elif parts.scheme == "https":
            yield ("", read_https(uri, self._config, transfer))
        else:
            yield from read_local(Path(unquote(parts.path)), uri)
