"""Row sums by coloured probing: one product for all columns that cannot meet in a row.

If L_ij = 0 wherever i and j are more than r tiles apart, the columns at one place in every
(2r+1)-th tile have no row in common, so the product of L with the sum of their unit vectors
holds each of their entries by itself (Curtis, Powell, Reid, IMA J. Appl. Math. 13, 1974).
"""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from temporal_fabric.flows.certificates.krylov import gaussian
from temporal_fabric.flows.certificates.rounding import of_fft
from temporal_fabric.flows.certificates.rows import Rows
from temporal_fabric.flows.operators import Identity
from temporal_fabric.flows.precision import CERT_DTYPE, cast, host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jax import Array

    from temporal_fabric.flows.certificates.hessian import Hessian
    from temporal_fabric.flows.operators import Operator
    from temporal_fabric.flows.precision import F64

__all__ = ["MOST_PROBES", "SMALL", "probed_rows"]

MOST_PROBES = 1024
"""Most products that are spent on colours."""

SMALL = 2048
"""Most unknowns for which every column is asked for by itself."""


def probed_rows(block: Hessian, lens: Operator) -> Rows | None:
    """Return the rows of W L W' from products, None where too many would be needed."""
    wide: Operator = cast(lens, CERT_DTYPE)
    apply = Partial(_in_lens, block.apply, wide)
    size = math.prod(lens.out_shape)
    colours = _colours(block, lens)
    if colours is not None and len(colours) < size:
        if not _holds(apply, colours, lens.out_shape):
            return None
        return _rows(apply, iter(colours), lens.out_shape, block.mu, f"{len(colours)} colours")
    if size > SMALL or not _is_real(wide):
        return None
    units = (np.eye(1, size, at).reshape(lens.out_shape) for at in range(size))
    return _rows(apply, units, lens.out_shape, block.mu, f"{size} columns")


def _colours(block: Hessian, lens: Operator) -> list[F64] | None:
    """Return the sums of unit vectors of each colour; pixels only, where the reach is known."""
    reach = None if block.exact is None else block.exact.reach
    if reach is None or not isinstance(lens, Identity):
        return None
    # A cyclic distance: the number of tiles along an axis has to be a multiple of the period.
    periods = [_period(n, 2 * far + 1) for n, far in zip(block.shape, reach, strict=True)]
    if math.prod(periods) > MOST_PROBES:
        return None
    return list(_combs(block.shape, periods))


def _period(side: int, least: int) -> int:
    """Return the smallest divisor of a side that is at least ``least``, else the side."""
    return next((one for one in range(min(least, side), side) if side % one == 0), side)


def _combs(shape: tuple[int, ...], periods: list[int]) -> Iterator[F64]:
    for start in itertools.product(*(range(period) for period in periods)):
        comb = np.zeros(shape)
        comb[tuple(slice(at, None, by) for at, by in zip(start, periods, strict=True))] = 1.0
        yield comb


def _holds(apply: Callable[[Array], Array], colours: list[F64], shape: tuple[int, ...]) -> bool:
    """Return whether random signs leave the moduli as they are: no two columns met in a row."""
    for at in range(0, len(colours), max(1, len(colours) // 8)):
        signs = host(jnp.sign(gaussian(at + 1, shape)))
        plain, signed = (
            np.abs(host(_product(apply, jnp.asarray(one))))
            for one in (colours[at], colours[at] * signs)
        )
        if float(np.abs(plain - signed).max()) > 1e-12 * float(plain.max()):
            return False
    return True


def _rows(
    apply: Callable[[Array], Array],
    probes: Iterator[F64],
    shape: tuple[int, ...],
    mu: float,
    method: str,
) -> Rows:
    total, diagonal = np.zeros(shape), np.zeros(shape)
    for probe in probes:
        image = host(_product(apply, jnp.asarray(probe)))
        total += np.abs(image)
        diagonal += probe * image
    error = of_fft(total.size) * float(total.max())
    return Rows(
        diagonal=(diagonal - mu - error).reshape(-1),
        off=(total - np.abs(diagonal) + error).reshape(-1),
        labels=("",),
        band=np.zeros(total.size),
        method=f"probing, {method}",
        error=error,
    )


@partial(jax.jit)
def _product(apply: Callable[[Array], Array], probe: Array) -> Array:
    return apply(probe)


def _in_lens(apply: Callable[[Array], Array], lens: Operator, u: Array) -> Array:
    return lens.matvec(apply(lens.adjoint(u)))


def _is_real(lens: Operator) -> bool:
    takes = jax.ShapeDtypeStruct(lens.in_shape, jnp.dtype(CERT_DTYPE))
    return not jnp.issubdtype(jax.eval_shape(lens.matvec, takes).dtype, jnp.complexfloating)
