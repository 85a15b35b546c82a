"""The Job of an attempt, as it is sent to the API server.

Its pod has three containers over one folder, `ROOT`. *stage* makes the folders and, where the
attempt brings files along, waits for the worker to unpack them there; in a queue it waits in any
case. *payload* is the user's image and program, nothing added. *keeper* passes telemetry on as its
own log, holds the payload to its wall limit and its grace, and stays until the worker has carried
the outputs away. All of them see one another's processes: so the payload is not process 1, and
ends at a SIGTERM that it does not handle.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters.kubernetes_keeper import KEEPING, ROOT, STAGING
from temporal_fabric.adapters.kubernetes_placing import placing
from temporal_fabric.adapters.kubernetes_queueing import QUEUE
from temporal_fabric.requests.quantities import GIGABYTE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from temporal_fabric.adapters.contract import AttemptKey, AttemptSpec
    from temporal_fabric.adapters.kubernetes_options import KubernetesOptions
    from temporal_fabric.requests.models import ExecutionRequest

PREFIX = "temporal-fabric"
KEY, END, STOPPING, PAUSED, FACTS, LET_IN = (
    f"{PREFIX}/{name}" for name in ("key", "end", "stopping", "paused", "facts", "let-in")
)
"""Annotations: the attempt's key, its end as it was judged, that it is stopped, what it needs,
and the pods whose payload may begin."""

BACKEND, ENDED = f"{PREFIX}/backend", f"{PREFIX}/ended"
"""Labels: whose Job it is, and that its end is recorded."""

JOB = f"{PREFIX}/job"
"""Label of a pod: the name of its Job, also where that is gone."""

STAGE, PAYLOAD, KEEPER = "stage", "payload", "keeper"
ERROR_FILE = f"{ROOT}/error.txt"
_FABRIC = "fabric"
_PLACES = {
    "FABRIC_TASK_DIR": f"{ROOT}/task",
    "FABRIC_INPUT_DIR": "/input",
    "FABRIC_OUTPUT_DIR": "/output",
    "FABRIC_CHECKPOINT_DIR": f"{ROOT}/checkpoints",
    "FABRIC_ERROR_FILE": ERROR_FILE,
    "FABRIC_TELEMETRY": f"{ROOT}/telemetry.jsonl",
}
_RUNNER, _CALL = "python_runner.py", "call.json"
_WORD = re.compile(r"[^A-Za-z0-9]+")
_DAY_S = 86400
_LAST_S = 2
"""Within its grace the keeper ends the payload; Kubernetes ends the keeper after it."""


def job_name(backend: str, key: AttemptKey) -> str:
    """Return the one name that an attempt's Job can have, on this backend of this host."""
    said = f"{backend}/{key}"
    digest = hashlib.sha256(said.encode()).hexdigest()[:12]
    stem = _WORD.sub("-", key.request_id.lower()).strip("-")[:30].strip("-") or "x"
    return f"fabric-{stem}-{digest}-{key.epoch}"


