"""The controller: every reachable transition, driven by arbitrary reports."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from dataclasses import replace

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
    Failing,
    Gate,
    Linted,
    Polished,
    Report,
    Stop,
    Tried,
)
from temporal_fabric.flows.run_events import RunEvent
from temporal_fabric.flows.tuner import NEIGHBOURS, TunerPolicy

GREEN = Gate(colour=Colour.GREEN, verdict="GREEN(convex)")
AMBER = Gate(colour=Colour.AMBER, verdict="AMBER(convex)", missing=("descent",))
NAMES = ("eta_dd", "gamma_low", "step", "adjoint", "descent", "gap", "existence")
QUESTIONS = (Lint, Certify, Advance, Try, Polish)


def red(*names: str, value: float | None = 2.0) -> Gate:
    """Return a gate that the named certificates close."""
    failing = tuple(Failing(name, value, 1.0, f"{name} is too large") for name in names)
    return Gate(colour=Colour.RED, verdict="RED(convex)", failing=failing)


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
    @rule(problems=st.sampled_from([(), (), (), (), (), (), (), ("terms[0]: no such operator",)]))
    def lint(self, problems: tuple[str, ...]) -> None:
        """Answer the lint."""
        self._tell(Linted(problems=problems, lens="db4", family="accelerated"))
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


def run(policy: Policy, *reports: Report) -> tuple[ControllerState, list[Command]]:
    """Tell a fresh controller some reports; return its state and the last commands."""
    state, commands = advance(policy, ControllerState(), Begin())
    for report in reports:
        state, commands = advance(policy, state, report)
    return state, list(commands)


CERTIFIED = (Linted(lens="db4", family="proximal"), Certified(gate=GREEN))


def chunk(iteration: int, gate: Gate = GREEN, at_exit: Gate | None = None) -> Advanced:
    """Return the report of a chunk that has not converged yet."""
    return Advanced(iteration=iteration, gate=gate, exit=at_exit or red("gap"))


def recorded(commands: list[Command]) -> list[str]:
    """Return the names of the events among commands."""
    return [str(one.event) for one in commands if isinstance(one, Record)]


def test_converges() -> None:
    """A certified run that meets its exit check succeeds, GREEN."""
    state, commands = run(Policy(), *CERTIFIED, chunk(10), chunk(110, at_exit=GREEN))
    assert commands[-1] == Finish(Outcome.SUCCEEDED)
    assert state.colour is Colour.GREEN
    assert recorded(commands) == ["CERT_PASS", "RUN_FINISHED"]


def test_amber_is_entered() -> None:
    """Between the lint and the certificates a run is AMBER, and the descent check too."""
    state, commands = run(Policy(), CERTIFIED[0])
    assert (state.colour, state.phase) == (Colour.AMBER, 1)
    assert recorded(commands) == ["LENS_SELECTED", "FLOW_POLICY_APPLIED"]
    state, commands = run(Policy(warm_up=7), *CERTIFIED)
    assert state.colour is Colour.AMBER
    assert commands[-1] == Advance(state.settings, 7)


def test_missed_exit() -> None:
    """GREEN with a missed exit check ends FAILED with CERT_FAIL, and says which was missed."""
    policy = Policy(max_iterations=20)
    state, commands = run(policy, *CERTIFIED, chunk(10), chunk(20))
    assert state.finished is not None
    assert (state.finished.outcome, state.finished.reason) == (Outcome.FAILED, "CERT_FAIL")
    assert "gap is too large" in state.finished.message
    assert recorded(commands) == ["CERT_FAIL", "RUN_FINISHED"]


def test_nothing_to_repair() -> None:
    """A failing certificate that no allowed move touches closes the run at once."""
    for failing in ("adjoint", "eta_dd", "gamma_low"):
        state, _ = run(Policy(), CERTIFIED[0], Certified(gate=red(failing)))
        assert state.colour is Colour.RED
        assert state.attempts == 0


def test_remedy_of_both() -> None:
    """With one of two failing certificates beyond repair the other is left as it is."""
    policy = Policy(allowed=Allowed(mu_max=1.0))
    state, _ = run(policy, CERTIFIED[0], Certified(gate=red("gamma_low", "adjoint")))
    assert state.finished is not None


def test_remedy_of_gamma() -> None:
    """What gamma lacks is added as mu, and nothing else is changed."""
    policy = Policy(allowed=Allowed(mu_max=1.0, lenses=("haar",)))
    gate = replace(red("gamma_low"), failing=(Failing("gamma_low", 0.0, 0.01),))
    state, commands = run(policy, CERTIFIED[0], Certified(gate=gate))
    assert isinstance(commands[-1], Certify)
    assert 0.01 <= state.settings.mu <= 0.011
    assert (state.settings.lens, state.settings.halvings) == ("", 0)


def test_remedy_of_dominance() -> None:
    """Dominance is looked for in another lens, then by mu up to its limit, then given up."""
    policy = Policy(allowed=Allowed(mu_max=0.5, lenses=("haar",)), attempts=3)
    failing = Certified(gate=red("eta_dd"))
    state, _ = run(policy, CERTIFIED[0], failing)
    assert (state.settings.lens, state.settings.mu) == ("haar", 0.0)
    state, _ = run(policy, CERTIFIED[0], *[failing] * 3)
    assert state.settings.mu == pytest.approx(0.5)
    state, _ = run(policy, CERTIFIED[0], *[failing] * 4)
    assert state.finished is not None
    assert state.finished.reason == "CERT_FAIL"


def test_descent_check() -> None:
    """A start that does not descend is tried again with half the step, from the start."""
    state, commands = run(Policy(), *CERTIFIED, chunk(10, red("descent")))
    assert state.settings.halvings == 1
    assert commands[-2:] == [Restore(start=True), Certify(state.settings)]


def test_regression() -> None:
    """Steps that stop descending are undone and halved, three times and no more."""
    bad = chunk(110, red("descent"))
    state, commands = run(Policy(), *CERTIFIED, chunk(10), bad)
    assert Restore() in commands
    assert state.settings.halvings == 1
    state, commands = run(Policy(), *CERTIFIED, chunk(10), bad, bad, bad)
    assert state.finished is None
    state, commands = run(Policy(), *CERTIFIED, chunk(10), bad, bad, bad, bad)
    assert state.colour is Colour.RED
    assert recorded(commands) == ["CERT_FAIL", "RUN_FINISHED"]


TUNED = Policy(tuner=TunerPolicy(trials=4))


def test_move_is_kept() -> None:
    """A move that stays certified and gains is kept, and reaches the next question."""
    state, commands = run(TUNED, *CERTIFIED, chunk(10))
    assert isinstance(commands[-1], Try)
    assert commands[-1].settings.lambdas == pytest.approx((1.2,))
    report = Tried(iteration=30, before=GREEN, during=GREEN, score=1.0, baseline=2.0)
    state, commands = run(TUNED, *CERTIFIED, chunk(10), report)
    assert isinstance(commands[-1], Advance)
    assert commands[-1].settings.lambdas == pytest.approx((1.2,))
    assert state.settings.changes_energy


@pytest.mark.parametrize("where", ["before", "during"])
def test_move_is_rolled_back(where: str) -> None:
    """A move that loses a certificate is rolled back to the last good checkpoint."""
    report = Tried(iteration=30, before=GREEN, during=GREEN, score=1.0, baseline=2.0)
    gate = red("gamma_low" if where == "before" else "descent")
    report = replace(report, before=gate) if where == "before" else replace(report, during=gate)
    state, commands = run(TUNED, *CERTIFIED, chunk(10), report)
    assert state.settings.lambdas == (1.0,)
    assert state.rollbacks == 1
    assert Restore() in commands
    assert {"ROLLBACK", "TUNER_MOVE_REJECTED"} <= set(recorded(commands))


def test_move_without_gain() -> None:
    """A move without gain is rejected without being a rollback."""
    report = Tried(iteration=30, before=GREEN, during=GREEN, score=2.0, baseline=2.0)
    state, commands = run(TUNED, *CERTIFIED, chunk(10), report)
    assert (state.settings.lambdas, state.rollbacks) == ((1.0,), 0)
    assert "TUNER_MOVE_REJECTED" in recorded(commands)


def test_later_regression_undoes_the_move() -> None:
    """Where steps regress after a move was kept, the move is undone, not the step halved."""
    kept = Tried(iteration=30, before=GREEN, during=GREEN, score=1.0, baseline=2.0)
    policy = replace(TUNED, save_every=5)
    state, commands = run(policy, *CERTIFIED, chunk(10), kept, chunk(130, red("descent")))
    assert (state.settings.lambdas, state.settings.halvings) == ((1.0,), 0)
    assert recorded(commands) == ["CERT_FAIL", "ROLLBACK", "TUNER_MOVE_REJECTED"]


def test_trials_are_budgeted() -> None:
    """When its trials are used up the tuner stops with TIMEOUT, and the run goes on."""
    lost = Tried(iteration=30, before=GREEN, during=GREEN, score=2.0, baseline=1.0)
    policy = replace(TUNED, tuner=TunerPolicy(trials=1))
    state, commands = run(policy, *CERTIFIED, chunk(10), lost, chunk(110))
    assert "TIMEOUT" in recorded(commands)
    assert isinstance(commands[-1], Advance)
    assert not state.tuning


def test_wall_time() -> None:
    """A used-up budget of time saves the state and ends with TIMEOUT."""
    late = replace(chunk(110), elapsed_s=61.0)
    state, commands = run(Policy(wall_s=60), *CERTIFIED, chunk(10), late)
    assert isinstance(commands[-2], Save)
    assert state.finished is not None
    assert state.finished.reason == "TIMEOUT"


def test_cancel_keeps_a_checkpoint() -> None:
    """A cancelled run saves what the chunk under way has reached."""
    state, commands = run(Policy(), *CERTIFIED, chunk(10), Stop(), chunk(110))
    assert commands[-2] == Save()
    assert state.saved_at == 110
    assert state.finished == Finish(Outcome.CANCELED, "", "cancelled")


def test_broken_executor() -> None:
    """A question that cannot be answered closes the run; it is never called a success."""
    state, commands = run(Policy(), *CERTIFIED, chunk(10), Broke("out of memory"))
    assert state.colour is Colour.RED
    assert commands[-1] == Finish(Outcome.FAILED, "INTERNAL", "out of memory")


def test_polish_comes_last() -> None:
    """Phase 3 starts from a saved point and keeps the exit check's last word."""
    policy = Policy(polish=25)
    state, commands = run(policy, *CERTIFIED, chunk(10), chunk(110, at_exit=GREEN))
    assert commands[-2:] == [Save(), Polish(state.settings, 25)]
    assert state.phase == 3
    done = Polished(iteration=135, kept=False, gate=red("descent"), exit=red("gap"))
    state, commands = run(policy, *CERTIFIED, chunk(10), chunk(110, at_exit=GREEN), done)
    assert Restore() in commands
    assert commands[-1] == Finish(Outcome.SUCCEEDED)


def test_loads_no_numerics() -> None:
    """Workflow code may use the controller: it loads neither JAX nor numpy."""
    code = (
        "import sys, temporal_fabric.flows.controller;"
        "print([m for m in ('jax', 'numpy', 'pydantic', 'temporalio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
