"""Linear operators: the contract, and the ones that need no theory of their own.

Every operator is frozen, a pytree, and linear by construction. Programs take operators as
arguments, so two problems of one shape share one compiled program.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import jax
import numpy as np

from temporal_fabric.flows.facts import LARGEST_DENSE, Facts, composed, scaled, summed
from temporal_fabric.flows.precision import host

if TYPE_CHECKING:
    from jax import Array

__all__ = [
    "Composition",
    "Dense",
    "Diagonal",
    "Frame",
    "Identity",
    "Operator",
    "Scaled",
    "Shape",
    "Sum",
    "backward",
    "forward",
    "static",
]

Shape = tuple[int, ...]
Frame = Literal["orthonormal", "co_isometry", "biorthogonal", "redundant"]
"""What a transform declares: W'W = W W' = I; only W W' = c I; an inverse but neither; more
coefficients than samples."""


def static(**settings: Any) -> Any:
    """Return a dataclass field that is part of a pytree's structure, not of its leaves."""
    return field(metadata={"static": True}, **settings)


@runtime_checkable
class Operator(Protocol):
    """A linear map from arrays of ``in_shape`` to arrays of ``out_shape``.

    Contract: ``matvec`` and ``adjoint`` are pure JAX functions that keep the dtype, and
    <A x, y> = <x, A' y> up to rounding, in the real inner product. ``facts`` may take time; it
    is called once per problem, outside compiled code.
    """

    @property
    def in_shape(self) -> Shape:
        """Shape of what ``matvec`` takes."""
        ...

    @property
    def out_shape(self) -> Shape:
        """Shape of what ``matvec`` returns."""
        ...

    @property
    def dtype(self) -> str:
        """Real dtype that the operator computes in."""
        ...

    def matvec(self, x: Array) -> Array:
        """Return A x."""
        ...

    def adjoint(self, y: Array) -> Array:
        """Return A' y."""
        ...

    def facts(self) -> Facts:
        """Return what is exactly known about A."""
        ...


@jax.jit
def forward(operator: Operator, x: Array) -> Array:
    """Return A x, by one program for all operators of a kind and shape.

    Called step by step an operator is a program for every operation, and seconds of compiling.
    """
    return operator.matvec(x)