def label_value(text: str) -> str:
    """Return a text as the value of a label, which may not begin or end with everything."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:63].strip("-_.")


def job_body(
    backend: str, attempt: AttemptSpec, options: KubernetesOptions, *, queued: bool
) -> dict[str, Any]:
    """Return the Job of an attempt.

    Args:
        backend: The backend's name, with its host.
        attempt: What is to run.
        options: The backend's.
        queued: Whether a queue of the cluster says when it begins, and may take its pod away. The
            Job then gets another pod, whose payload must not begin: none does by itself.
    """
    request, key = attempt.request, attempt.key
    members = gang_size(request)
    staged = queued or members > 1 or bool(brings(attempt))
    facts: dict[str, Any] = {
        "output_bytes": request.limits.output_bytes,
        "staged": staged,
        "members": members,
    }
    if request.limits.wall_s is not None:
        facts["wall_s"] = request.limits.wall_s
    metadata = _metadata(backend, key, options)
    metadata["annotations"][FACTS] = json.dumps(facts)
    pod = _pod(attempt, options, staged=staged)
    labels = {**metadata["labels"], JOB: metadata["name"]}
    if cut_off(request):
        # A policy of the cluster's owner chooses pods by it.
        labels[f"{PREFIX}/network"] = "none"
    spec = {
        "backoffLimit": 0,
        "completions": members,
        "parallelism": members,
        "completionMode": "Indexed" if members > 1 else "NonIndexed",
        "podReplacementPolicy": "Failed",
        "ttlSecondsAfterFinished": options.remember_days * _DAY_S,
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def tombstone_body(
    backend: str, key: AttemptKey, end: Mapping[str, Any], options: KubernetesOptions
) -> dict[str, Any]:
    """Return a Job that never has a pod, and whose name refuses the attempt's own."""
    metadata = _metadata(backend, key, options)
    metadata["annotations"][END] = json.dumps(end)
    metadata["labels"][ENDED] = "true"
    containers = [_restricted({"name": PAYLOAD, "image": options.helper_image}, options)]
    spec = {
        "backoffLimit": 0,
        "parallelism": 0,
        # Only a Job that has ended is removed after its time.
        "activeDeadlineSeconds": 1,
        "ttlSecondsAfterFinished": options.remember_days * _DAY_S,
        "template": {"spec": {"restartPolicy": "Never", "containers": containers}},
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def gang_size(request: ExecutionRequest) -> int:
    """Return how many pods a request asks for."""
    nodes = (item.count for item in request.requirements.resources if item.type == "nodes")
    return max(nodes, default=1)


def cut_off(request: ExecutionRequest) -> bool:
    """Return whether a payload is to have no network; every pod has one, unless it is cut."""
    body: Any = request.payload.body
    asked = getattr(body, "network", None)
    return asked == "none" or (asked is None and getattr(body, "isolation", None) == "sandbox")


def brings(attempt: AttemptSpec) -> dict[str, Any]:
    """Return what is unpacked below `ROOT` before the payload begins: paths of this host."""
    found = {
        name: path
        for name, path in (
            ("task", attempt.folder / "task"),
            ("input", attempt.folder / "input"),
            ("checkpoints", attempt.checkpoints),
        )
        if path.is_dir() and any(path.iterdir())
    }
    if attempt.request.payload.python is not None:
        # What the call says is written by `kubernetes_carrying.write_brought`.
        found |= {_CALL: attempt.folder / _CALL, _RUNNER: attempt.folder / _RUNNER}
    return found


def python_call(attempt: AttemptSpec) -> dict[str, Any] | None:
    """Return what the runner of a python payload is told; None for the other kinds."""
    payload = attempt.request.payload.python
    if payload is None:
        return None
    file, colon, function = payload.entry_point.partition(":")
    where = f"{ROOT}/task/{file}" if payload.source else file
    return {
        "entry_point": f"{where}{colon}{function}",
        "args": list(payload.args),
        "kwargs": dict(payload.kwargs),
    }


def _metadata(backend: str, key: AttemptKey, options: KubernetesOptions) -> dict[str, Any]:
    labels = {
        "app.kubernetes.io/managed-by": PREFIX,
        BACKEND: label_value(backend),
        f"{PREFIX}/tenant": label_value(key.tenant),
        f"{PREFIX}/request": label_value(key.request_id),
        f"{PREFIX}/epoch": str(key.epoch),
    }
    if options.queue:
        labels[QUEUE] = options.queue
    name = job_name(backend, key)
    return {"name": name, "labels": labels, "annotations": {KEY: str(key)}}


def _pod(attempt: AttemptSpec, options: KubernetesOptions, *, staged: bool) -> dict[str, Any]:
    request = attempt.request
    grace, wall = math.ceil(request.limits.grace_s), request.limits.wall_s
    wall_words = [] if wall is None else [str(math.ceil(wall))]
    stage = _helper(STAGE, STAGING, ["yes" if staged else ""], options)
    keeper = _helper(KEEPER, KEEPING, [str(grace), str(options.keep_s), *wall_words], options)
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "shareProcessNamespace": True,
        "terminationGracePeriodSeconds": grace + _LAST_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": options.user,
            "runAsGroup": options.user,
            "fsGroup": options.user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [{"name": name, "emptyDir": {}} for name in (_FABRIC, "tmp")],
        "initContainers": [stage],
        "containers": [_payload(attempt, options), keeper],
        **placing(request, options),
    }
    if wall is not None:
        # The keeper ends the payload in time; this is for a pod whose keeper is gone.
        spec["activeDeadlineSeconds"] = math.ceil(wall + grace + options.start_s + options.keep_s)
    if options.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in options.image_pull_secrets]
    if options.service_account:
        spec["serviceAccountName"] = options.service_account
    if options.priority_class:
        spec["priorityClassName"] = options.priority_class
    return spec


