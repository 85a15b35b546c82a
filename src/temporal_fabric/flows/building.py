"""From the words of a specification to operators, lenses, penalties, losses and terms."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from temporal_fabric.errors import RequestRejected
from temporal_fabric.flows.convolutions import (
    SeparableConvolution,
    fourier_convolution,
    gaussian_taps,
)
from temporal_fabric.flows.data import DataFault, Datasets
from temporal_fabric.flows.differences import Gradient
from temporal_fabric.flows.energy import Energy, NonsmoothTerm, QuadraticForm, Smooth, SmoothTerm
from temporal_fabric.flows.fourier import FourierTransform
from temporal_fabric.flows.graph_wavelets import graph_wavelet, laplacian
from temporal_fabric.flows.group_penalties import GroupL1, LabelledGroupL1, wavelet_tree
from temporal_fabric.flows.losses import Huber, KullbackLeibler, Squared
from temporal_fabric.flows.operators import Composition, Dense, Diagonal, Identity, Sum
from temporal_fabric.flows.own_operators import OwnOperator
from temporal_fabric.flows.penalties import L0, L1, Box, Nonnegative, Simplex
from temporal_fabric.flows.wavelets import Wavelet

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.errors import Problem
    from temporal_fabric.flows.operators import Operator, Shape
    from temporal_fabric.flows.spec import FlowSpec

__all__ = ["Builder", "entry_point"]


def entry_point(name: str, place: str) -> Any:
    """Return what package.module:function names.

    Raises:
        DataFault: where there is no such thing.
    """
    module, _, attribute = name.partition(":")
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise DataFault("E_FLOW", place, f"{name} cannot be imported: {error}") from None
    return found


class Builder:
    """Builds the parts of one specification, in its dtype."""

    def __init__(self, spec: FlowSpec, folder: Path) -> None:
        self.spec = spec
        self.dtype = spec.dtype
        self.data = Datasets(spec, folder, self.operator)

    def array(self, name: str | None, shape: Shape, place: str) -> Any:
        """Return data in the spec's dtype and of a shape; zeros for no name.

        Raises:
            DataFault: where the shape is another one.
        """
        if name is None:
            return jnp.zeros(shape, self.dtype)
        found = self.data.array(name)
        if found.shape != shape:
            message = f"{name} has the shape {list(found.shape)}; {list(shape)} is needed here"
            raise DataFault("E_FLOW", place, message)
        return jnp.asarray(found, self.dtype)

    def operator(self, name: str, shape: Shape) -> Operator:
        """Return an operator on arrays of a shape.

        Raises:
            DataFault: where its data does not fit.
        """
        place = f"/operators/{name}"
        one: Any = self.spec.operators.get(name)
        if one is None or one.type == "identity":
            return Identity(shape, self.dtype)
        if one.type == "mask":
            return Diagonal(self.array(one.entries, shape, f"{place}/entries"))
        if one.type == "gradient":
            return Gradient(shape, self.dtype, one.boundary)
        if one.type in ("sum", "composition"):
            return self._joined(one, shape)
        build = {"dense": self._dense, "own": self._own}.get(one.type, self._convolution)
        return build(one, shape, place)

    def _joined(self, one: Any, shape: Shape) -> Operator:
        if one.type == "sum":
            return Sum(tuple(self.operator(part, shape) for part in one.parts))
        built: list[Operator] = []
        for part in reversed(one.parts):
            built.insert(0, self.operator(part, built[0].out_shape if built else shape))
        return Composition(tuple(built))

    def _dense(self, one: Any, shape: Shape, place: str) -> Operator:
        matrix = self.data.array(one.matrix)
        columns = int(np.prod(shape))
        rows = matrix.shape[0] if matrix.ndim == 2 else -1  # noqa: PLR2004 - a matrix
        if rows < 0 or matrix.shape[1] != columns:
            message = f"{one.matrix} has the shape {list(matrix.shape)}; {columns} columns needed"
            raise DataFault("E_FLOW", f"{place}/matrix", message)
        out = one.out_shape or (rows,)
        if int(np.prod(out)) != rows:
            message = f"is {list(out)}, which does not hold the matrix's {rows} rows"
            raise DataFault("E_FLOW", f"{place}/out_shape", message)
        return Dense(jnp.asarray(matrix, self.dtype), shape, tuple(out))

    def _convolution(self, one: Any, shape: Shape, place: str) -> Operator:
        if one.type == "fft_convolution":
            return fourier_convolution(self._kernel(one, shape, place), shape, self.dtype)
        if one.sigma is not None:
            taps = gaussian_taps(one.sigma, one.radius)
        else:
            taps = self.data.array(one.kernel).reshape(-1)
        if one.sigma is None and len(taps) % 2 == 0:
            raise DataFault("E_FLOW", f"{place}/kernel", "has an even length; make it odd")
        # Taps beyond the side would wrap around more than once, or reach past every boundary.
        reach = min(len(taps) // 2, *(n - 1 for n in shape)) if len(taps) > 1 else 0
        middle = len(taps) // 2
        cut = taps[middle - reach : middle + reach + 1]
        kept = cut / cut.sum() if one.sigma is not None else taps
        return SeparableConvolution(
            (jnp.asarray(kept, self.dtype),) * len(shape), shape, one.boundary
        )

    def _kernel(self, one: Any, shape: Shape, place: str) -> Any:
        if one.sigma is None:
            kernel = self.data.array(one.kernel)
            if kernel.ndim != len(shape) or any(
                n % 2 == 0 or n > side for n, side in zip(kernel.shape, shape, strict=False)
            ):
                message = "must be odd along each axis, and not longer than the slot"
                raise DataFault("E_FLOW", f"{place}/kernel", message)
            return kernel
        kernel = np.ones(())
        for side in shape:
            longest = (side - 1) // 2
            taps = gaussian_taps(one.sigma, one.radius)
            reach = min(len(taps) // 2, longest)
            taps = gaussian_taps(one.sigma, max(reach, 1)) if side > 2 else np.ones(1)  # noqa: PLR2004
            kernel = kernel[..., None] * taps
        return kernel

    def _own(self, one: Any, shape: Shape, place: str) -> Operator:
        function = entry_point(one.entry_point, f"{place}/entry_point")
        adjoint = None if one.adjoint is None else entry_point(one.adjoint, f"{place}/adjoint")
        parameters = None
        if one.parameters is not None:
            parameters = jnp.asarray(self.data.array(one.parameters), self.dtype)
        out = tuple(one.out_shape or shape)
        operator = OwnOperator(parameters, shape, out, self.dtype, function, adjoint)
        _kept(operator.matvec, shape, out, self.dtype, f"{place}/entry_point")
        _kept(operator.adjoint, out, shape, self.dtype, f"{place}/adjoint")
        return operator

    def lens(self, one: Any, shape: Shape) -> Operator:
        """Return a transform on arrays of a shape."""
        if one.type == "identity":
            return Identity(shape, self.dtype)
        if one.type == "fourier":
            return FourierTransform(shape, self.dtype)
        if one.type == "graph":
            nodes = int(np.prod(shape))
            return graph_wavelet(
                laplacian(nodes, self.data.array(one.edges)), one.bands, self.dtype
            )
        return Wavelet(one.type, one.levels, shape, self.dtype)

    def energy(self) -> Energy:
        """Return f + g.

        Raises:
            RequestRejected: with every term whose data does not fit.
        """
        smooth: list[Smooth] = []
        rough: list[NonsmoothTerm] = []
        problems: list[Problem] = []
        for number, term in enumerate(self.spec.terms):
            place = f"/terms/{number}"
            try:
                if term.type in ("quadratic", "tikhonov", "huber", "kl"):
                    smooth.append(self._smooth(term, place))
                elif term.type == "quadratic_form":
                    smooth.append(self._form(term, place))
                else:
                    rough.append(self._rough(term, place))
            except DataFault as fault:
                problems.append(fault.problem)
        if problems:
            raise RequestRejected(problems)
        return Energy(tuple(smooth), tuple(rough))

    def _weight(self, term: Any) -> Any:
        return jnp.asarray(term.weight, self.dtype)

    def _smooth(self, term: Any, place: str) -> Smooth:
        names = {term.variable: term.operator, **term.also}
        shapes = {slot: tuple(self.spec.state[slot].shape) for slot in names}
        operators = {slot: self.operator(name, shapes[slot]) for slot, name in names.items()}
        outs = {op.out_shape for op in operators.values()}
        if len(outs) > 1:
            message = "joins operators whose results differ in shape; they are added up"
            raise DataFault("E_FLOW", f"{place}/also", message)
        target = self.array(term.target, outs.pop(), f"{place}/target")
        loss: Any = Squared(target)
        if term.type == "huber":
            loss = Huber(target, jnp.asarray(term.width, self.dtype))
        if term.type == "kl":
            if bool((target < 0).any()):
                raise DataFault("E_FLOW", f"{place}/target", "has negative counts")
            loss = KullbackLeibler(target, jnp.full_like(target, term.background))
        return SmoothTerm(self._weight(term), loss, operators, term.name or term.type)

    def _form(self, term: Any, place: str) -> Smooth:
        shape = tuple(self.spec.state[term.variable].shape)
        operator = self.operator(term.operator, shape)
        if operator.out_shape != shape or not operator.facts().symmetric:
            message = "is not known to be symmetric, which a quadratic form needs"
            raise DataFault("E_FLOW", f"{place}/operator", message)
        linear = self.array(term.linear, shape, f"{place}/linear")
        return QuadraticForm(
            self._weight(term), operator, linear, term.variable, term.name or term.type
        )

    def _rough(self, term: Any, place: str) -> NonsmoothTerm:
        shape = tuple(self.spec.state[term.variable].shape)
        number = partial(jnp.asarray, dtype=self.dtype)
        operator: Operator = Identity(shape, self.dtype)
        penalty: Any
        if term.type == "tv":
            operator = Gradient(shape, self.dtype, term.boundary)
            penalty = GroupL1(number(1.0), (0,)) if term.isotropic else L1(number(1.0))
        elif term.type in ("nonnegativity", "simplex"):
            penalty = (
                Nonnegative(self.dtype) if term.type[0] == "n" else Simplex(number(term.total))
            )
        elif term.type == "box":
            low = -np.inf if term.low is None else term.low
            penalty = Box(number(low), number(np.inf if term.high is None else term.high))
        else:
            operator = self._lens_of(term, shape)
            penalty = self._sparse(term, operator, place)
        return NonsmoothTerm(
            self._weight(term), penalty, operator, term.variable, term.name or term.type
        )

    def _lens_of(self, term: Any, shape: Shape) -> Operator:
        if term.type in ("wavelet_l1", "tree"):
            return Wavelet(term.wavelet, term.levels, shape, self.dtype)
        return self.lens(term.lens, shape)

    def _sparse(self, term: Any, lens: Any, place: str) -> Any:
        one = jnp.asarray(1.0, self.dtype)
        if term.type == "tree":
            return wavelet_tree(lens.out_shape, term.levels, one)
        if term.type == "group_l1":
            if term.labels is None:
                return GroupL1(one, tuple(term.axes))
            labels = self.data.array(term.labels).astype(np.int32)
            if labels.shape != lens.out_shape or labels.min() < 0:
                raise DataFault("E_FLOW", f"{place}/labels", "needs a label >= 0 for each entry")
            return LabelledGroupL1(jnp.ones(int(labels.max()) + 1, self.dtype), jnp.asarray(labels))
        weights = one
        if term.scale_weights:
            levels = lens.levels_of()
            if levels is None or len(term.scale_weights) != int(levels.max()) + 1:
                message = "needs one number for each scale of the lens, the coarsest first"
                raise DataFault("E_FLOW", f"{place}/scale_weights", message)
            factors = np.asarray(term.scale_weights)[levels.astype(int)]
            weights = jnp.asarray(factors, self.dtype)
        return L0(weights) if term.type == "l0" else L1(weights)


def _kept(function: Any, takes: Shape, gives: Shape, dtype: str, place: str) -> None:
    """Refuse a function that does not give the declared shape in the flow's own dtype."""
    try:
        with jax.numpy_dtype_promotion("strict"):
            found = jax.eval_shape(function, jax.ShapeDtypeStruct(takes, jnp.dtype(dtype)))
        made = (tuple(found.shape), str(found.dtype))
    except Exception as error:  # noqa: BLE001 - the user's function may raise anything
        reason = str(error).partition("\n")[0]
        raise DataFault("E_FLOW", place, f"fails on {list(takes)} of {dtype}: {reason}") from None
    if made != (gives, dtype):
        message = f"gives {list(made[0])} of {made[1]}; {list(gives)} of {dtype} was declared"
        raise DataFault("E_FLOW", place, message)
