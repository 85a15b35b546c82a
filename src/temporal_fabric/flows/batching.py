"""Many small flows at once: each is its own run, and chunks of one shape are one program."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_fabric.flows.checkpoint import Saver
from temporal_fabric.flows.chosen import check_profile
from temporal_fabric.flows.chunk import run_chunks
from temporal_fabric.flows.commands import Advance, Finish
from temporal_fabric.flows.controller import advance
from temporal_fabric.flows.controller_state import ControllerState
from temporal_fabric.flows.reading import read_spec
from temporal_fabric.flows.reports import Begin
from temporal_fabric.flows.running import begun

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from temporal_fabric.flows.chunk import Job
    from temporal_fabric.flows.commands import Command, Question
    from temporal_fabric.flows.reports import Report
    from temporal_fabric.flows.running import Run, RunResult, Watch
    from temporal_fabric.flows.spec import FlowSpec

__all__ = ["run_batch"]


def run_batch(
    specs: Sequence[FlowSpec | Mapping[str, Any]],
    *,
    folder: Path | None = None,
    out: Path | None = None,
    redact_artifacts: bool = False,
    watch: Watch | None = None,
) -> list[RunResult]:
    """Run many flows under their certificates, in the order given; each leaves its own capsule.

    Every flow has its own controller and its own certificates. While several wait for a chunk of
    one shape and length, the chunks run as one program under `jax.vmap`. That is faster for small
    flows, and changes the order of sums: results agree with those of `run_certified` to rounding,
    about 1e-12 relatively in float64, and are not the same bits.

    Args:
        specs: As for `run_certified`.
        folder: What the paths of their data are relative to.
        out: The folder that the capsules are in, each under its number.
        redact_artifacts: Keep statistics of the results, and neither arrays nor checkpoints.
        watch: Sees every run, and may stop all of them.

    Raises:
        RequestRejected: A specification has problems; nothing was written.
        CapsuleError: ``out`` holds a run already.
        OSError: The disk is full or gone; the last good checkpoints stay.
    """
    read = [read_spec(spec) for spec in specs]
    for spec in read:
        check_profile(spec)
    place = out or Path("runs")
    with ExitStack() as savers:
        members = [
            _Member(
                begun(spec, place / f"{number:04d}", folder, watch=watch, redact=redact_artifacts),
                savers.enter_context(Saver()),
            )
            for number, spec in enumerate(read)
        ]
        waiting = [member for member in members if member.asks()]
        while waiting:
            _answer(waiting)
            waiting = [member for member in waiting if member.asks()]
    return [member.result for member in members if member.result is not None]


@dataclass
class _Member:
    """A run, and what its controller said last."""

    run: Run
    saver: Saver
    state: ControllerState = field(default_factory=ControllerState)
    commands: Sequence[Command] = ()
    asked: Question | None = None
    result: RunResult | None = None

    def __post_init__(self) -> None:
        self.state, self.commands = advance(self.run.policy, ControllerState(), Begin())

    def asks(self) -> bool:
        """Do what the controller says up to its next question; False at the end, once sealed."""
        said = self.run.obey(self.state, self.commands, self.saver)
        if isinstance(said, Finish):
            self.asked, self.result = None, self.run.sealed(said, self.saver)
            return False
        self.asked = said
        return True

    def answered(self, answer: Callable[[], Report]) -> None:
        """Tell the controller an answer."""
        self.state, self.commands = self.run.told(answer)

    def alone(self) -> None:
        """Answer the question without the others."""
        if self.asked is not None:
            self.answered(partial(self.run.session.answer, self.asked))

    def job(self) -> tuple[Job, int, int] | None:
        """Return what a chunk runs on, its length and its sampling; None for another question."""
        if not isinstance(self.asked, Advance) or self.run.session.compiled.sharding is not None:
            return None
        job, every = self.run.session.prepared(self.asked)
        return job, self.asked.iterations, every


def _answer(waiting: Sequence[_Member]) -> None:
    """Answer every question; chunks of one shape and length together."""
    groups: dict[Any, list[tuple[_Member, Job]]] = {}
    for member in waiting:
        found = member.job()
        if found is None:
            member.alone()
            continue
        job, *counts = found
        groups.setdefault((job.shape, *counts), []).append((member, job))
    for (_, iterations, every), together in groups.items():
        if len(together) == 1:
            together[0][0].alone()
            continue
        jobs = [job for _, job in together]
        chunks = run_chunks(jobs, iterations=iterations, sample_every=every)
        for (member, _), chunk in zip(together, chunks, strict=True):
            member.answered(partial(member.run.session.advanced, chunk))
