"""One flow on several devices: its arrays are cut along one axis, and XLA exchanges the rest.

The arrays of a problem and of its state are placed on a mesh of devices, and every carry of the
inner step is held there. What lies between is partitioned by XLA (GSPMD, Xu et al. 2021,
arXiv:2105.04663). Certificates are evaluated on the same arrays. A sum over the cut axis is taken
part by part: on another number of devices results agree to rounding, and are not the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from temporal_fabric.errors import CapsuleError, Problem, RequestRejected
from temporal_fabric.flows.cutting import cut_axis, uncut

if TYPE_CHECKING:
    from temporal_fabric.flows.spec import FlowSpec

__all__ = ["Sharding", "device_count", "require_count", "sharding_of"]

_MESH_AXIS = "parts"

T = TypeVar("T")


@dataclass(frozen=True)
class Sharding:
    """Where the arrays of a flow lie; static in compiled code."""

    mesh: Mesh

    def of(self, array: Any) -> NamedSharding:
        """Return the place of an array."""
        axis = cut_axis(array.shape, self.mesh.size)
        parts = () if axis is None else (*(None,) * axis, _MESH_AXIS)
        return NamedSharding(self.mesh, PartitionSpec(*parts))

    def placed(self, tree: T) -> T:
        """Return a pytree with its arrays in their places."""
        found: T = jax.tree.map(lambda one: jax.device_put(one, self.of(one)), tree)
        return found

    def held(self, tree: T) -> T:
        """Return a pytree that stays in its places, within compiled code."""
        found: T = jax.tree.map(
            lambda one: jax.lax.with_sharding_constraint(one, self.of(one)), tree
        )
        return found


def device_count(spec: FlowSpec) -> int:
    """Return how many devices a flow runs on in this process."""
    return jax.device_count() if spec.devices == "all" else spec.devices


def sharding_of(spec: FlowSpec) -> Sharding | None:
    """Return where the arrays of a flow lie; None where it runs on one device.

    Raises:
        RequestRejected: There are fewer devices here, or a slot cannot be cut into so many parts.
    """
    count, here = device_count(spec), jax.devices()
    if count == 1:
        return None
    if count > len(here):
        message = (
            f"asks for {count}, and JAX has {len(here)} here ({here[0].platform}); ask for"
            f" {len(here)} at most, or for `all`"
        )
        raise RequestRejected([Problem("E_FLOW", "/devices", message)])
    shapes = {name: slot.shape for name, slot in spec.state.items()}
    problems = [
        Problem("E_FLOW", f"/state/{name}/shape", what) for name, what in uncut(shapes, count)
    ]
    if problems:
        raise RequestRejected(problems)
    return Sharding(Mesh(np.array(here[:count]), (_MESH_AXIS,)))


def require_count(spec: FlowSpec, before: int) -> None:
    """Refuse to go on where too few devices are, or with other bits where that is not wanted.

    Args:
        spec: Of the flow that goes on.
        before: On how many devices its checkpoint was made.

    Raises:
        CapsuleError: There are too few here; or it was another number, and the flow is
            deterministic.
    """
    count, here = device_count(spec), jax.device_count()
    if count > here:
        raise CapsuleError(
            f"the run needs more devices than there are [needed={count}, here={here}]: resume it"
            f" with --devices {here}, or where there are more"
        )
    if spec.deterministic and count != before:
        raise CapsuleError(
            f"a deterministic run goes on with as many devices as it was begun with"
            f" [before={before}, now={count}]: resume it with --devices {before}"
        )
