"""A virtual machine for tests: Debian's kernel on an emulated processor, over the host's own files.

``python -m tests.backends.guest`` fetches what it boots from, and says where that lies. The guest
sees the host's files and cannot change them; what it writes is gone with it.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from temporal_fabric.devserver.cache import cache_root

_CANNOT = 75
_KERNEL = "linux-image-amd64"
_BUSYBOX = "busybox-static"
_INIT = Path(__file__).with_name("guest_init")
_MODULES = (
    *("drivers/virtio/virtio_ring", "drivers/virtio/virtio"),
    *("drivers/virtio/virtio_pci_modern_dev", "drivers/virtio/virtio_pci_legacy_dev"),
    *("drivers/virtio/virtio_pci", "fs/netfs/netfs", "fs/fscache/fscache"),
    *("net/9p/9pnet", "net/9p/9pnet_virtio", "fs/9p/9p", "fs/overlayfs/overlay"),
)
"""Each after those that it needs."""

_MEMORY_MIB = 1024


class GuestUnavailable(Exception):
    """This machine cannot have a guest."""


@dataclass(frozen=True)
class Said:
    """What a guest's program left."""

    code: int
    out: str
    err: str


def run(*command: str, limit_s: float) -> Said:
    """Run a program in a guest of its own.

    Raises:
        GuestUnavailable: there is nothing to boot from, or the guest did not come to the program.
    """
    kernel, initial = _parts()
    with tempfile.TemporaryDirectory(prefix="fab") as name:
        shared = Path(name)
        (shared / "run").write_text(f"exec {shlex.join(command)}\n")
        done = subprocess.run(
            _machine(kernel, initial, shared),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limit_s,
            check=False,
        )
        if not (shared / "code").exists():
            console = (done.stdout + done.stderr).decode(errors="replace")[-2000:]
            raise GuestUnavailable(f"the guest has not run it: {console}")
        texts = [(shared / each).read_text(errors="replace") for each in ("code", "out", "err")]
    return Said(int(texts[0]), *texts[1:])


def _machine(kernel: Path, initial: Path, shared: Path) -> list[str]:
    host = "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"
    # Not by KVM: inside another virtual machine it may be there and not work.
    return [
        *("qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"),
        *("-m", str(_MEMORY_MIB), "-smp", "2", "-nographic", "-no-reboot", "-nic", "none"),
        *("-kernel", str(kernel), "-initrd", str(initial)),
        *("-append", "console=ttyS0 quiet panic=-1 cgroup_no_v1=all"),
        *("-virtfs", host),
        *("-virtfs", f"local,path={shared},mount_tag=shared,security_model=none"),
    ]


def _parts() -> tuple[Path, Path]:
    """Return the kernel and the initial file system of the newest guest in the cache."""
    if shutil.which("qemu-system-x86_64") is None:
        raise GuestUnavailable("there is no qemu-system-x86_64: run tests/backends/setup.sh guest")
    made = cache_root().glob(f"guest/*-{_stamp()}/initrd.gz")
    initials = sorted(made, key=os.path.getmtime)
    if not initials:
        raise GuestUnavailable("no kernel is fetched: run tests/backends/setup.sh guest")
    return (initials[-1].with_name("vmlinuz"), initials[-1])


def _fetched() -> Path:
    """Fetch and pack what a guest boots from, once per kernel; return its folder."""
    if platform.machine() != "x86_64":
        raise GuestUnavailable("the guest's kernel is for x86_64")
    try:
        return _packed()
    except GuestUnavailable:
        _apt("apt-get", "update", "-q")
        return _packed()


def _packed() -> Path:
    depends = _apt("apt-cache", "depends", "--important", _KERNEL)
    package = next(word for word in depends.split()[::-1] if word.startswith("linux-image-"))
    folder = cache_root() / "guest" / f"{package.removeprefix('linux-image-')}-{_stamp()}"
    if not (folder / "initrd.gz").exists():
        with tempfile.TemporaryDirectory(prefix="fab") as name:
            _pack(package, Path(name), folder)
    return folder


def _stamp() -> str:
    """Return what changes with what is packed beside the kernel."""
    return hashlib.sha256(f"{_MODULES}{_INIT.read_text()}".encode()).hexdigest()[:8]


def _pack(kernel: str, scratch: Path, folder: Path) -> None:
    _apt("apt-get", "-o", "APT::Sandbox::User=root", "download", "-q", kernel, _BUSYBOX, at=scratch)
    for package in scratch.glob("*.deb"):
        _apt("dpkg-deb", "--extract", str(package), str(scratch / "all"))
    tree, modules = scratch / "tree", scratch / "tree/modules"
    (tree / "bin").mkdir(parents=True)
    modules.mkdir()
    (found,) = (scratch / "all/lib/modules").iterdir()
    for each in _MODULES:
        shutil.copy(found / f"kernel/{each}.ko", modules)
    (modules / "order").write_text("\n".join(f"{Path(each).name}.ko" for each in _MODULES))
    shutil.copy(scratch / "all/bin/busybox", tree / "bin")
    shutil.copy(_INIT, tree / "init")
    (tree / "init").chmod(0o755)
    names = "\n".join(path.relative_to(tree).as_posix() for path in sorted(tree.rglob("*")))
    packed = subprocess.run(
        [tree / "bin/busybox", "cpio", "-o", "-H", "newc"],
        cwd=tree,
        input=names.encode(),
        capture_output=True,
        check=True,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (vmlinuz,) = (scratch / "all/boot").glob("vmlinuz-*")
    shutil.copy(vmlinuz, folder / "vmlinuz")
    (folder / "initrd.part").write_bytes(gzip.compress(packed.stdout))
    (folder / "initrd.part").replace(folder / "initrd.gz")


def _apt(*command: str, at: Path | None = None) -> str:
    try:
        done = subprocess.run(command, cwd=at, capture_output=True, check=True)
    except FileNotFoundError as exc:
        raise GuestUnavailable(f"there is no {command[0]} to fetch a kernel with") from exc
    except subprocess.CalledProcessError as exc:
        raise GuestUnavailable(f"{command[0]}: {exc.stderr.decode()[-500:]}") from exc
    return done.stdout.decode()


def main() -> int:
    """Make sure that there is something to boot from, and say where."""
    try:
        folder = _fetched()
    except GuestUnavailable as exc:
        print(exc)
        return _CANNOT
    print(f"Linux {folder.name} in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
