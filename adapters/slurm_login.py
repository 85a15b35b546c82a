"""Calls to the login node: each sends the whole program and one request, and gets one answer.

So nothing has to be installed there, and fabrics of several versions share a site in peace. The
command line is constant; what a request says travels on standard input.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters import slurm_on_login, slurm_on_login_jobs
from temporal_fabric.adapters.slurm_on_login import MARK
from temporal_fabric.adapters.slurm_on_login_jobs import PREFIX
from temporal_fabric.errors import BackendUnknown, PermanentBackendError, TransientBackendError
from temporal_fabric.shapes import is_table

if TYPE_CHECKING:
    from temporal_fabric.adapters.contract import AttemptKey
    from temporal_fabric.adapters.slurm_options import SlurmOptions
    from temporal_fabric.adapters.ssh_connection import Said, SshConnection

GROWS = ("stdout.log", "stderr.log", "telemetry.jsonl", "error.txt")
"""Files of an attempt that are carried over while its payload runs."""

_PROGRAM = (slurm_on_login_jobs, slurm_on_login)
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
    """The program on the login node, as seen from here. Blocking.

    Args:
        options: Of the backend.
        connection: To the login node.
        owner: Whose attempts are meant: fabrics that share a login have folders of their own.
    """

    def __init__(self, options: SlurmOptions, connection: SshConnection, owner: str) -> None:
        self._options, self._connection, self._owner = options, connection, owner
        self._program = [
            (module.__name__, Path(module.__file__ or "").read_text(encoding="utf-8"))
            for module in _PROGRAM
        ]
        self._command = f"{shlex.quote(options.python)} -I -c {shlex.quote(_START)}"

    def job_name(self, key: AttemptKey) -> str:
        """Return the name of an attempt's job: the same one always, and no other attempt's."""
        digest = hashlib.sha256(f"{self._owner}\n{key}".encode()).hexdigest()
        return f"{PREFIX}{digest[:24]}"

    def ask(self, verb: str, *, longer_s: float = 0.0, **asked: Any) -> Any:
        """Do one thing there and return the answer.

        Args:
            verb: What is done; a ``do_...`` of the program.
            longer_s: How much longer it may take than Slurm's commands do.
            asked: What the verb needs.

        Raises:
            PermanentBackendError: Slurm refuses it for good.
            TransientBackendError: it did not work now; `BackendUnknown` where nobody knows.
        """
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
        told = self._read(said, turn)
        if told.get("kind") == "permanent":
            raise PermanentBackendError(f"{told['trouble']} [host={self._options.target}]")
        if "ok" not in told:
            raise BackendUnknown(f"{told.get('trouble')} [host={self._options.target}]")
        return told["ok"]

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
                f"the login node has no fit Python [host={self._options.target}, "
                f"python={self._options.python}]: {words}; set the option 'python' to a Python "
                "3.8 or newer of the cluster"
            )
        raise BackendUnknown(
            f"the login node gave no answer [host={self._options.target}, exit={said.code}]: "
            f"{words or 'it said nothing'}"
        )
