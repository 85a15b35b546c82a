"""Transforms: operators with an inverse, whose frame decides which steps are allowed.

The step F_Multi, F_Proj, F_Multi^-1 is the prox of g o W only where W W' = c I
(Combettes and Pesquet, SIAM J. Optim. 18, 2007, Prop. 11):

    prox_{a g o W}(z) = z + (1/c) W'(prox_{c a g}(W z) - W z).

A redundant or biorthogonal W has no such formula, and no rescaling repairs it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from temporal_fabric.flows.facts import Facts
from temporal_fabric.flows.operators import Frame, Operator, Shape

if TYPE_CHECKING:
    from jax import Array

    from temporal_fabric.flows.precision import F64

__all__ = ["Orthonormal", "Transform"]


@runtime_checkable
class Transform(Operator, Protocol):
    """An operator W with an inverse; ``matvec`` analyses, ``adjoint`` is W'."""

    @property
    def frame(self) -> Frame:
        """The declared class; a certificate measures it before it is believed."""
        ...

    @property
    def frame_constant(self) -> float:
        """The c of W W' = c I, or of W'W = c I for a redundant tight frame."""
        ...

    def inverse(self, u: Array) -> Array:
        """Return W^-1 u, a left inverse where W is redundant."""
        ...

    def levels_of(self) -> F64 | None:
        """Return each coefficient's scale (0 = coarsest), in ``out_shape``; None without scales."""
        ...


class Orthonormal(ABC):
    """What every transform with W'W = W W' = I on arrays of one shape says of itself.

    A base of dataclasses that have ``in_shape`` and an ``adjoint``.
    """

    in_shape: Shape

    @property
    def out_shape(self) -> Shape:
        """Shape of the coefficients, that of the samples."""
        return self.in_shape

    @property
    def frame(self) -> Frame:
        """W'W = W W' = I."""
        return "orthonormal"

    @property
    def frame_constant(self) -> float:
        """The c of W W' = c I."""
        return 1.0

    @abstractmethod
    def adjoint(self, y: Array) -> Array:
        """Return W'y, which is W^-1 y."""

    def inverse(self, u: Array) -> Array:
        """Return W^-1 u."""
        return self.adjoint(u)

    def facts(self) -> Facts:
        """Return an isometry.

        A wavelet maps a shift by 2^J to shifts of unlike size in each band: no ``shift`` here.
        """
        return Facts(norm=1.0 + 1e-13, method="orthonormal by construction", isometry=1.0)
