"""Durable runs: each step is a pure function from the last good checkpoint to the next one.

What asks is elsewhere: a workflow drives the controller, and may ask again after any death. A
step takes the controller's state with its question, answers it, makes the same transition as
the one who asked, and does what that commands up to the next question: it records, goes back,
saves. So at every question a run stands at its start or at its last good checkpoint, and a step
that is repeated, by this process or another one, writes the same bits under the same number.

Sessions stay warm here while there is room; a cold one is restored from the checkpoint that the
step names.
"""

from __future__ import annotations

import json
import time
import traceback
from collections import OrderedDict
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from temporal_fabric import durable
from temporal_fabric.capsule.manifest import MANIFEST
from temporal_fabric.flows.bounds import policy_of
from temporal_fabric.flows.chosen import check_profile
from temporal_fabric.flows.commands import Certify, Command, Finish, Lint, Record, Restore, Save
from temporal_fabric.flows.controller import advance
from temporal_fabric.flows.controller_state import ControllerState, Policy
from temporal_fabric.flows.reading import read_spec
from temporal_fabric.flows.reports import Begin, Broke, report_json
from temporal_fabric.flows.results import keep_result
from temporal_fabric.flows.run_events import RunEvent
from temporal_fabric.flows.run_folder import RunFolder
from temporal_fabric.flows.run_manifest import manifest_of, moved, summary, validation
from temporal_fabric.flows.session import Session
from temporal_fabric.flows.tables import Stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from temporal_fabric.flows.checkpoint import Checkpoint
    from temporal_fabric.flows.commands import Question
    from temporal_fabric.flows.reports import Report
    from temporal_fabric.flows.spec import FlowSpec

__all__ = ["Durable"]

_WARM = 8
"""Sessions kept; each holds the arrays of one flow."""

_GATHERED = 64
"""Steps whose segments become one."""

_JUDGED = "judged.json"
_SHOWN = {"energy": "E", "grad_norm": "grad_norm"}

Pointer = dict[str, Any]
"""A checkpoint by reference: number, file, size, sha256, iteration."""


@dataclass
class _Run:
    """One run while a session of it is warm."""

    files: RunFolder
    spec: FlowSpec
    folder: Path
    run_id: str
    at: int = 0
    """Number of the checkpoint that the session stands at; 0: the start; -1: somewhere else."""

    decisions: dict[str, Any] = field(default_factory=dict[str, Any])
    """The last one of each stage, as plain data."""

    def __post_init__(self) -> None:
        self.rows: list[dict[str, list[Any]]] = []
        self.events: list[dict[str, Any]] = []
        self._state = ControllerState()
        self._began = 0.0
        self._stamp: Stamp | None = None
        self.session = Session(
            self.spec, self.folder, compiled=None, clock=self.clock, keep=self._keep
        )

    def begin(self, state: ControllerState, epoch: int) -> None:
        """Begin a step: the clock goes on where the run's time stood."""
        self.rows, self.events, self._state = [], [], state
        self._began = time.monotonic() - state.elapsed_s
        self._stamp = Stamp(epoch, 1e3 * (time.time() - state.elapsed_s))

    def clock(self) -> float:
        """Return the seconds that the run has had, over all its steps."""
        return time.monotonic() - self._began

    def stand(self, pointer: Pointer | None) -> None:
        """Stand at a checkpoint, or at the start."""
        number = 0 if pointer is None else int(pointer["number"])
        if self.at == number:
            return
        self.at = -1
        if pointer is None:
            self.session = Session(
                self.spec, self.folder, compiled=None, clock=self.clock, keep=self._keep
            )
            self.decisions = {}
        else:
            found = self.files.read(pointer)
            self.session.restore(found)
            if more := moved(self.files.manifest(), self.spec, found):
                self.files.describe(more)
            self.decisions = dict(found.meta["decisions"])
        self.at = number

    def record(self, commands: Sequence[Command]) -> None:
        """Keep what is to be recorded for the segment of this step."""
        at = {"run_id": self.run_id, "t_wall_ms": 1e3 * self.clock()}
        self.events += [
            at | {"event": one.event.value, "payload": dict(one.payload)}
            for one in commands
            if isinstance(one, Record)
        ]

    @property
    def newest(self) -> dict[str, Any]:
        """What a person wants to see of the last row of this step."""
        rows = self.rows[-1] if self.rows else {}
        return {name: rows[key][-1] if key in rows else None for name, key in _SHOWN.items()}

    def judged(self) -> dict[str, Any]:
        """Return the last decision of each stage, over all steps."""
        self.decisions |= {name: one.as_json() for name, one in self.session.decisions.items()}
        return self.decisions

    def segment(self, number: int) -> None:
        """Make rows and events of this step durable."""
        self.files.segment(number, (self.rows, self.events), self._stamp)

    def save(self, number: int, state: ControllerState) -> Pointer:
        """Make rows, events and a checkpoint durable, and stand at it."""
        saved = self.files.save(
            number, (self.rows, self.events), self._snapshot(state), self._stamp
        )
        self.at = number
        if number % _GATHERED == 0:
            self.files.gather(number)
        return saved

    def _snapshot(self, state: ControllerState) -> Checkpoint:
        made = self.session.snapshot()
        more = {
            "controller": state.as_json(),
            "iteration": int(self.session.carry.iteration),
            "elapsed_s": state.elapsed_s,
            "decisions": self.judged(),
        }
        return replace(made, meta={**made.meta, **more})

    def _keep(self, rows: dict[str, list[Any]]) -> None:
        count = len(rows["iter"])
        colour = self._state.colour.value
        self.rows.append(rows | {"run_id": [self.run_id] * count, "phase": [colour] * count})


