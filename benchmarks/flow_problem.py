"""The problem of `bench_flows`: sparse deconvolution of a piecewise constant signal.

min |H x - y|^2 / 2 + lambda |W x|_1 with a Gaussian blur (sigma 3, 25 taps, periodic) and Haar
wavelets of 5 levels, in float32; and the same as its peers would write it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import jaxopt
import numpy as np
from scipy import ndimage, sparse

from temporal_fabric.flows.chunk import run_chunk
from temporal_fabric.flows.compiling import compile_flow
from temporal_fabric.flows.convolutions import gaussian_taps
from temporal_fabric.flows.reading import read_spec

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.flows.compiling import Compiled

LEVELS, SIGMA, RADIUS, LAMBDA = 5, 3.0, 12, 0.002
BLOCK = 2**LEVELS


def signal(n: int) -> Any:
    """Return a blurred, noisy piecewise constant signal."""
    rng = np.random.default_rng(0)
    jumps = np.sort(rng.choice(n, n // 100, replace=False))
    clean = rng.normal(size=n // 100 + 1)[np.searchsorted(jumps, np.arange(n), side="right")]
    return blurred(clean) + 0.005 * rng.normal(size=n)


def blurred(x: Any) -> Any:
    """Return H x."""
    return ndimage.convolve1d(x, gaussian_taps(SIGMA, RADIUS), mode="wrap")


def flow(n: int, family: str, folder: Path, dtype: str = "float32", mu: float = 0.0) -> Compiled:
    """Return the problem as a compiled flow, with mu |x|^2 / 2 where that is wanted."""
    np.save(folder / f"{n}.npy", signal(n))
    body = {
        "dtype": dtype,
        "data": {"y": {"type": "file", "path": f"{n}.npy"}},
        "operators": {"blur": {"type": "separable_convolution", "sigma": SIGMA, "radius": RADIUS}},
        "state": {"x": {"shape": [n]}},
        "terms": [
            {"type": "quadratic", "operator": "blur", "target": "y"},
            {"type": "wavelet_l1", "wavelet": "haar", "levels": LEVELS, "weight": LAMBDA},
            *([{"type": "tikhonov", "weight": mu}] if mu else []),
        ],
        # No restart: its rule differs from library to library.
        "flow": {"family": family, "restart": "none"}
        | ({"step": 1.0} if family == "proximal" else {}),
        "certification": {"profile": "convex"},
    }
    return compile_flow(read_spec(body), folder)


@dataclass(frozen=True)
class Ours:
    """Iterations of a flow from its start, its certificates of every step included."""

    compiled: Compiled
    iterations: int
    every: int = 0
    """Iterations for each row of telemetry; 0: one row at the end."""

    def __call__(self) -> Any:
        """Run them."""
        one = self.compiled
        carry = one.scheme.init(one.problem, one.start)
        every = self.every or self.iterations
        return run_chunk(
            one.scheme, one.problem, carry, iterations=self.iterations, sample_every=every
        )


def pyramid(x: Any) -> Any:
    """Return Haar coefficients as a user writes the transform."""
    parts = []
    for _ in range(LEVELS):
        pairs = x.reshape(-1, 2)
        parts.insert(0, (pairs[:, 0] - pairs[:, 1]) / 2**0.5)
        x = (pairs[:, 0] + pairs[:, 1]) / 2**0.5
    return jnp.concatenate([x, *parts])


def unpyramid(u: Any) -> Any:
    """Return the inverse of `pyramid`."""
    x, at = u[: u.shape[0] >> LEVELS], u.shape[0] >> LEVELS
    while at < u.shape[0]:
        d = u[at : 2 * at]
        x = jnp.stack([x + d, x - d], -1).reshape(-1) / 2**0.5
        at *= 2
    return x


def by_jaxopt(compiled: Compiled, *, natural: bool, accelerated: bool, iterations: int) -> Any:
    """Return jaxopt's proximal gradient at the same fixed step, on its operator or on ours."""
    term: Any = compiled.energy.smooth[0]
    blur, y = term.operators["x"], term.loss.target
    lens = compiled.energy.nonsmooth[0].operator
    n = y.shape[0]
    symbol = jnp.asarray(np.fft.rfft(blurred(np.eye(1, n)[0])).real, y.dtype)

    def smooth(u: Any) -> Any:
        if natural:
            return 0.5 * jnp.sum((jnp.fft.irfft(jnp.fft.rfft(unpyramid(u)) * symbol, n) - y) ** 2)
        return 0.5 * jnp.sum((blur.matvec(lens.adjoint(u)) - y) ** 2)

    solver = jaxopt.ProximalGradient(
        fun=smooth,
        prox=jaxopt.prox.prox_lasso,
        stepsize=1.0,
        maxiter=iterations,
        tol=0.0,
        acceleration=accelerated,
        implicit_diff=False,
    )
    start = jnp.zeros(n, y.dtype)
    run = jax.jit(partial(solver.run, hyperparams_prox=LAMBDA))
    return lambda: jax.block_until_ready(run(start).params)


def value(compiled: Compiled, x: Any) -> float:
    """Return the energy in float64, from a signal."""
    y = np.asarray(compiled.energy.smooth[0].loss.target, np.float64)  # type: ignore[union-attr]
    wide = np.asarray(x, np.float64)
    u = np.asarray(jax.jit(pyramid)(jnp.asarray(wide)))
    return float(0.5 * np.sum((blurred(wide) - y) ** 2) + LAMBDA * np.abs(u).sum())


def matrix(n: int) -> Any:
    """Return H W' as a sparse matrix, in blocks of 32 coefficients."""
    one = np.asarray(jax.jit(jax.vmap(unpyramid))(jnp.eye(BLOCK)))
    synthesis = sparse.kron(sparse.identity(n // BLOCK), sparse.csr_matrix(one.T))
    taps, rows = gaussian_taps(SIGMA, RADIUS), np.arange(n)
    columns = (rows[:, None] + np.arange(-RADIUS, RADIUS + 1)) % n
    blur = sparse.csr_matrix(
        (np.tile(taps, n), (np.repeat(rows, len(taps)), columns.ravel())), shape=(n, n)
    )
    return (blur @ synthesis).tocsc()
