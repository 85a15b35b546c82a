"""Outputs under their target URIs: prepared before the capsule is sealed, named after it.

Everything is brought next to its final place first, so that what can fail fails while the run
can still be FAILED for it. The capsule's manifest is the commit. Then the names are given,
one rename or one copy within the server each; a worker that dies in between repeats it. All
names of one run change within moments, though not in one instant: no target can do that for
several files.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from temporal_fabric.artifacts.targets import Target, target_of
from temporal_fabric.beneath import Measured, chunks, opened_below
from temporal_fabric.errors import ArtifactFailed, TransientBackendError
from temporal_fabric.failpoints import FailPoint, reach
from temporal_fabric.states import Reason
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
            with _told(output), opened_below(self.folder, output.path) as fd:
                self._target(output).bring(_verified(chunks(fd), output), output.size)
        reach(FailPoint.DELIVERY_PREPARED)

    def commit(self) -> None:
        """Give every prepared output its name; one that has it already keeps it.

        Raises:
            ArtifactFailed: a target can no longer be written, or what was prepared is gone.
            TransientBackendError: the target's server does not answer.
        """
        for output in self.outputs:
            try:
                with _told(output):
                    self._target(output).name()
            except ArtifactFailed:
                if not self._is_named(output):
                    raise
            reach(FailPoint.DELIVERY_NAMED)

    def discard(self) -> None:
        """Drop what was prepared, as far as it is there."""
        for output in self.outputs:
            with _told(output):
                self._target(output).drop()

    def unseen(self) -> list[str]:
        """Return the targets under which this host sees an output neither prepared nor named.

        What is prepared bears a name that no other attempt gives. So where it is seen, the target
        is the place that the attempt's own host has prepared, and not one with the same path.
        """
        return [output.target_uri for output in self.outputs if not self._is_seen(output)]

    def _is_seen(self, output: OutputFile) -> bool:
        try:
            with _told(output):
                return self._target(output).is_brought() or self._is_named(output)
        except (ArtifactFailed, TransientBackendError):
            return False

    def _is_named(self, output: OutputFile) -> bool:
        found = Measured(output.path)
        try:
            with _told(output):
                for _ in found.passing(self._target(output).named()):
                    pass
        except ArtifactFailed:
            return False
        return found.found == (output.size, output.sha256)

    def _target(self, output: OutputFile) -> Target:
        text = f"{self.mark}\n{output.target_uri}"
        aside = f".fabric-{hashlib.sha256(text.encode()).hexdigest()[:24]}.part"
        return target_of(output.target_uri, aside)


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
