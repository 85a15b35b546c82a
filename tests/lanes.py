"""The whole suite: ``make test``. Two lanes beside each other, because most tests wait.

What fails in the crowd is tried once more, alone, when there is little of it: a test of real
servers on a crowded machine can meet a limit of time that says nothing about the code. A test
that passes only then is named UNSTEADY at the end. It is a fault of the test or of the code,
to be mended; it is not a reason to keep everybody from landing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parent.parent
SECOND_TRIES = 5
"""More failures than this in the whole suite are no accident, and no second try is given."""

LANES: dict[str, list[str]] = {
    "experiments": sorted(str(each.relative_to(ROOT)) for each in ROOT.glob("tests/test_*.py")),
    "parts": ["tests", "--ignore=tests/flows", "--ignore-glob=tests/test_*.py"],
    # JAX makes a process large and unfit to fork.
    "flows": ["tests/flows"],
}


def _pytest(lane: str, *args: str, out: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pytest", "-o", f"cache_dir={_cache(lane)}", *args]
    return subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)


def _cache(lane: str) -> Path:
    return ROOT / ".pytest_cache" / lane


def _failed(lane: str) -> list[str]:
    try:
        return sorted(json.loads((_cache(lane) / "v/cache/lastfailed").read_text()))
    except FileNotFoundError:
        return []


def _say(line: str) -> None:
    print(f"==> {line}", flush=True)


def _all_lanes() -> dict[str, int]:
    """The exit code of each lane; what the second prints comes when the first has ended."""
    with tempfile.TemporaryFile() as later:
        parts = _pytest("parts", *LANES["parts"], out=later)
        codes = {"experiments": _pytest("experiments", *LANES["experiments"]).wait()}
        codes["parts"] = parts.wait()
        later.seek(0)
        sys.stdout.write(later.read().decode(errors="replace"))
    _say("tests of the flows, in a process of their own")
    codes["flows"] = _pytest("flows", *LANES["flows"]).wait()
    return codes


def main() -> int:
    """Run every test; return 0 when each passed, at the first try or at the second."""
    for lane in LANES:
        (_cache(lane) / "v/cache/lastfailed").unlink(missing_ok=True)
    _say("tests: real servers and processes, in two lanes; the second prints at its end")
    bad = {lane: _failed(lane) for lane, code in _all_lanes().items() if code != 0}
    names = [name for each in bad.values() for name in each]
    # A lane that ended without a failed test was broken off: nothing of it can be tried again.
    if not all(bad.values()) or len(names) > SECOND_TRIES:
        return 1
    for lane, each in bad.items():
        _say(f"a second try, alone: {', '.join(each)}")
        if _pytest(lane, "--last-failed", *LANES[lane]).wait() != 0:
            return 1
    for name in names:
        _say(f"UNSTEADY: {name} failed beside others and passed alone; mend it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
