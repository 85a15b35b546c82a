"""Calls to the login node: each sends the whole program and one request, and gets one answer.

So nothing has to be installed there, and fabrics of several versions share a site in peace. The
command line is constant; what a request says travels on standard input.
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
    slurm_on_node,
)
from temporal_fabric.adapters.slurm_on_login import MARK
from temporal_fabric.adapters.slurm_transport import GROWS, result_of
from temporal_fabric.adapters.ssh_connection import SshConnection, Way
from temporal_fabric.errors import BackendUnknown, TransientBackendError
from temporal_fabric.shapes import is_table

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from temporal_fabric.adapters.slurm_options import SshOptions
    from temporal_fabric.adapters.slurm_transport import Files
    from temporal_fabric.adapters.ssh_connection import Said

_PROGRAM = (slurm_on_node, slurm_on_login_queue, slurm_on_login_jobs, slurm_on_login)
_START = """
import json, sys, types
asked = json.loads(sys.stdin.readline())
for name, text in asked.pop("program"):
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
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
        self._program = [
            (module.__name__, Path(module.__file__ or "").read_text(encoding="utf-8"))
            for module in _PROGRAM
        ]
        self._command = f"{shlex.quote(options.python)} -I -c {shlex.quote(_START)}"

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
            "program": self._program,
            "owner": self._owner,
            "folder": self._options.folder,
            "bin": self._options.bin,
            "timeout_s": self._options.answer_s,
            "settle_s": self._options.settle_s,
            "grows": GROWS,
            **asked,
        }
        text = json.dumps(request).encode() + b"\n"
        said = self._connection.run(self._command, text, self._options.answer_s * 2 + longer_s)
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
