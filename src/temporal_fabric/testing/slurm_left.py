"""What a Slurm site leaves when its test run is killed, and the end of it.

A site is a folder and a user whose home lies in it. Whoever has made it holds a lock in the folder
for as long as they live, so the next site can tell the living from the dead.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

FOLDER_PREFIX = "slurm"
USER = re.compile(r"fab[0-9a-f]{8}\Z")
"""The names of the users that sites make."""

_OWNER = "owner.lock"
_GONE_S = 5.0
_LOOK_S = 0.1


def hold(folder: Path) -> IO[str]:
    """Own a site's folder until the file is closed, or this process ends however."""
    file = (folder / _OWNER).open("w")
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return file


def clear_abandoned() -> None:
    """Remove the sites whose owners have died."""
    for entry in pwd.getpwall():
        folder = Path(entry.pw_dir).parent
        if USER.match(entry.pw_name) and (not folder.exists() or _is_abandoned(folder)):
            remove(entry.pw_name, folder)
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        if _is_abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def remove(user: str, folder: Path) -> None:
    """End what runs for a site, and remove its user and its folder.

    Raises:
        RuntimeError: the user is still in use.
    """
    deadline = time.monotonic() + _GONE_S
    while True:
        kill_all(user, folder)
        argv = ["/usr/sbin/userdel", user]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            break
        if time.monotonic() > deadline:
            raise RuntimeError(f"the user {user} stays: {done.stderr}")
        time.sleep(_LOOK_S)
    shutil.rmtree(folder, ignore_errors=True)


def kill_all(user: str, folder: Path) -> None:
    """Kill whatever runs as the user, who exists for this site alone, and every job of it."""
    try:
        uid = pwd.getpwnam(user).pw_uid
    except KeyError:
        return
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if not entry.name.isdecimal():
                continue
            own = entry.stat().st_uid == uid or _is_of_job(entry, folder)
            if own or _is_shepherd(entry, folder):
                os.kill(int(entry.name), signal.SIGKILL)


def _is_abandoned(folder: Path) -> bool:
    """Say whether a site was made here and nobody owns it; what is no site never is."""
    try:
        with (folder / _OWNER).open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_of_job(entry: Path, folder: Path) -> bool:
    """Say whether a process belongs to a job of the site, whoever's it is."""
    mark = f"SLURM_CONF={folder}/".encode()
    variables = (entry / "environ").read_bytes().split(b"\0")
    return any(text.startswith(mark) for text in variables) and any(
        text.startswith(b"SLURM_JOB_ID=") for text in variables
    )


def _is_shepherd(entry: Path, folder: Path) -> bool:
    """Say whether a process is a slurmstepd of the site in this folder."""
    if not (entry / "cmdline").read_bytes().startswith(b"slurmstepd"):
        return False
    return str(folder).encode() in (entry / "environ").read_bytes()
