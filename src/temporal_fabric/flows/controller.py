"""The controller: RED, AMBER, GREEN, four phases, and every gate between them.

A pure state machine, (state, report) -> (state, commands), of the standard library alone: the run
in a process, the workflow and the property tests drive the same code. It asks one question at a
time, the last of its commands; `reports` answers it.

RED: the specification is not valid, or a certificate closed for good. AMBER: valid, not
certified. GREEN: certified; only here lambda may move. Phase 0 lints, 1 looks for a certified
start, 2 runs under guard, 3 polishes. What is not proved is not GREEN: a missing certificate,
a broken executor and a used-up attempt all end the run.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from temporal_fabric.flows.certificates.decision import Colour
from temporal_fabric.flows.commands import (
    Advance,
    Certify,
    Command,
    Finish,
    Lint,
    Outcome,
    Polish,
    Question,
    Record,
    Restore,
    Save,
    Try,
)
from temporal_fabric.flows.controller_state import ControllerState, Policy
from temporal_fabric.flows.remedies import chosen, remedy
from temporal_fabric.flows.reports import (
    Advanced,
    Begin,
    Broke,
    Certified,
    Gate,
    Linted,
    Polished,
    Report,
    Stop,
    Tried,
)
from temporal_fabric.flows.run_events import RunEvent
from temporal_fabric.flows.tuner import learn, propose
from temporal_fabric.states import Reason

__all__ = ["ControllerState", "OutOfTurn", "Policy", "advance"]


class OutOfTurn(ValueError):
    """A report answers no question that was asked, or the run is over."""


Answer = tuple[ControllerState, tuple[Command, ...]]


def advance(policy: Policy, state: ControllerState, report: Report) -> Answer:
    """Return the state after a report, and what to do now.

    Args:
        policy: Of the run.
        state: Before the report.
        report: The answer to ``state.asked``; `Stop` and `Broke` at any time.

    Raises:
        OutOfTurn: The report is not the one that is waited for.
    """
    if state.finished is not None:
        raise OutOfTurn(f"the run is over [report={type(report).__name__}]")
    turn = _Turn(policy, state)
    if isinstance(report, Stop):
        turn.state = replace(state, stop=state.stop or report.why)
        return turn.state, ()
    if isinstance(report, Broke):
        turn.red(Reason.INTERNAL, report.message)
    elif isinstance(report, Begin) and state.asked is None:
        turn.begin()
    elif type(report) is _ANSWERS.get(type(state.asked)):
        turn.take(report)
    else:
        asked = type(state.asked).__name__ if state.asked else "nothing"
        raise OutOfTurn(f"an answer to no question [report={type(report).__name__}, asked={asked}]")
    return turn.answer()


_ANSWERS: dict[type, type] = {
    Lint: Linted,
    Certify: Certified,
    Advance: Advanced,
    Try: Tried,
    Polish: Polished,
}


@dataclass
class _Turn:
    """One transition while it is made: the state so far, and the commands so far."""

    policy: Policy
    state: ControllerState
    commands: list[Command] = field(default_factory=list[Command])

    def answer(self) -> Answer:
        """Return the transition, its last command being its question or its finish.

        A save comes directly before it: who goes on from there has only that left to do.
        """
        *before, last = self.commands
        kept = [one for one in before if not isinstance(one, Save)]
        saves = [Save()] if len(kept) < len(before) else []
        return self.state, (*kept, *saves, last)

    def take(self, report: Report) -> None:
        """Take the answer to the question that was asked."""
        if not isinstance(report, Linted | Begin | Stop | Broke):
            self._set(elapsed_s=report.elapsed_s)
        if isinstance(report, Linted):
            self.linted(report)
        elif isinstance(report, Certified):
            self.certified(report)
        elif isinstance(report, Advanced):
            self.advanced(report)
        elif isinstance(report, Tried):
            self.tried(report)
        elif isinstance(report, Polished):
            self.polished(report)

    def begin(self) -> None:
        """Phase 0."""
        self._record(RunEvent.RUN_STARTED)
        self._ask(Lint())

    def linted(self, report: Linted) -> None:
        """Phase 0 to 1, RED to AMBER."""
        if report.problems:
            self._record(RunEvent.SPEC_LINT_FAIL, problems=list(report.problems))
            self.red(Reason.REFUSED, "; ".join(report.problems), told=True)
            return
        settings, lenses = chosen(report)
        self._set(colour=Colour.AMBER, phase=1, settings=settings, lenses=lenses)
        self._record(
            RunEvent.LENS_SELECTED, lens=settings.lens or report.lens, probes=dict(report.probes)
        )
        self._record(RunEvent.FLOW_POLICY_APPLIED, family=report.family)
        if not self._stopped():
            self._ask(Certify(self.state.settings))

    def certified(self, report: Certified) -> None:
        """The feasibility gate: on to the descent check, to a remedy, or to RED."""
        if self._stopped() or self._out_of_time():
            return
        if report.gate.opens:
            self._record(RunEvent.CERT_PASS, stage="before", **report.gate.as_json())
            self._ask(Advance(self.state.settings, self._iterations(self.policy.warm_up)))
            return
        self._record(RunEvent.CERT_FAIL, stage="before", **report.gate.as_json())
        self._remedy(report.gate)

    def advanced(self, report: Advanced) -> None:
        """A chunk in AMBER is the descent check; in GREEN it is the run."""
        if not report.gate.opens:
            self._record(RunEvent.CERT_FAIL, stage="during", **report.gate.as_json())
            if self.state.colour is Colour.GREEN:
                self._roll_back(report.gate)
            elif not self._stopped() and not self._out_of_time():
                self._shorten(report.gate)
            return
        if self.state.colour is Colour.AMBER:
            self._record(RunEvent.CERT_PASS, stage="during", **report.gate.as_json())
            self._set(colour=Colour.GREEN, phase=2)
        level = report.level
        if level is not None and (self.state.level is None or level > self.state.level):
            self._record(RunEvent.SCALE_ACTIVATED, level=level)
        self._set(
            iteration=report.iteration,
            level=level,
            exit=report.exit,
            chunks=self.state.chunks + 1,
            untried=self.state.untried + 1,
        )
        self._go_on()

    def tried(self, report: Tried) -> None:
        """The tuner's commit gate."""
        asked, policy = self.state.asked, self.policy.tuner
        if not isinstance(asked, Try) or policy is None:  # pragma: no cover - `_ANSWERS` has it
            raise OutOfTurn("no move was tried")
        score, baseline = report.score, report.baseline
        certified = report.before.opens and report.during.opens
        gained = score is not None and baseline is not None and score < baseline
        self._set(tuner=learn(policy, self.state.tuner, gained=certified and gained), untried=0)
        if certified and gained:
            self._set(settings=asked.settings, iteration=report.iteration, exit=None)
            self._set(chunks=self.state.chunks + 1)
            self._go_on()
            return
        why = "no gain"
        if not certified:
            gate = report.during if report.before.opens else report.before
            why = ", ".join(one.name for one in gate.failing) or "not certified"
            self._record(RunEvent.CERT_FAIL, stage="move", **gate.as_json())
            if not self._count_rollback(why):
                return
        self.commands.append(Restore())
        moved = {"lambdas": list(asked.settings.lambdas), "why": why}
        self._record(RunEvent.TUNER_MOVE_REJECTED, score=score, baseline=baseline, **moved)
        self._go_on()

    def polished(self, report: Polished) -> None:
        """Phase 3 keeps what fell and stayed certified, else what was there before."""
        if report.kept and report.gate.opens:
            self._set(iteration=report.iteration, exit=report.exit)
            self._save()
        elif not report.gate.opens:
            self._record(RunEvent.CERT_FAIL, stage="polish", **report.gate.as_json())
            self.commands.append(Restore())
            self._record(RunEvent.ROLLBACK, why="polish")
        self._end()

    def red(self, reason: str, message: str, *, told: bool = False) -> None:
        """Fail closed.

        Args:
            reason: A reason token.
            message: For a person.
            told: Whether what failed has its own event already.
        """
        if not told and reason == Reason.CERT_FAIL:
            self._record(RunEvent.CERT_FAIL, message=message)
        self._set(colour=Colour.RED)
        self._finish(Outcome.FAILED, reason, message)

    def _go_on(self) -> None:
        """Decide in GREEN what comes after steps that held."""
        if self.state.stop or self._late():
            self._save()
            _ = self._stopped() or self._out_of_time()
            return
        done = self.state.exit is not None and self.state.exit.opens
        used_up = self.state.iteration >= self.policy.max_iterations
        if not used_up and self._tries(done=done):
            return
        if done or used_up:
            self._last_steps()
            return
        if self.state.chunks >= self.policy.save_every or self.state.saved is None:
            self._save()
        self._ask(Advance(self.state.settings, self._iterations(self.policy.chunk)))

    def _tries(self, *, done: bool) -> bool:
        """Ask for a trial where one is due; a converged run is tuned before it ends."""
        policy, state = self.policy.tuner, self.state
        if policy is None or not state.tuning or (state.untried < policy.every and not done):
            return False
        move = propose(policy, state.tuner, state.settings)
        if move is None:
            self._set(tuning=False)
            if state.tuner.trials >= policy.trials:
                self._record(RunEvent.TIMEOUT, budget="trials", limit=policy.trials)
            return False
        tuner, settings = move
        self._set(tuner=tuner)
        self._save()
        self._record(RunEvent.TUNER_MOVE_TRY, lambdas=list(settings.lambdas))
        self._ask(Try(settings, policy.validation))
        return True

    def _last_steps(self) -> None:
        self._save()
        if self.policy.polish:
            self._set(phase=3)
            self._ask(Polish(self.state.settings, self.policy.polish))
        else:
            self._end()

    def _end(self) -> None:
        """Claim what the exit checks allow, or nothing."""
        gate = self.state.exit
        if gate is not None and gate.opens:
            self._record(RunEvent.CERT_PASS, stage="exit", **gate.as_json())
            self._finish(Outcome.SUCCEEDED)
            return
        failing = [one.sentence or one.name for one in gate.failing] if gate else []
        self._record(RunEvent.CERT_FAIL, stage="exit", **(gate.as_json() if gate else {}))
        missed = "; ".join(failing) or "the exit checks were not made"
        self._finish(Outcome.FAILED, Reason.CERT_FAIL, f"an exit check is missed: {missed}")

    def _remedy(self, gate: Gate) -> None:
        attempt, attempts = self.state.attempts + 1, self.policy.attempts
        allowed, old = self.policy.allowed, self.state.settings
        allowed = replace(allowed, lenses=self.state.lenses or allowed.lenses)
        changed = None
        if attempt <= attempts:
            changed = remedy(gate, old, allowed, attempt=attempt, attempts=attempts)
        if changed is None:
            why = "; ".join(one.sentence or one.name for one in gate.failing)
            missing = ", ".join(gate.missing)
            message = why or f"not looked at: {missing}"
            self.red(Reason.CERT_FAIL, message, told=True)
            return
        if changed.lens != old.lens:
            self._record(RunEvent.LENS_SELECTED, lens=changed.lens, changes_energy=True)
        self._set(attempts=attempt, settings=changed)
        self._ask(Certify(changed))

    def _shorten(self, gate: Gate) -> None:
        """The descent check failed: start again with half the step, or give up."""
        if self.state.attempts >= self.policy.attempts or gate.missing:
            self.red(Reason.CERT_FAIL, _sentences(gate), told=True)
            return
        settings = replace(self.state.settings, halvings=self.state.settings.halvings + 1)
        self._set(attempts=self.state.attempts + 1, settings=settings)
        self.commands.append(Restore(start=True))
        self._ask(Certify(settings))

    def _roll_back(self, gate: Gate) -> None:
        """Certified steps regressed: undo the last move, or halve the step where none was made."""
        saved = self.state.saved
        if saved is None or not self._count_rollback(_sentences(gate)):
            if saved is None:
                self.red(Reason.CERT_FAIL, _sentences(gate), told=True)
            return
        self.commands.append(Restore())
        settings = saved
        if self.state.settings != saved:
            moved = list(self.state.settings.lambdas)
            self._record(RunEvent.TUNER_MOVE_REJECTED, lambdas=moved, why="regressed later")
        else:
            settings = replace(saved, halvings=saved.halvings + 1)
        self._set(settings=settings, iteration=self.state.saved_at, chunks=0, exit=None)
        if not self._stopped() and not self._out_of_time():
            self._ask(Advance(settings, self._iterations(self.policy.chunk)))

    def _count_rollback(self, why: str) -> bool:
        if self.state.rollbacks >= self.policy.max_rollbacks:
            self.red(Reason.CERT_FAIL, f"no rollback is left: {why}", told=True)
            return False
        self._set(rollbacks=self.state.rollbacks + 1)
        self._record(RunEvent.ROLLBACK, number=self.state.rollbacks, why=why)
        return True

    def _save(self) -> None:
        self.commands.append(Save())
        self._set(saved=self.state.settings, saved_at=self.state.iteration, chunks=0)

    def _stopped(self) -> bool:
        if self.state.stop:
            self._record(RunEvent.CANCELLED, why=self.state.stop)
            self._finish(Outcome.CANCELED, message=self.state.stop)
        return bool(self.state.stop)

    def _late(self) -> bool:
        return self.policy.wall_s is not None and self.state.elapsed_s >= self.policy.wall_s

    def _out_of_time(self) -> bool:
        """The budget of wall time: a run that has come to its own end by then still counts."""
        if not self._late():
            return False
        gate = self.state.exit
        ended = self.state.iteration >= self.policy.max_iterations and not self.policy.polish
        if self.state.colour is Colour.GREEN and (ended or (gate is not None and gate.opens)):
            self._end()
            return True
        self._record(RunEvent.TIMEOUT, budget="wall_s", limit=self.policy.wall_s)
        message = f"the budget of {self.policy.wall_s} s is used up"
        self._finish(Outcome.FAILED, Reason.TIMEOUT, message)
        return True

    def _iterations(self, wanted: int) -> int:
        left = self.policy.max_iterations - self.state.iteration
        return max(1, min(wanted, left))

    def _record(self, event: RunEvent, **payload: Any) -> None:
        self.commands.append(Record(event, payload))

    def _ask(self, question: Question) -> None:
        self._set(asked=question)
        self.commands.append(question)

    def _finish(self, outcome: Outcome, reason: str = "", message: str = "") -> None:
        finish = Finish(outcome, str(reason), message)
        self._record(RunEvent.RUN_FINISHED, outcome=outcome.value, reason=finish.reason)
        self._set(asked=None, finished=finish)
        self.commands.append(finish)

    def _set(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)


def _sentences(gate: Gate) -> str:
    named = "; ".join(one.sentence or one.name for one in gate.failing)
    return named or f"not looked at: {', '.join(gate.missing)}"
