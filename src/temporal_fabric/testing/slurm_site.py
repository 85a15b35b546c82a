"""A cluster of one Slurm node for tests: munged, slurmctld, slurmd, sshd and slurmrestd.

Everything listens on the loopback address, lives in one folder, belongs to a user of its own and
can be killed and started again. Nothing of it is left after `SlurmSite.stop`. Its daemons end with
the process that started them; what else a killed process leaves is removed by the next site. Needs
root, because slurmd starts jobs as their user.

``python -m temporal_fabric.testing.slurm_site`` says whether this machine can have one; it ends
with 75 where it cannot.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from temporal_fabric.devserver.ports import is_free
from temporal_fabric.testing import slurm_left
from temporal_fabric.testing.slurm_conf import SLURM_CONF, SSHD_CONFIG

if TYPE_CHECKING:
    from collections.abc import Callable

DAEMONS = ("munged", "slurmctld", "slurmd", "sshd", "slurmrestd")
PYTHON = "/usr/bin/python3"
"""The interpreter of the login node and of the jobs: one that every user may run."""

_IP = "127.0.0.1"
_PORTS = range(15000, 32000)
_START_S = 60.0
_STOP_S = 5.0
_LOOK_S = 0.05
_CANNOT = 75
_PROGRAMS = (*DAEMONS, "setpriv", "useradd", "ssh-keygen")
_SYSTEM_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"


class SlurmUnavailable(Exception):
    """This machine cannot run a Slurm site; the message says what is missing."""


def check() -> None:
    """Look whether a site can be had here.

    Raises:
        SlurmUnavailable: something is missing, with what to do.
    """
    if os.getuid() != 0:
        raise SlurmUnavailable("slurmd starts jobs as their user, which needs root")
    missing = [name for name in _PROGRAMS if shutil.which(name, path=_SYSTEM_PATH) is None]
    if missing:
        raise SlurmUnavailable(
            f"there is no {', '.join(missing)} (Debian's packages slurm-wlm, slurmrestd, "
            "munge and openssh-server)"
        )
    if not Path(PYTHON).exists():
        raise SlurmUnavailable(f"there is no {PYTHON} (Debian's package python3)")


class SlurmSite:
    """One site in a folder of its own.

    Raises:
        SlurmUnavailable: this machine cannot have one.
    """

    def __init__(self) -> None:
        check()
        slurm_left.clear_abandoned()
        self.folder = Path(tempfile.mkdtemp(prefix=slurm_left.FOLDER_PREFIX))
        self._owned = slurm_left.hold(self.folder)
        self.user = f"fab{secrets.token_hex(4)}"
        self.port = self.rest_port = 0
        self.rest_api = "v0.0.38"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        # A daemon dies with the thread that started it: this one stays until `stop`.
        self._thread = ThreadPoolExecutor(1, "slurm-site")

    @property
    def home(self) -> Path:
        """Home of the user whose jobs run here."""
        return self.folder / "home"

    @property
    def key(self) -> Path:
        """The private key that logs in as that user."""
        return self.folder / "ssh" / "id"

    @property
    def host_key(self) -> str:
        """The login node's public key, in one line."""
        return " ".join((self.folder / "ssh" / "host.pub").read_text().split()[:2])

    @property
    def shared(self) -> Path:
        """A folder of root's that every node has, for the jobs of root."""
        return self.folder / "shared"

    def token(self, user: str = "root", lifespan_s: int = 36000) -> str:
        """Return a token, as ``scontrol token`` prints it."""
        done = self.run("scontrol", "token", f"username={user}", f"lifespan={lifespan_s}")
        if not done.stdout.startswith("SLURM_JWT="):
            raise RuntimeError(f"scontrol gives no token: {done.stderr}")
        return done.stdout

    @property
    def known_hosts(self) -> Path:
        """A file that pins the login node's key."""
        return self.folder / "ssh" / "known_hosts"

    def start(self) -> None:
        """Bring everything up and return when the node takes jobs.

        Raises:
            RuntimeError: a part did not come up; the message has its last words.
        """
        self._make()
        for name in DAEMONS:
            self.start_part(name)

    def start_part(self, name: str) -> None:
        """Start one daemon and return when it works."""
        with self._log(name).open("ab") as log:
            self._processes[name] = self._thread.submit(
                subprocess.Popen,
                self._argv(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | ({"SLURM_JWT": "daemon"} if name == "slurmrestd" else {}),
            ).result()
        works: dict[str, Callable[[], bool]] = {
            "munged": lambda: self._succeeds(
                "munge", "-S", str(self.folder / "munge/socket"), "-n"
            ),
            "slurmctld": self._controls,
            "slurmd": self._serves,
            "sshd": lambda: _listens(self.port),
            "slurmrestd": lambda: _listens(self.rest_port),
        }
        deadline = time.monotonic() + _START_S
        while not works[name]():
            if self._processes[name].poll() is not None or time.monotonic() > deadline:
                words = self._log(name).read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{name} does not come up:\n{words}")
            time.sleep(_LOOK_S)

    def kill_part(self, name: str) -> None:
        """SIGKILL one daemon; its jobs go on."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def stop_part(self, name: str) -> None:
        """End one daemon in order; a controller that is killed may give an id to two jobs."""
        process = self._processes.pop(name)
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def lose_jobs(self) -> None:
        """Let the node crash with what runs on it, and the controller; both come back."""
        self.kill_part("slurmd")
        slurm_left.kill_all(self.user, self.folder)
        self.stop_part("slurmctld")
        self.start_part("slurmctld")
        self.start_part("slurmd")

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run one of Slurm's commands as its administrator."""
        env = os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf")}
        return subprocess.run(
            argv, env=env, capture_output=True, text=True, timeout=30, check=False
        )

    def run_as_user(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run one of Slurm's commands as the user whose jobs run here."""
        return self.run(*_as(self.user), *argv)

    def allow(self, name: str, command: str = "") -> Path:
        """Make a further key that logs in; return its private half.

        Args:
            name: Name of the file.
            command: What sshd runs instead of the command that is asked for.
        """
        path = self.folder / "ssh" / name
        _checked("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path))
        forced = f'command="{command}" ' if command else ""
        with (self.home / ".ssh" / "authorized_keys").open("a") as file:
            file.write(forced + path.with_suffix(".pub").read_text())
        return path

    def change_host_key(self) -> None:
        """Give the login node another key, as an impostor would have."""
        host = self.folder / "ssh" / "host"
        for path in (host, host.with_suffix(".pub")):
            path.unlink()
        _checked("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "host", "-f", str(host))
        self.kill_part("sshd")
        self.start_part("sshd")

    def stop(self) -> None:
        """End every job and daemon, and remove the user and the folder."""
        for name in ("slurmrestd", "slurmd", "slurmctld", "sshd", "munged"):
            if name in self._processes:
                self.stop_part(name)
        self._thread.shutdown()
        slurm_left.remove(self.user, self.folder)
        self._owned.close()

    def _make(self) -> None:
        self.folder.chmod(0o755)
        for name in ("spool", "state", "munge", "ssh", "home", "shared"):
            (self.folder / name).mkdir()
        Path("/run/sshd").mkdir(exist_ok=True)
        # A password of '*' is none and does not lock the account, as '!' would.
        _checked("useradd", "-M", "-d", str(self.home), "-s", "/bin/bash", "-p", "*", self.user)
        self._make_keys()
        (self.folder / "munge" / "key").write_bytes(secrets.token_bytes(1024))
        (self.folder / "state" / "jwt.key").write_bytes(secrets.token_bytes(32))
        for key in (self.folder / "munge" / "key", self.folder / "state" / "jwt.key"):
            key.chmod(0o600)
        for name, owner in (("munge", "munge"), ("state", "slurm"), ("home", self.user)):
            _own(self.folder / name, owner)
        self._configure()

    def _make_keys(self) -> None:
        ssh = self.folder / "ssh"
        (self.home / ".ssh").mkdir(mode=0o700)
        for name in ("id", "host"):
            path = str(ssh / name)
            _checked("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path)
        shutil.copy(ssh / "id.pub", self.home / ".ssh" / "authorized_keys")

    def _configure(self) -> None:
        found: set[int] = set()
        while len(found) < 4:  # noqa: PLR2004 - four daemons listen
            port = _PORTS[secrets.randbelow(len(_PORTS))]
            if is_free(_IP, port):
                found.add(port)
        slurmctld, slurmd, self.port, self.rest_port = found
        values = {"ip": _IP, "folder": self.folder, "user": self.user, "sshd": self.port}
        host = socket.gethostname().partition(".")[0]
        (self.folder / "slurm.conf").write_text(
            SLURM_CONF.format(slurmctld=slurmctld, slurmd=slurmd, host=host, **values)
        )
        (self.folder / "ssh" / "sshd_config").write_text(SSHD_CONFIG.format(**values))
        self.known_hosts.write_text(f"[{_IP}]:{self.port} {self.host_key}\n")

    def _argv(self, name: str) -> list[str]:
        config = str(self.folder / "slurm.conf")
        munge = self.folder / "munge"
        argvs = {
            "munged": [
                *_as("munge"),
                *("/usr/sbin/munged", "--foreground", "--force"),
                *(f"--{part}-file={munge / part}" for part in ("key", "pid", "log", "seed")),
                f"--socket={munge / 'socket'}",
            ],
            "slurmctld": [*_as("slurm"), "/usr/sbin/slurmctld", "-D", "-f", config],
            "slurmd": [*_as(""), "/usr/sbin/slurmd", "-D", "-N", "node1", "-f", config],
            "sshd": [
                *_as(""),
                *("/usr/sbin/sshd", "-D", "-e", "-f", str(self.folder / "ssh/sshd_config")),
            ],
            "slurmrestd": [
                *_as("nobody"),
                *("/usr/sbin/slurmrestd", "-f", config, "-a", "rest_auth/jwt"),
                *("-s", f"openapi/{self.rest_api}", f"{_IP}:{self.rest_port}"),
            ],
        }
        return argvs[name]

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _controls(self) -> bool:
        """Say whether the controller answers, and knows its node where that runs."""
        return self._succeeds("scontrol", "ping") and (
            "slurmd" not in self._processes or self._serves()
        )

    def _serves(self) -> bool:
        return bool(self.run("sinfo", "-hN", "-t", "idle,mixed,alloc").stdout)

    def _succeeds(self, *argv: str) -> bool:
        return self.run(*argv).returncode == 0


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((_IP, port)) == 0


def _as(user: str) -> list[str]:
    # A test run that is killed must not leave a site behind.
    own = ["setpriv", "--pdeathsig=KILL"]
    if not user:
        return own
    entry = pwd.getpwnam(user)
    return [*own, f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]


def _own(path: Path, user: str) -> None:
    entry = pwd.getpwnam(user)
    for found in (path, *path.rglob("*")):
        os.chown(found, entry.pw_uid, entry.pw_gid)


def _checked(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{argv} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def _main() -> None:
    try:
        check()
    except SlurmUnavailable as exc:
        print(exc)
        sys.exit(_CANNOT)
    print(f"{_checked('slurmd', '-V')} with OpenSSH's sshd and munge")


if __name__ == "__main__":
    _main()
