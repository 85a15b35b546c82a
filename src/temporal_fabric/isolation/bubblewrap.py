"""The sandbox of a local payload: bubblewrap, with a root made of what is listed here.

Visible are the system's programs and libraries, a few harmless files of ``/etc``, and what the
caller names. Everything else of the host does not exist inside: home folders, the fabric's own
home, other payloads, devices, sockets. The payload is nobody there, has no capability, sees
its own processes only, and its system calls pass a filter (``tools/make_syscall_filters.py``).
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

PROGRAM = "bwrap"
NOBODY = "65534"

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
_ETC = (
    *("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "timezone"),
    *("nsswitch.conf", "passwd", "group", "hosts", "protocols", "services", "mime.types"),
    *("ssl/certs", "ssl/openssl.cnf", "pki/tls/certs", "pki/ca-trust/extracted"),
    *("ca-certificates", "fonts", "terminfo", "locale.alias", "OpenCL/vendors"),
)
"""Neither passwords nor private keys: these may be read by whoever runs the worker."""

_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 - inside, where they are the payload's own
_PROCESSORS = "/sys/devices/system/cpu"
_PROBE_S = 20.0


@dataclass(frozen=True, slots=True)
class View:
    """What a payload sees of the host, beside the system."""

    home: Path
    """The fabric's home: hidden, but for what is listed below."""

    temporary: Path
    """The folder that is ``/tmp`` inside."""

    cwd: Path
    shared: tuple[Path, ...] = ()
    """Readable for every payload; what of it lies below the fabric's home stays hidden."""

    readable: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()
    devices: tuple[Path, ...] = ()
    """Device files that it may use, where they exist."""

    network: bool = False
    """Whether the host's network is shared; else there is only a loopback of its own."""


class Unavailable(Exception):
    """This host cannot make a sandbox; the message says why and what to do."""


def find(configured: str = "") -> Path:
    """Return bubblewrap's full path.

    Args:
        configured: A path that the host's owner has set, instead of a search on ``PATH``.

    Raises:
        Unavailable: it is not there.
    """
    found = shutil.which(configured or PROGRAM)
    if found is None:
        what = f"there is no {configured}" if configured else "bubblewrap is not installed"
        raise Unavailable(f"{what}: install the package 'bubblewrap' on the worker's host")
    return Path(found).absolute()


def filter_file() -> Path:
    """Return the system call filter of this kind of processor.

    Raises:
        Unavailable: there is none.
    """
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    path = Path(__file__).with_name("filters") / f"{machine}.bpf"
    if not path.is_file():
        raise Unavailable(f"no system call filter is known for this processor: {machine}")
    return path


def command(program: Path, view: View) -> tuple[str, ...]:
    """Return the program and its options, to be followed by ``--`` and a command."""
    return (
        str(program),
        *_namespaces(network=view.network),
        *_root(network=view.network),
        *_pairs("--dev-bind-try", [(path, path) for path in view.devices]),
        *_pairs("--bind", [(view.temporary, place) for place in _TEMPORARY]),
        *_pairs("--ro-bind", [(path, path) for path in (*view.shared, *_installation())]),
        *_hidden(view.home),
        *_pairs("--ro-bind", [(path, path) for path in (*_interpreter(), *view.readable)]),
        *_pairs("--bind", [(path, path) for path in view.writable]),
        *_read_only(view.home),
        *("--chdir", str(view.cwd)),
    )


def visible(path: Path, shared: Iterable[Path]) -> bool:
    """Return whether a path of the host exists in every sandbox that shares these."""
    places: list[Path | str] = [*_SYSTEM, *_TEMPORARY, *shared, *_installation()]
    return any(path.is_relative_to(place) for place in places)


def probe(program: Path) -> None:
    """Try the sandbox on this host.

    Raises:
        Unavailable: it cannot be made, with the reason.
    """
    rules = os.open(filter_file(), os.O_RDONLY)
    try:
        done = subprocess.run(
            [
                *(str(program), *_namespaces(network=False), *_root(network=False)),
                *("--seccomp", str(rules), "--", "/bin/sh", "-c", ":"),
            ],
            check=False,
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(rules,),
            timeout=_PROBE_S,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise Unavailable(f"bubblewrap cannot be run: {exc}") from exc
    finally:
        os.close(rules)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip() or f"code {done.returncode}"
        raise Unavailable(
            f"this host refuses the namespaces of a sandbox ({said}): allow unprivileged user "
            "namespaces (user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns)"
        )


def _installation() -> list[Path]:
    """Return where this process's Python is installed, unless it is the system's."""
    base = Path(sys.base_prefix)
    return [] if any(base.is_relative_to(name) for name in _SYSTEM) else [base]


def _interpreter() -> list[Path]:
    """Return what makes this process's Python start by the name it has here."""
    program = Path(sys.executable)
    # Of a virtual environment this file says where the installation is.
    found = (program, program.parent.parent / "pyvenv.cfg")
    places: list[Path | str] = [*_installation(), *_SYSTEM]
    return [
        path
        for path in found
        if path.exists() and not any(path.is_relative_to(place) for place in places)
    ]


def _namespaces(*, network: bool) -> tuple[str, ...]:
    return (
        *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"),
        *(() if network else ("--unshare-net",)),
        *("--unshare-cgroup-try", "--hostname", "sandbox", "--uid", NOBODY, "--gid", NOBODY),
        *("--as-pid-1", "--new-session", "--die-with-parent", "--cap-drop", "ALL"),
    )


def _root(*, network: bool) -> tuple[str, ...]:
    options: list[str] = []
    for name in _SYSTEM:
        path = Path(name)
        if path.is_symlink():
            options += ["--symlink", str(path.readlink()), name]
        elif path.exists():
            options += ["--ro-bind", name, name]
    names = (*_ETC, "resolv.conf") if network else _ETC
    options += _pairs("--ro-bind-try", [(f"/etc/{name}", f"/etc/{name}") for name in names])
    options += ["--ro-bind-try", _PROCESSORS, _PROCESSORS]
    return (*options, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/dev/shm")  # noqa: S108


def _hidden(home: Path) -> list[str]:
    # By both names: one of the readable folders may be above it.
    return [
        word for path in dict.fromkeys((home, home.resolve())) for word in ("--tmpfs", str(path))
    ]


def _read_only(home: Path) -> list[str]:
    # Last, as nothing can be put there afterwards; what is mounted below keeps its own rights.
    # To the kernel the payload is the worker's user, and root may write to much of /proc.
    places = dict.fromkeys((str(home), str(home.resolve()), "/proc", "/dev", "/"))
    return [word for place in places for word in ("--remount-ro", place)]


def _pairs(option: str, pairs: Iterable[tuple[object, object]]) -> list[str]:
    return [word for source, place in pairs for word in (option, str(source), str(place))]
