"""One way of getting the binary is a step; a step that fails says why and the next is tried."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class StepFailed(Exception):
    """This way does not lead to a binary; the message is one reason for the user."""


def capture(
    argv: Sequence[str],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run a command to its end and return what it printed.

    Raises:
        StepFailed: the command cannot run, fails, or takes too long.
    """
    name = argv[0]
    try:
        done = subprocess.run(
            argv,
            check=False,
            capture_output=True,
            cwd=cwd,
            encoding="utf-8",
            env=env,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=timeout_s,
        )
    except OSError as exc:
        raise StepFailed(f"{name} does not run: {exc.strerror}") from exc
    except subprocess.TimeoutExpired as exc:
        raise StepFailed(f"{name} gave no answer in {timeout_s:.0f} s") from exc
    if done.returncode != 0:
        raise StepFailed(f"{name} failed with exit code {done.returncode}{indented(done.stderr)}")
    return done.stdout


def indented(text: str, lines: int = 20) -> str:
    """Return the last lines of a command's output, set off for a message."""
    tail = text.strip().splitlines()[-lines:]
    return "".join(f"\n    {line}" for line in tail)
