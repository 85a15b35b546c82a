"""A worker whose backend asks a person: ``python -m temporal_fabric.testing.asking ARGS...``.

A program of this machine always has an end that somebody saw, so the local backend never asks.
A laboratory's does: whether an arm has moved after its controller fell silent, only a person
can say. Here a payload that exits with 75 stands for it, and is told of the answers as
``ANSWERS``.
"""

from __future__ import annotations

import runpy
from dataclasses import replace
from typing import TYPE_CHECKING

from temporal_fabric.adapters import registry
from temporal_fabric.adapters.local_process import LocalProcessAdapter
from temporal_fabric.states import Reason

if TYPE_CHECKING:
    from temporal_fabric.adapters.contract import AttemptSpec, JobHandle, JobStatus

UNKNOWN = 75
"""Exit code of a payload that does not know what it has done."""

QUESTION = "Step 3 was sent and never confirmed. Has the arm moved?"


class AskingAdapter(LocalProcessAdapter):
    """The local backend, for payloads that may not know what they have done."""

    async def submit(self, attempt: AttemptSpec) -> JobHandle:
        """See `Adapter.submit`."""
        answers = " ".join(word.answer for word in attempt.resolutions)
        return await super().submit(replace(attempt, env=attempt.env | {"ANSWERS": answers}))

    async def wait(self, handle: JobHandle, limit_s: float) -> JobStatus:
        """See `Adapter.wait`."""
        status = await super().wait(handle, limit_s)
        if status.exit_code != UNKNOWN:
            return status
        return replace(status, reason=Reason.LOST, message="step 3 is unknown", question=QUESTION)


def main() -> None:
    """Serve such backends and run the command line."""
    registry.build = AskingAdapter
    # By its name: this module lies below the command line, and only starts it.
    runpy.run_module("temporal_fabric.cli", run_name="__main__")


if __name__ == "__main__":
    main()
