"""Calls to the login node: the whole program goes there first, then each request gets one answer.

So nothing has to be installed there, and fabrics of several versions share a site in peace. The
command line is constant; what a request says travels on standard input. The program stays for
the next request, and ends when nobody has asked it anything for a while.
"""

from __future__ import annotations

import json
import secrets
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters import (
    slurm_on_login,
    slurm_on_login_jobs,
    slurm_on_login_queue,
    slurm_on_login_submit,
    slurm_on_node,
)
from temporal_fabric.adapters.slurm_on_login import MARK
from temporal_fabric.adapters.slurm_transport import GROWS, result_of
from temporal_fabric.adapters.ssh_connection import SshConnection, Way
from temporal_fabric.adapters.ssh_conversation import KEPT_S, Program
from temporal_fabric.errors import BackendUnknown, TransientBackendError
from temporal_fabric.shapes import is_table

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from temporal_fabric.adapters.slurm_options import SshOptions
    from temporal_fabric.adapters.slurm_transport import Files
    from temporal_fabric.adapters.ssh_conversation import Said

PROGRAM = (
    slurm_on_node,
    slurm_on_login_queue,
    slurm_on_login_jobs,
    slurm_on_login_submit,
    slurm_on_login,
)
"""The modules that run on the login node, each after those that it needs."""

_START = f"""
import json, signal, sys, types
while True:
    signal.alarm({3 * KEPT_S:.0f})
    line = sys.stdin.readline()
    signal.alarm(0)
    if not line:
        break
    asked = json.loads(line)
    for name, text in asked.pop("program", ()):
        module = sys.modules[name] = types.ModuleType(name)
        exec(compile(text, name, "exec"), module.__dict__)
    if "verb" in asked:
        module.main(asked)
"""
_FEW = 300


class NoPython(TransientBackendError):
    """The login node has no Python that runs the fabric's program."""


class LoginNode:
    """See `Transport`: a login node, whose Python runs the program.

    Args:
        options: Of the backend.
        owner: Whose attempts are meant: fabrics that share a login have folders of their own.
    """

    def __init__(self, options: SshOptions, owner: str) -> None:
        self._options, self._owner = options, owner
        self._connection = SshConnection(_way(options))
        texts = [
            (module.__name__, Path(module.__file__ or "").read_text(encoding="utf-8"))
            for module in PROGRAM
        ]
        self._program = Program(
            f"exec {shlex.quote(options.python)} -I -S -c {shlex.quote(_START)}",
            json.dumps({"program": texts}).encode() + b"\n",
        )

    @property
    def where(self) -> str:
        """See `Transport.where`."""
        return str(self._options.target)

    @property
    def about(self) -> dict[str, str]:
        """See `Transport.about`."""
        return {"login node": self.where}

    def files(self) -> AbstractContextManager[Files]:
        """See `Transport.files`."""
        return self._connection.files(self._options.answer_s)

    def close(self) -> None:
        """See `Transport.close`."""
        self._connection.close()

    def ask(self, verb: str, *, longer_s: float = 0.0, **asked: Any) -> Any:
        """See `Transport.ask`."""
        turn = secrets.token_hex(8)
        request = {
            "verb": verb,
            "turn": turn,
            "owner": self._owner,
            "folder": self._options.folder,
            "bin": self._options.bin,
            "timeout_s": self._options.answer_s,
            "settle_s": self._options.settle_s,
            "grows": GROWS,
            **asked,
        }
        line = json.dumps(request).encode() + b"\n"
        # The program ends its answer with the turn.
        end = json.dumps({"turn": turn})[1:].encode() + b"\n"
        limit_s = self._options.answer_s * 2 + longer_s
        said = self._connection.ask(self._program, line, end, limit_s)
        return result_of(self._read(said, turn), self.where)

    def _read(self, said: Said, turn: str) -> dict[str, Any]:
        """Return the answer behind its mark; whatever else was said is no answer."""
        for line in said.out.decode(errors="replace").splitlines():
            if not line.startswith(f"{MARK} "):
                continue
            try:
                told: Any = json.loads(line.removeprefix(MARK))
            except ValueError:
                continue
            if is_table(told) and told.get("turn") == turn:
                return told
        words = (said.err + said.out).decode(errors="replace").strip()[-_FEW:]
        if said.code in {126, 127} or "SyntaxError" in words or "ModuleNotFound" in words:
            raise NoPython(
                f"the login node has no fit Python [host={self.where}, "
                f"python={self._options.python}]: {words}; set the option 'python' to a Python "
                "3.8 or newer of the cluster"
            )
        raise BackendUnknown(
            f"the login node gave no answer [host={self.where}, exit={said.code}]: "
            f"{words or 'it said nothing'}"
        )


def _way(options: SshOptions) -> Way:
    return Way(
        target=options.target,
        jumps=options.jumps,
        key=options.key,
        agent=options.agent,
        host_key=options.host_key,
        known_hosts=options.known_hosts,
        connect_s=options.connect_s,
        sessions=options.sessions,
    )
