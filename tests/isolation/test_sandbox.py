"""What a payload can do in the sandbox: every probe is a payload that tries it."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from temporal_fabric.launcher.limits import Limits
from tests.isolation.place import BOMB, mounts_of
from tests.launcher.place import until
from tests.launcher.test_payloads import ORPHANS
from tools import make_syscall_filters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.isolation.place import SandboxPlace

CALLS = """
libc = ctypes.CDLL(None, use_errno=True)
def tried(number, *args):
    ctypes.set_errno(0)
    return ctypes.get_errno() if libc.syscall(number, *args) < 0 else 0
"""

NUMBERS = {
    # x86-64 and 64-bit ARM
    "mount": (165, 40),
    "umount2": (166, 39),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "kexec_load": (246, 104),
    "init_module": (175, 105),
    "unshare": (272, 97),
    "setns": (308, 268),
    "io_uring_setup": (425, 425),
    "open_tree": (428, 428),
}


@pytest.fixture
def listener() -> Iterator[int]:
    """A port of this host on which somebody listens, as the server and the metrics do."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def test_exit_code_and_signal_are_told_apart(every_sandbox: SandboxPlace) -> None:
    """The sandbox program would tell both as a code; the truth comes through."""
    client = await every_sandbox.connect()
    ends = {"exit": "exit 137", "kill": "kill -9 $$", "good": "true"}
    for key, script in ends.items():
        await every_sandbox.run(client, every_sandbox.sandboxed(key, script))
    exited, killed, good = [await client.query(key) for key in ends]

    assert (exited.exit_code, exited.signal, exited.why) == (137, None, None)
    assert (killed.exit_code, killed.signal, killed.why) == (None, 9, None)
    assert (good.exit_code, good.signal, good.why) == (0, None, None)


async def test_a_program_that_does_not_exist(sandboxes: SandboxPlace) -> None:
    """A failed exec is told with the same sentence as outside."""
    client = await sandboxes.connect()
    record = await sandboxes.run(client, sandboxes.sandboxed("a", "", argv=("no-such", "x")))

    assert (record.state, record.why, record.exit_code) == ("ended", "exec", None)
    assert record.error == "No such file or directory: 'no-such'"


async def test_a_sandbox_that_cannot_be_made(sandboxes: SandboxPlace) -> None:
    """The sandbox program's own words are the reason, and the payload never ran."""
    client = await sandboxes.connect()
    spec = sandboxes.sandboxed("a", f"echo ran > {sandboxes.evidence}")
    assert spec.sandbox is not None
    broken = type(spec.sandbox)(
        (*spec.sandbox.command, "--chdir", "/no/such"), spec.sandbox.init, spec.sandbox.filter
    )
    record = await sandboxes.run(client, sandboxes.sandboxed("a", "true", sandbox=broken))

    assert (record.why, record.exit_code) == ("exec", None)
    assert record.error is not None
    assert "/no/such" in record.error
    assert sandboxes.runs() == []


async def test_sees_its_own_processes_only(every_sandbox: SandboxPlace) -> None:
    """No process of the host is visible, and none can be signalled."""
    client = await every_sandbox.connect()
    code = "pids = [n for n in os.listdir('/proc') if n.isdigit()]\n"
    code += "print(json.dumps([sorted(map(int, pids)), os.getpid(), os.getsid(0), os.getuid()]))"
    await every_sandbox.run(client, every_sandbox.probing("a", code))

    assert every_sandbox.said("a") == [[1, 2], 2, 2, 65534]


async def test_has_no_rights(every_sandbox: SandboxPlace) -> None:
    """No capability, no new privileges, a system call filter, no open file of the launcher."""
    client = await every_sandbox.connect()
    code = "status = dict(line.split(':\\t') for line in open('/proc/self/status').read()"
    code += ".splitlines() if ':\\t' in line)\n"
    code += "fds = sorted(map(int, os.listdir('/proc/self/fd')))[:-1]\n"
    code += "names = ('CapEff', 'CapPrm', 'CapBnd', 'CapAmb', 'NoNewPrivs', 'Seccomp')\n"
    code += "print(json.dumps([[int(status[name], 16) for name in names], fds]))"
    await every_sandbox.run(client, every_sandbox.probing("a", code))

    assert every_sandbox.said("a") == [[0, 0, 0, 0, 1, 2], [0, 1, 2]]


async def test_reaches_no_port_of_the_host(sandboxes: SandboxPlace, listener: int) -> None:
    """A server on the host's loopback address cannot be reached; a loopback of its own works."""
    client = await sandboxes.connect()
    code = "def to(port):\n    try: socket.create_connection(('127.0.0.1', port), 2)\n"
    code += "    except OSError as exc: return exc.errno\n    return 0\n"
    code += "own = socket.create_server(('127.0.0.1', 0)).getsockname()[1]\n"
    code += f"print(json.dumps([to({listener}), os.listdir('/sys/devices/system')]))"
    await sandboxes.run(client, sandboxes.probing("a", code))

    assert sandboxes.said("a") == [errno.ECONNREFUSED, ["cpu"]]


