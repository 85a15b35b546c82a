"""A store of podman's with one image of this machine's own files, as a Slurm site keeps its images.

``python -m temporal_fabric.testing.podman_store`` says whether this machine can have one; it ends
with 75 where it cannot.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from temporal_fabric.testing import debian_image

IMAGE = "python:3.12-slim"
"""What the image is called, as in the example of a container payload."""

_PROGRAMS = ("podman", "crun", "conmon", "catatonit", "unshare", "setpriv")
_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
_CANNOT = 75
_NOBODY = 65534
_LOAD = """
set -e
mount -t tmpfs tmpfs /dev/shm
unset XDG_RUNTIME_DIR
export HOME=/dev/shm
podman --root "$1" --runroot /dev/shm/run --tmpdir /dev/shm/libpod --storage-driver overlay \
    --storage-opt ignore_chown_errors=true load --quiet --input "$2"
"""


class PodmanUnavailable(Exception):
    """This machine cannot run podman; the message says what is missing."""


def check() -> None:
    """Look whether podman can be had here.

    Raises:
        PodmanUnavailable: something is missing, with what to do.
    """
    missing = [name for name in _PROGRAMS if shutil.which(name, path=_PATH) is None]
    if missing:
        raise PodmanUnavailable(
            f"there is no {', '.join(missing)} (Debian's packages podman, crun and catatonit)"
        )


def make(folder: Path, uid: int, gid: int) -> None:
    """Make a store that a user owns, with the image `IMAGE`.

    Args:
        folder: Where it goes; its parent is there.
        uid: Whose it is.
        gid: Their group.

    Raises:
        RuntimeError: podman does not load the image.
    """
    with tempfile.TemporaryDirectory(prefix="fab") as name:
        work = Path(name)
        debian_image.write(work / "image.tar", f"docker.io/library/{IMAGE}")
        work.chmod(0o755)
        folder.mkdir()
        shutil.chown(folder, uid, gid)
        argv = [
            *("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"),
            *("unshare", "--user", "--map-root-user", "--mount"),
            *("sh", "-c", _LOAD, "sh", str(folder), str(work / "image.tar")),
        ]
        done = subprocess.run(argv, capture_output=True, text=True, cwd="/", check=False)
        if done.returncode:
            raise RuntimeError(f"podman does not load the image:\n{done.stdout}{done.stderr}")


def _main() -> None:
    try:
        check()
    except PodmanUnavailable as exc:
        print(exc)
        sys.exit(_CANNOT)
    with tempfile.TemporaryDirectory(prefix="fab") as folder:
        Path(folder).chmod(0o755)
        try:
            make(Path(folder, "store"), _NOBODY, _NOBODY)
        except RuntimeError as exc:
            print(exc)
            sys.exit(_CANNOT)
    told = subprocess.run(
        [shutil.which("podman") or "podman", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    print(told.stdout.strip(), "with crun")


if __name__ == "__main__":
    _main()
