"""Whether a Kubernetes backend could ever run a request, and everything that speaks against it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporal_fabric.adapters import fitting
from temporal_fabric.adapters.contract import Shortfall, Verdict
from temporal_fabric.adapters.kubernetes_job import cut_off, image_of
from temporal_fabric.adapters.kubernetes_placing import node_rules

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from temporal_fabric.adapters.kubernetes_nodes import Node
    from temporal_fabric.adapters.kubernetes_options import KubernetesOptions
    from temporal_fabric.config import BackendConfig
    from temporal_fabric.requests.models import ExecutionRequest

_ISOLATION = "E_ISOLATION"
_MANY = 1e18


def kubernetes_verdict(
    request: ExecutionRequest,
    config: BackendConfig,
    options: KubernetesOptions,
    nodes: Sequence[Node] | None,
) -> Verdict:
    """Compare a request with a cluster.

    Args:
        request: An admitted request.
        config: The backend's configuration.
        options: Its options.
        nodes: The nodes that take pods; None where they are not to be seen.
    """
    if wrong := tuple(fitting.kinds(request, "container", "process", "python")):
        return Verdict(wrong)
    seen = None if options.autoscaled else nodes
    return Verdict.of(
        *_image(request, options),
        *fitting.files(request),
        *fitting.settings(request),
        *_limits(request),
        *_isolation(request, options),
        *_resources(request, options, seen),
        *_constraints(request, config, options, seen),
    )


def _image(request: ExecutionRequest, options: KubernetesOptions) -> Iterator[Shortfall]:
    asked = request.environment
    if asked is not None and asked.image is None:
        yield Shortfall(
            "installs nothing into an image",
            "give /environment/image with everything in it instead",
        )
    elif not image_of(request, options):
        yield Shortfall(
            "has no image for payloads that name none",
            "set image in the backend's options in fabric.toml, or give /environment/image",
        )


def _limits(request: ExecutionRequest) -> Iterator[Shortfall]:
    for name, why in (
        ("pids", "the kubelet limits processes for whole nodes"),
        ("open_files", "the container runtime limits open files for whole nodes"),
        ("log_bytes", "the kubelet limits logs for whole nodes"),
    ):
        if getattr(request.limits, name) is not None:
            text = f"cannot hold a payload to limits.{name}: {why}"
            yield Shortfall(text, f"drop /limits/{name}", _ISOLATION)
    if request.secrets:
        yield Shortfall("secrets are not handed to pods yet", "drop /secrets")


def _isolation(request: ExecutionRequest, options: KubernetesOptions) -> Iterator[Shortfall]:
    """A container is limited and has its own root; its network can be cut by the cluster only."""
    if cut_off(request) and not options.network_policy:
        yield Shortfall(
            "cannot cut off a pod's network",
            f"set /payload/{request.kind}/network to outbound, or network_policy = true in the "
            "backend's options where the cluster enforces network policies",
            _ISOLATION,
        )


def _resources(
    request: ExecutionRequest, options: KubernetesOptions, nodes: Sequence[Node] | None
) -> Iterator[Shortfall]:
    def most(resource: str) -> float:
        offered = (node.allocatable.get(resource, 0.0) for node in nodes or ())
        return _MANY if nodes is None else max(offered, default=0.0)

    asked = request.requirements.resources
    for place, resource in enumerate(asked):
        at = f"/requirements/resources/{place}"
        if resource.type == "nodes":
            if resource.count > options.largest_gang:
                text = f"needs {resource.count} nodes, a gang has {options.largest_gang} at most"
                yield Shortfall(text, f"set {at}/count to {options.largest_gang}")
            continue
        if resource.type == "disk" and resource.size_gb * 1e9 <= most("ephemeral-storage"):
            continue
        if resource.type == "gpu" and resource.model and options.gpu_model_label:
            if resource.count > most(options.gpu_resource):
                text = f"needs {resource.count} devices, has {most(options.gpu_resource):g}"
                yield Shortfall(text, f"set {at}/count to fewer")
            continue
        yield from fitting.resource(
            resource,
            at,
            cores=most("cpu"),
            memory_bytes=most("memory"),
            gpus=int(most(options.gpu_resource)),
        )


def _constraints(
    request: ExecutionRequest,
    config: BackendConfig,
    options: KubernetesOptions,
    nodes: Sequence[Node] | None,
) -> Iterator[Shortfall]:
    rules = list(node_rules(request, options))
    yield from fitting.constraints(request, config.labels, but={rule.place for rule in rules})
    for rule in rules if nodes is not None else ():
        labelled = (node.labels for node in nodes or () if rule.label in node.labels)
        there = sorted({labels[rule.label] for labels in labelled})
        if not set(there) & set(rule.values):
            at = "/requirements/resources" if rule.place < 0 else "/requirements/constraints"
            listed = ", ".join(there) or "none"
            yield Shortfall(
                f"no node has {rule.name} {' or '.join(rule.values)}, they have: {listed}",
                f"change {at}{'' if rule.place < 0 else f'/{rule.place}'}",
            )
