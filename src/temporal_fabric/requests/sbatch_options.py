"""The options of sbatch: what each becomes in a request.

Sizes follow sbatch: a bare number of ``--mem`` counts MiB, and K, M, G, T are powers of 1024.
"""

from __future__ import annotations

import difflib
import math
import re
from typing import TYPE_CHECKING, Any

from temporal_fabric.requests.quantities import GIGABYTE
from temporal_fabric.requests.trees import Mark

if TYPE_CHECKING:
    from collections.abc import Callable

    from temporal_fabric.requests.conversions import Draft

__all__ = ["SHORT", "TAKES_NOTHING", "Job"]

SHORT = {
    "A": "account",
    "a": "array",
    "b": "begin",
    "C": "constraint",
    "c": "cpus-per-task",
    "D": "chdir",
    "d": "dependency",
    "e": "error",
    "G": "gpus",
    "H": "hold",
    "i": "input",
    "J": "job-name",
    "M": "clusters",
    "N": "nodes",
    "n": "ntasks",
    "o": "output",
    "p": "partition",
    "q": "qos",
    "t": "time",
    "w": "nodelist",
    "x": "exclude",
}
TAKES_NOTHING = frozenset({"exclusive", "hold", "no-requeue", "requeue", "quiet", "verbose"})

_COUNT = re.compile(r"([0-9]{1,6})(?:-[0-9]{1,6})?")
_UNITS = {"": 2**20, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_MEMORY = re.compile(r"([0-9]{1,12})([KMGT]?)B?")
_GPUS = re.compile(r"(?:([A-Za-z][A-Za-z0-9._-]{0,62}):)?([0-9]{1,4})")
_GRES = re.compile(r"gpu(?::(.+))?")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,127}")
_SIGNAL = re.compile(r"(?:[RB]{1,2}:)?[A-Z0-9]{1,12}@([0-9]{1,4})")
_CLOCK = (3600, 60, 1)
_EXPORT = re.compile(r"([A-Za-z_][A-Za-z0-9_]{0,127})=(.*)")


