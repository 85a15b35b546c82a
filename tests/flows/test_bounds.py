"""Bounds of the Hessian's spectrum, on random operators whose spectrum is known."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from temporal_fabric.flows.certificates.convexity import gamma_est, gamma_low
from temporal_fabric.flows.certificates.curvature import beta_up
from temporal_fabric.flows.certificates.decision import Colour, decide
from temporal_fabric.flows.certificates.hessian import hessians
from temporal_fabric.flows.certificates.krylov import lanczos
from temporal_fabric.flows.certificates.profiles import ProfileName, Stage, profile_for
from temporal_fabric.flows.certificates.record import Finding, Kind, Relation
from temporal_fabric.flows.operators import Dense, Diagonal
from tests.flows.campaign_size import SEED, drawn
from tests.flows.spectra import SPECTRA, Known, draw, hidden, least_squares, quadratic

if TYPE_CHECKING:
    from collections.abc import Iterable

REST = (
    *(
        Finding(name=name, value=0.0, kind=Kind.RIGOROUS, method="given", found=name)
        for name in ("lint", "finite", "adjoint", "transform", "step", "eta_dd")
    ),
    Finding(
        name="existence",
        value=1.0,
        kind=Kind.RIGOROUS,
        relation=Relation.AT_LEAST,
        method="given",
        found="existence",
    ),
)
"""Everything but the spectrum is as good as can be."""


@cache
def _certified() -> tuple[tuple[Known, Finding, Finding], ...]:
    """Draw the operators of the campaign, and certify each."""
    rng = np.random.default_rng(SEED)
    found: list[tuple[Known, Finding, Finding]] = []
    for seed in range(drawn(1000)):
        known = draw(rng)
        blocks = hessians(known.energy, known.state)
        upper, lower = beta_up(blocks, seed=seed), gamma_low(blocks, seed=seed)
        found.append((known, upper, lower))
    return tuple(found)


def _colours(findings: Iterable[Finding]) -> set[Colour]:
    profiles = (profile_for(ProfileName.STRICT), profile_for(ProfileName.STRONGLY_CONVEX))
    pool = (*REST, *findings)
    return {decide(profile, pool, Stage.BEFORE).colour for profile in profiles}


def test_no_bound_is_on_the_wrong_side() -> None:
    """Neither a rigorous nor a probable bound of 1,000 operators is ever wrong."""
    kinds: Counter[str] = Counter()
    wrong: list[str] = []
    for known, upper, lower in _certified():
        for finding in (upper, lower):
            kinds[finding.kind.value] += finding.value is not None
        if upper.value is None or upper.value < known.largest:
            wrong.append(f"{known.kind}: beta_up {upper.value} < {known.largest}")
        if lower.value is not None and lower.value > known.least:
            wrong.append(f"{known.kind}: gamma_low {lower.value} > {known.least}")

    assert wrong == []
    assert kinds["R"] > 100
    assert kinds["P"] > 10


def test_bounds_are_close_where_the_structure_is_known() -> None:
    """A rigorous bound that is useless would be safe too; these are not useless."""
    for known, upper, lower in _certified():
        if upper.kind is Kind.RIGOROUS and not known.kind.startswith("masked"):
            assert upper.value is not None
            assert upper.value <= known.largest * (1 + 1e-6) + 1e-9, known.kind
        if known.kind.startswith(("dense", "circular", "indefinite")):
            assert lower.value is not None
            assert lower.value >= known.least - 1e-9, known.kind


def test_an_operator_without_curvature_is_never_green() -> None:
    """Singular, nearly singular or slightly indefinite: no gate that needs gamma opens."""
    bad = [row for row in _certified() if row[0].least < 1e-6]

    assert len(bad) > 10
    for known, _, lower in bad:
        assert _colours([lower]) == {Colour.RED}, known


def test_good_operators_are_green() -> None:
    """The gate is no wall: where mu is 1e-2, or the spectrum says so, it opens."""
    good = [row for row in _certified() if row[0].least > 1e-5 and row[0].kind.startswith("dense")]

    assert good
    for known, _, lower in good:
        estimate = gamma_est(hessians(known.energy, known.state), seed=1)
        assert _colours([lower, estimate]) == {Colour.GREEN}


@pytest.mark.parametrize("name", ["log-uniform", "blur", "outlier"])
def test_an_estimate_opens_no_gate_where_lanczos_is_fooled(name: str) -> None:
    """Twenty steps see no small eigenvalue of these; their Ritz value still passes nothing."""
    rng = np.random.default_rng(SEED)
    fooled = 0
    for seed in range(drawn(100)):
        values = SPECTRA[name](rng)
        q, _ = np.linalg.qr(rng.normal(size=(len(values), len(values))))
        energy = least_squares(hidden((q * np.sqrt(values)) @ q.T))
        blocks = hessians(energy, {"x": jnp.zeros(len(values))})
        estimate = gamma_est(blocks, seed=seed, steps=10)
        assert estimate.value is not None
        fooled += estimate.value >= 1e-6
        as_gamma = replace(estimate, name="gamma_low")
        assert _colours([as_gamma]) == {Colour.RED}

    assert fooled or name == "outlier"


def test_a_constant_start_fools_lanczos_and_no_certificate() -> None:
    """On a circular blur a constant start sees one eigenvalue, with residual zero."""
    n = 64
    kernel = np.zeros(n)
    kernel[[0, 1, -1]] = 0.5, 0.25, 0.25
    shifts = np.stack([np.roll(kernel, k) for k in range(n)])
    blocks = hessians(least_squares(Dense(jnp.asarray(shifts), (n,), (n,))), {"x": jnp.zeros(n)})
    seen = lanczos(blocks[0].apply, (n,), steps=20, start=jnp.ones(n))
    lower = gamma_low(blocks)

    assert seen.least == pytest.approx(1.0)
    assert seen.reach(1e-6) is None
    assert lower.value is not None
    assert lower.value < 1e-12


def _times(diagonal: Any, x: Any) -> Any:
    return diagonal * x


def test_probable_bounds_are_wrong_at_most_as_often_as_stated() -> None:
    """Thirty steps for 1,000 unknowns: Ritz values fall short in most, their reach in none."""
    rng = np.random.default_rng(SEED)
    short, missed, delta, count = 0, 0, 1e-3, drawn(1000)
    for seed in range(count):
        spread = rng.uniform(-1, 1, 1000) if seed % 2 else 10 ** rng.uniform(-8, 0, 1000)
        least, largest = float(spread.min()), float(spread.max())
        ritz = lanczos(Partial(_times, jnp.asarray(spread)), (1000,), steps=30, seed=seed)
        beyond, above = ritz.reach(delta), ritz.reach(delta, semidefinite=True)
        assert beyond is not None
        assert above is not None
        short += ritz.least > least + 1e-6
        missed += least < ritz.least - beyond or largest > ritz.largest + beyond
        missed += least >= 0 and largest > ritz.largest + above

    assert short > count / 2
    assert missed <= delta * count


@pytest.mark.parametrize(
    ("diagonal", "least"),
    [(-np.ones(6), -1.0), (np.arange(6.0), 0.0), (np.append(np.ones(5), -1e-7), -1e-7)],
)
def test_concave_and_singular_forms_are_seen(diagonal: np.ndarray, least: float) -> None:
    """-I, diag(0, 1, ...) and diag(1, ..., -1e-7) are what they are, by their diagonal."""
    energy = quadratic(Diagonal(jnp.asarray(diagonal)))
    blocks = hessians(energy, {"x": jnp.zeros(len(diagonal))})
    lower = gamma_low(blocks)

    assert lower.value == pytest.approx(least, abs=1e-15)
    assert _colours([lower]) == {Colour.RED}


def test_the_probability_of_a_bound_is_stated() -> None:
    """Of an operator about which nothing is known, the bound is probable and says how much."""
    rng = np.random.default_rng(SEED)
    energy = least_squares(hidden(rng.normal(size=(64, 64))))
    upper = beta_up(hessians(energy, {"x": jnp.zeros(64)}), delta=1e-6)

    assert upper.kind is Kind.PROBABLE
    assert upper.delta == pytest.approx(1e-6)
    assert upper.proves
