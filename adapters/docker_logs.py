"""Copying a container's output into the attempt's folder, exactly once.

The engine tells the output from its beginning; what the files hold already is skipped, and the
rest is written at its own place in the file. So a copy that was cut off goes on where it ended,
and two workers that copy at once write the same bytes to the same places.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from temporal_fabric.adapters.docker_calls import STDERR, STDOUT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from temporal_fabric.adapters.docker_calls import Engine

_FILES = {STDOUT: "stdout.log", STDERR: "stderr.log"}
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW


def copy(engine: Engine, container: str, folder: Path, *, follow: bool) -> None:
    """Copy what a container writes to ``stdout.log`` and ``stderr.log``.

    Args:
        engine: Its engine.
        container: Name or id.
        folder: The attempt's folder; without it there is nothing to do.
        follow: Go on until the container ends, else up to what it has written by now.

    Raises:
        TransientBackendError: the engine cannot be asked; what was copied stands.
        OSError: the folder cannot be written.
    """
    if not folder.is_dir():
        return
    with ExitStack() as stack:
        files: dict[int, int] = {}
        for stream, name in _FILES.items():
            files[stream] = os.open(folder / name, _FLAGS, 0o600)
            stack.callback(os.close, files[stream])
        held = {stream: os.fstat(fd).st_size for stream, fd in files.items()}
        passed = dict.fromkeys(files, 0)
        for stream, data in engine.frames(container, follow=follow):
            at = passed[stream]
            passed[stream] = at + len(data)
            new = data[max(0, held[stream] - at) :]
            while new:
                new = new[os.pwrite(files[stream], new, passed[stream] - len(new)) :]


def read(engine: Engine, container: str, from_offset: int) -> Iterator[bytes]:
    """Yield standard output from a byte offset to its present end.

    Raises:
        TransientBackendError: the engine cannot be asked.
    """
    passed = 0
    for stream, data in engine.frames(container, follow=False):
        if stream == STDOUT:
            passed += len(data)
            if passed > from_offset:
                yield data[-(passed - from_offset) :]
