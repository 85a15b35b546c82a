"""The process in which JAX stays warm: ``python -m temporal_fabric.flows.warm``.

Requests come on standard input, one JSON object a line: ``{"id", "op", "folder", "args"}`` with an
operation of `stepping.Durable`; the answer is ``{"id", "ok"}`` or ``{"id", "error"}``. They are
begun in their order, and one of them computes at a time; but while some write what they have
computed the next one computes, for most of a small step is waiting for the disk. One with
``"alone"`` has the process to itself.

``{"id", "op": "forget", "of"}`` is answered once the other request will never be done, or was; or
else, while that computes, with ``running``. When standard input ends, because the worker has ended
in whatever way, the process is gone at once: a step is a pure function of durable files, and
whoever asks again gets the same.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_fabric.errors import CapsuleError, RequestRejected

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import TextIOWrapper

    from temporal_fabric.flows.stepping import Durable

__all__ = ["main"]

_KILLED_FIRST = "300"
"""Under memory pressure the kernel takes this process before the worker."""


_THREADS = 4
"""One computes and the others write; more gained nothing, see ``docs/evidence/flows.md``."""

Request = dict[str, Any]


class _Inbox:
    """What is to be done, in order; read beside the work."""

    def __init__(self, answer: Callable[[Any], None]) -> None:
        self._answer = answer
        self._asked: list[Request] = []
        self._computes: Request | None = None
        self._write: list[Request] = []
        self._forget: list[Request] = []
        self._changed = threading.Condition()

    def read(self) -> None:
        """Take requests until there are no more, then leave the process."""
        for line in sys.stdin:
            asked: Request = json.loads(line)
            with self._changed:
                (self._forget if asked["op"] == "forget" else self._asked).append(asked)
                self._forgotten()
                self._changed.notify_all()
        os._exit(0)

    def next(self) -> Request:
        """Wait until a request may compute, and take it."""
        with self._changed:
            while (found := self._ready()) is None:
                self._changed.wait()
            self._asked.remove(found)
            self._computes = found
            return found

    def computed(self, asked: Request) -> None:
        """Say that a request only writes from here on."""
        with self._changed:
            if self._computes is asked:
                self._computes = None
                self._write.append(asked)
                self._changed.notify_all()

    def done(self, asked: Request) -> None:
        """Say that a request is not under way any more."""
        self.computed(asked)
        with self._changed:
            self._write.remove(asked)
            self._forgotten()
            self._changed.notify_all()

    def _ready(self) -> Request | None:
        """Return the first request that no other one is in the way of."""
        if self._computes is not None or any("alone" in one for one in self._write):
            return None
        busy = {one["folder"] for one in self._write}
        for asked in self._asked:
            if "alone" in asked:
                # Nobody overtakes it, or it might wait for ever.
                return None if busy else asked
            if asked["folder"] not in busy:
                return asked
        return None

    def _forgotten(self) -> None:
        """Answer who wants a request forgotten, unless that is being written."""
        for one in list(self._forget):
            if any(asked["id"] == one["of"] for asked in self._write):
                continue
            running = self._computes is not None and self._computes["id"] == one["of"]
            self._asked = [asked for asked in self._asked if asked["id"] != one["of"]]
            self._forget.remove(one)
            self._answer({"id": one["id"], "ok": {"running": running}})


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

    _bind(os.environ.get("FABRIC_FLOW_DEVICE"))
    runs = Durable()

    def work() -> None:
        try:
            while True:
                asked = inbox.next()
                done = _done(runs, asked, partial(inbox.computed, asked))
                inbox.done(asked)
                say(done)
        except BaseException:  # noqa: BLE001 - as of an operator that calls `exit`
            # A thread that ends alone would leave its request unanswered for ever.
            traceback.print_exc()
            os._exit(1)

    for _ in range(_THREADS - 1):
        threading.Thread(target=work, daemon=True).start()
    work()


def _bind(number: str | None) -> None:
    """Compute on one of several devices that cannot be hidden from JAX."""
    if number is not None:
        import jax  # noqa: PLC0415

        jax.config.update("jax_default_device", jax.local_devices()[int(number)])


def _speaker(answers: TextIOWrapper) -> Callable[[Any], None]:
    lock = threading.Lock()

    def say(answer: Any) -> None:
        with lock:
            answers.write(json.dumps(answer) + "\n")
            answers.flush()

    return say


def _done(runs: Durable, asked: Request, computed: Callable[[], None]) -> dict[str, Any]:
    try:
        found = getattr(runs, asked["op"])(Path(asked["folder"]), asked["args"], computed)
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
