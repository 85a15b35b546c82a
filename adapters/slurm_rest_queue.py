"""Slurm by slurmrestd: what `Queue` promises, in the words of its interface.

An answer of another shape is no answer. Sites differ in little things: a state is a text or a
list of them, a number is one or a table with one. They are made equal here and nowhere else.
"""

from __future__ import annotations

import shlex
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters.slurm_on_login_queue import LIVE, PREFIX, Trouble
from temporal_fabric.adapters.slurm_rest_forms import (
    is_default,
    limit_of,
    release,
    states_of,
    submission,
)
from temporal_fabric.shapes import is_list, is_table

if TYPE_CHECKING:
    from temporal_fabric.adapters.slurm_on_login_queue import Table
    from temporal_fabric.adapters.slurm_options import RestOptions
    from temporal_fabric.adapters.slurm_rest_api import RestApi

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class RestQueue:
    """See `Queue`.

    Args:
        api: To slurmrestd.
        options: Of the backend.
    """

    def __init__(self, api: RestApi, options: RestOptions) -> None:
        self._api, self._options = api, options

    def about(self) -> Table:
        """See `Queue.about`."""
        told = self._api.slurm("GET", "/partitions")
        nodes = _rows(self._api.slurm("GET", "/nodes"), "nodes")
        try:
            version = release(told)
            found = [row for part in _rows(told, "partitions") for row in _kinds(part, nodes)]
        except (KeyError, TypeError, ValueError) as exc:
            raise Trouble(f"slurmrestd describes its partitions oddly: {exc!r}") from exc
        return {"slurm": f"slurm {version}", "partitions": found, "array": 0}

    def submit(self, job: Table) -> str:
        """See `Queue.submit`."""
        # Arguments of a script end slurmrestd 22.05 with a crash: they stand in the script.
        first, _, rest = job["script"].partition("\n")
        script = f"{first}\nset -- {shlex.join(job['args'])}\n{rest}"
        own = {"PATH": _PATH, "USER": self._options.user, "LOGNAME": self._options.user}
        body = submission(self._api.version(), job["options"], script, own)
        told = self._api.slurm("POST", "/job/submit", body)
        found = _number(told.get("job_id"))
        if not found:
            raise Trouble("slurmrestd gives no job id")
        return str(found)

    def jobs(self) -> list[Table]:
        """See `Queue.jobs`."""
        rows = _rows(self._api.slurm("GET", "/jobs"), "jobs")
        try:
            own = [row for row in rows if row["user_name"] == self._options.user]
            return [_job(row) for row in own if row["name"].startswith(PREFIX)]
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise Trouble(f"slurmrestd lists an odd job: {exc!r}") from exc

    def recorded(self, job_id: str) -> str:
        """See `Queue.recorded`; a site may offer no accounting."""
        try:
            told = self._api.accounting(f"/job/{job_id}")
            states = [row["state"]["current"] for row in _rows(told, "jobs")]
        except Trouble as exc:
            if exc.kind != "refused":
                raise
            return ""
        except (KeyError, TypeError) as exc:
            raise Trouble(f"accounting describes a job oddly: {exc!r}") from exc
        return _state(states[-1]) if states else ""

    def cancel(self, job_id: str, *, force: bool = False) -> None:
        """See `Queue.cancel`: Slurm gives a job its KillWait, by force or not."""
        del force
        try:
            self._api.slurm("DELETE", f"/job/{job_id}")
        except Trouble as exc:
            if exc.kind != "refused":
                raise

    def wake(self, job_id: str) -> None:
        """See `Queue.wake`: no signal goes to the batch script alone, so nothing is done."""
        del job_id


def _rows(told: Table, name: str) -> list[Table]:
    rows = told.get(name)
    if not is_list(rows) or not all(is_table(row) for row in rows) or told.get("errors"):
        raise Trouble(f"slurmrestd gives no list of {name}")
    return [row for row in rows if is_table(row)]


def _job(row: Table) -> Table:
    job_id, start = _number(row["job_id"]), _number(row["start_time"])
    if not job_id:
        raise ValueError("it has no id")
    moment = datetime.fromtimestamp(start, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if start else ""
    return {
        "id": str(job_id),
        "name": str(row["name"]),
        "state": _state(row["job_state"]),
        "reason": str(row["state_reason"]),
        "start": moment,
        "nodes": str(row["nodes"]),
    }


def _state(told: Any) -> str:
    """Return the one state that says whether a job may still run something."""
    states = [str(state) for state in (told if is_list(told) else [told])]
    return next((state for state in states if state in LIVE), states[0])


def _kinds(part: Table, nodes: list[Table]) -> list[Table]:
    """Return a partition as sinfo prints it: a row for each kind of node."""
    found = Counter(
        (_number(node["cpus"]), _number(node["real_memory"]), str(node["gres"]) or "(null)")
        for node in nodes
        if part["name"] in node["partitions"]
    )
    minutes = _number(limit_of(part))
    return [
        {
            "name": str(part["name"]) + ("*" if is_default(part) else ""),
            "up": _state(states_of(part)).lower(),
            "limit": f"{minutes}:00" if minutes > 0 else "infinite",
            "nodes": str(count),
            "cpus": str(cpus),
            "memory_mb": str(memory),
            "gres": gres,
        }
        for (cpus, memory, gres), count in found.items()
    ]


def _number(told: Any) -> int:
    """Return a number, 0 for none: newer interfaces tell it as a table."""
    if is_table(told):
        told = told.get("number") if told.get("set") and not told.get("infinite") else None
    if told is None:
        return 0
    if isinstance(told, bool) or not isinstance(told, int):
        raise TypeError(f"no number: {told!r}")
    return told
