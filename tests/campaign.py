"""The long counts: ``make campaign``. Resumable, one report.

Each part is a command with a seed, and its entry says at which commit it ran last. What passed for
this commit is not run again, so a campaign that was interrupted goes on where it stopped. The
report, with commits and seeds, is kept in ``docs/evidence/campaign.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
REPORT = ROOT / "docs" / "evidence" / "campaign.json"
SEED = "20261121"

_ADAPTERS = {
    "local": "adapters",
    "docker": "adapters",
    "kubernetes": "kubernetes",
    "slurm": "slurm",
    "rest": "slurm",
    "sila": "adapters",
}

PARTS: dict[str, list[str]] = {
    "launcher kills": [
        "-m",
        "pytest",
        "-q",
        "tests/launcher",
        "-k",
        "random_instants",
        "--timeout=3000",
    ],
    "a death at every fail point, a failure of every fsync": [
        "-m",
        "pytest",
        "-q",
        "tests/test_fault_points.py",
        "tests/test_disk_faults.py",
        "--timeout=3000",
    ],
    "worker and server deaths": ["-m", "pytest", "-q", "tests/test_deaths.py", "--timeout=3000"],
    **{
        f"100 submissions with lost replies, {name}": [
            "-m",
            "pytest",
            "-q",
            "-s",
            f"tests/{folder}/test_lost_replies.py",
            "-k",
            f"test_{name}",
            "--timeout=3000",
        ]
        for name, folder in _ADAPTERS.items()
    },
    "200 deaths of workers and of JAX in flows": [
        "-m",
        "pytest",
        "-q",
        "tests/test_flow_deaths.py",
        "--timeout=7200",
    ],
    "worker deaths between two objects of 200 MB": [
        "-m",
        "pytest",
        "-q",
        "-s",
        "tests/artifacts/test_s3_deaths.py",
        "--timeout=3000",
    ],
    "admission fuzz, guided for ten minutes": [
        "-m",
        "tests.requests.fuzz_admission",
        "--guided",
        "--count",
        "-1",
        "--seconds",
        "600",
        "--seed",
        SEED,
    ],
    "certificates of random operators and energies": [
        "-m",
        "pytest",
        "-q",
        "tests/flows/test_bounds.py",
        "tests/flows/test_descent.py",
        "tests/flows/test_dominance.py",
        "tests/flows/test_gap.py",
        "tests/flows/test_planted_faults.py",
        "--timeout=3000",
    ],
    "admission fuzz, a million bodies": [
        "-m",
        "tests.requests.fuzz_admission",
        "--count",
        "1000000",
        "--seconds",
        "7200",
        "--seed",
        SEED,
    ],
}


def main() -> int:
    """Run what has not passed for this commit; return how many parts failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help="names of parts; all of them by default")
    parser.add_argument("--again", action="store_true", help="also what has passed before")
    options = parser.parse_args()
    changes = _git("status", "--porcelain", "--", ".", ":!docs/evidence")
    commit = _git("rev-parse", "HEAD") + ("+changes" if changes else "")
    report = _load()
    for name in options.parts or PARTS:
        known = report["parts"].get(name, {})
        if known.get("exit") == 0 and known["commit"] == commit and not options.again:
            print(f"==> {name}: passed before for this commit")
            continue
        report["parts"][name] = {"commit": commit} | _run(name)
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        REPORT.write_text(json.dumps(report, indent=2) + "\n")
    failed = [name for name, part in report["parts"].items() if part["exit"] != 0]
    print(f"==> report in {REPORT.relative_to(ROOT)}; failed: {', '.join(failed) or 'none'}")
    return len(failed)


def _load() -> dict[str, Any]:
    """Return the report so far, without parts that there are no more, for this machine."""
    known: dict[str, Any] = json.loads(REPORT.read_text())["parts"] if REPORT.exists() else {}
    return {
        "seed": SEED,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "parts": {name: known[name] for name in PARTS if name in known},
    }


def _run(name: str) -> dict[str, Any]:
    print(f"==> {name}", flush=True)
    started, began = time.time(), time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *PARTS[name]],
        cwd=ROOT,
        env=os.environ | {"FABRIC_CAMPAIGN": "1", "FABRIC_CAMPAIGN_SEED": SEED},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: list[str] = []
    for line in process.stdout or ():
        print(line, end="", flush=True)
        lines = [*lines[-19:], line.rstrip()]
    return {
        "command": " ".join(["python", *PARTS[name]]),
        "exit": process.wait(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.monotonic() - began, 1),
        "tail": lines,
    }


def _git(*args: str) -> str:
    done = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
