"""A certified run in this process: the controller decides, the session computes, a folder keeps."""

from __future__ import annotations

import json
import shutil
import time
import traceback
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from temporal_fabric.capsule.manifest import MANIFEST
from temporal_fabric.errors import CapsuleError
from temporal_fabric.flows.bounds import policy_of
from temporal_fabric.flows.checkpoint import Saver
from temporal_fabric.flows.chosen import check_profile
from temporal_fabric.flows.commands import Command, Finish, Outcome, Record, Restore, Save
from temporal_fabric.flows.controller import advance
from temporal_fabric.flows.controller_state import ControllerState
from temporal_fabric.flows.energy import value_of
from temporal_fabric.flows.reading import read_spec
from temporal_fabric.flows.reports import Begin, Broke, Stop
from temporal_fabric.flows.results import keep_result
from temporal_fabric.flows.run_folder import RunFolder
from temporal_fabric.flows.run_manifest import digest_of, manifest_of, moved, summary, validation
from temporal_fabric.flows.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from temporal_fabric.flows.certificates.decision import Decision
    from temporal_fabric.flows.commands import Question
    from temporal_fabric.flows.compiling import Compiled
    from temporal_fabric.flows.reports import Report
    from temporal_fabric.flows.spec import (
        CertificationProfile,
        FlowPolicy,
        FlowSpec,
        MultiscaleSchedule,
    )

__all__ = ["Run", "RunResult", "Watch", "begun", "resume_certified", "run_certified"]


@dataclass(frozen=True)
class RunResult:
    """What became of a run."""

    run_id: str
    folder: Path
    outcome: Outcome
    reason: str
    """A reason token; empty where it succeeded."""

    message: str
    verdict: str
    """The colour with its profile: GREEN(convex)."""

    iteration: int
    energy: float | None
    state: dict[str, NDArray[Any]]
    sha256: str
    """Of the final state's arrays, slot by slot."""

    decisions: dict[str, Decision]
    """The last of each stage: before, during, exit."""

    psnr: dict[str, dict[str, float]] = field(default_factory=dict[str, "dict[str, float]"])
    """Of each slot with a reference: ``start`` and ``result``, in dB."""


@dataclass
class Watch:
    """What somebody sees of a run while it goes, and how to stop it."""

    shows: Callable[[ControllerState, Mapping[str, list[Any]]], None] = lambda _state, _rows: None
    """Called after each report, with the newest chunk's rows."""

    wants_stop: Callable[[], bool] = lambda: False


def run_certified(
    spec: FlowSpec | Mapping[str, Any],
    compiled: Compiled | None = None,
    *,
    cert_profile: CertificationProfile | None = None,
    multiscale: MultiscaleSchedule | None = None,
    flow: FlowPolicy | None = None,
    folder: Path | None = None,
    out: Path | None = None,
    redact_artifacts: bool = False,
    watch: Watch | None = None,
) -> RunResult:
    """Run a flow under its certificates and leave a capsule.

    Args:
        spec: The energy and what to claim; a `FlowSpec`, or a mapping in its form or the seed's.
        compiled: The specification compiled already; not used where an argument changes it.
        cert_profile: In place of the specification's.
        multiscale: In place of the specification's.
        flow: In place of the specification's.
        folder: What the paths of its data are relative to.
        out: Folder of the capsule; ``runs/NAME-TIME`` below the working directory where unset.
        redact_artifacts: Keep statistics of the result, and neither arrays nor checkpoints.
        watch: Sees the run, and may stop it.

    Raises:
        RequestRejected: The specification has problems; nothing was written.
        CapsuleError: ``out`` holds a run already.
        OSError: The disk is full or gone; the last good checkpoint stays.
    """
    changes = {"certification": cert_profile, "multiscale": multiscale, "flow": flow}
    given = {name: value for name, value in changes.items() if value is not None}
    read = read_spec(spec)
    if given:
        read, compiled = read_spec(read.model_copy(update=given)), None
    stamp = time.strftime("%Y%m%dT%H%M%S")
    path = out or Path("runs") / f"{read.name}-{stamp}-{time.time_ns() % 1000:03d}"
    check_profile(read)
    run = begun(read, path, folder, compiled=compiled, watch=watch, redact=redact_artifacts)
    return run.go(*advance(run.policy, ControllerState(), Begin()))


