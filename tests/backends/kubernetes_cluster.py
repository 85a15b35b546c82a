"""A Kubernetes of one node, for tests: real etcd, API server, controllers, scheduler and kubelet.

The node, that is kubelet and containerd, has a network namespace of its own, joined to the
machine by one pair of links: taking that link down is a real partition, and nothing of the
machine's own network is changed. Its pods have no network but to this machine's end of the link,
`HOST_IP`. There is one such cluster at a time, and nothing of it outlives its process: what a
killed test run has left is removed by the next start.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_fabric.devserver.ports import is_free
from temporal_fabric.devserver.progress import Reporter
from temporal_fabric.devserver.steps import StepFailed
from temporal_fabric.testing import debian_image
from tests.backends import kubernetes_files as files
from tests.backends.kubernetes_build import built

if TYPE_CHECKING:
    from collections.abc import Callable

HOST_IP, NODE_IP = "10.111.7.1", "10.111.7.2"
PODS, SERVICES = "10.111.8.0/24", "10.111.9.0/24"
NODE = "node1"
USERS = {
    "admin": "system:masters",
    "control": "system:masters",
    "kubelet": "system:nodes",
    "worker": "fabric",
    "stranger": "",
}
"""Who may call the API server, and to which group they belong."""

_LINK, _SPACE, _PORT = "fabrick0", "fabric-kube", 6443
_API = f"https://{HOST_IP}:{_PORT}"
_FOLDER = Path("/var/tmp/fabric-kubernetes")  # noqa: S108 - one place: what a killed run left is found
_PORTS = range(24000, 32000)
_SYSCTLS = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops")
_LOOK_S, _START_S = 0.1, 120.0
_PAUSE_IMAGE = "fabric/pause:1"


class ClusterUnavailable(Exception):
    """This machine cannot run the cluster; the message says why."""


class KubernetesCluster:
    """The cluster; make one at a time, and `stop` it."""

    def __init__(self) -> None:
        if os.getuid() != 0:
            raise ClusterUnavailable("a node needs root")
        for name in ("containerd", "ctr", "ip", "nsenter", "setpriv"):
            if shutil.which(name) is None:
                raise ClusterUnavailable(f"there is no {name}")
        try:
            self._kube = built(Reporter())
        except StepFailed as exc:
            raise ClusterUnavailable(str(exc)) from exc
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._tokens = {user: secrets.token_hex(16) for user in USERS}
        _FOLDER.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _FOLDER.with_suffix(".lock").open("a")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def kubeconfig(self, user: str = "admin", server: str = "") -> Path:
        """Write and return the client configuration of one of `USERS`.

        Args:
            user: Whose.
            server: Where the API server is reached, such as through a relay.
        """
        server = server or _API
        name = user if server == _API else f"{user}-{server.rpartition(':')[2]}"
        path = _FOLDER / f"{name}.kubeconfig"
        if not path.exists():
            path.write_text(files.kubeconfig(server, self.authority, self._tokens[user]))
        return path

    @property
    def address(self) -> str:
        """Where the API server listens."""
        return _API

    @property
    def authority(self) -> Path:
        """Certificate that the API server is known by."""
        return _FOLDER / "pki" / "apiserver.crt"

    def token(self, user: str = "admin") -> str:
        """Return the bearer token of one of `USERS`."""
        return self._tokens[user]

    def start(self) -> None:
        """Bring everything up and return when the node takes pods.

        Raises:
            RuntimeError: a part did not come up; the message has its last words.
        """
        self._clear()
        for name in ("etcd", "pki", "cni", "containerd"):
            (_FOLDER / name).mkdir(parents=True)
        self._write_files()
        self._join()
        self._start_etcd()
        self.start_part("apiserver")
        self.start_part("containerd")
        self._until("containerd", lambda: self._ctr("version").returncode == 0)
        self._import(debian_image.NAME, "python3")
        self._import(_PAUSE_IMAGE, "sleep", "infinity")
        self._until("apiserver", lambda: bool(self.get("/readyz", plain=True)))
        for name in ("controllers", "scheduler", "kubelet"):
            self.start_part(name)
        self.until_ready()

    def until_ready(self) -> None:
        """Return when the node takes pods."""
        self._until("kubelet", self._takes_pods)

    def start_part(self, name: str) -> None:
        """Start a part that was killed, or never started."""
        argv = ["setpriv", "--pdeathsig=KILL", *self._commands()[name]]
        with (_FOLDER / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                argv, cwd=_FOLDER, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _import(self, name: str, *command: str) -> None:
        archive = _FOLDER / "image.tar"
        debian_image.write(archive, name, command)
        if (done := self._ctr("images", "import", str(archive))).returncode:
            raise RuntimeError(f"the image was not taken: {done.stderr}")
        archive.unlink()

    def kill_part(self, name: str) -> None:
        """SIGKILL a part: etcd, apiserver, controllers, scheduler, kubelet or containerd."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def cut_off_node(self) -> None:
        """Part the node from everything else."""
        _run("ip", "link", "set", _LINK, "down")

    def join_node(self) -> None:
        """Undo `cut_off_node`."""
        _run("ip", "link", "set", _LINK, "up")
        _run("ip", "route", "replace", PODS, "via", NODE_IP)

    def lose_containers(self) -> None:
        """Kill every process of every pod, as a node that crashes does."""
        for pid in self._shims():
            for child in _children(pid):
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)

    def stop(self) -> None:
        """End everything, and leave nothing of it."""
        for name in ("kubelet", "controllers", "scheduler"):
            if name in self._processes:
                self.kill_part(name)
        self._clear()
        self._lock.close()

    def _clear(self) -> None:
        """Remove what there is of a cluster, this one or one whose process was killed."""
        for name in list(self._processes):
            self.kill_part(name)
        for pid in [*self._shims(), *_using(str(_FOLDER / "containerd"))]:
            for process in (*_children(pid), pid):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while self._shims() and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        for what in (("link", "del", _LINK), ("netns", "del", _SPACE)):
            subprocess.run(["ip", *what], capture_output=True, check=False)
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for mount in sorted((at for at in mounts if at.startswith(f"{_FOLDER}/")), reverse=True):
            subprocess.run(["umount", "-l", mount], capture_output=True, check=False)
        for root in Path("/sys/fs/cgroup").glob("**/kubepods"):
            for folder, _, _ in os.walk(root, topdown=False):
                with suppress(OSError):
                    Path(folder).rmdir()
        with suppress(OSError, ValueError):
            for key, value in json.loads((_FOLDER / "sysctls.json").read_text()).items():
                Path("/proc/sys", key).write_text(value)
        shutil.rmtree(_FOLDER, ignore_errors=True)

    def _write_files(self) -> None:
        sysctls = {key: Path("/proc/sys", key).read_text() for key in _SYSCTLS}
        (_FOLDER / "sysctls.json").write_text(json.dumps(sysctls))
        _run("openssl", "genrsa", "-out", str(_FOLDER / "pki" / "accounts.key"), "2048")
        names = {"kubelet": f"system:node:{NODE}"}
        rows = [
            ",".join([self._tokens[user], names.get(user, user), user, group])
            for user, group in USERS.items()
        ]
        tokens = _FOLDER / "pki" / "tokens.csv"
        tokens.touch(mode=0o600)
        tokens.write_text("\n".join(rows) + "\n")
        for user in USERS:
            self.kubeconfig(user)
        (_FOLDER / "containerd.toml").write_text(files.containerd(_FOLDER, _PAUSE_IMAGE))
        (_FOLDER / "cni" / "10-bridge.conflist").write_text(files.network(_FOLDER, PODS))
        (_FOLDER / "kubelet.yaml").write_text(files.kubelet(_FOLDER, NODE_IP))

    def _join(self) -> None:
        _run("ip", "netns", "add", _SPACE)
        _run(*f"ip link add {_LINK} type veth peer name node0 netns {_SPACE}".split())
        _run("ip", "addr", "add", f"{HOST_IP}/30", "dev", _LINK)
        inside = ("ip", "-n", _SPACE)
        _run(*inside, "addr", "add", f"{NODE_IP}/30", "dev", "node0")
        for link in ("node0", "lo"):
            _run(*inside, "link", "set", link, "up")
        _run("ip", "link", "set", _LINK, "up")
        _run(*inside, "route", "add", "default", "via", HOST_IP)
        _run(*self._inside, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        self.join_node()

    @property
    def _inside(self) -> list[str]:
        # `ip netns exec` would mount /sys anew, and the kubelet would not see the cgroups.
        return ["nsenter", f"--net=/run/netns/{_SPACE}"]

    def _start_etcd(self) -> None:
        free = (
            port for port in iter(lambda: secrets.choice(_PORTS), 0) if is_free("127.0.0.1", port)
        )
        self._etcd, self._peers = (f"http://127.0.0.1:{next(free)}" for _ in range(2))
        self.start_part("etcd")

    def _commands(self) -> dict[str, list[str]]:
        kube = str(self._kube)
        flags = files.flags(_FOLDER, HOST_IP, SERVICES, self._etcd, self._peers)
        daemons = {
            name: [kube, part, *flags[name]]
            for name, part in (
                ("etcd", "etcd"),
                ("apiserver", "kube-apiserver"),
                ("controllers", "kube-controller-manager"),
                ("scheduler", "kube-scheduler"),
            )
        }
        node = ["--hostname-override", NODE, "--node-ip", NODE_IP]
        daemons["kubelet"] = [*self._inside, kube, "kubelet", *flags["kubelet"], *node]
        config = str(_FOLDER / "containerd.toml")
        daemons["containerd"] = [*self._inside, "containerd", "--config", config]
        return daemons

    def _ctr(self, *args: str) -> subprocess.CompletedProcess[str]:
        where = ["--address", str(_FOLDER / "containerd.sock"), "--namespace", "k8s.io"]
        return subprocess.run(["ctr", *where, *args], capture_output=True, text=True, check=False)

    def _shims(self) -> list[int]:
        return _using(str(_FOLDER / "containerd.sock"), "containerd-shim")

    def get(self, path: str, *, plain: bool = False) -> Any:
        """Return what the API server says, None where it says nothing."""
        try:
            trust = ssl.create_default_context(cafile=str(self.authority))
            asked = urllib.request.Request(  # noqa: S310 - the address is ours
                f"{_API}{path}", headers={"Authorization": f"Bearer {self._tokens['admin']}"}
            )
            with urllib.request.urlopen(asked, timeout=5, context=trust) as answer:  # noqa: S310
                said = answer.read()
        except OSError:
            return None
        return said if plain else json.loads(said)

    def _takes_pods(self) -> bool:
        node = self.get(f"/api/v1/nodes/{NODE}")
        account = self.get("/api/v1/namespaces/default/serviceaccounts/default")
        if not node or not account or node["spec"].get("taints"):
            return False
        conditions = node["status"]["conditions"]
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def _until(self, name: str, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_S
        while not done():
            died = self._processes[name].poll() is not None
            if died or time.monotonic() > deadline:
                words = (_FOLDER / f"{name}.log").read_text(errors="replace").splitlines()[-20:]
                raise RuntimeError("\n".join([f"{name} is not ready", *words]))
            time.sleep(_LOOK_S)


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr}")


def _using(text: str, program: str = "containerd") -> list[int]:
    """Return the processes of a program that name a path of the cluster on their command line."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            argv = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if Path(argv[0]).name.startswith(program) and any(text in word for word in argv[1:]):
                found.append(int(folder.name))
    return found


def _children(pid: int) -> list[int]:
    """Return the children of a process, and theirs."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *_children(int(child))]
    return found