def _payload(attempt: AttemptSpec, options: KubernetesOptions) -> dict[str, Any]:
    request, payload = attempt.request, attempt.request.payload
    env = {"PYTHONUNBUFFERED": "1", "HOME": "/tmp"}  # noqa: S108 - the pod's own
    body = payload.container or payload.process or payload.python
    if body is None:
        raise TypeError("the verdict admits container, process and python payloads only")
    env |= dict(body.env) | attempt.env | _PLACES
    container: dict[str, Any] = {
        "name": PAYLOAD,
        "image": image_of(request, options),
        "env": [{"name": name, "value": _literal(value)} for name, value in env.items()],
        "terminationMessagePath": ERROR_FILE,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": _resources(request, options),
        "volumeMounts": [
            {"name": _FABRIC, "mountPath": ROOT},
            {"name": _FABRIC, "mountPath": "/input", "subPath": "input", "readOnly": True},
            {"name": _FABRIC, "mountPath": "/output", "subPath": "output"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - as above
        ],
    }
    if payload.container is not None:
        if payload.container.command:
            container["command"] = [_literal(word) for word in payload.container.command]
        container["args"] = [_literal(word) for word in payload.container.args]
    elif payload.process is not None:
        container["command"] = [_literal(word) for word in payload.process.command]
    else:
        container["command"] = [options.python, "-s", "-P", f"{ROOT}/{_RUNNER}", f"{ROOT}/{_CALL}"]
    if body.workdir is not None or payload.container is None or request.workdir is not None:
        # An absolute path stays what it is.
        task, given = _PLACES["FABRIC_TASK_DIR"], body.workdir or ""
        container["workingDir"] = given if given.startswith("/") else f"{task}/{given}".rstrip("/")
    if options.image_pull_policy:
        container["imagePullPolicy"] = options.image_pull_policy
    return _restricted(container, options)


def image_of(request: ExecutionRequest, options: KubernetesOptions) -> str:
    """Return the image of a request's payload; empty where there is none."""
    if request.payload.container is not None:
        return request.payload.container.image
    own = request.environment.image if request.environment is not None else None
    return own or options.image


def _helper(name: str, script: str, words: list[str], options: KubernetesOptions) -> dict[str, Any]:
    container = {
        "name": name,
        "image": options.helper_image,
        # A `$(` of the script is the shell's, not Kubernetes'.
        "command": ["sh", "-c", _literal(script), name, *words],
        "resources": {
            "requests": {"cpu": "10m", "memory": "32Mi"},
            "limits": {"memory": "128Mi"},
        },
        "volumeMounts": [{"name": _FABRIC, "mountPath": ROOT}],
    }
    if options.image_pull_policy:
        container["imagePullPolicy"] = options.image_pull_policy
    return _restricted(container, options)


def _restricted(container: dict[str, Any], options: KubernetesOptions) -> dict[str, Any]:
    """Return the container as the restricted pod security standard wants it."""
    container["securityContext"] = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": options.read_only_root,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return container


def _resources(request: ExecutionRequest, options: KubernetesOptions) -> dict[str, Any]:
    asked = {item.type: item for item in request.requirements.resources}
    cores = request.limits.cpus or getattr(asked.get("cpu"), "cores", None)
    memory = request.limits.memory_bytes or _bytes(getattr(asked.get("memory"), "size_gb", None))
    disk = _bytes(getattr(asked.get("disk"), "size_gb", None))
    gpus = getattr(asked.get("gpu"), "count", 0)
    amounts: dict[str, str] = {}
    if cores:
        amounts["cpu"] = f"{math.ceil(cores * 1000)}m"
    if memory:
        amounts["memory"] = str(memory)
    if disk:
        amounts["ephemeral-storage"] = str(disk)
    if gpus:
        amounts[options.gpu_resource] = str(gpus)
    return {"requests": dict(amounts), "limits": dict(amounts)} if amounts else {}


def _bytes(gigabytes: float | None) -> int:
    return 0 if gigabytes is None else int(gigabytes * GIGABYTE)


def _literal(text: str) -> str:
    """Return a text in which Kubernetes replaces nothing."""
    return text.replace("$", "$$")
