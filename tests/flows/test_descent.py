"""The descent inequalities: right steps never miss them, wrong ones do."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from temporal_fabric.flows.certificates import descent
from temporal_fabric.flows.certificates.record import Kind, Need, Verdict, judge
from temporal_fabric.flows.precision import cast, unit_roundoff
from tests.flows.campaign_size import SEED, drawn

SIZE, SEEN, STEPS = 12, 10, 300

Batch = dict[str, Any]


def _problems(count: int, *, sphere: bool = False, seen: int = SEEN) -> Batch:
    """Return random least squares problems |A x - y|^2/2 + weight |x|_1, one a row."""
    rng = np.random.default_rng(SEED)
    a = rng.normal(size=(count, seen, SIZE)) / np.sqrt(seen)
    beta = np.linalg.norm(a, 2, axis=(1, 2)) ** 2 * (1 + 1e-12)
    start = rng.normal(size=(count, SIZE))
    if sphere:
        start /= np.linalg.norm(start, axis=1, keepdims=True)
    return {
        "a": jnp.asarray(a),
        "y": jnp.asarray(rng.normal(size=(count, seen))),
        "weight": jnp.asarray(10 ** rng.uniform(-3, 0, count)),
        "beta": jnp.asarray(beta),
        "start": jnp.asarray(start),
    }


def _changes(one: Batch, z: Any, d: Any) -> tuple[Any, Any]:
    """Return E(z + d) - E(z) entry by entry, and the moduli of what is summed."""
    residual, along = one["a"] @ z - one["y"], one["a"] @ d
    smooth = residual * along + along**2 / 2
    rough = one["weight"] * (jnp.abs(z + d) - jnp.abs(z))
    return jnp.sum(smooth) + jnp.sum(rough), jnp.sum(jnp.abs(smooth)) + jnp.sum(jnp.abs(rough))


def _prox(one: Batch, u: Any, alpha: Any) -> Any:
    return jnp.sign(u) * jnp.maximum(jnp.abs(u) - alpha * one["weight"], 0)


def _gradient(one: Batch, z: Any) -> Any:
    return one["a"].T @ (one["a"] @ z - one["y"])


@partial(jax.jit, static_argnums=(0, 2))
def _worst(step: Any, batch: Batch, momentum: Any = None) -> Any:
    """Run a step many times on each problem; return the largest of what it returns."""

    def run(one: Batch) -> Any:
        def advance(carry: Any, k: Any) -> Any:
            return step(one, carry, k)

        start = (one["start"], one["start"])
        return jax.lax.scan(advance, start, jnp.arange(STEPS))[1]

    del momentum
    return {name: values.max(1) for name, values in jax.vmap(run)(batch).items()}


def _plain(share: float) -> Any:
    """Return a proximal gradient step with alpha = share / beta."""

    def step(one: Batch, carry: Any, _: Any) -> Any:
        z, last = carry
        dtype = z.dtype
        alpha = jnp.asarray(share, dtype) / one["beta"]
        after = _prox(one, z - alpha * _gradient(one, z), alpha)
        d = after - z
        change, size = _changes(one, z, d)
        square, image = d @ d, one["a"] @ d
        held = descent.proximal(change, size, square, alpha, one["beta"])
        ratio = descent.curvature_ratio(image @ image, square, jnp.linalg.norm(z), one["beta"])
        gradient = _gradient(one, z)
        written = (change + 1e-3 * alpha * (gradient @ gradient)) / (1e-12 + size)
        never = descent.nonexpansive(square, (z - last) @ (z - last), z @ z)
        grown = jnp.where(jnp.all(z == last), 0, never)
        return (after, z), {"held": held, "ratio": ratio, "written": written, "grown": grown}

    return step


PLAIN, LONG = _plain(1.9), _plain(2.5)


def _accelerated(one: Batch, carry: Any, k: Any) -> Any:
    z, last = carry
    alpha = 1 / one["beta"]
    m = k.astype(z.dtype) / (k.astype(z.dtype) + 3)
    y = z + m * (z - last)
    after = _prox(one, y - alpha * _gradient(one, y), alpha)
    d = after - z
    change, size = _changes(one, z, d)
    before = (z - last) @ (z - last)
    held = descent.potential(change, size, d @ d, before=before, alpha=alpha, momentum=m)
    return (after, z), {"held": held, "rose": change / (1e-10 * size + 1e-30)}


def test_right_steps_are_never_accused() -> None:
    """1,000 problems, 300 steps each, alpha = 1.9/beta: decrease, curvature, shrinking steps."""
    found = _worst(PLAIN, _problems(drawn(1000)))

    assert float(found["held"].max()) <= 1
    assert float(found["ratio"].max()) <= 1
    assert float(found["grown"].max()) <= 1


def test_the_inequality_without_the_penalty_would_accuse_them() -> None:
    """|grad f|^2 is not zero where E cannot fall: that form fails on most right runs."""
    found = _worst(PLAIN, _problems(drawn(1000)))

    assert float((found["written"] > 1e-9).mean()) > 0.5


def test_float32_steps_are_not_accused_either() -> None:
    """In difference form even float32 can tell; energies subtracted would rise half the time."""
    batch: Batch = cast(_problems(drawn(1000)), "float32")
    batch["beta"] = batch["beta"] * jnp.float32(1 + 1e-5)
    found = _worst(PLAIN, batch)

    assert float(found["held"].max()) <= 1
    assert float(found["ratio"].max()) <= 1


def test_too_long_a_step_is_caught() -> None:
    """With alpha = 2.5/beta the energy rises wherever the steps do not die out at zero."""
    batch = _problems(drawn(1000))
    found = _worst(LONG, batch | {"weight": 0.01 * batch["weight"]})

    assert float((found["held"] > 1).mean()) > 0.9


def test_a_beta_that_is_too_small_is_caught_by_the_steps() -> None:
    """Half of beta: some step meets more curvature than was promised."""
    batch = _problems(drawn(1000))
    found = _worst(PLAIN, batch | {"beta": batch["beta"] / 2})

    assert float((found["ratio"] > 1).mean()) > 0.9


def test_momentum_is_judged_by_its_potential() -> None:
    """Plain FISTA: the energy rises in most runs, the potential in none."""
    found = _worst(_accelerated, _problems(drawn(1000)))

    assert float(found["held"].max()) <= 1
    assert float((found["rose"] > 1).mean()) > 0.5


def _metric_step(*, plain_prox: bool) -> Any:
    def step(one: Batch, carry: Any, _: Any) -> Any:
        z, _last = carry
        # The absolute row sums of A'A: theta <= 1.
        p = jnp.abs(one["a"].T @ one["a"]).sum(1)
        u = z - _gradient(one, z) / p
        after = _prox(one, u, 1 / p.max() if plain_prox else 1 / p)
        d = after - z
        change, size = _changes(one, z, d)
        held = descent.preconditioned(change, size, d @ (p * d), jnp.ones(()))
        return (after, z), {"held": held}

    return step


METRIC, PLAIN_PROX = _metric_step(plain_prox=False), _metric_step(plain_prox=True)


def test_a_preconditioned_step_needs_the_prox_in_its_metric() -> None:
    """With it no step misses the inequality; with the plain prox most runs do."""
    batch = _problems(drawn(1000))

    assert float(_worst(METRIC, batch)["held"].max()) <= 1
    assert float((_worst(PLAIN_PROX, batch)["held"] > 1).mean()) > 0.5


def _sphere_step(*, curved: bool) -> Any:
    def step(one: Batch, carry: Any, _: Any) -> Any:
        x, _last = carry
        # |grad f| <= |A'A| + |A'y| on the unit sphere.
        steep = one["beta"] + jnp.linalg.norm(one["a"].T @ one["y"])
        smooth = one["beta"] + steep
        alpha = 1.9 / (smooth if curved else one["beta"])
        gradient = _gradient(one, x)
        tangent = gradient - (gradient @ x) * x
        moved = x - alpha * tangent
        after = moved / jnp.linalg.norm(moved)
        change, size = _changes(one | {"weight": jnp.zeros(())}, x, after - x)
        # x is rounded after the step, along the normal too, where the gradient is not zero.
        noise = size + jnp.linalg.norm(gradient)
        held = descent.riemannian(change, noise, tangent @ tangent, alpha, smooth)
        rose = change / (1e-9 * size + 1e-30)
        return (after, x), {"held": held, "rose": rose}

    return step


CURVED, FLAT = _sphere_step(curved=True), _sphere_step(curved=False)


def test_a_step_on_the_sphere_minds_its_curvature() -> None:
    """1.9/L_R always decreases; 1.9/beta, the flat bound, makes the energy rise in many runs."""
    batch = _problems(drawn(1000), sphere=True)

    assert float(_worst(CURVED, batch)["held"].max()) <= 1
    assert float((_worst(FLAT, batch)["rose"] > 1).mean()) > 0.3


def _leapfrog(one: Batch, carry: Any, _: Any) -> Any:
    q, p = carry
    dt, friction = 1.8 / jnp.sqrt(one["beta"]), 0.05
    gram = one["a"].T @ one["a"]

    def shadow(q: Any, p: Any) -> Any:
        image = gram @ q
        return p @ p / 2 + (q @ image - dt**2 / 4 * (image @ image)) / 2

    def plain(q: Any, p: Any) -> Any:
        return (p @ p + q @ (gram @ q)) / 2

    damped = p * jnp.exp(-friction * dt / 2)
    half = damped - dt / 2 * (gram @ q)
    moved = q + dt * half
    kicked = half - dt / 2 * (gram @ moved)
    after = kicked * jnp.exp(-friction * dt / 2)
    share = 1 - jnp.exp(-friction * dt)
    held = descent.shadow(shadow(q, p), shadow(moved, after), share, p @ p, kicked @ kicked)
    rose = (plain(moved, after) - plain(q, p)) / (1e-9 * plain(q, p) + 1e-30)
    return (moved, after), {"held": held, "rose": rose}


def test_leapfrog_is_judged_by_its_shadow_energy() -> None:
    """The energy that the integrator conserves falls at every damped step; the plain one rises."""
    found = _worst(_leapfrog, _problems(drawn(1000), seen=4 * SIZE))

    assert float(found["held"].max()) <= 1
    assert float((found["rose"] > 1).mean()) > 0.5


@partial(jax.jit, static_argnums=1)
def _primal_dual(batch: Batch, stretch: float) -> Any:
    """Condat-Vu for |A x - y|^2/2 + weight |D x|_1; return the growth of its residual."""

    def run(one: Batch) -> Any:
        sigma = 0.5
        tau = stretch / (one["beta"] / 2 + 4 * sigma)

        def difference(x: Any) -> Any:
            return x[1:] - x[:-1]

        def transpose(p: Any) -> Any:
            return jnp.pad(p, (1, 0)) - jnp.pad(p, (0, 1))

        def advance(carry: Any, _: Any) -> Any:
            x, p, last = carry
            after = x - tau * (_gradient(one, x) + transpose(p))
            dual = p + sigma * difference(2 * after - x)
            dual = jnp.clip(dual, -one["weight"], one["weight"])
            dx, dp = after - x, dual - p
            now = descent.metric_residual(dx @ dx, dp @ dp, dp @ difference(dx), tau, sigma)  # type: ignore[arg-type]
            scale = x @ x / tau + p @ p / sigma
            return (after, dual, now), descent.nonexpansive(now, last, scale)

        zero = jnp.zeros(SIZE - 1)
        start = (one["start"], zero, jnp.asarray(jnp.finfo("float64").max / 1e10))
        return jax.lax.scan(advance, start, None, length=STEPS)[1].max()

    return jax.vmap(run)(batch)


def test_the_primal_dual_residual_never_grows() -> None:
    """In its own metric, with steps that meet their condition; far beyond it, it does grow."""
    batch = _problems(drawn(1000))

    assert float(_primal_dual(batch, 1.0).max()) <= 1
    assert float((_primal_dual(batch, 4.0) > 1).mean()) > 0.5


def test_a_step_too_small_to_tell_says_nothing_of_curvature() -> None:
    """Within rounding of z the ratio is zero, not noise."""
    z, tiny = jnp.asarray(1.0), jnp.asarray((100 * unit_roundoff("float64")) ** 2)

    assert float(descent.curvature_ratio(7 * tiny, tiny, z, jnp.asarray(1.0))) == 0
    assert float(descent.curvature_ratio(jnp.asarray(7.0), z, z, jnp.asarray(1.0))) > 6


@pytest.mark.parametrize(("worst", "verdict"), [(0.3, "PASS"), (-5.0, "PASS"), (1.1, "FAIL")])
def test_a_chunk_is_judged_by_its_worst_step(worst: float, verdict: str) -> None:
    """One step beyond rounding closes the gate, and so does one that is not a number."""
    good, bad = descent.descent(worst, 17, "proximal"), descent.beta_k(float("nan"), 3)

    assert judge(good, 1.0, Need.WATCH).verdict.value == verdict
    assert good.kind is Kind.RIGOROUS
    assert "17" in good.found
    assert judge(bad, 1.0, Need.WATCH).verdict is Verdict.FAIL
