"""A flow on its device: it answers the controller's questions, and is saved and restored.

Nothing is decided here. A session holds one compiled flow and its carry; every question brings
the settings that it is asked under, so a session can be begun anew on another machine at any
checkpoint.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from temporal_fabric.errors import CapsuleError, RequestRejected
from temporal_fabric.flows import judging
from temporal_fabric.flows.adjusting import adjusted, lambda_of, lens_name
from temporal_fabric.flows.checkpoint import RNG_KEY, Checkpoint, devices_of
from temporal_fabric.flows.chosen import profile_of
from temporal_fabric.flows.chunk import Job
from temporal_fabric.flows.commands import Advance, Certify, Lint, Polish, Try, settings_from_json
from temporal_fabric.flows.compiling import compile_flow
from temporal_fabric.flows.lens_choice import probed, ranked, seeds, universal_lambda
from temporal_fabric.flows.polishing import begun, widened
from temporal_fabric.flows.refining import check_mesh, coarser_energies
from temporal_fabric.flows.remedies import Settings
from temporal_fabric.flows.reports import Advanced, Certified, Gate, Linted, Polished, Tried
from temporal_fabric.flows.schemes.contract import begin
from temporal_fabric.flows.sharding import device_count, require_count
from temporal_fabric.flows.telemetry import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from temporal_fabric.flows.certificates.decision import Decision
    from temporal_fabric.flows.certificates.record import Finding
    from temporal_fabric.flows.chunk import Chunk
    from temporal_fabric.flows.commands import Question
    from temporal_fabric.flows.compiling import Compiled
    from temporal_fabric.flows.reports import Report
    from temporal_fabric.flows.schemes.contract import Carry
    from temporal_fabric.flows.spec import FlowSpec
    from temporal_fabric.flows.states import State

__all__ = ["Session"]

Rows = dict[str, list[Any]]

_ROUNDING = 8 * float(np.finfo(np.float64).eps)
"""Relative to the energy: a smaller fall is how its sum was rounded."""


class Session:
    """One run of one flow.

    Args:
        spec: Read and linted.
        folder: What the paths of its data are relative to.
        compiled: The specification compiled already, if it was.
        clock: Seconds since the run began, over all its processes.
        keep: Takes the telemetry of each chunk, column by column.
    """

    def __init__(
        self,
        spec: FlowSpec,
        folder: Path | None,
        *,
        compiled: Compiled | None,
        clock: Callable[[], float],
        keep: Callable[[Rows], None],
    ) -> None:
        self.spec = spec
        self.settings = Settings()
        self.decisions: dict[str, Decision] = {}
        """The last one of each stage."""

        self._folder, self._clock, self._keep = folder, clock, keep
        self._compiled = compiled
        self._carry: Carry | None = None
        self._findings: tuple[Finding, ...] = ()
        self._dual: float | None = None
        self._coarser: tuple[float, float] | None = None
        self._trials, self._began = 0, 0.0
        self.polished = False
        """Whether the result is that of phase 3, in float64."""

    @property
    def compiled(self) -> Compiled:
        """The flow under the settings in force."""
        if self._compiled is None:
            self._compiled = compile_flow(self.spec, self._folder)
        return self._compiled

    @property
    def carry(self) -> Carry:
        """Where it stands."""
        if self._carry is None:
            self._carry = self._begun(self.compiled.start)
        return self._carry

    def answer(self, question: Question) -> Report:
        """Do what is asked, and report."""
        if isinstance(question, Lint):
            return self._lint()
        if isinstance(question, Certify):
            return self._certify(question)
        if isinstance(question, Try):
            return self._try(question)
        if isinstance(question, Polish):
            return self._polish(question)
        return self._advance(question)

    def restart(self) -> None:
        """Go back to the start, under the settings in force."""
        self._carry, self._dual, self.polished = None, None, False

    def snapshot(self) -> Checkpoint:
        """Return everything that `restore` needs; arrays are not copied."""
        leaves = jax.tree_util.tree_flatten_with_path(self.carry)[0]
        arrays = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
        arrays[RNG_KEY] = np.asarray(jax.random.key_data(jax.random.key(self.spec.seed)))
        references = {
            one.name: float(one.reference) for one in self.compiled.observables.invariants
        }
        meta = {
            "settings": asdict(self.settings),
            "dual": self._dual,
            "trials": self._trials,
            "polished": self.polished,
            "references": references,
            "seed": self.spec.seed,
            "devices": device_count(self.spec),
        }
        return Checkpoint(self.spec.dtype, meta, arrays)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint.

        Raises:
            CapsuleError: It is of another flow: its arrays do not fit; or a deterministic one was
                on another number of devices.
        """
        require_count(self.spec, devices_of(checkpoint))
        self._put(settings_from_json(checkpoint.meta["settings"]))
        self.polished = bool(checkpoint.meta.get("polished"))
        if self.polished:
            self._compiled = widened(self.compiled)
        blank = begin(self.compiled.scheme, self.compiled.problem, self.compiled.start)
        leaves, tree = jax.tree_util.tree_flatten_with_path(blank)
        names = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
        found = {name: one for name, one in checkpoint.arrays.items() if name != RNG_KEY}
        wrong = sorted(
            {*names} ^ {*found}
            | {
                name
                for name, leaf in names.items()
                if name in found
                and (found[name].shape, found[name].dtype) != (leaf.shape, leaf.dtype)
            }
        )
        if wrong:
            raise CapsuleError(
                f"the checkpoint is of another flow [arrays={', '.join(wrong)}]: give the"
                " specification that it was begun with"
            )
        carry = jax.tree_util.tree_unflatten(tree, [jnp.asarray(found[name]) for name in names])
        self._carry = self.compiled.placed(carry)
        self._refer(checkpoint.meta["references"])
        self._dual, self._trials = checkpoint.meta["dual"], checkpoint.meta["trials"]

    def _refer(self, references: Mapping[str, float]) -> None:
        """Measure drifts from where the run began, not from where it goes on."""
        observables = self.compiled.observables
        invariants = tuple(
            replace(one, reference=jnp.asarray(references[one.name], one.reference.dtype))
            for one in observables.invariants
        )
        observables = replace(observables, invariants=invariants)
        self._compiled = replace(self.compiled, observables=observables)

    def _lint(self) -> Linted:
        try:
            family = self.compiled.spec.flow.family
            profile_of(self.spec)
            check_mesh(self.spec, self._folder)
            probes = probed(self.spec, self._folder)
            lenses = ranked(self.spec, probes)
            lambdas = seeds(self._in_lens(lenses[0] if lenses else ""))
        except RequestRejected as exc:
            return Linted(problems=tuple(str(one) for one in exc.problems))
        except ValueError as exc:
            return Linted(problems=(str(exc),))
        own = lens_name(self.spec)
        return Linted(lens=own, family=family, lenses=lenses, probes=probes, lambdas=lambdas)

    def _in_lens(self, name: str) -> Compiled:
        """Return the flow in a lens of its policy."""
        if name in {"", lens_name(self.spec)} or self.spec.gap_dial.per_scale_seed is None:
            return self.compiled
        return compile_flow(adjusted(self.spec, Settings(lens=name)), self._folder)

    def _certify(self, question: Certify) -> Certified:
        self._put(question.settings)
        decision = self._look()
        return Certified(gate=Gate.of(decision), elapsed_s=self._clock())

    def _advance(self, question: Advance) -> Advanced:
        job, every = self.prepared(question)
        return self.advanced(job.run(question.iterations, every))

    def prepared(self, question: Advance) -> tuple[Job, int]:
        """Return what a chunk is run on, and the iterations for each row of its telemetry.

        Between this and `advanced` somebody may run it together with others of its shape.
        """
        self._put(question.settings)
        return self._job(question.iterations)

    def advanced(self, chunk: Chunk) -> Advanced:
        """Take a chunk that was run, and report."""
        self._take(chunk)
        during = self._judged("during", judging.during(self.compiled, chunk))
        decision = self._at_exit()
        level = chunk.rows.get("level_active_max")
        return Advanced(
            iteration=int(self.carry.iteration),
            gate=Gate.of(during),
            exit=Gate.of(self._judged("exit", decision)),
            level=None if level is None else int(level[-1]),
            elapsed_s=self._clock(),
        )

    def _try(self, question: Try) -> Tried:
        """Run both ways from one point: the gain is the move's, not that of going on."""
        self._trials += 1
        began, settings, dual = self.carry, self.settings, self._dual
        self._run(question.iterations, trial_id=f"{self._trials}:baseline")
        baseline = self._score()
        self._carry = began
        self._put(question.settings)
        decision = judging.before(self.compiled)[0]
        if not Gate.of(decision).opens:
            self._put(settings)
            self._carry, self._dual = began, dual
            closed = Gate.of(decision)
            return Tried(
                iteration=int(began.iteration),
                before=closed,
                during=closed,
                elapsed_s=self._clock(),
            )
        chunk = self._run(question.iterations, trial_id=str(self._trials))
        return Tried(
            iteration=int(self.carry.iteration),
            before=Gate.of(decision),
            during=Gate.of(judging.during(self.compiled, chunk)),
            score=self._score(),
            baseline=baseline,
            elapsed_s=self._clock(),
        )

    def _polish(self, question: Polish) -> Polished:
        """Make the last steps, and keep them if they make the result no worse in any respect."""
        self._put(question.settings)
        began, narrow, dual = self.carry, self.compiled, self._dual
        was = self._at_exit()
        before = judging.energy_of(narrow, began.z)
        self._compiled = widened(narrow)
        self._carry = self._compiled.placed(begun(self._compiled, began))
        chunk = self._run(question.iterations, notes="polish")
        during = self._judged("during", judging.during(self.compiled, chunk))
        decision = self._at_exit(polished=True)
        if not Gate.of(decision).opens:
            # A float32 flow is asked for more after these steps, but never for more to be had.
            decision = self._at_exit()
        fall = before - judging.energy_of(self.compiled, self.carry.z)
        fell = fall > _ROUNDING * abs(before)
        better = Gate.of(decision).opens or not Gate.of(was).opens
        self.polished = kept = fell and better and Gate.of(during).opens
        if not kept:
            self._compiled, self._carry, self._dual = narrow, began, dual
            decision = was
        return Polished(
            iteration=int(self.carry.iteration),
            kept=kept,
            gate=Gate.of(during),
            exit=Gate.of(self._judged("exit", decision)),
            elapsed_s=self._clock(),
        )

    def _at_exit(self, *, polished: bool = False) -> Decision:
        decision, self._dual = judging.at_exit(
            self.compiled,
            self.carry,
            self._known(),
            dual=self._dual,
            coarser=self._meshes(),
            polished=polished,
        )
        return decision

    def _meshes(self) -> tuple[float, float] | None:
        """Return the energies on coarser meshes, where they are wanted; solved once."""
        if self._coarser is None and self.spec.certification.refinement_test:
            self._coarser = coarser_energies(self.compiled.spec, self._folder)
        return self._coarser

    def _score(self) -> float | None:
        """Return how far lambda, or what it makes of the coefficients, is from what is wanted."""
        if self.spec.sparsity.adaptive_rule != "none":
            universal = max(universal_lambda(self.compiled), 1e-300)
            return abs(math.log(lambda_of(self.compiled.spec) / universal))
        wanted = self.spec.gap_dial.target_sparsity
        coefficients = self.carry.coefficients
        if wanted is None or not coefficients:
            return None
        zeros = sum(int(jnp.sum(u == 0)) for u in coefficients)
        share = zeros / sum(u.size for u in coefficients)
        return abs(math.log((share + 1e-9) / wanted))

    def _job(self, iterations: int) -> tuple[Job, int]:
        compiled, self._began = self.compiled, self._clock()
        parts = compiled.scheme, compiled.problem, self.carry, compiled.observables
        job = Job(*parts, compiled.sharding)
        return job, math.gcd(iterations, self.spec.sample_every)

    def _run(self, iterations: int, **told: Any) -> Chunk:
        job, every = self._job(iterations)
        chunk = job.run(iterations, every)
        self._take(chunk, **told)
        return chunk

    def _take(self, chunk: Chunk, **told: Any) -> None:
        self._carry = chunk.carry
        # The device was not left inside the chunk: times between its ends are interpolated.
        began, ended, count = self._began, self._clock(), len(chunk.rows["iter"])
        times = [1e3 * (began + (ended - began) * (k + 1) / count) for k in range(count)]
        self._keep(rows_of(chunk, self.compiled, t_wall_ms=times, **told, **self._spectrum()))

    def _spectrum(self) -> dict[str, Any]:
        known = {one.name: one.value for one in self._known()}
        finite = {
            name: value if value is not None and math.isfinite(value) else None
            for name, value in known.items()
        }
        return {"eta_dd": finite.get("eta_dd"), "gamma": finite.get("gamma_low")}

    def _known(self) -> tuple[Finding, ...]:
        if not self._findings:
            self._look()
        return self._findings

    def _look(self) -> Decision:
        decision, self._findings = judging.before(self.compiled)
        return self._judged("before", decision)

    def _judged(self, stage: str, decision: Decision) -> Decision:
        self.decisions[stage] = decision
        return decision

    def _put(self, settings: Settings) -> None:
        """Come under settings; another energy begins with a fresh carry at the same point."""
        old, self.settings = self.settings, settings
        if settings == old:
            return
        halved = 0.5 ** (settings.halvings - old.halvings)
        if replace(settings, halvings=old.halvings) == old:
            self._scale_step(halved)
            return
        carry = self._carry
        compiled = compile_flow(adjusted(self.spec, settings), self._folder)
        self._compiled, self._findings, self._dual, self._carry = compiled, (), None, None
        self._coarser = None
        self._scale_step(0.5**settings.halvings)
        if carry is not None:
            fresh = self._begun(carry.z)
            self._carry = replace(fresh, iteration=carry.iteration, active=carry.active)

    def _begun(self, z: State) -> Carry:
        compiled = self.compiled
        return compiled.placed(begin(compiled.scheme, compiled.problem, z))

    def _scale_step(self, factor: float) -> None:
        problem = self.compiled.problem
        alpha = problem.alpha * jnp.asarray(factor, problem.alpha.dtype)
        self._compiled = replace(self.compiled, problem=replace(problem, alpha=alpha))
        if self._carry is not None:
            by = jnp.asarray(factor, self._carry.alpha.dtype)
            self._carry = replace(self._carry, alpha=self._carry.alpha * by)
