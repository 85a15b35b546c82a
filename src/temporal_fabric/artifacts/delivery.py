"""Outputs under their target URIs: prepared before the capsule is sealed, named after it.

Everything is brought next to its final place first, so that what can fail fails while the run
can still be FAILED for it. The capsule's manifest is the commit. Then the names are given,
one rename or one copy within the server each; a worker that dies in between repeats it. All
names of one run change within moments, though not in one instant: no target can do that for
several files.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from temporal_fabric import durable
from temporal_fabric.artifacts.s3 import LARGEST, Bucket, bucket_and_key
from temporal_fabric.beneath import chunks, opened_below
from temporal_fabric.errors import ArtifactFailed
from temporal_fabric.failpoints import FailPoint, reach
from temporal_fabric.states import Reason
from temporal_fabric.store import local_path
from temporal_fabric.workplace import output_path

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from temporal_fabric.outcomes import OutputFile
    from temporal_fabric.requests.models import ExecutionRequest


def with_targets(request: ExecutionRequest, outputs: Sequence[OutputFile]) -> list[OutputFile]:
    """Return the outputs, each with the URI under which it is to be stored, if it has one.

    A folder's target is the prefix of its files' targets.
    """
    declared = request.outputs.values()
    roots = {output_path(o.source_path): o.target_uri for o in declared if o.target_uri}
    return [replace(output, target_uri=_target(output.path, roots)) for output in outputs]


def _target(path: str, roots: dict[str | None, str]) -> str:
    for root, uri in roots.items():
        if path == root:
            return uri
        if path.startswith(f"{root}/"):
            return f"{uri.rstrip('/')}/{quote(path.removeprefix(f'{root}/'))}"
    return ""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one attempt delivers. The calls block, and each may be repeated after any crash."""

    outputs: tuple[OutputFile, ...]
    """Those with a target."""

    folder: Path
    """The attempt's output folder."""

    mark: str
    """Names the attempt, so that two never prepare under one name."""

    def prepare(self) -> None:
        """Bring every output next to its final place.

        Raises:
            ArtifactFailed: INTEGRITY where an output is not what the attempt hashed,
                OUTPUT_MISSING where a target cannot be written.
            TransientBackendError: the target's server does not answer.
        """
        for output in self.outputs:
            self._bring(output)
        reach(FailPoint.DELIVERY_PREPARED)

    def commit(self) -> None:
        """Give every prepared output its name.

        Raises:
            ArtifactFailed: a target can no longer be written.
            TransientBackendError: the target's server does not answer.
        """
        for output in self.outputs:
            path = local_path(output.target_uri)
            if path is not None:
                with _told(output):
                    self._aside(path, output).replace(path)
                    durable.sync_folder(path.parent)
            else:
                bucket, key = bucket_and_key(output.target_uri)
                Bucket(bucket).move(self._aside_key(key, output), key, output.target_uri)
            reach(FailPoint.DELIVERY_NAMED)

    def discard(self) -> None:
        """Drop what was prepared, as far as it is there."""
        for output in self.outputs:
            path = local_path(output.target_uri)
            if path is not None:
                with _told(output):
                    self._aside(path, output).unlink(missing_ok=True)
            else:
                bucket, key = bucket_and_key(output.target_uri)
                Bucket(bucket).remove(self._aside_key(key, output), output.target_uri)

    def _bring(self, output: OutputFile) -> None:
        path, uri = local_path(output.target_uri), output.target_uri
        with _told(output), opened_below(self.folder, output.path) as fd:
            content = _verified(chunks(fd), output)
            if path is None:
                if output.size > LARGEST:
                    raise ArtifactFailed(
                        f"{uri}: {output.path} is larger than 5 GiB, which S3 does not copy: "
                        "split it, or give it no target_uri and get it from the capsule",
                        reason=Reason.OUTPUT_MISSING,
                    )
                bucket, key = bucket_and_key(uri)
                Bucket(bucket).put(self._aside_key(key, output), content, output.size, uri)
                return
            if path.is_dir():
                raise ArtifactFailed(
                    f"{uri} is a folder, {output.path} is a file", reason=Reason.OUTPUT_MISSING
                )
            durable.make_folder(path.parent)
            _write(self._aside(path, output), content)

    def _aside(self, path: Path, output: OutputFile) -> Path:
        return path.with_name(self._aside_name(output))

    def _aside_key(self, key: str, output: OutputFile) -> str:
        folder, slash, _ = key.rpartition("/")
        return f"{folder}{slash}{self._aside_name(output)}"

    def _aside_name(self, output: OutputFile) -> str:
        text = f"{self.mark}\n{output.target_uri}"
        return f".fabric-{hashlib.sha256(text.encode()).hexdigest()[:24]}.part"


def _write(aside: Path, content: Iterator[bytes]) -> None:
    # Under a name of its own first: a worker that wakes up here after another took over must
    # not truncate what the other is about to name.
    for left in aside.parent.glob(f"{aside.name}.*"):
        left.unlink(missing_ok=True)
    temporary = aside.with_name(f"{aside.name}.{secrets.token_hex(6)}")
    with temporary.open("xb") as file:
        for chunk in content:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(aside)


def _verified(content: Iterator[bytes], output: OutputFile) -> Iterator[bytes]:
    """Pass an output on; its last chunk follows only if all of it is what was hashed."""
    digest, size, held = hashlib.sha256(), 0, b""
    for chunk in content:
        if held:
            yield held
        digest.update(chunk)
        size += len(chunk)
        held = chunk
    if (size, digest.hexdigest()) != (output.size, output.sha256):
        raise ArtifactFailed(
            f"output changed after the attempt ended: {output.path}", reason=Reason.INTEGRITY
        )
    reach(FailPoint.DELIVERY_HALF)
    if held:
        yield held


@contextmanager
def _told(output: OutputFile) -> Generator[None]:
    try:
        yield
    except OSError as exc:
        raise ArtifactFailed(
            f"output {output.path} cannot be stored: {output.target_uri}: {exc.strerror or exc}",
            reason=Reason.OUTPUT_MISSING,
        ) from exc