async def test_writes_to_its_folder_only(every_sandbox: SandboxPlace) -> None:
    """Everything is read-only but the task's folder and folders of its own."""
    (every_sandbox.folder / "fabric" / "other").mkdir(parents=True)
    (every_sandbox.folder / "fabric" / "other" / "secret").write_text("another tenant's")
    (every_sandbox.folder / "outside").write_text("unchanged")
    client = await every_sandbox.connect()
    tried = ["/usr/x", "/etc/x", "/x", "/dev/x", "/proc/sys/kernel/core_pattern"]
    tried += ["/proc/sysrq-trigger", str(every_sandbox.folder / "fabric" / "x")]
    # The test's folder lies in /tmp, which is another one inside.
    name = f"x-{secrets.token_hex(4)}"
    own = ["x", f"/tmp/{name}", "/dev/shm/x", "/var/tmp/y"]  # noqa: S108 - those inside
    own += [str(every_sandbox.folder / "outside")]
    hidden = [str(every_sandbox.folder / "fabric" / "other"), "/etc/shadow", "/root/.ssh"]
    hidden += [str(every_sandbox.home), "/run", "/sys/fs/cgroup", "/proc/1/root/etc/shadow"]
    code = "def opens(path):\n    try: open(path, 'w').close()\n"
    code += "    except OSError as exc: return exc.errno\n    return 0\n"
    code += f"print(json.dumps([list(map(opens, {tried})), list(map(os.path.exists, {hidden})),"
    code += f" list(map(opens, {own}))]))"
    await every_sandbox.run(client, every_sandbox.probing("a", code))
    refused, found, allowed = every_sandbox.said("a")

    assert all(number in {errno.EROFS, errno.ENOENT, errno.EACCES} for number in refused), refused
    assert found == [False] * len(hidden)
    assert allowed == [0] * len(own)
    assert (every_sandbox.folder / "outside").read_text() == "unchanged"
    assert (every_sandbox.task / "x").exists()
    assert name not in os.listdir("/tmp")  # noqa: PTH208, S108 - the host's, one look at it


async def test_system_calls_are_refused(sandboxes: SandboxPlace) -> None:
    """What leads out of a sandbox, or into somebody's terminal, is refused by the filter."""
    column = {"x86_64": 0, "aarch64": 1}[os.uname().machine]
    numbers = {name: pair[column] for name, pair in NUMBERS.items()}
    clone, clone3, ioctl = ((56, 435, 16), (220, 435, 29))[column]
    code = CALLS + f"numbers = {numbers}\n"
    code += "found = {name: tried(number, *[0] * 6) for name, number in numbers.items()}\n"
    code += f"found |= {{hex(flag): tried({clone}, flag, 0, 0, 0, 0) for flag in "
    code += f"{list(make_syscall_filters.NAMESPACES.values())}}}\n"
    code += f"found['TIOCSTI'] = tried({ioctl}, 0, 0x5412, b'x')\n"
    code += f"found['TIOCSTI, high bits'] = tried({ioctl}, 0, 0x7_0000_5412, b'x')\n"
    code += f"found['clone3'] = tried({clone3}, 0, 0)\n"
    code += "try: socket.socket(40, socket.SOCK_STREAM)\n"
    code += "except OSError as exc: found['vsock'] = exc.errno\n"
    code += "print(json.dumps(found))"
    client = await sandboxes.connect()
    await sandboxes.run(client, sandboxes.probing("a", code))
    found = sandboxes.said("a")

    assert found.pop("clone3") == errno.ENOSYS
    assert set(found.values()) == {errno.EPERM}, found


def test_the_shipped_filters_are_those_of_the_script() -> None:
    """Nobody edits the compiled files; the script says what they refuse."""
    for name in make_syscall_filters.ARCHITECTURES:
        shipped = (make_syscall_filters.FOLDER / f"{name}.bpf").read_bytes()

        assert shipped == make_syscall_filters.compiled(name), "run tools/make_syscall_filters.py"


async def test_the_linker_cannot_be_used_against_the_sandbox(sandboxes: SandboxPlace) -> None:
    """Variables of the payload take effect inside, where nothing is to be had."""
    client = await sandboxes.connect()
    spec = sandboxes.sandboxed("a", "echo in")
    env = spec.env | {"LD_PRELOAD": str(sandboxes.folder / "evil.so"), "PYTHONHOME": "/nowhere"}
    await sandboxes.run(client, sandboxes.sandboxed("a", "echo in", env=env))

    # The linker complains once, for the shell inside, and not for the sandbox program.
    assert sandboxes.errors("a").count("evil.so") == 1
    assert (sandboxes.folder / "a.out").read_text() == "in\n"


async def test_terminate_asks_first(sandboxes: SandboxPlace) -> None:
    """The stop signal reaches the payload, and the sandbox gives it its grace."""
    client = await sandboxes.connect()
    script = "trap 'exit 3' TERM; : > ready; while :; do sleep 0.02; done"
    await client.start(sandboxes.sandboxed("a", script))
    assert await until((sandboxes.task / "ready").exists)
    ended = await client.terminate("a", 30)

    assert (ended.exit_code, ended.signal, ended.why) == (3, None, "terminated")


