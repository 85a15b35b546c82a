"""What a Kubernetes backend is told: the options of ``[backends.NAME.options]`` in fabric.toml.

::

    [backends.cluster.options]
    context = "lab"                      # of the kubeconfig; in a cluster nothing is needed
    namespace = "experiments"
    image = "registry.example.org/python:3.12"
    queue = "gpu-queue"                  # a LocalQueue, where the cluster has Kueue
    node_labels = { zone = "topology.kubernetes.io/zone" }
    tolerations = [{ key = "nvidia.com/gpu", operator = "Exists" }]
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_fabric.adapters import option_checks
from temporal_fabric.adapters.option_checks import Span
from temporal_fabric.errors import Problem, RequestRejected
from temporal_fabric.shapes import is_list, is_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HELPER_IMAGE = "docker.io/library/busybox:1.37"
PULL_POLICIES = ("Always", "IfNotPresent", "Never")

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\Z")
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_LABEL_KEY = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?\Z")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?\Z")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9./:@_-]{0,511}\Z")
_PLAIN = re.compile(r"[^\x00-\x1f\x7f]{0,512}\Z")
_TOLERATION = ("key", "operator", "value", "effect", "tolerationSeconds")
_TEXTS = {
    "kubeconfig": (_PLAIN, "the path of a kubeconfig"),
    "context": (_PLAIN, "a context of the kubeconfig"),
    "namespace": (_NAMESPACE, "a namespace, of a-z 0-9 -"),
    "image": (_IMAGE, "an image reference"),
    "helper_image": (_IMAGE, "an image reference"),
    "python": (_PLAIN, "the interpreter in the image, such as python3"),
    "service_account": (_NAME, "the name of a service account"),
    "priority_class": (_NAME, "the name of a priority class"),
    "queue": (_NAME, "the name of a LocalQueue of Kueue"),
    "gpu_resource": (_LABEL_KEY, "a resource of the nodes, such as nvidia.com/gpu"),
    "gpu_model_label": (_LABEL_KEY, "a label of the nodes, such as nvidia.com/gpu.product"),
}
_FLAGS = ("read_only_root", "network_policy", "autoscaled")
_NUMBERS = {
    "user": Span(1, 2**31 - 1, whole=True, besides="and never root"),
    "keep_s": Span(60, 30 * 86400, whole=True),
    "start_s": Span(10, 86400),
    "remember_days": Span(1, 365, whole=True),
    "answer_s": Span(1, 300),
    "poll_s": Span(0.1, 60),
    "largest_gang": Span(1, 1000, whole=True),
}


@dataclass(frozen=True, slots=True)
class KubernetesOptions:
    """One namespace of one cluster, and how its pods are to be."""

    kubeconfig: str = ""
    """Without one: ``KUBECONFIG``, ``~/.kube/config``, or the account of the worker's pod."""

    context: str = ""
    namespace: str = ""
    """Without one the context's, or the namespace of the pod that the worker runs in."""

    image: str = ""
    """What process and python payloads run in; without one only container payloads are taken."""

    helper_image: str = HELPER_IMAGE
    """Carries files in and out: sh, tar, head, tail, mkdir and sleep."""

    python: str = "python3"
    """Interpreter of python payloads, in the image."""

    image_pull_policy: str = ""
    image_pull_secrets: tuple[str, ...] = ()
    service_account: str = ""
    priority_class: str = ""
    queue: str = ""
    node_selector: dict[str, str] = field(default_factory=dict[str, str])
    tolerations: tuple[dict[str, Any], ...] = ()
    node_labels: dict[str, str] = field(default_factory=dict[str, str])
    """Names in constraints that are labels of the nodes: name = "label of the node"."""

    gpu_resource: str = "nvidia.com/gpu"
    gpu_model_label: str = ""
    """Label with which nodes name the model of their devices."""

    user: int = 65534
    """User and group that every container runs as; never root."""

    read_only_root: bool = True
    network_policy: bool = False
    """Whether the cluster enforces network policies, so that a pod's network can be cut off."""

    autoscaled: bool = False
    """Whether nodes come when they are needed: then those of today do not limit a request."""

    keep_s: int = 86400
    """How long an ended pod waits for a worker that carries away what it wrote."""

    start_s: float = 600.0
    """How long an image may fail to be pulled, or a container to be made, before it is given up."""

    remember_days: int = 7
    """How long the Job of an ended attempt stays, to refuse a late start."""

    answer_s: float = 20.0
    """How long the API server may take for an answer."""

    poll_s: float = 1.0
    """Pause between two looks at one attempt."""

    largest_gang: int = 64
    """Pods that one attempt may have."""

    @property
    def kubeconfig_path(self) -> str | None:
        """The named kubeconfig as a full path."""
        return str(Path(self.kubeconfig).expanduser()) if self.kubeconfig else None