class Job:
    """What the options of one script ask for."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.name = "script"
        self._numbers: dict[str, float] = {}
        self._gpu_model: str | None = None
        self._marks: dict[str, Mark] = {}

    def take(self, option: str, value: str, mark: Mark) -> None:
        """Take one option; the last one of a name wins, as in sbatch."""
        handler = _HANDLERS.get(option)
        if option in _LEFT_OUT:
            self._note(option, mark, f"left out: {_LEFT_OUT[option]}")
        elif option in _REFUSED:
            self._refuse(_REFUSED[option], mark, option)
        elif handler is not None:
            handler(self, option, value.strip(), mark)
        else:
            near = difflib.get_close_matches(option[:64], [*_HANDLERS, *_LEFT_OUT], n=1)
            hint = f"; did you mean --{near[0]}?" if near else ""
            self._refuse(f"is no option that can be mapped{hint}", mark, option)

    def finish(self) -> None:
        """Write the resources: amounts are per node, whatever the options counted by."""
        numbers = self._numbers
        nodes = int(numbers.get("nodes", 1))
        tasks = numbers.get("ntasks-per-node") or math.ceil(numbers.get("ntasks", nodes) / nodes)
        tasks = max(int(tasks), 1)
        if nodes > 1 or tasks > 1:
            entry = {"count": nodes, "tasks_per_node": tasks}
            self._put_resource("nodes", entry, "nodes", "ntasks-per-node", "ntasks")
        cores = numbers.get("cpus-per-task", 1) * tasks
        if {"cpus-per-task", "ntasks", "ntasks-per-node"} & set(numbers):
            self._put_resource(
                "cpu", {"cores": cores}, "cpus-per-task", "ntasks-per-node", "ntasks"
            )
        gpus = self._gpus(nodes, tasks)
        if gpus:
            model = {} if self._gpu_model is None else {"model": self._gpu_model}
            self._put_resource("gpu", {"count": gpus, **model}, *_GPU_OPTIONS)
        memory = (
            numbers.get("mem")
            or numbers.get("mem-per-cpu", 0) * cores
            or numbers.get("mem-per-gpu", 0) * gpus
        )
        if memory:
            entry_gb = {"size_gb": memory / GIGABYTE}
            self._put_resource("memory", entry_gb, "mem", "mem-per-cpu", "mem-per-gpu")

    def _gpus(self, nodes: int, tasks: int) -> int:
        numbers = self._numbers
        per_node = numbers.get("gpus-per-node") or numbers.get("gres")
        in_all = numbers.get("gpus", 0) / nodes
        return math.ceil(per_node or in_all or numbers.get("gpus-per-task", 0) * tasks)

    def _put_resource(self, kind: str, entry: dict[str, Any], *options: str) -> None:
        mark = next((self._marks[name] for name in options if name in self._marks), Mark(1))
        self.draft.put(("requirements", "resources", kind), entry, mark)
        shown = ", ".join(
            f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in entry.items()
        )
        self.draft.note(f"line {mark.line}: {kind}", f"requirements.resources.{kind}: {shown}")

    def _put(self, path: tuple[str, ...], value: Any, option: str, mark: Mark) -> None:
        self.draft.put(path, value, mark)
        self._note(option, mark, ".".join(path))

    def _note(self, option: str, mark: Mark, target: str) -> None:
        self.draft.note(f"line {mark.line}: --{option}", target)

    def _refuse(self, what: str, mark: Mark, actual: str) -> None:
        self.draft.refuse("E_SLURM_FIELD", what, mark, "", actual)

    def _matched(
        self, pattern: re.Pattern[str], option: str, value: str, mark: Mark
    ) -> re.Match[str] | None:
        match = pattern.fullmatch(value)
        if match is None:
            self._refuse(f"is not a value of --{option}", mark, value)
        return match

    # One method for each group of options.

    def count(self, option: str, value: str, mark: Mark) -> None:
        """Take a number; of a range of nodes the smaller one."""
        match = self._matched(_COUNT, option, value, mark)
        if match is not None and int(match[1]) > 0:
            self._numbers[option] = int(match[1])
            self._marks[option] = mark
        elif match is not None:
            self._refuse(f"is not a value of --{option}", mark, value)

    def memory(self, option: str, value: str, mark: Mark) -> None:
        """Take a size."""
        match = self._matched(_MEMORY, option, value, mark)
        if match is not None:
            self._numbers[option] = int(match[1]) * _UNITS[match[2]]
            self._marks[option] = mark

    def gpus(self, option: str, value: str, mark: Mark) -> None:
        """Take ``2`` or ``a100:2``."""
        match = self._matched(_GPUS, option, value, mark)
        if match is not None:
            self._gpu_model = match[1] or self._gpu_model
            self._numbers[option] = int(match[2])
            self._marks[option] = mark

    def gres(self, option: str, value: str, mark: Mark) -> None:
        """Take ``gpu``, ``gpu:2`` or ``gpu:a100:2``; other generic resources are refused."""
        match = self._matched(_GRES, option, value, mark)
        if match is not None:
            asked = match[1] or "1"
            self.gpus(
                option, asked if asked[-1].isdigit() and ":" in asked else _plain(asked), mark
            )

    def job_name(self, option: str, value: str, mark: Mark) -> None:
        """Take the name."""
        self.name = value or self.name
        self._put(("name",), value, option, mark)

    def time(self, option: str, value: str, mark: Mark) -> None:
        """Take a time limit; none and 0 stand for the site's own."""
        seconds = _slurm_seconds(value)
        if seconds is None:
            self._refuse(f"is not a value of --{option}", mark, value)
        elif seconds:
            self._put(("limits", "wall_s"), seconds, option, mark)

    def chdir(self, option: str, value: str, mark: Mark) -> None:
        """Take the working directory."""
        self._put(("payload", "process", "workdir"), value, option, mark)

    def partition(self, option: str, value: str, mark: Mark) -> None:
        """Take a partition as a label that the backend must have."""
        if self._matched(_WORD, option, value, mark) is not None:
            self._put(("requirements", "constraints"), [f"partition == '{value}'"], option, mark)

    def context(self, option: str, value: str, mark: Mark) -> None:
        """Keep a site's word for audit; the backend's own configuration decides."""
        self._put(("context", "slurm", option), value, option, mark)

    def export(self, option: str, value: str, mark: Mark) -> None:
        """Take variables that are written out; the submitting shell's are never taken."""
        for part in value.split(","):
            name = part.partition("=")[0]
            match = _EXPORT.fullmatch(part)
            if match is not None:
                self._put(("payload", "process", "env", match[1]), match[2], option, mark)
            else:
                self._note(option, mark, f"left out: {name} is the submitting shell's")

    def requeue(self, option: str, _value: str, mark: Mark) -> None:
        """Take a requeue as a retry after loss."""
        self._put(("retry", "on"), ["LOST", "PREEMPTED"], option, mark)

    def signal(self, option: str, value: str, mark: Mark) -> None:
        """Take the lead of the signal as the grace after SIGTERM."""
        match = self._matched(_SIGNAL, option, value, mark)
        if match is not None:
            self._put(("limits", "grace_s"), int(match[1]), option, mark)


