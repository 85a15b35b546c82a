"""Carry the steps of an experiment out on a device: each at most once, whoever dies.

Whoever drives a run holds its journal; when they die the device ends the command that it
performs, nobody sends the next one, and whoever comes next goes on from what the journal says
and the device answers. When a step fails, the steps before it are undone, newest first.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters import lab_journal as journals
from temporal_fabric.adapters.sila_device import (
    CommandFailed,
    ExecutionForgotten,
    NotPerformed,
    Outcome,
)
from temporal_fabric.adapters.sila_fitting import shown, unfit, values
from temporal_fabric.errors import PermanentBackendError, TransientBackendError
from temporal_fabric.failpoints import FailPoint, reach
from temporal_fabric.states import Reason

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from temporal_fabric.adapters.lab_journal import Issued, Journal, Standing
    from temporal_fabric.adapters.lab_protocol import Protocol
    from temporal_fabric.adapters.sila_device import Execution, SilaDevice
    from temporal_fabric.requests.engines import LabCommand, LabPayload, LabStep

_LOOK_S = 0.5
"""How often the device is asked how its command stands, beside what it tells by itself."""

_BUSY_S = 1.0
_HALT_S = 10.0
_STOPPED = "it was stopped by the fabric"


class Unproven(TransientBackendError):
    """The device goes on with a command that was to be stopped."""


@dataclass(frozen=True, slots=True)
class _Next:
    """A command that is to be sent, or is being performed."""

    step: LabStep
    asked: LabCommand
    place: int
    undoes: bool

    @property
    def call(self) -> str:
        """The command as a call, for people."""
        given = ", ".join(f"{key}={shown(value)}" for key, value in self.asked.parameters.items())
        return f"{self.asked.feature}.{self.asked.command}({given})"

    @property
    def name(self) -> str:
        """What it is, for people."""
        command = f"{self.asked.feature}.{self.asked.command}"
        what = f"{command}, which undoes step" if self.undoes else f"{command} of step"
        return f"{what} {self.place} `{self.step.command_id}`"


class LabRun:
    """One attempt's run, driven by whoever holds its journal.

    Args:
        journal: Of the experiment, at the attempt's epoch.
        device: What performs it.
        protocol: What people read of it.
    """

    def __init__(self, journal: Journal, device: SilaDevice, protocol: Protocol) -> None:
        self._journal, self._device, self._protocol = journal, device, protocol
        self._stopping = False

    async def drive(self, *, once: bool = False) -> None:
        """Go on until the run has ended; where somebody wants its end, bring that about.

        An end that is wanted is: the present command, then what was done is undone. Without a
        grace the device is halted at once and nothing is undone: nothing moves any more.

        Args:
            once: Return as soon as the device performs a command; as it does where the run is to
                stand still and the device performs none.

        Raises:
            TransientBackendError: the device cannot be asked now, or goes on with a command
                that was to be stopped.
        """
        while True:
            standing = await self._read()
            attempt = standing.attempts[self._journal.epoch]
            if attempt.stop_s is not None:
                await self._stop(attempt.stop_s)
                return
            if attempt.end is not None or attempt.plan is None:
                return
            if standing.open is not None:
                if once and standing.open.uuid:
                    return
                await self._settle(standing, attempt.plan, standing.open)
            elif standing.unknown is not None:
                await self._ask(attempt.plan, standing.unknown)
            elif attempt.pauses.wanted:
                return
            elif standing.turned is not None:
                await self._undo(standing, attempt.plan)
            else:
                await self._advance(standing, attempt.plan)

    async def _stop(self, grace_s: float) -> None:
        """End the run; ``grace_s`` is what the present command has before the device is halted."""
        standing = await self._read()
        attempt = standing.attempts[self._journal.epoch]
        self._stopping, plan = True, attempt.plan
        if attempt.end is not None:
            return
        if plan is None:
            await self._end(Reason.LOST, "the attempt was forbidden before it started")
            return
        if stoppable(standing, self._journal.epoch, grace_s) and standing.open is not None:
            await self._stop_command(standing.open, plan, grace_s)
            standing = await self._read()
        if grace_s and self._undoing(standing):
            if standing.turned is None:
                await self._turn(Reason.SIGNAL, _STOPPED)
            while self._undoing(standing):
                await self._one_back(plan)
                standing = await self._read()
        if standing.attempts[self._journal.epoch].halted:
            await self._ask_after_halt(standing, plan)
        elif standing.unknown is not None:
            text = f"nobody knows whether {self._named(plan, standing.unknown).name} was performed"
            await self._end(Reason.LOST, f"{text}: look at the device before you use it again")
        elif standing.attempts[self._journal.epoch].end is None:
            await self._end(Reason.SIGNAL, f"{_STOPPED}, at once: nothing was undone")

    def _undoing(self, standing: Standing) -> bool:
        """Return whether what was done is still to be undone: nobody is needed, and may be."""
        attempt = standing.attempts[self._journal.epoch]
        return standing.unknown is None and attempt.end is None and not attempt.halted

    async def _one_back(self, plan: LabPayload) -> None:
        standing = await self._read()
        if standing.open is not None:
            await self._settle(standing, plan, standing.open)
        else:
            await self._undo(standing, plan)

    async def _advance(self, standing: Standing, plan: LabPayload) -> None:
        step = standing.next(plan)
        if step is None:
            await asyncio.to_thread(self._protocol.keep_responses, standing, plan)
            await self._end("", "", 0)
            return
        if _left(standing, self._journal.epoch) <= 0:
            await self._turn(Reason.TIMEOUT, "the wall limit was reached")
            return
        await self._perform(_Next(step, step, plan.steps.index(step) + 1, undoes=False))

    async def _undo(self, standing: Standing, plan: LabPayload) -> None:
        turned, back = standing.turned or {}, standing.undo(plan)
        if back is None or turned.get("stuck"):
            await self._end(turned["reason"], turned["message"], turned["code"])
            return
        step, asked = back
        await self._perform(_Next(step, asked, plan.steps.index(step) + 1, undoes=True))

    async def _perform(self, now: _Next) -> None:
        """Check a command again, and hand it to the device."""
        client = await self._device.client()
        wrong = await unfit(now.asked, client, f"/payload/lab/steps/{now.place - 1}")
        if wrong:
            told = "; ".join(shortfall.reason for shortfall in wrong)
            await self._failed(now, f"the device cannot do it any more: {told}")
            return
        await _whole(self._send(now))

    async def _send(self, now: _Next) -> None:
        """Send a command: whether it was sent is durable on both sides, or unknown."""
        command = await self._device.command(now.asked.feature, now.asked.command)
        given = values(now.asked, command)
        await self._device.lock()
        if not self._stopping and await self._unwanted():
            return
        await self._note(journals.INTENDED, now, command=now.call)
        reach(FailPoint.LAB_INTENDED)
        try:
            answer = await self._device.send(command, given)
        except NotPerformed:
            await self._note(journals.REFUSED, now)
            await asyncio.sleep(_BUSY_S)
            raise
        except CommandFailed as exc:
            await self._failed(now, str(exc))
        except TransientBackendError as exc:
            await self._note(journals.UNKNOWN, now, says=str(exc))
        else:
            reach(FailPoint.LAB_SENT)
            if isinstance(answer, Outcome):
                await self._note(journals.DONE, now, responses=answer.responses)
            else:
                await self._note(journals.SENT, now, uuid=answer)
                reach(FailPoint.LAB_RECORDED)

    async def _unwanted(self) -> bool:
        attempt = (await self._read()).attempts[self._journal.epoch]
        return attempt.stop_s is not None or attempt.pauses.wanted

    async def _settle(self, standing: Standing, plan: LabPayload, issued: Issued) -> None:
        """Follow a command to its end, or until somebody wants the end of the run."""
        now = self._named(plan, issued)
        if not issued.uuid:
            says = "whoever sent it died before the device's answer was recorded"
            await self._note(journals.UNKNOWN, now, says=says)
            return
        command = await self._device.command(now.asked.feature, now.asked.command)
        tell = self._protocol.teller(plan, now.place, now.step.command_id)
        async with self._device.following(command, issued.uuid, tell) as execution:
            while not await self._ended(now, execution):
                epoch = self._journal.epoch
                standing = await self._read()
                if standing.attempts[epoch].stop_s is not None and not self._stopping:
                    return
                left = math.inf if now.undoes else _left(standing, epoch)
                limit = (now.step.timeout or math.inf) if not now.undoes else math.inf
                stood_s = standing.attempts[epoch].pauses.seconds(issued.since)
                overdue = issued.since + stood_s + limit - time.time()
                if standing.turned is None and min(left, overdue) <= 0:
                    which = "the wall limit" if left <= 0 else f"the limit of step {now.place}"
                    await self._turn(Reason.TIMEOUT, f"{which} was reached in {now.name}")
                    grace_s = standing.attempts[epoch].grace_s
                    await self._halted(now, issued, execution, grace_s)
                    return
                await execution.pause(min(_LOOK_S, left, overdue))

    async def _ended(self, now: _Next, execution: Execution, *, stopping: bool = False) -> bool:
        """Look whether a command has ended, and note how."""
        try:
            outcome = await execution.look()
        except CommandFailed as exc:
            standing = await self._read()
            turned = standing.turned is not None
            if standing.attempts[self._journal.epoch].halted:
                await self._note(journals.UNKNOWN, now, says=f"the device was halted: {exc}")
            elif stopping or (turned and not now.undoes):
                await self._note(journals.STOPPED, now, says=str(exc))
            else:
                await self._failed(now, str(exc))
            return True
        except ExecutionForgotten as exc:
            await self._note(journals.UNKNOWN, now, says=str(exc))
            return True
        if outcome is None:
            return False
        await self._note(journals.DONE, now, responses=outcome.responses)
        return True

    async def _stop_command(self, issued: Issued, plan: LabPayload, grace_s: float) -> None:
        now = self._named(plan, issued)
        if not issued.uuid:
            await self._device.halt()
            await self._note(journals.UNKNOWN, now, says="it was interrupted before its answer")
            return
        command = await self._device.command(now.asked.feature, now.asked.command)
        async with self._device.following(command, issued.uuid, lambda _: None) as execution:
            await self._halted(now, issued, execution, grace_s)

    async def _halted(
        self, now: _Next, issued: Issued, execution: Execution, grace_s: float
    ) -> None:
        """Return when the device has ended a command: cancel, grace, halt, proof."""
        cancelled = await self._device.cancel(issued.uuid)
        if await self._within(grace_s, now, execution):
            return
        halted = await self._device.halt()
        if (cancelled or halted) and await self._within(_HALT_S, now, execution):
            return
        raise Unproven(f"the device goes on with {now.name}, and has no command that stops it")

    async def _within(self, limit_s: float, now: _Next, execution: Execution) -> bool:
        deadline = time.monotonic() + limit_s
        while not await self._ended(now, execution, stopping=True):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            await execution.pause(min(_LOOK_S, left))
        return True

    async def _failed(self, now: _Next, says: str) -> None:
        """Note that a command failed; what was done before is undone then."""
        await self._note(journals.FAILED, now, says=says)
        if not now.undoes:
            await self._turn("", f"{now.name} failed: {says}", now.place)
            return
        turned = (await self._read()).turned or {}
        message = f"{turned.get('message', '')}; then {now.name} failed: {says}"
        await self._turn(turned["reason"], message, turned["code"], stuck=True)

    async def _ask(self, plan: LabPayload, issued: Issued) -> None:
        """End the attempt with what only a person can say."""
        now = self._named(plan, issued)
        question = (
            f"Was {now.name} performed on {self._device.options.device}? It may have been sent, "
            "and no answer of the device is known. Look at the device, and say what is so."
        )
        text = f"it is not known whether {now.name} was performed"
        await self._end(Reason.LOST, text, question=question)

    async def _ask_after_halt(self, standing: Standing, plan: LabPayload) -> None:
        """End the attempt with the question how it stands with the device, which was halted."""
        if standing.attempts[self._journal.epoch].end is not None:
            return
        device = self._device.options.device
        if standing.unknown is None:
            text = f"{device} was halted between two steps"
            said = "every step that was begun has ended, and nothing was undone. May the run go on?"
        else:
            name = self._named(plan, standing.unknown).name
            text = f"{device} was halted in {name}"
            said = "nothing was undone. Has it been performed to its end?"
        question = f"{text}; {said} Look at the device first."
        await self._end(Reason.LOST, text, question=question)

    def _named(self, plan: LabPayload, issued: Issued) -> _Next:
        for place, step in enumerate(plan.steps, 1):
            asked = step.compensate if issued.undoes else step
            if step.command_id == issued.step and asked is not None:
                return _Next(step, asked, place, issued.undoes)
        raise PermanentBackendError(f"the request has no step {issued.step!r} any more")

    async def _note(self, what: str, now: _Next, **more: Any) -> None:
        step, undoes = now.step.command_id, now.undoes
        await asyncio.to_thread(self._journal.command, what, step, undoes=undoes, **more)
        await self._show()

    async def _turn(
        self, reason: str, message: str, code: int | None = None, *, stuck: bool = False
    ) -> None:
        more = {"reason": reason, "message": message, "code": code, "stuck": stuck}
        await asyncio.to_thread(self._journal.append, "turned", **more)
        await self._show()

    async def _end(
        self, reason: str, message: str, code: int | None = None, question: str = ""
    ) -> None:
        await asyncio.to_thread(self._journal.end, reason, message, code, question)
        await self._show()

    async def _read(self) -> Standing:
        return await asyncio.to_thread(self._journal.read)

    async def _show(self) -> None:
        await asyncio.to_thread(lambda: self._protocol.show(self._journal.read()))


def stoppable(standing: Standing, epoch: int, grace_s: float) -> bool:
    """Return whether the device performs a command that the end of an attempt has to stop."""
    found = standing.open
    return found is not None and found.epoch <= epoch and not (found.undoes and grace_s)


def _left(standing: Standing, epoch: int) -> float:
    """Return the seconds until the wall limit of an attempt."""
    attempt = standing.attempts[epoch]
    if attempt.wall_s is None or attempt.started_at is None:
        return math.inf
    stood_s = attempt.pauses.seconds(attempt.started_at)
    return attempt.started_at + stood_s + attempt.wall_s - time.time()


async def _whole(work: Coroutine[Any, Any, None]) -> None:
    """Let some work come to its end also where whoever waits for it gives up."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise
