"""Outputs of other experiments as inputs: ``capsule://<tenant>/<id>/<output>``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from temporal_fabric.beneath import Measured
from temporal_fabric.capsule.reading import Capsule
from temporal_fabric.errors import ArtifactFailed, CapsuleError, StoreError, TransientBackendError
from temporal_fabric.record import RequestRecord
from temporal_fabric.states import Reason, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from temporal_fabric.capsule.manifest import Entry
    from temporal_fabric.store import Store


@dataclass(frozen=True, slots=True)
class Upstream:
    """An output of an experiment that has succeeded."""

    tenant: str
    request_id: str
    output: str
    capsule: str


def split_capsule_uri(uri: str) -> tuple[str, str, str] | None:
    """Return tenant, request id and output of a ``capsule://`` URI; None for any other."""
    parts = urlsplit(uri)
    if parts.scheme != "capsule":
        return None
    request_id, _, output = unquote(parts.path.removeprefix("/")).partition("/")
    return (parts.netloc, request_id, output)


async def find_upstream(uri: str, store: Store) -> Upstream | None:
    """Find the capsule behind a ``capsule://`` URI; None for any other URI.

    Raises:
        ArtifactFailed: there is no such experiment, or it has not succeeded.
    """
    named = split_capsule_uri(uri)
    if named is None:
        return None
    tenant, request_id, output = named
    last = await RequestRecord(store, tenant, request_id).last_outcome()
    if last is None:
        raise ArtifactFailed(f"input not found: {uri}: no such experiment has ended")
    state = last[1].get("state")
    if state != State.SUCCEEDED:
        how = f"{state} {last[1].get('reason') or ''}".rstrip()
        raise ArtifactFailed(f"input not found: {uri}: that experiment ended as {how}")
    return Upstream(tenant, request_id, output, str(last[1]["capsule"]))


def read_output(upstream: Upstream, uri: str) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield the files of an output, each verified against the manifest.

    Raises:
        ArtifactFailed: there is no such output, or its content is not what was sealed.
        TransientBackendError: the capsule is out of reach.
    """
    try:
        capsule = Capsule.open(upstream.capsule)
        files = capsule.output_files(upstream.output)
    except CapsuleError as exc:
        raise ArtifactFailed(f"input not found: {uri}: {exc}") from exc
    except StoreError as exc:
        raise TransientBackendError(f"{uri}: {exc}") from exc
    for name, entry in files:
        yield (name, _content(capsule, entry, uri))


def _content(capsule: Capsule, entry: Entry, uri: str) -> Iterator[bytes]:
    measured = Measured(entry.path)
    try:
        yield from measured.passing(capsule.objects.chunks(entry.path))
    except StoreError as exc:
        raise TransientBackendError(f"{uri}: {exc}") from exc
    if measured.found != (entry.size, entry.sha256):
        raise ArtifactFailed(
            f"{uri}: {entry.path} is not what the capsule's manifest says",
            reason=Reason.INTEGRITY,
        )