@jax.jit
def backward(operator: Operator, y: Array) -> Array:
    """Return A'y, as `forward`."""
    return operator.adjoint(y)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Identity:
    """A = I."""

    in_shape: Shape = static()
    dtype: str = static()

    @property
    def out_shape(self) -> Shape:
        """Shape of the result."""
        return self.in_shape

    def matvec(self, x: Array) -> Array:
        """Return x."""
        return x

    def adjoint(self, y: Array) -> Array:
        """Return y."""
        return y

    @property
    def frame(self) -> Frame:
        """The pixel lens is a transform too."""
        return "orthonormal"

    @property
    def frame_constant(self) -> float:
        """The c of W W' = c I."""
        return 1.0

    def inverse(self, u: Array) -> Array:
        """Return u."""
        return u

    def levels_of(self) -> None:
        """Return that pixels have no scales."""

    def facts(self) -> Facts:
        """Return that it is everything at once: diagonal, circular, separable, an isometry."""
        ones = np.ones(self.in_shape)
        small = max(self.in_shape, default=1) <= LARGEST_DENSE
        facts = Facts(
            fourier=ones.astype(np.complex128),
            gram_fourier=ones,
            diagonal=ones,
            factors=tuple(np.eye(n) for n in self.in_shape) if small else None,
            shift=(1,) * len(self.in_shape),
            reach=(0,) * len(self.in_shape),
            symmetric=True,
            isometry=1.0,
            norm=1.0,
            method="identity",
        )
        return facts  # noqa: RET504 - a name says what the long literal is


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Dense:
    """A matrix that acts on the raveled array."""

    matrix: Array
    """(prod(out_shape), prod(in_shape))"""

    in_shape: Shape = static()
    out_shape: Shape = static()

    @property
    def dtype(self) -> str:
        """Dtype of the matrix."""
        return str(self.matrix.dtype)

    def matvec(self, x: Array) -> Array:
        """Return A x."""
        return (self.matrix @ x.reshape(-1)).reshape(self.out_shape)

    def adjoint(self, y: Array) -> Array:
        """Return A' y."""
        return (self.matrix.T @ y.reshape(-1)).reshape(self.in_shape)

    def facts(self) -> Facts:
        """Return the matrix, and the smallest of the norm bounds that are cheap to prove."""
        matrix = host(self.matrix)
        magnitude = np.abs(matrix)
        bound = math.sqrt(float(magnitude.sum(0).max()) * float(magnitude.sum(1).max()))
        method = "sqrt(||A||_1 ||A||_inf)"
        frobenius = float(np.linalg.norm(matrix))
        if frobenius < bound:
            bound, method = frobenius, "Frobenius norm"
        symmetric = matrix.shape[0] == matrix.shape[1] and bool((matrix == matrix.T).all())
        # Each row sum rounds at most n times.
        slack = 1 + max(matrix.shape) * float(np.finfo(np.float64).eps)
        facts = Facts(matrix=matrix, symmetric=symmetric)
        if len(self.in_shape) == 1 and len(self.out_shape) == 1:
            facts = Facts(matrix=matrix, factors=(matrix,), symmetric=symmetric)
        return facts.bounds(bound * slack, method)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Diagonal:
    """Pointwise multiplication; with zeros and ones, a mask of what was observed."""

    entries: Array

    @property
    def in_shape(self) -> Shape:
        """Shape of the argument."""
        return tuple(self.entries.shape)

    @property
    def out_shape(self) -> Shape:
        """Shape of the result."""
        return self.in_shape

    @property
    def dtype(self) -> str:
        """Dtype of the entries."""
        return str(self.entries.dtype)

    def matvec(self, x: Array) -> Array:
        """Return d * x."""
        return self.entries * x

    def adjoint(self, y: Array) -> Array:
        """Return d * y."""
        return self.entries * y

    def facts(self) -> Facts:
        """Return the diagonal."""
        entries = host(self.entries)
        facts = Facts(
            norm=float(np.abs(entries).max()),
            method="largest entry of the diagonal",
            diagonal=entries,
            reach=(0,) * entries.ndim,
            symmetric=True,
        )
        return facts  # noqa: RET504 - a name says what the long literal is


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Scaled:
    """weight * A."""

    weight: Array
    operator: Operator

    @property
    def in_shape(self) -> Shape:
        """Shape of the argument."""
        return self.operator.in_shape

    @property
    def out_shape(self) -> Shape:
        """Shape of the result."""
        return self.operator.out_shape

    @property
    def dtype(self) -> str:
        """Dtype of A."""
        return self.operator.dtype

    def matvec(self, x: Array) -> Array:
        """Return weight * A x."""
        return self.weight * self.operator.matvec(x)

    def adjoint(self, y: Array) -> Array:
        """Return weight * A' y."""
        return self.weight * self.operator.adjoint(y)

    def facts(self) -> Facts:
        """Return the facts of A, scaled."""
        return scaled(float(self.weight), self.operator.facts())


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sum:
    """A + B + ..., all between the same shapes."""

    parts: tuple[Operator, ...]

    @property
    def in_shape(self) -> Shape:
        """Shape of the argument."""
        return self.parts[0].in_shape

    @property
    def out_shape(self) -> Shape:
        """Shape of the result."""
        return self.parts[0].out_shape

    @property
    def dtype(self) -> str:
        """Dtype of the first part; a specification lets no other in."""
        return self.parts[0].dtype

    def matvec(self, x: Array) -> Array:
        """Return A x + B x + ...."""
        first, *others = (part.matvec(x) for part in self.parts)
        return sum(others, first)

    def adjoint(self, y: Array) -> Array:
        """Return A' y + B' y + ...."""
        first, *others = (part.adjoint(y) for part in self.parts)
        return sum(others, first)

    def facts(self) -> Facts:
        """Return what survives a sum."""
        return summed([part.facts() for part in self.parts])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Composition:
    """A B ...: the last one acts first, as the product is written."""

    parts: tuple[Operator, ...]

    @property
    def in_shape(self) -> Shape:
        """Shape of the argument."""
        return self.parts[-1].in_shape

    @property
    def out_shape(self) -> Shape:
        """Shape of the result."""
        return self.parts[0].out_shape

    @property
    def dtype(self) -> str:
        """Dtype of the first part; a specification lets no other in."""
        return self.parts[0].dtype

    def matvec(self, x: Array) -> Array:
        """Return A (B (... x))."""
        for part in reversed(self.parts):
            x = part.matvec(x)
        return x

    def adjoint(self, y: Array) -> Array:
        """Return ... (B' (A' y))."""
        for part in self.parts:
            y = part.adjoint(y)
        return y

    def facts(self) -> Facts:
        """Return what survives a product."""
        facts = self.parts[-1].facts()
        for part in reversed(self.parts[:-1]):
            facts = composed(part.facts(), facts)
        return facts
