"""A login node that does not answer as it should: sshd runs this instead of what was asked for.

``python slurm_fault.py VERB FAULT COUNTER``: calls of one verb, and of those that begin like it,
meet the fault; all others and the moving of files go on as they are. It stands on the standard
library alone, because it runs as the site's user. The fault is a value of
`temporal_fabric.testing.bench.Fault`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_SFTP = "/usr/lib/openssh/sftp-server"
_LATE_S = 1.0


def main(verb: str, fault: str, counter: Path) -> None:
    """Answer one session, and its first request alone."""
    wanted = os.environ["SSH_ORIGINAL_COMMAND"]
    if "sftp" in wanted.split(maxsplit=1)[0]:
        os.execv(_SFTP, [_SFTP])  # noqa: S606 - it takes over the session
    program, line = sys.stdin.buffer.readline(), sys.stdin.buffer.readline()
    met = json.loads(line)["verb"].startswith(verb)
    if met and fault == "lost_request":
        _cut()
    argv = ["/bin/bash", "-c", wanted]
    answer = subprocess.run(argv, input=program + line, stdout=subprocess.PIPE, check=False).stdout
    if met and fault == "lost_reply":
        _cut()
    if met and fault == "late_reply":
        time.sleep(_LATE_S)
    if met and fault == "garbage":
        turn = int(counter.read_text()) if counter.exists() else 0
        counter.write_text(str(turn + 1))
        answer = garbled(answer, turn)
    sys.stdout.buffer.write(answer)
    sys.stdout.flush()


def garbled(answer: bytes, turn: int) -> bytes:
    """Return no answer: noise, half a line, or what has the form of one and no meaning."""
    mark, _, text = answer.strip().partition(b" ")
    number = json.loads(text)["turn"]
    name = "fab-another"
    absent = {"claim": "", "id": "", "exit": None, "known": False}
    shapes: tuple[object, ...] = (
        {"turn": number, "ok": {"state": "perhaps"}},
        {"turn": number, "ok": None},
        {"turn": number, "ok": {name: absent}},
        {"turn": number, "trouble": "no", "kind": "transient"},
        {"turn": number},
        [number],
    )
    lines = (b"\x00\xff\n", answer[: len(answer) // 2] + b"\n")
    said = [mark + b" " + json.dumps(shape).encode() + b"\n" for shape in shapes]
    return (*lines, *said)[turn % 8]


def _cut() -> None:
    """End the connection: what runs this session is sshd's own process for it."""
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
