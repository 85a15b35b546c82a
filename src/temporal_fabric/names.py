"""The frozen strings: they stand in recorded histories, queue names and user scripts.

Changing one breaks running experiments. Workflow code imports this module, so it imports
nothing outside the standard library.
"""

from __future__ import annotations

import re

WORKFLOW_EXPERIMENT = "Experiment"
WORKFLOW_NOTIFY = "Notify"
WORKFLOW_CERTIFIED_FLOW = "CertifiedFlow"

ACTIVITY_ACQUIRE = "acquire"
ACTIVITY_ATTEMPT = "attempt"
ACTIVITY_ENSURE_ABSENT = "ensure_absent"
ACTIVITY_SEAL = "seal"
ACTIVITY_PLAN = "plan"
ACTIVITY_JUDGE = "judge"
ACTIVITY_READ = "read"
ACTIVITY_CONTROL = "control"
ACTIVITY_EXECUTE = "execute"
ACTIVITY_SETTLE = "settle"
ACTIVITY_BACKENDS = "backends"
ACTIVITY_DRAIN = "drain"
ACTIVITY_HALT = "halt"
ACTIVITY_NOTIFY = "notify"
ACTIVITY_FLOW_OPEN = "flow_open"
ACTIVITY_FLOW_STEP = "flow_step"
ACTIVITY_FLOW_FINISH = "flow_finish"

ACTION_PAUSE = "pause"
ACTION_RESUME = "resume"
"""What `control` is asked to do."""

SIGNAL_ATTEMPT = "attempt"
SIGNAL_FLOW_PAUSE = "pause"
SIGNAL_FLOW_STOP = "stop"
QUERY_STATUS = "status"
QUERY_ATTEMPTS = "attempts"
UPDATE_PAUSE = "pause"
UPDATE_RESUME = "resume"
UPDATE_REPRIORITISE = "reprioritise"
UPDATE_RESOLVE = "resolve"

KIND_FLOW = "flow"
"""The payload that a workflow of its own carries through its attempt."""

QUEUE = "fabric"
"""Workflows and light activities."""

DEFAULT_POOL = "default"
DEFAULT_TENANT = "default"

MEMO_DIGEST = "digest"
MEMO_CAPSULE = "capsule"
MEMO_STATE = "state"
MEMO_REASON = "reason"
MEMO_NAME = "name"
MEMO_RETRY_OF = "retry_of"
"""Run id of the failed run that a start retries on purpose."""

STALE_GRANT = "STALE_GRANT"
"""Failure type of an attempt whose epoch is not the newest: a reset run reuses old history."""

DRAINED_HERE = "DrainedHere"
"""Failure type of a question for a place that a drained host leaves to others."""

FITS_ELSEWHERE = "FitsElsewhere"
"""Failure type of a question for a place that a host without such a backend leaves to others."""

SA_TENANT = "FabricTenant"
SA_STATE = "FabricState"
SA_REASON = "FabricReason"
SA_BACKEND = "FabricBackend"
SA_KIND = "FabricKind"
SA_TAGS = "FabricTags"
SA_PRIORITY = "FabricPriority"

SEARCH_ATTRIBUTES: dict[str, str] = {
    SA_TENANT: "Keyword",
    SA_STATE: "Keyword",
    SA_REASON: "Keyword",
    SA_BACKEND: "Keyword",
    SA_KIND: "Keyword",
    SA_TAGS: "KeywordList",
    SA_PRIORITY: "Int",
}

WORKFLOW_ID_PREFIX = "experiment"
NOTIFY_ID_PREFIX = "notify"
FLOW_ID_PREFIX = "flow"


def pool_queue(pool: str) -> str:
    """Return the task queue that a pool's dispatcher polls."""
    return f"fabric.pool.{pool}"


def backend_queue(backend: str) -> str:
    """Return the task queue of one backend instance, such as ``local@<host id>``."""
    return f"fabric.backend.{backend}"


def host_queue(host: str) -> str:
    """Return the task queue of one host, by which other workers ask what it has."""
    return f"fabric.host.{host}"


def workflow_id(tenant: str, request_id: str) -> str:
    """Return the workflow id of an experiment."""
    return f"{WORKFLOW_ID_PREFIX}/{tenant}/{request_id}"


def notify_id(tenant: str, request_id: str, number: int, unique: str) -> str:
    """Return the workflow id of telling one receiver of one moment."""
    return f"{NOTIFY_ID_PREFIX}/{tenant}/{request_id}/{number}/{unique}"


def flow_id(tenant: str, request_id: str, epoch: int) -> str:
    """Return the workflow id of one attempt of a certified flow."""
    return f"{FLOW_ID_PREFIX}/{tenant}/{request_id}/{epoch}"


def parse_workflow_id(value: str) -> tuple[str, str] | None:
    """Split ``experiment/<tenant>/<request id>``; None where it has another shape."""
    prefix, _, rest = value.partition("/")
    tenant, slash, request_id = rest.partition("/")
    if prefix != WORKFLOW_ID_PREFIX or not slash or not tenant or not request_id:
        return None
    return (tenant, request_id)


def temporal_priority(priority: int) -> int:
    """Map the request's 1-10 (10 most urgent) to Temporal's 1-5 (1 most urgent)."""
    return -(-(11 - priority) // 2)


_FIRED = re.compile(r"(.+)-(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)Z\Z")
_FIRED_ID = re.compile(r"(.+)-(\d{4})(\d\d)(\d\d)t(\d\d)(\d\d)(\d\d)z\Z")


def request_of(value: str) -> tuple[str, str]:
    """Return tenant and request id of a workflow id, also of one that a Schedule started.

    A Schedule appends its time, which becomes ``<id>-20261121t080000z``. An id of another
    shape belongs to no tenant.
    """
    tenant, request_id = parse_workflow_id(value) or ("", value)
    fired = _FIRED.match(request_id)
    if fired is None:
        return (tenant, request_id)
    stem, *parts = fired.groups()
    return (tenant, f"{stem}-{''.join(parts[:3])}t{''.join(parts[3:])}z")


def scheduled_workflow_id(tenant: str, request_id: str) -> str | None:
    """Return the workflow id that a Schedule gave a request, None where the id is no such one."""
    fired = _FIRED_ID.match(request_id)
    if fired is None:
        return None
    stem, year, month, day, hour, minute, second = fired.groups()
    return workflow_id(tenant, f"{stem}-{year}-{month}-{day}T{hour}:{minute}:{second}Z")