def begun(
    spec: FlowSpec,
    path: Path,
    folder: Path | None,
    *,
    compiled: Compiled | None = None,
    watch: Watch | None = None,
    redact: bool = False,
) -> Run:
    """Return a run with a folder of its own, before its first question."""
    run = Run(spec, folder, compiled, RunFolder(path), watch or Watch())
    run.files.create(manifest_of(spec, path.name, redact=redact))
    where = str((folder or Path()).absolute())
    plain = spec.model_dump(mode="json", exclude_defaults=True)
    run.files.put_json("spec.json", {"folder": where, "spec": plain})
    return run


def resume_certified(
    run: Path,
    *,
    out: Path | None = None,
    devices: int | Literal["all"] | None = None,
    watch: Watch | None = None,
) -> RunResult:
    """Go on with a run that was interrupted, from its last good checkpoint, bit for bit.

    On another number of devices than before the bits are others; the manifest tells it.

    Args:
        run: Folder of the run, or the capsule of an experiment that was stopped.
        out: Folder in which it goes on, the other one staying as it is; needed for a capsule.
        devices: How many it goes on with; as many as its specification says where unset.
        watch: Sees the run, and may stop it.

    Raises:
        CapsuleError: There is no run, it is over, its checkpoint is damaged, ``out`` is missing
            or taken, or a deterministic run would go on with other bits.
    """
    out = _apart(run, out)
    files = RunFolder(out)
    manifest = files.manifest()
    if "sealed_at" in manifest:
        raise CapsuleError(
            f"the run is over [folder={out}, state={manifest['status']}]: nothing is to be resumed"
        )
    kept = json.loads((out / "spec.json").read_text())
    spec = read_spec(kept["spec"])
    if devices is not None:
        spec = read_spec(spec.model_copy(update={"devices": devices}))
    going = Run(spec, out / kept["folder"], None, files, watch or Watch())
    found = files.last_good(spec.dtype)
    if found is None:
        files.forget_after(0)
        return going.go(*advance(going.policy, ControllerState(), Begin()))
    number, checkpoint = found
    files.forget_after(number)
    going.saves, going.began = number, time.monotonic() - checkpoint.meta["elapsed_s"]
    state = ControllerState.from_json(checkpoint.meta["controller"]).reopened(going.policy)
    going.session.restore(checkpoint)
    if more := moved(manifest, spec, checkpoint):
        files.describe(more)
    going.run_id = manifest["run_id"]
    last = state.finished or state.asked
    return going.go(state, () if last is None else (last,))


def _apart(run: Path, out: Path | None) -> Path:
    """Return the folder to go on in, filled from the run where that stays as it is."""
    inner = run / "checkpoints"
    sealed = (inner / MANIFEST).is_file()
    if out is None:
        if sealed:
            raise CapsuleError(
                f"the capsule of an experiment stays as it was sealed [capsule={run}]: name the"
                " folder to go on in (--out)"
            )
        return run
    if sealed and RunFolder(inner).manifest()["redact_artifacts"]:
        raise CapsuleError(
            f"the capsule keeps no checkpoint [capsule={run}]: its request said"
            " `redact_artifacts`, so run it anew"
        )
    if out.exists():
        raise CapsuleError(f"there is something already [folder={out}]: name another folder")
    shutil.copytree(inner if sealed else run, out)
    # A capsule has no empty folders.
    RunFolder(out).make_folders()
    return out


