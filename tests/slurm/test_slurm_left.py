"""A test run that is killed leaves a Slurm site, and the next one removes it."""

from __future__ import annotations

import pwd
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from temporal_fabric.testing import slurm_left

if TYPE_CHECKING:
    from temporal_fabric.testing.slurm_site import SlurmSite

_MAKE = """
import sys
from temporal_fabric.testing.slurm_site import SlurmSite
site = SlurmSite()
site.start()
print(site.user, site.folder, flush=True)
sys.stdin.read()
"""


def test_the_next_site_removes_what_a_killed_one_left(site: SlurmSite) -> None:
    """User, folder and whatever runs as the user are gone; a site that lives stays."""
    left = subprocess.Popen(
        [sys.executable, "-c", _MAKE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert left.stdout is not None
    user, folder = left.stdout.readline().split()
    sleeping = subprocess.Popen(["setpriv", f"--reuid={user}", "--clear-groups", "sleep", "600"])
    left.send_signal(signal.SIGKILL)
    left.communicate()
    assert pwd.getpwnam(user).pw_dir.startswith(folder)

    slurm_left.clear_abandoned()

    assert sleeping.wait(10) == -signal.SIGKILL
    assert not Path(folder).exists()
    with pytest.raises(KeyError):
        pwd.getpwnam(user)
    assert pwd.getpwnam(site.user)
    assert site.run("sinfo", "-h").returncode == 0
