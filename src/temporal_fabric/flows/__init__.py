"""Certified flows: minimise an energy E = f + g, and know what the result is worth.

A JAX library, usable without Temporal; ``pip install temporal-fabric[flows]``. Importing this
package costs nothing, and importing a module that computes switches JAX to 64-bit types, since
certificates are evaluated in float64 (`precision`).

Who knows what, from the ground up:

- `facts.Facts` is what an operator knows about itself *exactly*, as float64 numpy arrays on the
  host: its Fourier symbol, its diagonal, its Kronecker factors, its matrix, a proved bound of
  its norm, the shifts it commutes with. Certificates are computed from facts, never by running
  the operator and hoping. Facts of sums and products follow by rules (`facts`), and what no rule
  gives is None.
- An operator (`operators.Operator`) is a frozen dataclass registered as a pytree: its arrays are
  leaves, its shapes are static. ``matvec`` and ``adjoint`` are pure JAX functions; ``in_shape``,
  ``out_shape``, ``dtype`` and ``facts()`` describe it. ``operators`` has the dense, diagonal,
  sum and composition, ``convolutions`` the FFT and the separable one, ``differences`` the
  gradient, ``own_operators`` the user's own with its adjoint test.
- A transform (`transforms.Transform`) is an operator with an ``inverse`` and a declared
  ``frame``; the frame decides which steps are allowed. ``wavelets``, ``fourier`` and
  ``graph_wavelets`` have them.
- A loss (`losses`) is elementwise and smooth, with bounds of its curvature and its conjugate. A
  penalty (`penalties`) has a value, an exact prox and a conjugate.
- A `energy.SmoothTerm` is weight * loss(A x), a `energy.QuadraticForm` is x'Qx/2 - b'x, a
  `energy.NonsmoothTerm` is weight * penalty(K x). An `energy.Energy` holds both kinds. It is a
  pytree too: weights, data and operators are arguments of the compiled programs, so that moving
  lambda compiles nothing.
- A state is a dict of named arrays, one for each slot; a slot may live on a manifold
  (`manifolds`, `rigid_motions`).
- A scheme (`schemes`) descends an energy by init, refresh and step; its step is made of the
  primitives only (`primitives`), checks its own inequality, and rejects itself where beta_k is
  above beta_up. ``chunk`` runs it in one compiled scan.
- A specification (`spec`, `data_spec`) is read and linted (`reading`, `linting`; the seed
  family's dictionary too: `seed_form`), built (`data`, `building`) and compiled (`compiling`).
- ``certificates`` judge all of it.
- `controller.advance` decides: RED, AMBER, GREEN, when to remedy, to tune, to go back and to end.
  It is a pure function of the standard library; ``controller_state`` is what it remembers,
  ``commands`` what it asks for, ``reports`` what it is told, ``run_events`` what is recorded;
  ``remedies`` and ``tuner`` choose moves. Everything that computes obeys it.
- `checkpoint` writes and reads everything that a run goes on from: whole or not at all, with a
  digest, beside the run.
- `session` answers the controller's questions on the device, `judging` holds findings against the
  profile before, during and after, and `adjusting` puts the controller's settings into the
  specification, so that a move is compiled and certified like what the user wrote. What it finds
  out beside: ``lens_choice`` probes lenses, ``leapfrog_trials`` flies, ``refining`` solves on
  coarser meshes, ``polishing`` makes the last steps in float64.
- `running.run_certified` is the loop in one process, `run_folder` its capsule, ``tables`` and
  ``run_manifest`` what stands in it; `runs` reads it again, ``pictures`` and ``report`` show it.
  `batching.run_batch` is the loop for many flows, whose chunks of one shape are one program.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from temporal_fabric.flows.batching import run_batch
    from temporal_fabric.flows.chunk import advance
    from temporal_fabric.flows.compiling import Compiled, compile_flow
    from temporal_fabric.flows.reading import read_spec, read_spec_file
    from temporal_fabric.flows.running import resume_certified, run_certified
    from temporal_fabric.flows.runs import load_run, load_run_manifest, resume_run
    from temporal_fabric.flows.single_step import run_flow_step
    from temporal_fabric.flows.spec import FlowSpec

__all__ = [
    "Compiled",
    "FlowSpec",
    "advance",
    "compile_flow",
    "load_run",
    "load_run_manifest",
    "read_spec",
    "read_spec_file",
    "resume_certified",
    "resume_run",
    "run_batch",
    "run_certified",
    "run_flow_step",
]

_HOMES = {
    "batching": ("run_batch",),
    "chunk": ("advance",),
    "compiling": ("Compiled", "compile_flow"),
    "reading": ("read_spec", "read_spec_file"),
    "running": ("resume_certified", "run_certified"),
    "runs": ("load_run", "load_run_manifest", "resume_run"),
    "single_step": ("run_flow_step",),
    "spec": ("FlowSpec",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
