"""The one dtype of a flow, the one of its certificates, and the switch that makes both real.

A flow runs in the dtype of its specification, everywhere. Certificates are evaluated in float64
by explicit casts, the one recorded exception. JAX without 64-bit types would turn those casts
into float32 in silence, so importing this module switches the types on for the process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CERT_DTYPE", "DTYPES", "F64", "cast", "complex_of", "host", "real_of", "unit_roundoff"]

jax.config.update("jax_enable_x64", True)  # noqa: FBT003 - the signature is JAX's

DTYPES = ("float32", "float64")
CERT_DTYPE = "float64"

T = TypeVar("T")
if TYPE_CHECKING:
    F64 = NDArray[np.float64]
    """A float64 array on the host."""
else:
    F64 = np.ndarray


def unit_roundoff(dtype: str) -> float:
    """Return u, half the distance from 1 to the next number of a real dtype."""
    return float(np.finfo(dtype).eps) / 2


def complex_of(dtype: str) -> str:
    """Return the complex dtype with the precision of a real one."""
    return "complex64" if real_of(dtype) == "float32" else "complex128"


def real_of(dtype: str) -> str:
    """Return the real dtype with the precision of a real or complex one."""
    return {"complex64": "float32", "complex128": "float64"}.get(str(dtype), str(dtype))


def cast(tree: T, dtype: str) -> T:
    """Return a pytree with its real and complex arrays in the precision of a real dtype.

    Integers and truth values stay what they are. The values are those that the flow computes
    with: an operator rounded to float32 and cast to float64 is the operator that ran.
    """
    real, complex_ = jnp.dtype(dtype), jnp.dtype(complex_of(dtype))

    def leaf(value: Any) -> Any:
        array = jnp.asarray(value)
        if jnp.issubdtype(array.dtype, jnp.complexfloating):
            return array.astype(complex_)
        return array.astype(real) if jnp.issubdtype(array.dtype, jnp.floating) else array

    same: T = jax.tree.map(leaf, tree)
    return same


def host(value: Any) -> F64:
    """Return a real array on the host, in float64."""
    return np.asarray(value, dtype=np.float64)
