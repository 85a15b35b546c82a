"""No body costs more than half a second or 64 MiB, and fuzzing finds no way out."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

from temporal_fabric.requests.limits import NODES
from tests.requests.fuzz_admission import SLOWEST, by_chance, check, seeds
from tests.requests.hostile import BODIES, FULL

_ROW = re.compile(r" *([0-9.]+) ms +([0-9.]+) MiB +([0-9]+)  (.+)")
MEMORY_MIB = 64


def test_hostile_bodies_are_cheap() -> None:
    """Every hostile body stays below the limits of time and memory, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.requests.hostile"],
        check=True,
        capture_output=True,
        text=True,
    )
    rows = [match.groups() for match in map(_ROW.fullmatch, done.stdout.splitlines()) if match]

    assert {name for *_, name in rows} == set(BODIES)
    for spent, grown, _, name in rows:
        assert float(spent) <= SLOWEST * 1000, name
        assert float(grown) <= MEMORY_MIB, name


def test_hostile_bodies_are_at_the_limit() -> None:
    """The corpus tests what it says: bodies near the largest that is read."""
    near = [name for name, make in BODIES.items() if len(make()) > FULL // 2]

    assert len(near) >= 40
    assert NODES == 50_000


def test_seeds_of_the_fuzzer_are_accepted() -> None:
    """Mutation starts from bodies that are admitted."""
    assert all(check(seed) for seed in seeds())


def test_fuzzing_by_chance() -> None:
    """A few thousand mutants are answered as the contract says."""
    ran, accepted = by_chance(count=4000, seed=20261121, seconds=25)

    assert ran >= 500
    assert 0 < accepted < ran


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris has no wheel for this Python")
def test_fuzzing_guided_by_coverage() -> None:
    """Some thousand bodies that were grown towards new code are answered as the contract says."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.requests.fuzz_admission", "--guided", "--count", "3000"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert "Done 3000 runs" in done.stderr