@dataclass
class Run:
    """One run between its controller, its session and its folder: one question at a time."""

    spec: FlowSpec
    folder: Path | None
    compiled: Compiled | None
    files: RunFolder
    watch: Watch
    saves: int = 0
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.policy = policy_of(self.spec)
        self.run_id = self.files.path.name
        self.state = ControllerState()
        self._rows: list[dict[str, list[Any]]] = []
        self._events: list[dict[str, Any]] = []
        self._newest: dict[str, list[Any]] = {}
        self.session = Session(
            self.spec, self.folder, compiled=self.compiled, clock=self._clock, keep=self._keep
        )

    def go(self, state: ControllerState, commands: Sequence[Command]) -> RunResult:
        """Obey until the controller finishes."""
        with Saver() as saver:
            while not isinstance(asked := self.obey(state, commands, saver), Finish):
                state, commands = self.told(partial(self.session.answer, asked))
            return self.sealed(asked, saver)

    def obey(
        self, state: ControllerState, commands: Sequence[Command], saver: Saver
    ) -> Question | Finish:
        """Record, save and restore as the controller says; return what it asks, or its end."""
        self.state = state
        *before, last = commands
        for command in before:
            if isinstance(command, Record):
                self._record(command)
            elif isinstance(command, Restore):
                self._restore(saver, start=command.start)
            elif isinstance(command, Save):
                self._save(saver)
        if isinstance(last, Record | Restore | Save):  # pragma: no cover - it asks or finishes
            raise CapsuleError("the controller asked for nothing")
        return last

    def told(self, answer: Callable[[], Report]) -> tuple[ControllerState, tuple[Command, ...]]:
        """Return what the controller makes of an answer; where there is none, it fails closed."""
        report: Report
        try:
            report = answer()
        except Exception as exc:  # noqa: BLE001 - whatever went wrong
            self.files.log(traceback.format_exc())
            report = Broke(f"{type(exc).__name__}: {exc}")
        state = self.state
        if self.watch.wants_stop():
            state, _ = advance(self.policy, state, Stop())
        state, commands = advance(self.policy, state, report)
        self.watch.shows(state, self._newest)
        return state, commands

    def _restore(self, saver: Saver, *, start: bool) -> None:
        if start:
            self.session.restart()
            return
        saver.wait()
        found = self.files.last_good(self.spec.dtype)
        if found is None:  # pragma: no cover - the controller saves before it restores
            raise CapsuleError("there is no checkpoint to go back to")
        self.session.restore(found[1])

    def _save(self, saver: Saver) -> None:
        made = self.session.snapshot()
        meta = {
            **made.meta,
            "controller": self.state.as_json(),
            "iteration": int(self.session.carry.iteration),
            "elapsed_s": self._clock(),
        }
        self.saves += 1
        number, pending = self.saves, (self._rows, self._events)
        self._rows, self._events = [], []
        made = replace(made, meta=meta)
        saver.submit(lambda: self.files.save(number, pending, made))

    def _record(self, command: Record) -> None:
        payload = dict(command.payload)
        at = 1e3 * self._clock()
        self._events.append(
            {
                "run_id": self.run_id,
                "t_wall_ms": at,
                "event": command.event.value,
                "payload": payload,
            }
        )
        self.files.log(f"{command.event.value} {payload}" if payload else command.event.value)

    def _keep(self, rows: dict[str, list[Any]]) -> None:
        count = len(rows["iter"])
        rows |= {"run_id": [self.run_id] * count, "phase": [self.state.colour.value] * count}
        self._rows.append(rows)
        self._newest = rows

    def _clock(self) -> float:
        return time.monotonic() - self.began

    def sealed(self, finish: Finish, saver: Saver) -> RunResult:
        """Return what became of the run, its capsule sealed."""
        saver.wait()
        manifest = self.files.manifest()
        refused = not self.session.decisions
        state = {} if refused else {k: np.asarray(x) for k, x in self.session.carry.z.items()}
        redact = bool(manifest["redact_artifacts"])
        known: dict[str, dict[str, float]] = {}
        if not refused:
            compiled = self.session.compiled
            known = keep_result(self.files, "artifacts/", compiled, state, redact=redact)
        result = RunResult(
            run_id=self.run_id,
            folder=self.files.path,
            outcome=finish.outcome,
            reason=finish.reason,
            message=finish.message,
            verdict=f"{self.state.colour.value}({self.spec.certification.profile})",
            iteration=0 if refused else int(self.session.carry.iteration),
            energy=None
            if refused
            else float(value_of(self.session.compiled.energy, self.session.carry.z)),
            state=state,
            sha256=digest_of(state),
            decisions=dict(self.session.decisions),
            psnr=known,
        )
        self._write(result, redact=redact)
        return result

    def _write(self, result: RunResult, *, redact: bool) -> None:
        decisions = {stage: one.as_json() for stage, one in result.decisions.items()}
        self.files.put_json("certificates.json", decisions)
        told = summary(
            verdict=result.verdict,
            iteration=result.iteration,
            energy=result.energy,
            psnr=result.psnr,
            settings=asdict(self.state.settings),
            state=result.state,
        )
        self.files.put_json("artifacts/summary.json", told)
        self.files.describe(
            {
                "settings": asdict(self.state.settings),
                "polished": self.session.polished,
                "transforms": {"validation": validation(decisions, self.spec.seed)},
                "verdict": result.verdict,
                "psnr": result.psnr,
            }
        )
        if redact:
            self.files.drop_checkpoints()
        experiment = {
            "tenant": "local",
            "request_id": result.run_id,
            "state": result.outcome.value,
            "reason": result.reason,
            "message": result.message,
        }
        self.files.seal(self.saves + 1, (self._rows, self._events), experiment)
