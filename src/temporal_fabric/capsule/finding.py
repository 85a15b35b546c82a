"""Finding capsules in a store, without a server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from temporal_fabric.capsule.manifest import MANIFEST, Manifest
from temporal_fabric.capsule.reading import Capsule
from temporal_fabric.errors import CapsuleError
from temporal_fabric.store import open_objects

if TYPE_CHECKING:
    from temporal_fabric.store import Objects

_CAPSULES = "capsules"
_AT_ONCE = 16


def find_capsules(store: str, wanted: str = "") -> list[Capsule]:
    """Return sealed capsules of a store, newest first.

    Args:
        store: The store's URI.
        wanted: An id, ``tenant/id``, or the beginning of an id, which must fit one experiment
            only; all experiments where it is empty.

    Raises:
        CapsuleError: a capsule is damaged; or none fits, or those of more than one experiment.
        StoreError: the store cannot be reached.
    """
    objects = open_objects(store)
    tenants = objects.names(_CAPSULES)
    known = [
        (tenant, name) for tenant in tenants for name in objects.names(f"{_CAPSULES}/{tenant}")
    ]
    if not wanted:
        return _sealed(objects, known)
    exact = [pair for pair in known if wanted in {pair[1], "/".join(pair)}]
    near = exact or [pair for pair in known if pair[1].startswith(wanted)]
    found = _sealed(objects, near)
    if len(near) != 1 or not found:
        many = "more than one experiment fits" if len(near) > 1 else "no sealed capsule"
        raise CapsuleError(f"{many} [id={wanted}]: 'temporal-fabric capsule ls' shows them")
    return found


def _sealed(objects: Objects, experiments: list[tuple[str, str]]) -> list[Capsule]:
    folders = [f"{_CAPSULES}/{tenant}/{name}" for tenant, name in experiments]
    keys = [f"{folder}/{epoch}" for folder in folders for epoch in objects.names(folder)]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        opened = list(threads.map(partial(_opened, objects), keys))
    found = [capsule for capsule in opened if capsule is not None]
    return sorted(found, key=lambda one: one.manifest.sealed_at, reverse=True)


def _opened(objects: Objects, key: str) -> Capsule | None:
    """Open a capsule; None where it is not sealed yet, or never will be."""
    data = objects.read(f"{key}/{MANIFEST}")
    if data is None or (manifest := Manifest.parse(data)).given_up_for:
        return None
    return Capsule(open_objects(f"{objects.root}/{key}"), manifest)
