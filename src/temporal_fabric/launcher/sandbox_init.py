"""The first process in a sandbox: starts the payload, waits, reports its true end.

``python -I -S sandbox_init.py FD``, with the plan to be read from the descriptor. Nothing but
the standard library is there. Being the first process of its pid namespace it cannot be killed
from inside, and the kernel ends everything else when it ends.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import Any, NoReturn

_NOT_STARTED = 127
_NPROC = resource.RLIMIT_NPROC


def main(source: int) -> NoReturn:
    """Run the plan and leave."""
    with os.fdopen(source, "rb") as file:
        plan: dict[str, Any] = json.load(file)
    report = os.dup(2)
    os.dup2(plan["stderr"], 2)
    os.close(plan["stderr"])
    os.set_inheritable(plan["err"], False)  # noqa: FBT003 - the library's signature
    payload = os.fork()
    if payload == 0:
        _become(plan)
    os.close(plan["err"])
    found = status = 0
    while found != payload:
        found, status = os.wait()
    os.write(report, f"end {status}\n".encode())
    os._exit(0)


def _become(plan: dict[str, Any]) -> NoReturn:
    try:
        os.setsid()
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            with suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for kind, name in ((resource.RLIMIT_NOFILE, "open_files"), (_NPROC, "user_processes")):
            if plan[name] is not None:
                resource.setrlimit(kind, (plan[name], plan[name]))
        if plan["no_core"]:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.execvpe(plan["argv"][0], plan["argv"], plan["env"])  # noqa: S606 - as in the launcher
    except OSError as exc:
        os.write(plan["err"], f"{exc.strerror}: {plan['argv'][0]!r}".encode("utf-8", "replace"))
    except BaseException as exc:  # noqa: BLE001 - a forked copy must not go on
        os.write(plan["err"], f"{type(exc).__name__}: {exc}".encode("utf-8", "replace"))
    finally:
        os._exit(_NOT_STARTED)


if __name__ == "__main__":
    main(int(sys.argv[1]))
