"""The controller: every reachable transition, driven by arbitrary reports and interruptions."""

from __future__ import annotations

import itertools
import json
import math

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from temporal_fabric.flows.certificates.decision import Colour
from temporal_fabric.flows.commands import (
    Advance,
    Certify,
    Command,
    Finish,
    Lint,
    Outcome,
    Polish,
    Record,
    Restore,
    Save,
    Try,
)
from temporal_fabric.flows.controller import OutOfTurn, advance
from temporal_fabric.flows.controller_state import ControllerState, Policy
from temporal_fabric.flows.remedies import Allowed
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
from temporal_fabric.flows.tuner import NEIGHBOURS, TunerPolicy
from tests.flows.test_controller import AMBER, GREEN, red

NAMES = ("eta_dd", "gamma_low", "step", "adjoint", "descent", "gap", "existence")
QUESTIONS = (Lint, Certify, Advance, Try, Polish)


def closed(names: list[str], value: float | None) -> Gate:
    """Return a gate closed by certificates of one value."""
    return red(*names, value=value)


values = st.one_of(st.none(), st.floats(allow_nan=False))
gates = st.one_of(
    *(st.just(GREEN) for _ in range(9)),
    st.just(AMBER),
    st.builds(
        closed, st.lists(st.sampled_from(NAMES), min_size=1, max_size=2, unique=True), values
    ),
)
scores = st.one_of(st.none(), st.floats(0, 10))
interruptions = st.tuples(
    st.sampled_from([99, 30, 9, 3, 1]), st.sampled_from([Stop(), Broke("no device")])
)
policies = st.builds(
    Policy,
    max_iterations=st.sampled_from([1, 150, 400]),
    chunk=st.sampled_from([1, 20, 100]),
    warm_up=st.integers(1, 20),
    attempts=st.sampled_from([3, 1, 0]),
    max_rollbacks=st.sampled_from([3, 1, 0]),
    save_every=st.integers(1, 3),
    wall_s=st.sampled_from([None, None, None, 8.0]),
    polish=st.sampled_from([0, 10]),
    allowed=st.builds(
        Allowed,
        lenses=st.sampled_from([(), ("haar",), ("haar", "db4")]),
        mu_max=st.sampled_from([0.0, 1e-3, 1.0]),
    ),
    tuner=st.one_of(
        st.builds(
            TunerPolicy,
            scales=st.integers(1, 3),
            cap=st.sampled_from([0.1, 0.2]),
            trials=st.sampled_from([8, 2, 0]),
            every=st.integers(1, 2),
        ),
        st.none(),
    ),
)


