"""The tuner: which move of lambda to try next, and what a trial teaches it.

It looks for the lambdas with the least score by coordinate moves: up, down, the next scale, and
shorter moves when no direction helped. It decides nothing: the controller tries its moves, and
keeps those that stay certified and gain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from temporal_fabric.flows.remedies import Settings

__all__ = ["NEIGHBOURS", "TunerPolicy", "TunerState", "learn", "propose"]

NEIGHBOURS = 2.0
"""Lambdas of adjacent scales differ by at most this factor."""

_SHORTEST = 0.01


@dataclass(frozen=True, kw_only=True)
class TunerPolicy:
    """How the tuner may move."""

    scales: int = 1
    """Lambdas to tune: one for all scales, or one for each."""

    cap: float = 0.2
    """Largest relative change of a move."""

    validation: int = 20
    """Iterations that a move is tried for."""

    every: int = 1
    """Chunks between two trials."""

    patience: int = 5
    """Moves without gain after which tuning ends."""

    trials: int = 50
    """Budget of trials."""


@dataclass(frozen=True, kw_only=True)
class TunerState:
    """Where the tuner looks, and what it has had."""

    scale: int = 0
    direction: int = 1
    length: float = 0.0
    """Of the next move, relative; 0: the policy's cap."""

    failed: int = 0
    """Directions that failed since the last gain or the last shorter move."""

    fruitless: int = 0
    trials: int = 0

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TunerState:
        """Return the state from plain data."""
        return cls(**dict(data))


def propose(
    policy: TunerPolicy, state: TunerState, settings: Settings
) -> tuple[TunerState, Settings] | None:
    """Return the next move to try, with the state that will learn from it; None: no move is left.

    Directions that the cap or the neighbours leave no room for are skipped.
    """
    if state.fruitless >= policy.patience or state.trials >= policy.trials:
        return None
    lambdas = settings.lambdas
    if len(lambdas) != policy.scales:
        lambdas = (lambdas[0],) * policy.scales
    for _ in range(2 * policy.scales):
        length = min(state.length or policy.cap, policy.cap)
        moved = _moved(lambdas, state.scale % policy.scales, state.direction, length)
        if moved != lambdas:
            return state, replace(settings, lambdas=moved)
        state = _turned(policy, state)
    return None


def learn(policy: TunerPolicy, state: TunerState, *, gained: bool) -> TunerState:
    """Return the state after a trial."""
    state = replace(state, trials=state.trials + 1)
    if gained:
        return replace(state, failed=0, fruitless=0)
    return _turned(policy, replace(state, fruitless=state.fruitless + 1))


def _turned(policy: TunerPolicy, state: TunerState) -> TunerState:
    """Look the other way; after both ways at the next scale; after all of them closer by."""
    failed = state.failed + 1
    scale = state.scale + (1 if failed % 2 == 0 else 0)
    if failed < 2 * policy.scales:
        return replace(
            state, direction=-state.direction, failed=failed, scale=scale % policy.scales
        )
    shorter = max((state.length or policy.cap) / 2, min(_SHORTEST, policy.cap))
    return replace(
        state, direction=-state.direction, failed=0, scale=scale % policy.scales, length=shorter
    )


def _moved(
    lambdas: tuple[float, ...], scale: int, direction: int, length: float
) -> tuple[float, ...]:
    value = lambdas[scale] * (1 + length if direction > 0 else 1 - length)
    beside = [lambdas[k] for k in (scale - 1, scale + 1) if 0 <= k < len(lambdas)]
    low = max((x / NEIGHBOURS for x in beside), default=0.0)
    high = min((x * NEIGHBOURS for x in beside), default=math.inf)
    clipped = min(max(value, low), high)
    return (*lambdas[:scale], clipped, *lambdas[scale + 1 :])
