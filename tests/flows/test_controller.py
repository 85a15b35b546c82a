"""The controller: what it decides in the cases that a run meets."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from temporal_fabric.flows.certificates.decision import Colour
from temporal_fabric.flows.commands import (
    Advance,
    Certify,
    Command,
    Finish,
    Outcome,
    Polish,
    Record,
    Restore,
    Save,
    Try,
)
from temporal_fabric.flows.controller import advance
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
from temporal_fabric.flows.tuner import TunerPolicy

GREEN = Gate(colour=Colour.GREEN, verdict="GREEN(convex)")
AMBER = Gate(colour=Colour.AMBER, verdict="AMBER(convex)", missing=("descent",))


def red(*names: str, value: float | None = 2.0) -> Gate:
    """Return a gate that the named certificates close."""
    failing = tuple(Failing(name, value, 1.0, f"{name} is too large") for name in names)
    return Gate(colour=Colour.RED, verdict="RED(convex)", failing=failing)


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


def test_the_probed_lens_comes_first() -> None:
    """A run begins in the lens that fits best, and the others are tried where it is refused."""
    linted = Linted(lens="haar", family="proximal", lenses=("db4", "db8", "haar"))
    state, _ = run(Policy(), linted)
    assert state.settings.lens == "db4"
    for wanted in ("db8", "haar"):
        state, more = advance(Policy(), state, Certified(gate=red("eta_dd")))
        assert state.settings.lens == wanted
        assert recorded(list(more)) == ["CERT_FAIL", "LENS_SELECTED"]
    state, _ = run(Policy(), Linted(lens="haar", family="proximal", lenses=("haar", "db4")))
    assert (state.settings.lens, state.lenses) == ("", ("db4",))


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


def test_all_iterations_used_is_its_own_end() -> None:
    """Late with its last iteration, a run ends by its exit check: there is nothing to go on to."""
    late = replace(chunk(110), elapsed_s=61.0)
    policy = Policy(wall_s=60, max_iterations=110)
    state, _ = run(policy, *CERTIFIED, chunk(10), late)
    assert state.finished is not None
    assert state.finished.reason == "CERT_FAIL"

    polishing = replace(policy, polish=25)
    state, _ = run(polishing, *CERTIFIED, chunk(10), late)
    assert state.finished is not None
    assert state.finished.reason == "TIMEOUT"
    again = state.reopened(polishing)
    assert (again.phase, again.asked) == (3, Polish(state.settings, 25))
    done = Polished(iteration=135, kept=True, gate=GREEN, exit=GREEN)
    assert advance(polishing, again, done)[0].finished == Finish(Outcome.SUCCEEDED)


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
