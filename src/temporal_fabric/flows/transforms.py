"""Transforms: operators with an inverse, whose frame decides which steps are allowed.

The step F_Multi, F_Proj, F_Multi^-1 is the prox of g o W only where W W' = c I
(Combettes and Pesquet, SIAM J. Optim. 18, 2007, Prop. 11):

    prox_{a g o W}(z) = z + (1/c) W'(prox_{c a g}(W z) - W z).

A redundant or biorthogonal W has no such formula, and no rescaling repairs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from temporal_fabric.flows.operators import Frame, Operator

if TYPE_CHECKING:
    from jax import Array

    from temporal_fabric.flows.precision import F64

__all__ = ["Transform"]


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
