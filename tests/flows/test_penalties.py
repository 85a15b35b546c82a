"""Every prox minimises what it says, and every conjugate bounds its penalty from below."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from temporal_fabric.flows.energy import NonsmoothTerm
from temporal_fabric.flows.fourier import FourierTransform
from temporal_fabric.flows.group_penalties import GroupL1, LabelledGroupL1, Tree, wavelet_tree
from temporal_fabric.flows.losses import Huber, KullbackLeibler, Squared
from temporal_fabric.flows.operators import Identity
from temporal_fabric.flows.penalties import L0, L1, Box, Nonnegative, Simplex
from temporal_fabric.flows.wavelets import Wavelet
from tests.flows.parts import normal

ONE = jnp.asarray(1.0)
LABELS = jnp.asarray([0, 0, 1, 1, 2, 2, 2, 0])
PENALTIES: dict[str, Any] = {
    "l1": L1(jnp.asarray([0.5, 1, 2, 0.1, 1, 1, 3, 1])),
    "l0": L0(jnp.asarray(0.4)),
    "group": GroupL1(jnp.asarray([[0.5, 1.0, 0.2, 2.0]]), (0,)),
    "labelled": LabelledGroupL1(jnp.asarray([0.5, 1.0, 2.0]), LABELS),
    "tree": wavelet_tree((8,), 3, jnp.asarray(0.3)),
    "box": Box(jnp.asarray(-0.2), jnp.asarray(0.7)),
    "nonnegative": Nonnegative("float64"),
    "simplex": Simplex(jnp.asarray(1.5)),
}


def _argument(name: str, seed: int) -> Any:
    return normal(seed, *((2, 4) if name == "group" else (8,)))


@pytest.mark.parametrize("name", PENALTIES)
def test_the_prox_is_the_minimiser(name: str) -> None:
    """No point near the prox, nor any of many others, has a lower p(v) + |v - u|^2 / (2 step)."""
    penalty, u, step = PENALTIES[name], _argument(name, 1), jnp.asarray(0.6)
    best = penalty.prox(u, step)

    def objective(v: Any) -> Any:
        return penalty.value(v) + jnp.sum((v - u) ** 2) / (2 * step)

    others = [best + scale * normal(seed, *u.shape) for seed in range(40) for scale in (1e-3, 0.3)]
    others += [penalty.prox(other, step) for other in others]
    values = jax.vmap(objective)(jnp.stack(others))

    assert jnp.isfinite(objective(best))
    assert float(values.min()) >= float(objective(best)) - 1e-12


def test_the_tree_prox_is_scipys_minimiser() -> None:
    """The pass from the leaves to the root ends where a numerical minimiser does."""
    tree: Tree = PENALTIES["tree"]
    u = normal(2, 8)

    def objective(v: Any) -> float:
        return float(tree.value(jnp.asarray(v)) + jnp.sum((v - u) ** 2) / 2)

    found = optimize.minimize(objective, np.asarray(u), method="Powell", options={"xtol": 1e-9})

    assert objective(tree.prox(u, ONE)) <= found.fun + 1e-12
    np.testing.assert_allclose(tree.prox(u, ONE), found.x, atol=1e-2)


@pytest.mark.parametrize("name", [name for name in PENALTIES if name != "l0"])
def test_the_conjugate_holds_fenchels_inequality(name: str) -> None:
    """<u, v> <= p(u) + p*(v), with equality at a prox and its residual (Moreau)."""
    penalty = PENALTIES[name]
    u = penalty.prox(_argument(name, 3), ONE)
    v = _argument(name, 3) - u
    inside = v * penalty.dual_scale(v)
    other = penalty.prox(_argument(name, 4), ONE)

    assert (
        float(jnp.sum(other * inside))
        <= float(penalty.value(other)) + float(penalty.conjugate(inside)) + 1e-12
    )
    slack = 1 - 1e-12 if name in ("l1", "group", "labelled", "tree") else 1.0
    total = float(penalty.value(u)) + float(penalty.conjugate(v * slack))
    assert total == pytest.approx(float(jnp.sum(u * v)), abs=1e-10)


@pytest.mark.parametrize("name", ["l1", "group", "labelled", "tree"])
def test_the_dual_scale_is_the_largest(name: str) -> None:
    """The scaled dual is feasible, and one a little larger is not."""
    penalty = PENALTIES[name]
    v = 10 * _argument(name, 5)
    scale = penalty.dual_scale(v)

    assert jnp.isfinite(penalty.conjugate(scale * v))
    assert not jnp.isfinite(penalty.conjugate(1.001 * scale * v))
    assert float(penalty.dual_scale(1e-3 * v)) == 1


@pytest.mark.parametrize("name", PENALTIES)
def test_differences_are_those_of_the_values(name: str) -> None:
    """p(u + d) - p(u), and a size that is not below its modulus."""
    penalty = PENALTIES[name]
    u, w = penalty.prox(_argument(name, 6), ONE), penalty.prox(_argument(name, 7), ONE)
    change, size = penalty.difference(u, w - u)

    assert float(change) == pytest.approx(float(penalty.value(w) - penalty.value(u)), abs=1e-12)
    assert abs(float(change)) <= float(size) + 1e-12


@pytest.mark.parametrize(
    "lens", [Wavelet("db4", 2, (16,), "float64"), FourierTransform((16,), "float64")]
)
def test_the_prox_in_a_lens_is_the_minimiser(lens: Any) -> None:
    """F_Multi, F_Proj, F_Multi^-1 is the prox of the penalty of the coefficients."""
    term = NonsmoothTerm(jnp.asarray(0.3), L1(ONE), lens, "x")
    x = normal(8, 16)
    best = term.prox(x, jnp.asarray(0.7))

    def objective(z: Any) -> float:
        return float(term.value({"x": z}) + jnp.sum((z - x) ** 2) / 1.4)

    for seed in range(20):
        assert objective(best + 1e-3 * normal(seed, 16)) >= objective(best)


def test_the_dual_prox_is_moreaus() -> None:
    """The prox of sigma h* is inside the domain of h*, and undoes the prox of h / sigma."""
    term = NonsmoothTerm(jnp.asarray(0.3), L1(ONE), Identity((8,), "float64"), "x")
    p, sigma = normal(9, 8), jnp.asarray(0.5)

    np.testing.assert_allclose(term.dual_prox(p, sigma), jnp.clip(p, -0.3, 0.3), atol=1e-15)


COUNTS = jnp.asarray([0.0, 1, 4, 2])
LOSSES: dict[str, Any] = {
    "squared": Squared(normal(10, 4)),
    "huber": Huber(normal(11, 4), jnp.asarray(0.5)),
    "kl": KullbackLeibler(COUNTS, jnp.full(4, 0.3)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_have_their_derivatives_and_conjugates(name: str) -> None:
    """Gradient and curvature by JAX, curvature in its bounds, Fenchel's equality at the slope."""
    loss = LOSSES[name]
    r, d = jnp.abs(normal(12, 4)), 0.1 * normal(13, 4)
    gradient = loss.grad(r)
    low, high = loss.curvature_bounds()
    conjugate = float(loss.conjugate(gradient))

    np.testing.assert_allclose(gradient, jax.grad(loss.value)(r), atol=1e-13)
    np.testing.assert_allclose(loss.curvature(r), jax.grad(lambda s: loss.grad(s).sum())(r))
    assert low <= float(loss.curvature(r).min())
    assert float(loss.curvature(r).max()) <= high
    assert conjugate + float(loss.value(r)) == pytest.approx(float(jnp.sum(gradient * r)))
    assert float(loss.difference(r, d)) == pytest.approx(float(loss.value(r + d) - loss.value(r)))