def _plain(asked: str) -> str:
    return asked if asked.isdigit() else f"{asked}:1"


def _slurm_seconds(value: str) -> float | None:
    """Read minutes, m:s, h:m:s, d-h, d-h:m or d-h:m:s."""
    if value.upper() in ("0", "UNLIMITED", "INFINITE"):
        return 0
    days, dash, rest = value.rpartition("-")
    parts = rest.split(":")
    if not all(re.fullmatch(r"[0-9]{1,6}", part) for part in [*parts, days if dash else "0"]):
        return None
    numbers = [int(part) for part in parts]
    if dash and len(numbers) <= len(_CLOCK):
        clock = zip([*numbers, 0, 0], _CLOCK, strict=False)
        return float(int(days) * 86400 + sum(number * scale for number, scale in clock))
    scales = {1: (60,), 2: (60, 1), 3: _CLOCK}.get(len(numbers))
    if dash or scales is None:
        return None
    return float(sum(number * scale for number, scale in zip(numbers, scales, strict=True)))


_GPU_OPTIONS = ("gpus-per-node", "gres", "gpus", "gpus-per-task")
_LEFT_OUT = {
    "output": "standard output is kept in the capsule",
    "error": "standard error is kept in the capsule",
    "open-mode": "logs are kept in the capsule",
    "mail-type": "use `notify`",
    "mail-user": "use `notify`",
    "no-requeue": "nothing is run again unless `retry` says so",
    "exclusive": "cores and devices are given whole to one experiment",
    "quiet": "it changes what is printed",
    "verbose": "it changes what is printed",
    "hint": "it changes speed only",
    "cpu-freq": "it changes speed only",
    "time-min": "backends take one limit",
}
_REFUSED = {
    "array": "starts many jobs; submit one request for each",
    "dependency": "waits for another job; use its output as capsule://tenant/id/output",
    "begin": "starts later; use a schedule",
    "hold": "waits for a person; pause the experiment after submission",
    "nodelist": "names machines; use `backends` or a constraint",
    "exclude": "names machines; use `backends` or a constraint",
    "constraint": "names features of a site; write them as `requirements.constraints`",
    "clusters": "names clusters; use `backends`",
    "input": "reads standard input; use `inputs`",
    "wrap": "replaces the script; write the command into it",
}
_HANDLERS: dict[str, Callable[[Job, str, str, Mark], None]] = {
    "job-name": Job.job_name,
    "nodes": Job.count,
    "ntasks": Job.count,
    "ntasks-per-node": Job.count,
    "cpus-per-task": Job.count,
    "gpus-per-node": Job.gpus,
    "gpus-per-task": Job.gpus,
    "gpus": Job.gpus,
    "gres": Job.gres,
    "mem": Job.memory,
    "mem-per-cpu": Job.memory,
    "mem-per-gpu": Job.memory,
    "time": Job.time,
    "chdir": Job.chdir,
    "partition": Job.partition,
    "account": Job.context,
    "qos": Job.context,
    "reservation": Job.context,
    "comment": Job.context,
    "export": Job.export,
    "requeue": Job.requeue,
    "signal": Job.signal,
}