async def test_nothing_is_left_of_a_tree(every_sandbox: SandboxPlace) -> None:
    """Daemons, double forks and deaf processes are gone when the end is told; so are mounts."""
    client = await every_sandbox.connect()
    script = f"trap '' TERM; {ORPHANS} : > ready; while :; do sleep 0.05; done"
    await client.start(every_sandbox.sandboxed("a", script))
    assert await until((every_sandbox.task / "ready").exists)
    ended = await client.terminate("a", 0.2)

    assert (ended.state, ended.signal, ended.why) == ("ended", 9, "terminated")
    assert every_sandbox.nappers() == 0
    assert mounts_of(every_sandbox.folder) == []


async def test_launcher_death_takes_the_sandbox(every_sandbox: SandboxPlace) -> None:
    """A sandboxed payload never outlives its launcher, not even without a pid namespace."""
    client = await every_sandbox.connect()
    await client.start(every_sandbox.sandboxed("a", f'{ORPHANS} sleep "$NAP"'))
    assert await until(lambda: every_sandbox.nappers() == 4)
    await every_sandbox.kill_launcher()

    assert await until(lambda: every_sandbox.nappers() == 0)
    assert (await client.query("a")).state == "lost"


async def test_worker_death_does_not_matter(sandboxes: SandboxPlace) -> None:
    """A new worker finds the sandboxed payload running and learns its true end."""
    first = await sandboxes.connect()
    started = await first.start(sandboxes.sandboxed("a", "sleep 0.5; kill -SEGV $$"))
    await first.aclose()
    second = await sandboxes.connect()
    running, ended = await second.query("a"), await second.wait("a", 10)

    assert (running.state, running.pid) == ("running", started.pid)
    assert (ended.signal, ended.exit_code) == (signal.SIGSEGV, None)


async def test_memory_kills_are_told_as_such(sandboxes: SandboxPlace) -> None:
    """A payload that eats memory dies of it alone, however deep in the tree it sits."""
    client = await sandboxes.connect()
    if "memory" not in (await client.info())["limits"]:
        pytest.skip("no control group limits memory here")
    eats = f"{sys.executable} -I -S -c 'bytes([1]) * 10**9'"
    limits = Limits(memory_bytes=64 << 20)
    main = await sandboxes.run(client, sandboxes.sandboxed("m", f"exec {eats}", limits=limits))
    child = await sandboxes.run(client, sandboxes.sandboxed("c", f"{eats}; :", limits=limits))

    assert (main.signal, main.oom_kills) == (9, 1)
    assert (child.exit_code, child.oom_kills) == (0, 1)


@pytest.mark.parametrize("groups", ["", "none"])
async def test_unprivileged_user(sandboxes: SandboxPlace, groups: str) -> None:
    """An ordinary user has the sandbox too; its bombs stop at a limit of the sandbox's own."""
    program = shutil.which("python3", path="/usr/bin")
    if os.geteuid() != 0 or program is None:
        pytest.skip("needs root, to become somebody else, and the system's Python")
    sandboxes.folder.chmod(0o755)
    nobody = sandboxes.folder / "nobody"
    nobody.mkdir()
    os.chown(nobody, 1000, 1000)
    found = await asyncio.to_thread(
        subprocess.run,
        [
            *("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", program),
            *sandboxes.python(UNPRIVILEGED.replace("NOBODY", repr(str(nobody))))[1:],
        ],
        capture_output=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "FABRIC_LAUNCHER_CGROUP": groups},
    )
    if b"SyntaxError" in found.stderr or b"cannot import name" in found.stderr:
        pytest.skip("the system's Python is too old")

    assert found.stdout.split() == [b"ended", b"0"], found.stderr.decode()
    assert 20 < int((nobody / "out").read_text()) <= 30


UNPRIVILEGED = f"""
from temporal_fabric.isolation import bubblewrap
from temporal_fabric.launcher.limits import Limits
from temporal_fabric.launcher.sandboxed import Sandbox, init_file
async def work():
    home = Path(NOBODY)
    client = await LauncherClient.connect(home / "launcher")
    view = bubblewrap.View(home, home, home, readable=(init_file(),), writable=(home,))
    init = (sys.executable, "-I", "-S", str(init_file()))
    command = bubblewrap.command(bubblewrap.find(), view)
    argv = (sys.executable, "-I", "-S", "-c", {BOMB!r})
    spec = LaunchSpec(
        "a", argv, dict(os.environ), NOBODY, NOBODY + "/out", NOBODY + "/err",
        limits=Limits(user_processes=30),
        sandbox=Sandbox(command, init, str(bubblewrap.filter_file())),
    )
    await client.start(spec)
    record = await client.wait("a", 20)
    print(record.state, record.exit_code, record.error or "")
    await client.shutdown()
    await client.aclose()
asyncio.run(work())
"""
