"""SCICO's proximal gradient on the benchmark's problem, in an environment of its own.

SCICO asks for an older JAX than ours. `bench_flows` starts this file with that environment's
Python and speaks to it line by line: ``n accelerated iterations FILE`` prepares a problem and is
answered ``ready``; ``go`` runs it and is answered with the processor time of the process so far;
``save PATH`` writes what it found.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scico import functional, linop, loss
from scico.optimize.pgm import PGM, AcceleratedPGM

LEVELS, LAMBDA = 5, 0.002


def unpyramid(u: Any) -> Any:
    """Return the signal of Haar coefficients."""
    at = u.shape[0] >> LEVELS
    x = u[:at]
    while at < u.shape[0]:
        d = u[at : 2 * at]
        x = jnp.stack([x + d, x - d], -1).reshape(-1) / 2**0.5
        at *= 2
    return x


def solver(n: int, file: str, *, accelerated: bool) -> Any:
    """Return SCICO's solver at the step of 1, on what a user of it would write."""
    data = np.load(file)
    y, symbol = jnp.asarray(data["y"]), jnp.asarray(data["symbol"])
    forward = linop.LinearOperator(
        input_shape=(n,),
        output_shape=(n,),
        eval_fn=lambda u: jnp.fft.irfft(jnp.fft.rfft(unpyramid(u)) * symbol, n),
        input_dtype=np.float32,
        output_dtype=np.float32,
        jit=True,
    )
    kind = AcceleratedPGM if accelerated else PGM
    fit = loss.SquaredL2Loss(y=y, A=forward)
    start = jnp.zeros(n, jnp.float32)
    return kind(f=fit, g=LAMBDA * functional.L1Norm(), L0=1.0, x0=start, maxiter=10**9)


def main() -> None:
    """Answer until the input ends."""
    made: Any = None
    iterations = 0
    for line in sys.stdin:
        verb, *rest = line.split()
        if verb == "go":
            for _ in range(iterations):
                made.step()
            jax.block_until_ready(made.x)
            print(time.process_time(), flush=True)
        elif verb == "save":
            np.save(rest[0], np.asarray(made.x))
            print("saved", flush=True)
        else:
            iterations = int(rest[1])
            made = solver(int(verb), rest[2], accelerated=rest[0] == "accelerated")
            print("ready", flush=True)


if __name__ == "__main__":
    main()