def read_options(options: Mapping[str, Any], backend: str) -> KubernetesOptions:
    """Return the options of a backend; sets nothing up.

    Raises:
        RequestRejected: one is unknown or has a wrong value; every one is a problem.
    """
    problems = check_options(options, backend)
    if problems:
        raise RequestRejected(problems)
    given = dict(options)
    for name in ("image_pull_secrets", "tolerations"):
        given[name] = tuple(given.get(name, ()))
    if given.get("image") and "helper_image" not in given:
        given["helper_image"] = given["image"]
    return KubernetesOptions(**given)


def check_options(options: Mapping[str, Any], backend: str) -> list[Problem]:
    """Return everything that is wrong with a backend's options.

    Args:
        options: The table as it was read.
        backend: The backend's name, for the paths.
    """
    at = f"/backends/{backend}/options"
    return [
        *option_checks.names(options, KubernetesOptions, at),
        *_check_texts(options, at),
        *option_checks.numbers(options, _NUMBERS, at),
        *option_checks.flags(options, _FLAGS, at),
        *_check_tables(options, at),
        *_check_lists(options, at),
    ]


def _check_texts(options: Mapping[str, Any], at: str) -> Iterator[Problem]:
    for name, (pattern, what) in _TEXTS.items():
        value = options.get(name)
        if value is None or (isinstance(value, str) and pattern.match(value)):
            continue
        code = "E_IMAGE" if name.endswith("image") else "E_NAME"
        actual = value[:80] if isinstance(value, str) else None
        code = code if actual is not None else "E_TYPE"
        yield Problem(code, f"{at}/{name}", f"{name} is {what}", actual=actual)
    policy = options.get("image_pull_policy", "")
    if policy not in {"", *PULL_POLICIES}:
        message = f"image_pull_policy is one of {', '.join(PULL_POLICIES)}"
        yield Problem("E_RANGE", f"{at}/image_pull_policy", message, allowed=PULL_POLICIES)
    config = options.get("kubeconfig")
    if isinstance(config, str) and config and not Path(config).expanduser().is_file():
        message = "there is no such file on this host; name a kubeconfig, or leave it out"
        yield Problem("E_PATH", f"{at}/kubeconfig", message, actual=config[:80])


def _check_tables(options: Mapping[str, Any], at: str) -> Iterator[Problem]:
    shapes = {
        "node_selector": (_LABEL_KEY, _LABEL_VALUE, "label = value"),
        "node_labels": (re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z"), _LABEL_KEY, "name = label"),
    }
    for name, (key_shape, value_shape, what) in shapes.items():
        table = options.get(name, {})
        if not is_table(table):
            yield Problem("E_TYPE", f"{at}/{name}", f"{name} is a table of {what}")
            continue
        for key, value in table.items():
            if (
                not key_shape.match(key)
                or not isinstance(value, str)
                or not value_shape.match(value)
            ):
                message = f"{name} has entries {what}"
                yield Problem("E_NAME", f"{at}/{name}/{key}", message, actual=str(value)[:80])


def _check_lists(options: Mapping[str, Any], at: str) -> Iterator[Problem]:
    secrets = options.get("image_pull_secrets", [])
    if not is_list(secrets) or not all(isinstance(s, str) and _NAME.match(s) for s in secrets):
        yield Problem(
            "E_TYPE", f"{at}/image_pull_secrets", "image_pull_secrets is a list of names of secrets"
        )
    tolerations = options.get("tolerations", [])
    if not is_list(tolerations):
        yield Problem("E_TYPE", f"{at}/tolerations", "tolerations is a list of tables")
        return
    for place, row in enumerate(tolerations):
        if not is_table(row) or not row.keys() <= set(_TOLERATION):
            message = f"a toleration is a table of {', '.join(_TOLERATION)}"
            yield Problem("E_TYPE", f"{at}/tolerations/{place}", message, allowed=_TOLERATION)