class Runs(RuleBasedStateMachine):
    """An executor that answers each question with anything that it may be answered with."""

    @initialize(policy=policies, interrupted=interruptions)
    def begin(self, policy: Policy, interrupted: tuple[int, Report]) -> None:
        """Start a run."""
        self.policy, self.state = policy, ControllerState()
        self.interrupted, self.told = interrupted, False
        self.events: list[RunEvent] = []
        self.questions = 0
        self.saves = 0
        self.exit: Gate | None = None
        self.opened = False
        self.clock = 0.0
        self._tell(Begin())

    @precondition(lambda self: isinstance(self.state.asked, Lint))
    @rule(
        problems=st.sampled_from([(), (), (), (), (), (), (), ("terms[0]: no such operator",)]),
        lenses=st.sampled_from([(), ("db4", "haar"), ("haar", "db4")]),
    )
    def lint(self, problems: tuple[str, ...], lenses: tuple[str, ...]) -> None:
        """Answer the lint."""
        family = "accelerated"
        self._tell(Linted(problems=problems, lens="db4", family=family, lenses=lenses))
        if problems:
            assert self.state.colour is Colour.RED
            assert self.state.finished is not None

    @precondition(lambda self: isinstance(self.state.asked, Certify))
    @rule(gate=gates, took=st.sampled_from([0.0, 1.0]))
    def certify(self, gate: Gate, took: float) -> None:
        """Answer the feasibility gate."""
        before = self.state.settings
        self.clock += took
        self._tell(Certified(gate=gate, elapsed_s=self.clock))
        if isinstance(self.state.asked, Certify):
            assert self.state.settings != before, "a remedy that changes nothing"
            touched = {
                "eta_dd": ("lens", "mu"),
                "gamma_low": ("mu",),
                "existence": ("mu",),
                "step": ("halvings",),
            }
            changed = {
                name
                for name in ("lens", "mu", "halvings")
                if getattr(self.state.settings, name) != getattr(before, name)
            }
            assert any(changed & set(touched.get(one.name, ())) for one in gate.failing)
        if isinstance(self.state.asked, Advance):
            assert gate.opens
            self.opened = True

    @precondition(lambda self: isinstance(self.state.asked, Advance))
    @rule(gate=gates, at_exit=gates, level=st.one_of(st.none(), st.integers(0, 4)))
    def run_chunk(self, gate: Gate, at_exit: Gate, level: int | None) -> None:
        """Answer a chunk."""
        asked, before = self.state.asked, self.state
        assert isinstance(asked, Advance)
        assert 1 <= asked.iterations <= max(self.policy.chunk, self.policy.warm_up)
        self.clock += 1
        if gate.opens:
            self.exit = at_exit
        self._tell(
            Advanced(
                iteration=before.iteration + asked.iterations,
                gate=gate,
                exit=at_exit,
                level=level,
                elapsed_s=self.clock,
            )
        )

    @precondition(lambda self: isinstance(self.state.asked, Try))
    @rule(before=gates, during=gates, score=scores, baseline=scores)
    def try_move(
        self, before: Gate, during: Gate, score: float | None, baseline: float | None
    ) -> None:
        """Answer a trial."""
        asked, was = self.state.asked, self.state.settings
        assert isinstance(asked, Try)
        self._is_guarded(was.lambdas, asked.settings.lambdas)
        iteration = self.state.iteration + asked.iterations
        self._tell(
            Tried(
                iteration=iteration,
                before=before,
                during=during,
                score=score,
                baseline=baseline,
                elapsed_s=self.clock,
            )
        )
        gained = score is not None and baseline is not None and score < baseline
        kept = before.opens and during.opens and gained
        assert (self.state.settings == asked.settings) == kept
        if kept:
            self.exit = None

    @precondition(lambda self: isinstance(self.state.asked, Polish))
    @rule(gate=gates, at_exit=gates, kept=st.booleans())
    def polish(self, gate: Gate, at_exit: Gate, *, kept: bool) -> None:
        """Answer the last steps."""
        if kept and gate.opens:
            self.exit = at_exit
        self._tell(Polished(iteration=self.state.iteration, kept=kept, gate=gate, exit=at_exit))
        assert self.state.finished is not None

    @precondition(lambda self: self.state.finished is None and not self.told)
    @rule()
    def interrupt(self) -> None:
        """Stop or break the run, once, and late enough that others get far."""
        at, report = self.interrupted
        if self.questions >= at:
            self.told = True
            self._tell(report)

    @precondition(lambda self: self.state.finished is not None)
    @rule(policy=policies, interrupted=interruptions)
    def again(self, policy: Policy, interrupted: tuple[int, Report]) -> None:
        """Start another run when one is over."""
        self.begin(policy, interrupted)

    @invariant()
    def survives_a_checkpoint(self) -> None:
        """The state is the same after its way through JSON."""
        if hasattr(self, "state"):
            data = json.loads(json.dumps(self.state.as_json(), allow_nan=False))
            assert ControllerState.from_json(data) == self.state

    @invariant()
    def is_bounded(self) -> None:
        """Attempts, rollbacks and questions stay below what the policy allows."""
        if not hasattr(self, "state"):
            return
        assert self.state.attempts <= self.policy.attempts
        assert self.state.rollbacks <= self.policy.max_rollbacks
        trials = self.policy.tuner.trials if self.policy.tuner else 0
        chunks = self.policy.max_iterations * (self.policy.max_rollbacks + 2)
        assert self.questions <= 10 + 2 * self.policy.attempts + 3 * trials + chunks

    def _tell(self, report: Report) -> None:
        was = self.state
        self.state, commands = advance(self.policy, was, report)
        if isinstance(report, Stop):
            assert commands == ()
            return
        *before, last = commands
        assert all(isinstance(one, Record | Restore | Save) for one in before)
        assert all(not isinstance(one, Save) for one in before[:-1]), "a save comes last"
        self._is_in_order(before)
        if isinstance(last, Finish):
            self._is_fair(last)
        else:
            assert isinstance(last, QUESTIONS)
            assert last == self.state.asked
            self.questions += 1
            if isinstance(last, Try | Polish):
                assert self.opened
                assert self.state.colour is Colour.GREEN
                assert any(isinstance(one, Save) for one in before)

    def _is_in_order(self, commands: list[Command]) -> None:
        for one in commands:
            if isinstance(one, Record):
                self.events.append(one.event)
                json.dumps(dict(one.payload), allow_nan=False)
            if isinstance(one, Save):
                assert self.opened
                assert self.state.colour in {Colour.GREEN, Colour.RED}
                self.saves += 1
            if isinstance(one, Restore) and not one.start:
                assert self.saves, "there is nothing to go back to"

    def _is_fair(self, finish: Finish) -> None:
        assert self.events[0] is RunEvent.RUN_STARTED
        assert self.events[-1] is RunEvent.RUN_FINISHED
        assert self.state.finished == finish
        if finish.outcome is Outcome.SUCCEEDED:
            assert self.state.colour is Colour.GREEN
            assert self.exit is not None
            assert self.exit.opens
            assert RunEvent.CERT_PASS in self.events
        if finish.reason == "CERT_FAIL":
            assert RunEvent.CERT_FAIL in self.events
        if finish.reason == "TIMEOUT":
            assert RunEvent.TIMEOUT in self.events
        with pytest.raises(OutOfTurn):
            advance(self.policy, self.state, Begin())

    def _is_guarded(self, old: tuple[float, ...], new: tuple[float, ...]) -> None:
        assert self.policy.tuner is not None
        if len(old) != len(new):
            old = old * len(new)
        moves = [b / a for a, b in zip(old, new, strict=True)]
        assert sum(not math.isclose(move, 1) for move in moves) == 1
        assert all(abs(move - 1) <= self.policy.tuner.cap + 1e-9 for move in moves)
        ratios = [b / a for a, b in itertools.pairwise(new)]
        assert all(1 / NEIGHBOURS - 1e-9 <= ratio <= NEIGHBOURS + 1e-9 for ratio in ratios)


Runs.TestCase.settings = hypothesis_settings(
    max_examples=150, stateful_step_count=60, deadline=None
)
TestRuns = Runs.TestCase