def _go_on() -> None:
    """Tell nobody."""


class Durable:
    """The runs of one process, warm while there is room.

    Each operation calls ``computed`` when it only writes from there on. One that computes needs
    the process's memory and so must be the only one; those that write may go on beside it, in
    threads and each for another folder.
    """

    def __init__(self) -> None:
        self._warm: OrderedDict[str, _Run] = OrderedDict()
        self._shelf = Lock()

    def open(
        self, folder: Path, asked: Mapping[str, Any], computed: Callable[[], None] = _go_on
    ) -> dict[str, Any]:
        """Begin a run, or find where it goes on; repeating it changes nothing.

        Args:
            folder: Of the run.
            asked: ``spec``, the specification; ``data``, for each name of data in a file where
                that lies; ``run_id``; ``epoch``; ``wall_s``, what this attempt may take;
                ``redact``, whether its capsule keeps none of its data.
            computed: See the class.

        Returns:
            ``policy`` and ``state`` for the controller; ``good``, the last good checkpoint;
            ``number``, of the last step.

        Raises:
            RequestRejected: The specification has problems.
            OSError: The disk is full or gone.
        """
        computed()
        self.drop(folder)
        if not (folder / MANIFEST).is_file():
            _create(folder, asked)
        run = self._run(folder)
        policy = policy_of(run.spec)
        found = run.files.last_good(run.spec.dtype)
        if found is None:
            run.files.forget_after(0)
            state, commands = advance(policy, ControllerState(), Begin())
            run.begin(state, asked["epoch"])
            run.record(commands)
            run.segment(0)
            number, good = 0, None
        else:
            number, saved = found
            run.files.forget_after(number)
            good = run.files.manifest()["checkpoint"]
            state = ControllerState.from_json(saved.meta["controller"]).reopened(policy)
        if asked["wall_s"] is not None:
            until = state.elapsed_s + asked["wall_s"]
            until = until if policy.wall_s is None else min(until, policy.wall_s)
            policy = replace(policy, wall_s=until)
        plain = {"policy": policy.as_json(), "state": state.as_json()}
        return plain | {"good": good, "number": number}

    def step(
        self, folder: Path, asked: Mapping[str, Any], computed: Callable[[], None] = _go_on
    ) -> dict[str, Any]:
        """Answer the controller's question and do what follows, up to the next one.

        Args:
            folder: Of the run.
            asked: ``number`` of the step, from 1; ``policy``; ``state`` with the question;
                ``good``, the checkpoint that it starts from, None for the start; ``epoch``.
            computed: See the class.

        Returns:
            ``report``; ``good``, the checkpoint that was made, None where none was; ``energy``
            and ``grad_norm`` as they were last.

        Raises:
            CapsuleError: The checkpoint is gone or damaged.
            OSError: The disk is full or gone; the checkpoint before stays.
        """
        policy = Policy.from_json(asked["policy"])
        state = ControllerState.from_json(asked["state"])
        if state.asked is None:
            raise ValueError("a step without a question")
        run = self._run(folder)
        run.begin(state, asked["epoch"])
        run.stand(asked["good"])
        # Until everything is durable it stands nowhere that a repetition could start from.
        at, run.at = run.at, -1
        report = _answer(run, state.asked)
        computed()
        after, commands = advance(policy, state, report)
        if isinstance(commands[-1], Finish):
            # Whoever finishes records what led there: a person's stop may come in between.
            judged = {"number": asked["number"], "decisions": run.judged()}
            run.files.put_json(_JUDGED, judged)
        else:
            run.record(commands)
        good = None
        kinds = {type(one) for one in commands}
        if Save in kinds:
            if Restore in kinds:
                run.stand(asked["good"])
            good = run.save(asked["number"], after)
        else:
            run.segment(asked["number"])
            if isinstance(state.asked, Lint | Certify):
                run.at = at
        if isinstance(report, Broke):
            # In what it stands now nobody knows.
            self.drop(folder)
        return {"report": report_json(report), "good": good} | run.newest

    def finish(
        self, folder: Path, asked: Mapping[str, Any], computed: Callable[[], None] = _go_on
    ) -> dict[str, Any]:
        """Record the end of a run and leave its result; repeating it leaves the same.

        Args:
            folder: Of the run.
            asked: ``number`` of the step, ``policy``, ``state``, ``good``, ``epoch``;
                ``outcome``; ``events``, what is recorded last; ``output``, where results go.
            computed: See the class.

        Returns:
            ``iteration``, ``energy``, ``sha256`` of the state, ``verdict``, and
            ``certificates``, of the last stage that was judged.
        """
        state = ControllerState.from_json(asked["state"])
        run = self._run(folder)
        run.begin(state, asked["epoch"])
        run.record([Record(RunEvent(one["event"]), one["payload"]) for one in asked["events"]])
        run.segment(asked["number"])
        results = RunFolder(Path(asked["output"]))
        good, arrays, energy, near = asked["good"], dict[str, Any](), None, dict[str, Any]()
        if good is not None:
            run.files.gather(int(good["number"]))
            run.stand(good)
            compiled = run.session.compiled
            arrays = run.files.read(good).state
            energy = float(compiled.energy.value(run.session.carry.z))
            computed()
            redact = bool(run.files.manifest()["redact_artifacts"])
            near = keep_result(results, "", compiled, arrays, redact=redact)
        decisions = _judged(folder, asked["number"]) or run.decisions
        transforms = {"validation": validation(decisions, run.spec.seed)}
        more = {"polished": run.session.polished, "transforms": transforms}
        settings = asdict(state.settings)
        run.files.describe({"status": asked["outcome"], "settings": settings} | more)
        told = summary(
            verdict=f"{state.colour.value}({run.spec.certification.profile})",
            iteration=0 if good is None else int(good["iteration"]),
            energy=energy,
            psnr=near,
            settings=settings,
            state=arrays,
        )
        for place in (run.files, results):
            place.put_json("certificates.json", decisions)
        results.put_json("summary.json", told)
        self.drop(folder)
        chosen = {key: told[key] for key in ("verdict", "iteration", "energy", "sha256")}
        return chosen | {"certificates": _lines(decisions)}

    def drop(self, folder: Path) -> None:
        """Forget a run's session; nothing durable is touched."""
        self._warm.pop(str(folder), None)

    def _run(self, folder: Path) -> _Run:
        with self._shelf:
            known = self._warm.pop(str(folder), None)
            if known is None:
                files = RunFolder(folder)
                manifest = files.manifest()
                kept = json.loads((folder / "spec.json").read_text())
                spec = read_spec(kept["spec"])
                known = _Run(files, spec, folder / kept["folder"], manifest["run_id"])
            self._warm[str(folder)] = known
            while len(self._warm) > _WARM:
                self._warm.popitem(last=False)
            return known


