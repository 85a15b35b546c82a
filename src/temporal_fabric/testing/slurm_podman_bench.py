"""The conformance bench of the Slurm adapter whose payloads run in containers of podman."""

from __future__ import annotations

import pwd
from typing import TYPE_CHECKING, Any

from temporal_fabric.testing import podman_store
from temporal_fabric.testing.slurm_bench import SlurmBench, site_options

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.testing.slurm_site import SlurmSite

VARIANT = "podman"


class SlurmPodmanBench(SlurmBench):
    """Adapters of one site whose payloads run in containers; see `SlurmBench`."""

    def __init__(self, folder: Path, site: SlurmSite) -> None:
        super().__init__(folder, site, VARIANT)

    def options(self) -> dict[str, Any]:
        """Return the options of a backend that is the site."""
        own = {"image": podman_store.IMAGE, "mounts": [str(self.ledger.socket)]}
        return podman_options(self.site) | own

    def body(self, code: str) -> dict[str, Any]:
        """Return the request that runs some Python in a container, with room for its runtime."""
        resources = [{"type": "memory", "size_gb": 0.064}]
        return super().body(code) | {"requirements": {"resources": resources}}


def podman_options(site: SlurmSite) -> dict[str, Any]:
    """Return the options of a backend that is a site of tests, with podman on its nodes."""
    store = site.home / "images"
    if not store.exists():
        owner = pwd.getpwnam(site.user)
        podman_store.make(store, owner.pw_uid, owner.pw_gid)
    return site_options(site) | {"runtime": "podman", "image_folder": str(store)}
