"""Manifolds keep their points, invert their maps, and descents along them reach closed forms."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from temporal_fabric.flows.chunk import run_chunk
from temporal_fabric.flows.energy import Energy, NonsmoothTerm, QuadraticForm, SmoothTerm
from temporal_fabric.flows.losses import Squared
from temporal_fabric.flows.manifolds import Euclidean, Product, Spd, Sphere, Stiefel
from temporal_fabric.flows.operators import Dense, Identity
from temporal_fabric.flows.penalties import L1
from temporal_fabric.flows.rigid_motions import SE3, SO3
from temporal_fabric.flows.schemes.riemannian import Riemannian
from tests.flows.parts import normal
from tests.flows.problems import problem

MANIFOLDS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "euclidean": (Euclidean(), (5,)),
    "sphere": (Sphere(), (3, 2)),
    "stiefel": (Stiefel(), (5, 2)),
    "spd": (Spd(), (3, 3)),
    "so3": (SO3(), (3, 3)),
    "se3": (SE3(), (4, 4)),
    "spheres": (Product(factor=Sphere()), (4, 3)),
}


def _place(name: str) -> tuple[Any, Any, Any]:
    """Return a manifold, a point, and a short tangent vector there."""
    manifold, shape = MANIFOLDS[name]
    ambient = normal(1, *shape)
    if name == "spd":
        ambient = ambient @ ambient.T + jnp.eye(3)
    x = manifold.nearest(ambient)
    return manifold, x, 0.1 * manifold.proj_tangent(x, normal(2, *shape))


@pytest.mark.parametrize("name", MANIFOLDS)
def test_maps_stay_on_the_manifold_and_invert(name: str) -> None:
    """Exp and retract end on it, log leads back, and retract is exp to first order."""
    manifold, x, v = _place(name)
    back = manifold.retract if name == "stiefel" else manifold.exp
    y = jax.jit(back)(x, v)
    small = 1e-4 * v
    apart = manifold.retract(x, small) - manifold.exp(x, small)

    assert float(manifold.defect(x)) < 1e-13
    assert float(manifold.defect(manifold.exp(x, v))) < 1e-12
    assert float(manifold.defect(manifold.retract(x, v))) < 1e-12
    np.testing.assert_allclose(manifold.log(x, y), v, atol=1e-10)
    assert float(jnp.abs(apart).max()) < 1e-8


@pytest.mark.parametrize("name", MANIFOLDS)
def test_the_gradient_belongs_to_the_metric(name: str) -> None:
    """<grad_R f, w> in the metric is the derivative of f along w."""
    manifold, x, w = _place(name)
    slope = normal(3, *x.shape)
    expected = jnp.sum(slope * w)

    gradient = manifold.proj_tangent(x, slope)
    assert float(manifold.metric(x, gradient, w)) == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize("name", ["euclidean", "sphere", "spd", "so3", "spheres"])
def test_transport_keeps_lengths(name: str) -> None:
    """A vector carried along a geodesic is as long at its end, in the metric there."""
    manifold, x, v = _place(name)
    y = manifold.exp(x, v)
    w = manifold.proj_tangent(x, normal(4, *x.shape))
    carried = manifold.transport(x, y, w)

    assert float(manifold.metric(y, carried, carried)) == pytest.approx(
        float(manifold.metric(x, w, w)), rel=1e-10
    )


def _descend(task: Any, start: Any, iterations: int = 1500, *, measured: bool = True) -> Any:
    scheme = Riemannian(measured=measured)
    carry = scheme.init(task, start)
    return run_chunk(scheme, task, carry, iterations=iterations, sample_every=100)


def test_the_sphere_has_the_least_eigenvector() -> None:
    """x'Qx/2 ends at the least eigenvector, with a proved L_R = beta + max |grad|."""
    q = normal(5, 6, 6)
    q = 0.5 * (q + q.T)
    w, vectors = np.linalg.eigh(np.asarray(q))
    energy = Energy((QuadraticForm(jnp.asarray(1.0), Dense(q, (6,), (6,)), jnp.zeros(6), "x"),), ())
    bound = 2 * float(np.abs(w).max()) * (1 + 1e-12)
    task = problem(energy, 1.9 / bound, bound, manifolds=(("x", Sphere()),))
    chunk = _descend(task, {"x": normal(6, 6)}, measured=False)

    assert float(chunk.rows["E"][-1]) == pytest.approx(w[0] / 2, abs=1e-9)
    assert abs(float(vectors[:, 0] @ chunk.carry.z["x"])) == pytest.approx(1, abs=1e-6)
    assert chunk.worst_violation <= 1


def test_twice_the_euclidean_step_violates_descent_on_the_sphere() -> None:
    """2/beta forgets that the sphere bends: with L_R = beta the inequality fails; it is told."""
    q = jnp.diag(jnp.asarray([1.0, 0.9, 0.1])) * 1.0
    form = QuadraticForm(jnp.asarray(1.0), Dense(q, (3,), (3,)), 3 * jnp.ones(3), "x")
    task = problem(Energy((form,), ()), 1.99, 1.0, manifolds=(("x", Sphere()),))
    chunk = _descend(task, {"x": jnp.asarray([1.0, -1.0, 0.5])}, 100, measured=False)

    assert chunk.worst_violation > 1


def test_a_rotation_is_found_from_points() -> None:
    """Wahba's problem on SO(3) ends at the closed form by the SVD (Kabsch)."""
    points = normal(7, 3, 10)
    turned = SO3().nearest(normal(8, 3, 3)) @ points + 0.05 * normal(9, 3, 10)
    # R -> R points is linear in the raveled R.
    act = Dense(jnp.kron(jnp.eye(3), points.T), (3, 3), (3, 10))
    energy = Energy((SmoothTerm(jnp.asarray(1.0), Squared(turned), {"r": act}),), ())
    task = problem(energy, 0.05, jnp.inf, manifolds=(("r", SO3()),))
    chunk = _descend(task, {"r": jnp.eye(3)})

    expected = SO3().nearest(turned @ points.T)
    np.testing.assert_allclose(chunk.carry.z["r"], expected, atol=1e-6)
    assert chunk.worst_violation <= 1


def test_a_prox_on_the_sphere_is_kept_only_if_it_descends() -> None:
    """Sparse least eigenvectors: with Armijo's test the energy never rises."""
    q = jnp.diag(jnp.asarray([1.0, 2.0, 3.0, 4.0]))
    form = QuadraticForm(jnp.asarray(1.0), Dense(q, (4,), (4,)), jnp.zeros(4), "x")
    sparse = NonsmoothTerm(jnp.asarray(0.1), L1(jnp.asarray(1.0)), Identity((4,), "float64"), "x")
    task = problem(Energy((form,), (sparse,)), 0.4, jnp.inf, manifolds=(("x", Sphere()),))
    chunk = _descend(task, {"x": normal(10, 4)}, 600)

    energies = np.asarray(chunk.rows["E"])
    assert (np.diff(energies) <= 1e-12).all()
    assert energies[-1] == pytest.approx(0.6, abs=1e-3)
