"""The instants at which a death does the most harm, by name, so that a test can stop there.

Code calls `reach` where an effect has happened and its record has not, or the other way
round. That does nothing, unless this process was started with ``FABRIC_FAIL_POINTS`` naming a
folder: there a test arms one point, the first process to reach it waits, the test kills what
it likes and lets the rest go on. `temporal_fabric.testing.faults` is the other side.

The launcher imports this module, so it imports nothing outside the standard library.
"""

from __future__ import annotations

import os
import time
from enum import StrEnum
from pathlib import Path

FOLDER_ENV = "FABRIC_FAIL_POINTS"
_LONGEST_S = 60.0


class FailPoint(StrEnum):
    """Every such instant, in the order an experiment passes them."""

    ACQUIRE_PLACED = "acquire.placed"
    """A backend is chosen; the request has no record yet."""

    ACQUIRE_OPENED = "acquire.opened"
    """The record is open; no epoch is allocated."""

    ACQUIRE_ALLOCATED = "acquire.allocated"
    """The epoch is allocated; the workflow does not know it."""

    ATTEMPT_TAKEN = "attempt.taken"
    """The host has the attempt; its start is not claimed."""

    ATTEMPT_CLAIMED = "attempt.claimed"
    """The start is claimed; nothing is staged."""

    STAGING_HALF = "staging.half"
    """A piece of an input is here; more may follow, and nothing of it has a name."""

    STAGING_NAMED = "staging.named"
    """An input bears its name; it is not recorded as staged."""

    ATTEMPT_STAGED = "attempt.staged"
    """Everything is in place; the backend was asked for nothing."""

    LAUNCHER_INTENT = "launcher.intent"
    """The intent is durable; there is no process."""

    LAUNCHER_FORKED = "launcher.forked"
    """The process exists and waits; its record still says intent."""

    LAUNCHER_RECORDED = "launcher.recorded"
    """The record says running; the process still waits to be let go."""

    LAUNCHER_RELEASED = "launcher.released"
    """The payload runs; whoever asked for it has no answer."""

    ATTEMPT_SUBMITTED = "attempt.submitted"
    """The backend has answered; nothing is told yet."""

    ATTEMPT_RUNNING = "attempt.running"
    """The workflow was told that the payload runs."""

    RECORDER_READ = "recorder.read"
    """Lines of telemetry were read; they are in no segment."""

    RECORDER_SEALED = "recorder.sealed"
    """A segment is durable; the recorder does not count it yet."""

    LAUNCHER_ENDED = "launcher.ended"
    """The payload and its tree are gone; no record says so."""

    LAUNCHER_TOLD = "launcher.told"
    """The end is durable; nobody has heard of it."""

    FLOW_ASKED = "flow.asked"
    """A step of a flow is about to be asked for."""

    FLOW_ANSWERED = "flow.answered"
    """A step of a flow is durable; the workflow does not know it."""

    ATTEMPT_ENDED = "attempt.ended"
    """The supervisor knows the end; nothing is collected."""

    ATTEMPT_COLLECTED = "attempt.collected"
    """Outputs are hashed; the workflow does not know the result."""

    SEAL_TAKEN = "seal.taken"
    """The payload's end counts; its host is asked to seal, and nothing of that is done."""

    DELIVERY_HALF = "delivery.half"
    """All of an output but its last piece is on its way to its target."""

    DELIVERY_PREPARED = "delivery.prepared"
    """Every output lies beside its final place; the capsule is not written."""

    CAPSULE_WRITTEN = "capsule.written"
    """Every file of the capsule is in place but its manifest."""

    CAPSULE_SEALED = "capsule.sealed"
    """The manifest is in place; no outcome is recorded."""

    DELIVERY_NAMED = "delivery.named"
    """An output bears its final name; others may not, and no outcome is recorded."""

    SEAL_RECORDED = "seal.recorded"
    """The outcome is recorded; the host still keeps the attempt."""

    SEAL_FREED = "seal.freed"
    """The host has forgotten the attempt; the workflow does not know that it is sealed."""

    ABSENCE_ASKED = "absence.asked"
    """An end was asked for; the payload still runs."""

    ABSENCE_PROVEN = "absence.proven"
    """Nothing runs; the place is still held."""

    SETTLE_REVOKED = "settle.revoked"
    """The start of an attempt is revoked; that it has ended is not recorded."""

    LAB_INTENDED = "lab.intended"
    """That a command will go to the device is durable; the device has not heard of it."""

    LAB_SENT = "lab.sent"
    """The device performs the command; the UUID that it gave for it is not recorded."""

    LAB_RECORDED = "lab.recorded"
    """The device performs the command; its UUID is durable."""


_FOLDER = os.environ.get(FOLDER_ENV)


def reach(point: FailPoint) -> None:
    """Wait here while a test has armed this point; otherwise do nothing.

    The whole process waits, its event loop included: an instant does not last.
    """
    if _FOLDER is None:
        return
    folder = Path(_FOLDER)
    try:
        # Of all processes that come here one wins, and only once.
        (folder / f"{point}.armed").rename(folder / f"{point}.reached")
    except FileNotFoundError:
        return
    deadline = time.monotonic() + _LONGEST_S
    while not (folder / f"{point}.go").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
