"""The process in which JAX stays warm: ``python -m temporal_fabric.flows.warm``.

It does one request after the other, as they come on standard input, one JSON object a line:
``{"id", "op", "folder", "args"}`` with an operation of `stepping.Durable`; the answer is
``{"id", "ok"}`` or ``{"id", "error"}``. ``{"id", "op": "forget", "of"}`` is answered at once, and
says whether the other request will never be done or is under way. When standard input ends,
because the worker has ended in whatever way, the process is gone at once: a step is a pure
function of durable files, and whoever asks again gets the same.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_fabric.errors import CapsuleError, RequestRejected

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from io import TextIOWrapper

__all__ = ["main"]

_KILLED_FIRST = "300"
"""Under memory pressure the kernel takes this process before the worker."""


class _Inbox:
    """What is to be done, in order; read beside the work."""

    def __init__(self, answer: Callable[[Any], None]) -> None:
        self._answer = answer
        self._asked: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._forgotten: set[int] = set()
        self._current = 0

    def read(self) -> None:
        """Take requests until there are no more, then leave the process."""
        for line in sys.stdin:
            asked: dict[str, Any] = json.loads(line)
            if asked["op"] == "forget":
                self._forget(asked)
            else:
                self._asked.put(asked)
        os._exit(0)

    def next(self) -> dict[str, Any]:
        """Wait for a request that is still wanted."""
        while True:
            asked = self._asked.get()
            with self._lock:
                if asked["id"] not in self._forgotten:
                    self._current = asked["id"]
                    return asked
                self._forgotten.discard(asked["id"])

    def done(self) -> None:
        """Say that nothing is under way."""
        with self._lock:
            self._current = 0

    def _forget(self, asked: Mapping[str, Any]) -> None:
        with self._lock:
            running = asked["of"] == self._current
            if not running:
                self._forgotten.add(asked["of"])
        self._answer({"id": asked["id"], "ok": {"running": running}})


def main() -> None:
    """Serve until standard input ends."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_KILLED_FIRST)
    answers = os.fdopen(os.dup(1), "w")
    # What a library prints must not stand among the answers.
    os.dup2(2, 1)
    say = _speaker(answers)
    inbox = _Inbox(say)
    threading.Thread(target=inbox.read, daemon=True).start()
    # JAX is loaded beside the first requests, which wait in the inbox.
    from temporal_fabric.flows.stepping import Durable  # noqa: PLC0415

    runs = Durable()
    while True:
        asked = inbox.next()
        done = _done(runs, asked)
        inbox.done()
        say(done)


def _speaker(answers: TextIOWrapper) -> Callable[[Any], None]:
    lock = threading.Lock()

    def say(answer: Any) -> None:
        with lock:
            answers.write(json.dumps(answer) + "\n")
            answers.flush()

    return say


def _done(runs: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
    try:
        found = getattr(runs, asked["op"])(Path(asked["folder"]), asked["args"])
    except RequestRejected as exc:
        problems = [[one.code, one.path, one.message] for one in exc.problems]
        return {"id": asked["id"], "error": {"kind": "rejected", "problems": problems}}
    except Exception as exc:  # noqa: BLE001 - told to whoever asked
        kind = "transient" if isinstance(exc, OSError) else "permanent"
        text = str(exc) if isinstance(exc, CapsuleError) else f"{type(exc).__name__}: {exc}"
        return {"id": asked["id"], "error": {"kind": kind, "message": text}}
    return {"id": asked["id"], "ok": found}


if __name__ == "__main__":
    main()
