"""The table of legal moves."""

from __future__ import annotations

import pytest

from temporal_fabric.states import FINAL, MOVES, State, legal


def test_every_state_has_its_moves() -> None:
    """No state is forgotten in the table."""
    assert set(MOVES) == set(State)


@pytest.mark.parametrize("state", sorted(FINAL))
def test_nothing_follows_an_end(state: State) -> None:
    """A final state is final."""
    assert not any(legal(state, after) for after in State)


@pytest.mark.parametrize("state", [s for s in State if s not in FINAL and s != State.CANCELLING])
def test_every_live_state_can_be_cancelled(state: State) -> None:
    """Cancelling is possible wherever something may still run."""
    assert legal(state, State.CANCELLING)


def test_canceled_only_after_cancelling() -> None:
    """CANCELED needs the proof that CANCELLING stands for."""
    assert [state for state in State if legal(state, State.CANCELED)] == [State.CANCELLING]


def test_running_only_after_preparing() -> None:
    """Nothing is RUNNING before its process could exist."""
    before = {State.PREPARING, State.PAUSED, State.HELD}
    assert {s for s in State if legal(s, State.RUNNING)} == before
