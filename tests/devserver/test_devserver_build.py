"""The build step, with a shell script as the Go compiler."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from temporal_fabric.devserver import resolve_binary
from temporal_fabric.errors import DevServerError

if TYPE_CHECKING:
    from pathlib import Path

FAKE_GO = """\
case "$1" in
  env) echo "${FAKE_VERSION:-go1.99.0}" ;;
  list) echo one; echo two; echo three ;;
  build)
    echo "$GOTOOLCHAIN $CGO_ENABLED $GOOS" >> "$FAKE_RECORD"
    sleep "${FAKE_SLEEP:-0}"
    i=0; while [ $i -lt 30 ]; do i=$((i+1)); echo "compiler line $i." >&2; done
    [ -n "$FAKE_FAILS" ] && exit 1
    while [ "$1" != "-o" ]; do shift; done
    printf '#!/bin/sh\\necho built\\n' > "$2"; chmod 755 "$2"
    ;;
esac
"""


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with Go and nothing else; the file tells how often it compiled."""
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{FAKE_GO}", encoding="utf-8")
    go.chmod(0o755)
    monkeypatch.delenv("FABRIC_TEMPORAL_CLI", raising=False)
    monkeypatch.setenv("PATH", str(go.parent))
    monkeypatch.setenv("FABRIC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_RECORD", str(tmp_path / "record"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "no-wheels"))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    return tmp_path / "record"


def test_built_once_and_reused(record: Path, tmp_path: Path) -> None:
    """The first call builds with pinned settings, the second finds the cached binary."""
    said: list[str] = []

    first = resolve_binary(progress=said.append)
    second = resolve_binary(progress=said.append)

    assert first == second
    assert first.is_relative_to(tmp_path / "cache" / "server")
    assert len(first.parent.name) == 16
    assert record.read_text(encoding="utf-8") == f"local 0 {sys.platform}\n"
    assert [line for line in said if line.startswith("built the embedded server")]
    assert not list((tmp_path / "cache" / "server").glob(".tmp-*"))


def test_compiler_failure_shows_its_last_lines(
    record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed build quotes the end of the compiler's output, and leaves no entry behind."""
    monkeypatch.setenv("FAKE_FAILS", "1")

    with pytest.raises(DevServerError) as caught:
        resolve_binary(progress=lambda _: None)

    text = str(caught.value)
    assert "go build failed with exit code 1" in text
    assert "compiler line 11." in text
    assert "compiler line 30." in text
    assert "compiler line 10." not in text
    assert "Do one of these:" in text
    assert record.exists()


def test_old_go_is_said_to_be_old(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Go below the pinned modules' need is not used."""
    monkeypatch.setenv("FAKE_VERSION", "go1.20.1")

    with pytest.raises(DevServerError, match=r"is go1\.20\.1, the server needs go1\.26"):
        resolve_binary(progress=lambda _: None)

    assert not record.exists()


def test_two_processes_build_once(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that comes second waits, says so, and gets the first one's binary."""
    monkeypatch.setenv("FAKE_SLEEP", "1")
    code = "from temporal_fabric.devserver import resolve_binary; print(resolve_binary())"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        for _ in range(2)
    ]

    answers = [process.communicate(timeout=60) for process in both]

    assert [process.returncode for process in both] == [0, 0]
    assert answers[0][0] == answers[1][0]
    assert len(record.read_text(encoding="utf-8").splitlines()) == 1
    assert sum("waiting for it" in said for _, said in answers) == 1
