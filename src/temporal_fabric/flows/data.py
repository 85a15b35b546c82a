"""Arrays of a specification: written out, drawn, read from files, or observed through operators."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from temporal_fabric.errors import Problem
from temporal_fabric.flows.precision import host

if TYPE_CHECKING:
    from collections.abc import Callable

    from jax import Array

    from temporal_fabric.flows.operators import Operator, Shape
    from temporal_fabric.flows.precision import F64
    from temporal_fabric.flows.spec import FlowSpec

__all__ = ["DataFault", "Datasets", "block_means"]


class DataFault(Exception):
    """Data that is not what the specification says; carries the problem."""

    def __init__(self, code: str, path: str, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(code, path, message)


class Datasets:
    """The arrays of a specification, each made once and on first use, in float64."""

    def __init__(
        self,
        spec: FlowSpec,
        folder: Path,
        operator_for: Callable[[str, Shape], Operator],
    ) -> None:
        self._spec = spec
        self._folder = folder
        self._operator_for = operator_for
        self._made: dict[str, F64] = {}

    def array(self, name: str) -> F64:
        """Return an array by its name.

        Raises:
            DataFault: where it cannot be had, with its place.
        """
        if name not in self._made:
            found = self._make(name)
            if not np.isfinite(found).all():
                raise DataFault("E_DATA", f"/data/{name}", "has values that are not finite")
            self._made[name] = found
        return self._made[name]

    def _make(self, name: str) -> F64:
        one: Any = self._spec.data[name]
        if one.type == "values":
            return _numbers(name, one.values)
        if one.type == "constant":
            return np.full(one.shape, one.value)
        if one.type == "normal":
            drawn: F64 = one.scale * host(_normal(one.seed, one.shape))
            return drawn
        if one.type == "file":
            return _from_file(name, one, self._folder)
        source = self.array(one.source)
        operator = self._operator_for(one.operator, tuple(source.shape))
        seen = host(jax.jit(operator.matvec)(jnp.asarray(source, operator.dtype)))
        observed: F64 = seen + one.noise * host(_normal(one.seed, seen.shape))
        return observed


def _normal(seed: int, shape: tuple[int, ...]) -> Array:
    return jax.random.normal(jax.random.key(seed), shape, jnp.dtype("float64"))


def _numbers(name: str, values: Any) -> F64:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        message = "is not an array of numbers; every list in it must have the same length"
        raise DataFault("E_DATA", f"/data/{name}/values", message) from None


def _from_file(name: str, one: Any, folder: Path) -> F64:
    place = f"/data/{name}/path"
    try:
        home = folder if one.package is None else Path(str(files(one.package)))
        # Without pickles a file holds numbers and nothing that runs.
        loaded: Any = np.load(home / one.path, allow_pickle=False)
        if hasattr(loaded, "files"):
            loaded = loaded[one.key or loaded.files[0]]
        array = np.asarray(loaded, dtype=np.float64) / one.divide
    except ModuleNotFoundError:
        message = f"needs the package {one.package}; install it"
        raise DataFault("E_DATA", place, message) from None
    except (OSError, ValueError, KeyError, EOFError) as error:
        message = f"cannot be read as .npy or .npz: {error}"
        raise DataFault("E_DATA", place, message) from None
    return block_means(name, array, one.shrink)


def block_means(name: str, array: F64, by: int) -> F64:
    """Return the means of squares (cubes) with a side of ``by``.

    Raises:
        DataFault: A side is no multiple of it.
    """
    if any(n % by for n in array.shape):
        message = f"does not divide {list(array.shape)}; use a divisor of every side"
        raise DataFault("E_DATA", f"/data/{name}/shrink", message)
    split = [size for n in array.shape for size in (n // by, by)]
    means: F64 = array.reshape(split).mean(axis=tuple(range(1, 2 * array.ndim, 2)))
    return means