def _create(folder: Path, asked: Mapping[str, Any]) -> None:
    """Make the folder of a run, its manifest last; data in files come along with it."""
    spec = read_spec(asked["spec"])
    check_profile(spec)
    plain = spec.model_dump(mode="json", exclude_defaults=True)
    files = RunFolder(folder)
    for name, path in asked["data"].items():
        kept = f"data/{name}{Path(path).suffix}"
        durable.make_folder(folder / "data")
        durable.copy_hashed(Path(path), folder / kept)
        plain["data"][name]["path"] = kept
    durable.make_folder(folder)
    files.put_json("spec.json", {"folder": ".", "spec": plain})
    files.create(manifest_of(spec, asked["run_id"], redact=asked["redact"]))


def _answer(run: _Run, question: Question) -> Report:
    try:
        return run.session.answer(question)
    except Exception as exc:  # noqa: BLE001 - whatever went wrong, the run fails closed
        run.files.log(traceback.format_exc())
        return Broke(f"{type(exc).__name__}: {exc}")


def _judged(folder: Path, number: int) -> dict[str, Any]:
    """Return what the step before this one judged last, where that led to the end."""
    try:
        found = json.loads((folder / _JUDGED).read_text())
    except FileNotFoundError:
        return {}
    judged: dict[str, Any] = found["decisions"] if found["number"] == number - 1 else {}
    return judged


def _lines(decisions: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every certificate against its bound, in few words; why, where it closes a gate."""
    return [
        {
            "stage": stage,
            **{key: one[key] for key in ("name", "value", "relation", "bound", "kind", "verdict")},
            "sentence": one["sentence"] if one["name"] in decision["failing"] else "",
        }
        for stage in ("before", "during", "exit")
        if (decision := decisions.get(stage)) is not None
        for one in decision["certificates"]
    ]
