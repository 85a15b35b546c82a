"""What versions of slurmrestd's interface call the parts of a job, and its list of partitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from temporal_fabric.shapes import is_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Table = dict[str, Any]
    Fields = Mapping[str, Callable[[str], Table]]

OLD = "v0.0.38"
"""Of Slurm 22.05; all others that are known are alike."""


def submission(version: str, options: Mapping[str, str], script: str, env: Table) -> Table:
    """Return the body that submits a job.

    Args:
        version: Of the interface.
        options: By sbatch's long names.
        script: The batch script.
        env: Variables of the job.
    """
    names = _OLD_FIELDS if version == OLD else _FIELDS
    fields: Table = {}
    for option, value in options.items():
        fields |= names[option](value)
    if version == OLD:
        # It takes "requeue" for true, whatever that says.
        return {"job": {**fields, "no_requeue": True, "environment": env}, "script": script}
    variables = [f"{name}={value}" for name, value in env.items()]
    return {"job": {**fields, "requeue": False, "environment": variables, "script": script}}


def release(told: Table) -> str:
    """Return which Slurm has answered; raises `KeyError` where the answer does not tell."""
    meta = told["meta"]
    return str((meta.get("slurm") or meta["Slurm"])["release"])


def limit_of(part: Table) -> Any:
    """Return the minutes that a partition gives to a job, as the interface tells a number."""
    return part["max_time_limit"] if "max_time_limit" in part else part["maximums"]["time"]


def states_of(part: Table) -> Any:
    """Return the state of a partition, or the list of them."""
    return part["partition"]["state"] if is_table(part.get("partition")) else part["state"]


def is_default(part: Table) -> bool:
    """Say whether jobs that name no partition go there; newer interfaces do not tell."""
    return any(str(flag).lower() == "default" for flag in part.get("flags", ()))


def _named(name: str, convert: Callable[[str], object] = str) -> Callable[[str], Table]:
    return lambda text: {name: convert(text)}


def _mebibytes(text: str) -> int:
    return int(text.removesuffix("M"))


def _number(number: int) -> Table:
    return {"set": True, "infinite": False, "number": number}


def _warning(text: str) -> Table:
    """Read ``B:USR1@90``."""
    signal, _, seconds = text.removeprefix("B:").partition("@")
    return {
        "kill_warning_signal": signal,
        "kill_warning_delay": _number(int(seconds)),
        "kill_warning_flags": ["BATCH_JOB"],
    }


def _nothing(text: str) -> Table:
    del text
    return {}


_ALIKE: Fields = {
    "job-name": _named("name"),
    "comment": _named("comment"),
    "output": _named("standard_output"),
    "chdir": _named("current_working_directory"),
    "ntasks-per-node": _named("tasks_per_node", int),
    "partition": _named("partition"),
    "account": _named("account"),
    "qos": _named("qos"),
    "cpus-per-task": _named("cpus_per_task", int),
    "licenses": _named("licenses"),
    "tmp": _named("temporary_disk_per_node", _mebibytes),
}
_OLD_FIELDS: Fields = {
    **_ALIKE,
    "open-mode": _named("open_mode"),
    "nodes": _named("nodes", int),
    "time": _named("time_limit", int),
    "mem": _named("memory_per_node", _mebibytes),
    "gres": _named("gres"),
    # No form of it is accepted.
    "signal": _nothing,
}
_FIELDS: Fields = {
    **_ALIKE,
    "open-mode": _named("open_mode", lambda text: [text.upper()]),
    "nodes": _named("nodes"),
    "time": _named("time_limit", lambda text: _number(int(text))),
    "mem": _named("memory_per_node", lambda text: _number(_mebibytes(text))),
    "gres": _named("tres_per_node", lambda text: f"gres/{text.replace(',', ',gres/')}"),
    "signal": _warning,
}
