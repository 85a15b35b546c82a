"""Run the conformance suite on our own adapters and write the reports that ship with them.

``python tools/make_conformance.py [NAME ...]``: some minutes, into ``adapters/conformance``.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from temporal_fabric.adapters.experimental import FOLDER
from temporal_fabric.testing.conformance import conform
from temporal_fabric.testing.debian_image import NAME as IMAGE
from temporal_fabric.testing.docker_bench import DockerBench
from temporal_fabric.testing.docker_daemon import DockerDaemon
from temporal_fabric.testing.kubernetes_bench import KubernetesBench
from temporal_fabric.testing.local_bench import LocalBench
from temporal_fabric.testing.sila_bench import SilaBench
from temporal_fabric.testing.slurm_bench import SlurmBench
from temporal_fabric.testing.slurm_podman_bench import SlurmPodmanBench
from temporal_fabric.testing.slurm_rest_bench import SlurmRestBench
from temporal_fabric.testing.slurm_site import SlurmSite

if TYPE_CHECKING:
    from collections.abc import Generator

    from temporal_fabric.testing.bench import Bench

ADAPTERS = Path(__file__).parents[1] / "adapters"


@contextmanager
def _local(folder: Path) -> Generator[Bench]:
    yield LocalBench(folder)


@contextmanager
def _docker(folder: Path) -> Generator[Bench]:
    daemon = DockerDaemon()
    try:
        daemon.start()
        daemon.load_image()
        yield DockerBench(folder, daemon)
    finally:
        daemon.close()


@contextmanager
def _sila(folder: Path) -> Generator[Bench]:
    yield SilaBench(folder)


@contextmanager
def _kubernetes(folder: Path) -> Generator[Bench]:
    sys.path.insert(0, str(ADAPTERS.parent))
    from tests.backends.kubernetes_cluster import HOST_IP, KubernetesCluster  # noqa: PLC0415

    cluster = KubernetesCluster()
    try:
        cluster.start()
        yield KubernetesBench(folder, cluster, IMAGE, HOST_IP)
    finally:
        cluster.stop()


@contextmanager
def _slurm(folder: Path, bench: type[SlurmBench] = SlurmBench) -> Generator[Bench]:
    site = SlurmSite()
    try:
        site.start()
        yield bench(folder, site)
    finally:
        site.stop()


BENCHES = {
    "docker": _docker,
    "kubernetes": _kubernetes,
    "local": _local,
    "sila": _sila,
    "slurm": _slurm,
    "slurm-podman": partial(_slurm, bench=SlurmPodmanBench),
    "slurm-rest": partial(_slurm, bench=SlurmRestBench),
}


async def _report(kind: str) -> bool:
    with tempfile.TemporaryDirectory(prefix="fab") as folder, BENCHES[kind](Path(folder)) as bench:
        report = await conform(bench)
        await bench.aclose()
    print(*report.lines, report.write(ADAPTERS / FOLDER), sep="\n")
    return report.passed


if __name__ == "__main__":
    passed = [asyncio.run(_report(kind)) for kind in sys.argv[1:] or BENCHES]
    sys.exit(not all(passed))
