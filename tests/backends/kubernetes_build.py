"""The tests' Kubernetes: one binary of etcd and its four parts, built once from Go modules.

``python -m tests.backends.kubernetes_build`` builds it, and says where it lies.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from temporal_fabric.devserver.build import compile_program
from temporal_fabric.devserver.cache import CacheEntry, Pins, Program, exclusive, scratch_folder
from temporal_fabric.devserver.progress import Reporter
from temporal_fabric.devserver.steps import StepFailed
from temporal_fabric.devserver.toolchain import Toolchain, fetch_go, find_go

PROGRAM = Program("kubernetes", ".", "the tests' Kubernetes")
_FOLDER = Path(__file__).parent / "kubernetes"
_MAIN = "main.go"
_CANNOT = 75
_REPORT_FD = 3


@dataclass(frozen=True)
class _KubernetesPins(Pins):
    """Without optimisation it is built in three quarters of the time, and fast enough."""

    @property
    def flags(self) -> tuple[str, ...]:
        version = re.search(rb"k8s\.io/kubernetes v(\S+)", self.go_mod)
        number = "" if version is None else version[1].decode()
        major, minor, *_ = number.split(".")
        source = hashlib.sha256((_FOLDER / _MAIN).read_bytes()).hexdigest()[:16]
        names = "k8s.io/component-base/version"
        link = f"-s -w -X main.source={source} -X {names}.gitVersion=v{number}"
        link += f" -X {names}.gitMajor={major} -X {names}.gitMinor={minor}"
        unoptimised = "-gcflags=all=-N -l -dwarf=false"
        return ("-mod=readonly", "-buildvcs=false", "-trimpath", unoptimised, "-ldflags", link)


def built(reporter: Reporter) -> Path:
    """Return the binary, from the cache or built now.

    Raises:
        StepFailed: no Go toolchain can be had, or the compiler failed.
    """
    packaged = Pins.load()
    pins = _KubernetesPins(
        go_mod=(_FOLDER / "go.mod").read_bytes(),
        go_sum=(_FOLDER / "go.sum").read_bytes(),
        toolchain=packaged.toolchain,
        cli_version=packaged.cli_version,
        go_version=(1, 25),
    )
    entry = CacheEntry.of(pins, PROGRAM)
    with exclusive(entry.lock, lambda waited: reporter.tick(f"another builds it: {waited:.0f} s")):
        found = entry.verified()
        if found is not None:
            return found
        toolchain = _toolchain(pins, reporter)
        # A larger heap saves a tenth of the compiler's time.
        toolchain.env["GOGC"] = "400"
        with scratch_folder(entry) as scratch:
            shutil.copy(_FOLDER / _MAIN, scratch)
            binary = compile_program(PROGRAM, pins, toolchain, scratch, reporter)
            admitted = entry.admit(binary, "build")
        toolchain.forget()
        return admitted


def _toolchain(pins: Pins, reporter: Reporter) -> Toolchain:
    try:
        return find_go(pins)
    except StepFailed:
        return fetch_go(pins, reporter)


def _main() -> None:
    try:
        # The script that sets up a backend prints one sentence; progress goes past it.
        with os.fdopen(_REPORT_FD, "w") as said:
            print(built(Reporter(lambda line: print(line, file=said, flush=True))))
    except (StepFailed, OSError) as exc:
        print(f"it cannot be built: {exc}")
        sys.exit(_CANNOT)


if __name__ == "__main__":
    _main()
