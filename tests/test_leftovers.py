"""What a test run leaves on the machine is found, whatever it did to get away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.leftovers import things

ROOT = Path(__file__).parent.parent


def _watched(*command: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.leftovers", *command],
        cwd=ROOT,
        env=os.environ | {"FABRIC_LEFTOVERS_S": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    return (done.returncode, done.stdout)


def test_a_clean_command_passes_with_its_own_exit_code() -> None:
    """Nothing is left of what ends in time, and the exit code is the command's."""
    for script, wanted in (("sleep 0.5 & exit 0", 0), ("exit 7", 7)):
        code, said = _watched("sh", "-c", script)
        assert code == wanted
        assert "LEFT" not in said


def test_a_process_that_cuts_itself_off_is_found_and_killed() -> None:
    """Another session, no parent, no environment: it is still the command's, and it ends."""
    script = "env -i setsid -f sleep 4242; sleep 0.2"
    code, said = _watched("sh", "-c", script)
    assert code == 1
    assert "sleep 4242" in said
    alive = subprocess.run(["pgrep", "-f", "sleep 4242"], capture_output=True, check=False)
    assert alive.returncode == 1, alive.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_mount_has_the_name_of_the_tests(tmp_path: Path) -> None:
    """A mount below a folder of the tests is among what is looked for, and another one is not."""
    ours, other = Path(f"/tmp/fab-{tmp_path.name}"), tmp_path / "other"  # noqa: S108 - the name
    for folder in (ours, other):
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", str(folder)], check=True)
    try:
        found = things()
    finally:
        for folder in (ours, other):
            subprocess.run(["umount", str(folder)], check=True)
            folder.rmdir()
    assert f"mount {ours}" in found
    assert f"mount {other}" not in found
    assert f"mount {ours}" not in things()
