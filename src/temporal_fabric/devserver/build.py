"""Compile a program of the pinned Go modules: the CLI with its server, or the server alone."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections import deque
from typing import IO, TYPE_CHECKING

from temporal_fabric.devserver.steps import StepFailed, capture, indented

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.devserver.cache import Pins, Program
    from temporal_fabric.devserver.progress import Reporter
    from temporal_fabric.devserver.toolchain import Toolchain

TAIL_LINES = 20

_LIST_TIMEOUT_S = 900
_LOOK_S = 0.25


def compile_program(
    program: Program, pins: Pins, toolchain: Toolchain, scratch: Path, reporter: Reporter
) -> Path:
    """Build in a scratch folder and return the binary there.

    Raises:
        StepFailed: modules cannot be fetched, or the compiler failed; with its last lines.
    """
    (scratch / "go.mod").write_bytes(pins.go_mod)
    (scratch / "go.sum").write_bytes(pins.go_sum)
    reporter.note(f"building {program.title} once (about 3 minutes on 2 cores)")
    total = _count_packages(program, toolchain, scratch)
    binary = scratch / f"{program.name}{toolchain.go.suffix}"
    argv = [str(toolchain.go), "build", "-v", *pins.flags, "-o", str(binary), program.package]
    began = time.monotonic()
    with subprocess.Popen(
        argv,
        cwd=scratch,
        encoding="utf-8",
        env=toolchain.env,
        errors="replace",
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            output = _follow(process, program, total, reporter)
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0 or not os.access(binary, os.X_OK):
        text = "\n".join(output.tail)
        raise StepFailed(f"go build failed with exit code {process.returncode}{indented(text)}")
    reporter.note(f"built {program.title} in {time.monotonic() - began:.0f} s")
    return binary


class _Output:
    """What the compiler said so far; ``-v`` prints one line for each package."""

    def __init__(self) -> None:
        self.lines = 0
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    def read(self, stream: IO[str]) -> None:
        for line in stream:
            self.lines += 1
            self.tail.append(line.rstrip())


def _follow(
    process: subprocess.Popen[str], program: Program, total: int, reporter: Reporter
) -> _Output:
    output = _Output()
    began = time.monotonic()
    # A thread reads, because the linker is silent for many seconds and the clock must go on.
    reader = threading.Thread(target=output.read, args=(process.stdout,), daemon=True)
    reader.start()
    while reader.is_alive():
        reader.join(_LOOK_S)
        elapsed = time.monotonic() - began
        done = min(output.lines, total)
        reporter.tick(f"building {program.title}: {done} of {total} packages, {elapsed:.0f} s")
    process.wait()
    return output


def _count_packages(program: Program, toolchain: Toolchain, scratch: Path) -> int:
    argv = [str(toolchain.go), "list", "-mod=readonly", "-deps", program.package]
    listed = capture(argv, timeout_s=_LIST_TIMEOUT_S, env=toolchain.env, cwd=scratch)
    return len(listed.splitlines())
