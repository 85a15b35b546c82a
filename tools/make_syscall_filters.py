"""Compile the system call filter of the sandbox, one file per kind of processor.

Run it as ``python tools/make_syscall_filters.py`` after a change; the compiled files are part of
the package, so that a host needs neither libseccomp nor a compiler. A test compares them.

The filter lets everything pass but what a payload has no business with and what has let
programs out of sandboxes before: the lists of Docker's default profile and of Flatpak, less
what ordinary programs use. A refused call fails with EPERM.
"""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

import pyseccomp as seccomp

FOLDER = Path(__file__).parents[1] / "src" / "temporal_fabric" / "isolation" / "filters"

ARCHITECTURES = {"x86_64": seccomp.Arch.X86_64, "aarch64": seccomp.Arch.AARCH64}

REFUSED = (
    # File systems and roots.
    *("mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "mount_setattr"),
    *("fsopen", "fsconfig", "fsmount", "fspick", "swapon", "swapoff", "quotactl", "quotactl_fd"),
    # Files by handle lead around the folders that are visible.
    *("open_by_handle_at", "name_to_handle_at", "fanotify_init"),
    # Other processes.
    *("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp"),
    # Namespaces; `clone` is looked at below.
    *("unshare", "setns"),
    # Keys of the user, which no namespace separates.
    *("keyctl", "add_key", "request_key"),
    # Large and often broken parts of the kernel.
    *("bpf", "perf_event_open", "userfaultfd"),
    *("io_uring_setup", "io_uring_enter", "io_uring_register"),
    # The machine itself.
    *("kexec_load", "kexec_file_load", "reboot", "syslog", "acct"),
    *("init_module", "finit_module", "delete_module"),
    *("settimeofday", "clock_settime", "adjtimex", "clock_adjtime"),
    *("sethostname", "setdomainname", "iopl", "ioperm"),
)

NAMESPACES = {
    "CLONE_NEWTIME": 0x0000_0080,
    "CLONE_NEWNS": 0x0002_0000,
    "CLONE_NEWCGROUP": 0x0200_0000,
    "CLONE_NEWUTS": 0x0400_0000,
    "CLONE_NEWIPC": 0x0800_0000,
    "CLONE_NEWUSER": 0x1000_0000,
    "CLONE_NEWPID": 0x2000_0000,
    "CLONE_NEWNET": 0x4000_0000,
}

_TERMINAL_INPUT = {"TIOCSTI": 0x5412, "TIOCLINUX": 0x541C}
"""They put characters into somebody else's terminal."""

_AF_VSOCK = 40
"""A line to the machine's hypervisor, which a network namespace does not cut."""

_LOW = 0xFFFF_FFFF
"""The kernel looks at the lower half of these arguments only, so must the filter."""


def compiled(name: str) -> bytes:
    """Return the filter for one kind of processor, as an array of BPF instructions."""
    rules = seccomp.SyscallFilter(seccomp.ALLOW)
    wanted = ARCHITECTURES[name]
    if seccomp.system_arch() != wanted:
        rules.add_arch(wanted)
        rules.remove_arch(seccomp.system_arch())
    refuse = seccomp.ERRNO(errno.EPERM)
    for call in REFUSED:
        if seccomp.resolve_syscall(wanted, call) >= 0:
            rules.add_rule(refuse, call)
    for flag in NAMESPACES.values():
        rules.add_rule(refuse, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, flag, flag))
    # Its flags lie in memory, out of a filter's sight. C libraries fall back to `clone`.
    rules.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
    for request in _TERMINAL_INPUT.values():
        rules.add_rule(refuse, "ioctl", seccomp.Arg(1, seccomp.MASKED_EQ, _LOW, request))
    rules.add_rule(refuse, "socket", seccomp.Arg(0, seccomp.MASKED_EQ, _LOW, _AF_VSOCK))
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()


def main() -> None:
    """Write every file."""
    for name in ARCHITECTURES:
        (FOLDER / f"{name}.bpf").write_bytes(compiled(name))


if __name__ == "__main__":
    main()
