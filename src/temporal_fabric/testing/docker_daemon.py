"""A Docker engine of the tests' own: own socket, own data, no change to the host's network.

Nothing of it outlives the process that started it, however that ends: a second process waits for
that end and clears up from what lies on the disk and in the kernel alone.

``python -m temporal_fabric.testing.docker_daemon`` starts one, ends it, and says what it was; it
ends with 75 where this machine cannot have it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from temporal_fabric.testing import debian_image

IMAGE = debian_image.NAME
"""Debian's Python, which every engine here has."""

_PROGRAMS = ("dockerd", "containerd")
_START_S = 60.0
_GONE_S = 20.0
_LOOK_S = 0.05
_CANNOT = 75


class DockerUnavailable(Exception):
    """This machine cannot run a Docker engine; the message says what is missing."""


class DockerDaemon:
    """One engine, started, killed and started again as a test wants it.

    Args:
        live_restore: Whether containers go on while the engine is away.

    Raises:
        DockerUnavailable: this machine cannot have one.
    """

    def __init__(self, *, live_restore: bool = True) -> None:
        missing = [name for name in _PROGRAMS if shutil.which(name) is None]
        if missing or os.geteuid():
            what = f"no {' and no '.join(missing)}" if missing else "no root"
            raise DockerUnavailable(f"there is {what} (Debian's package docker.io)")
        self.folder = Path(tempfile.mkdtemp(prefix="dckr"))
        self._options = ["--live-restore"] if live_restore else []
        self._daemon: subprocess.Popen[bytes] | None = None
        (self.folder / "daemon.json").write_text("{}")
        self._heir = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, str(self.folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    @property
    def socket(self) -> Path:
        """The engine's socket."""
        return self.folder / "docker.sock"

    @property
    def host(self) -> str:
        """The engine's address."""
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Start the engine, on the same data as before; return when it answers."""
        with (self.folder / "log").open("ab") as log:
            self._daemon = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        end = time.monotonic() + _START_S
        while not self._answers():
            if self._daemon.poll() is not None or time.monotonic() > end:
                tail = (self.folder / "log").read_text(errors="replace").splitlines()[-3:]
                raise DockerUnavailable(f"the engine does not start: {' '.join(tail)[-600:]}")
            time.sleep(_LOOK_S)

    def load_image(self) -> None:
        """Give the engine the image of Debian's Python."""
        archive = self.folder / "image.tar"
        debian_image.write(archive)
        self.client("load", "--quiet", "--input", str(archive))
        archive.unlink()

    def client(self, *args: str) -> str:
        """Run Debian's ``docker`` against this engine and return what it says."""
        told = subprocess.run(
            ["/usr/bin/docker", "--host", self.host, *args],
            capture_output=True,
            text=True,
            check=False,
        )
        if told.returncode:
            raise DockerUnavailable(f"docker {args[0]}: {told.stderr.strip()}")
        return told.stdout

    def kill(self) -> None:
        """SIGKILL the engine; what runs in its containers goes on."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()
            self._daemon = None
        for pid in _pids_of(self.folder):
            if _program(pid) == "containerd":
                os.kill(pid, signal.SIGKILL)
        for pid_file in self.folder.glob("**/*.pid"):
            if pid_file.parent.name == "containerd" or pid_file.name == "engine.pid":
                pid_file.unlink()

    def lose(self) -> None:
        """Kill the engine with all its containers, and let it forget them; it is back then."""
        self.kill()
        _end_all(self.folder)
        shutil.rmtree(self.folder / "data" / "containers", ignore_errors=True)
        self.start()

    def close(self) -> None:
        """End everything; nothing is left."""
        clear(self.folder)
        if self._daemon is not None:
            self._daemon.wait()
        if self._heir.stdin is not None:
            self._heir.stdin.close()
        self._heir.wait()

    def _command(self) -> list[str]:
        flags = {
            "host": self.host,
            "data-root": self.folder / "data",
            "exec-root": self.folder / "exec",
            "pidfile": self.folder / "engine.pid",
            "config-file": self.folder / "daemon.json",
            "cgroup-parent": f"/{_group(self.folder)}",
            "exec-opt": "native.cgroupdriver=cgroupfs",
            "oom-score-adjust": 0,
            "shutdown-timeout": 5,
            "bridge": "none",
            "iptables": "false",
            "ip6tables": "false",
            "ip-forward": "false",
            "ip-masq": "false",
        }
        return ["dockerd", *(f"--{name}={value}" for name, value in flags.items()), *self._options]

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(5.0)
            try:
                caller.connect(str(self.socket))
                caller.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                return caller.recv(64).startswith(b"HTTP/1.0 200")
            except OSError:
                return False


def clear(folder: Path) -> None:
    """End every process of the engine in a folder, and remove its mounts, groups and files."""
    _end_all(folder)
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for path in sorted(mounted, reverse=True):
        if path.startswith(f"{folder}/"):
            subprocess.run(["/usr/bin/umount", "--lazy", path], check=False, capture_output=True)
    for top in _groups(folder):
        for at, _, _ in os.walk(top, topdown=False):
            with suppress(OSError):
                Path(at).rmdir()
    shutil.rmtree(folder, ignore_errors=True)


def left_of(folder: Path) -> list[str]:
    """Return what is left of the engine in a folder: processes, mounts, groups."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return [
        *(f"process {pid}" for pid in _pids_of(folder)),
        *(line for line in mounts if f" {folder}/" in line),
        *map(str, _groups(folder)),
    ]


def _end_all(folder: Path) -> None:
    end = time.monotonic() + _GONE_S
    while pids := _pids_of(folder):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > end:
            raise TimeoutError(f"these processes do not end: {pids}")
        time.sleep(_LOOK_S)


def _pids_of(folder: Path) -> list[int]:
    """Return the living processes of engine, containerd, shims and containers."""
    return [
        int(path.name)
        for path in Path("/proc").iterdir()
        if path.name.isdecimal() and _belongs(path, folder)
    ]


def _belongs(process: Path, folder: Path) -> bool:
    try:
        state = (process / "stat").read_bytes().rpartition(b") ")[2][:1]
        groups = (process / "cgroup").read_text()
        command = (process / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return False
    ours = f"{folder}/" in command and command.partition("\0")[0].rpartition("/")[2].startswith(
        ("dockerd", "containerd", "runc")
    )
    return state != b"Z" and (ours or f"/{_group(folder)}/" in groups)


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().partition("\0")[0].rpartition("/")[2]
    except OSError:
        return ""


def _groups(folder: Path) -> list[Path]:
    """Return the engine's own control group, in each hierarchy where there are several."""
    top, name = Path("/sys/fs/cgroup"), _group(folder)
    return [path for path in (top / name, *top.glob(f"*/{name}")) if path.is_dir()]


def _group(folder: Path) -> str:
    return f"fabric-test-{folder.name}"


def main(arguments: list[str]) -> int:
    """Wait for the end of who started this and clear up; or without a folder try an engine."""
    if arguments:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while sys.stdin.buffer.read(1):
            continue
        clear(Path(arguments[0]))
        return 0
    daemon = None
    try:
        daemon = DockerDaemon()
        daemon.start()
        said = daemon.client("version", "--format", "{{.Server.Version}}")
    except (DockerUnavailable, OSError) as exc:
        print(exc)
        return _CANNOT
    finally:
        if daemon is not None:
            daemon.close()
    print(f"Docker {said.strip()}, started and ended")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
