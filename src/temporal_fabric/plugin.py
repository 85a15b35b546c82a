"""The one place that knows Temporal's plugin hooks.

Give `FabricPlugin` to the client only: it reaches every worker made from that client. Which
workflows and activities a worker gets follows from its task queue, so that a worker for
anything else stays as its owner made it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from temporalio.converter import DataConverter, DefaultFailureConverter
from temporalio.plugin import SimplePlugin
from temporalio.worker import UnsandboxedWorkflowRunner

from temporal_fabric import names
from temporal_fabric.config import Settings, host_id
from temporal_fabric.failures import ExperimentFailureConverter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from temporalio.client import ClientConfig
    from temporalio.worker import ReplayerConfig, WorkerConfig

    from temporal_fabric.activities.desk import Desk

_POOL = names.pool_queue("")
_BACKEND = names.backend_queue("")
_HOST = names.host_queue("")

_MANY = 1000
"""Supervisors and waiting grants are idle coroutines; the backend's slots are the real limit."""


class FabricPlugin(SimplePlugin):
    """Runs experiments on the workers of a client.

    Args:
        settings: What the fabric is told; read from the environment by default.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__("temporal-fabric.FabricPlugin")  # pyright: ignore[reportUnknownMemberType]
        self._settings = settings
        self._desk: Desk | None = None

    @property
    def desk(self) -> Desk:
        """What the activities of this process share; made on first use by a worker."""
        if self._desk is None:
            self._desk = _make_desk(self._settings or Settings.load())
        return self._desk

    def configure_client(self, config: ClientConfig) -> ClientConfig:
        """Let the ends of experiments read as such, unless the owner converts failures."""
        config = super().configure_client(config)
        converter = config.get("data_converter", DataConverter.default)
        if converter.failure_converter_class is DefaultFailureConverter:
            own = replace(converter, failure_converter_class=ExperimentFailureConverter)
            config["data_converter"] = own
        return config

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        """Give a fabric worker its workflows, activities and limits."""
        config = super().configure_worker(config)
        # The SDK's own types leave the activities unknown; a plain dict says what is meant.
        options = cast("dict[str, Any]", config)
        queue: str = options.get("task_queue") or ""
        if queue == names.QUEUE:
            if not options.get("workflows"):
                # The sandbox imports the workflow anew for each run, half of the CPU of a
                # workflow task. Ours is replayed in it by the tests, whatever is here.
                options["workflow_runner"] = UnsandboxedWorkflowRunner()
            options["workflows"] = [*options.get("workflows", ()), *_workflows()]
        activities = self._activities(queue)
        if not activities:
            return config
        from temporal_fabric import decoding  # noqa: PLC0415
        from temporal_fabric.observability.worker_side import WorkerInterceptor  # noqa: PLC0415

        decoding.prepare()

        observing = WorkerInterceptor(self.desk.observer)
        options["interceptors"] = [*options.get("interceptors", ()), observing]
        options["activities"] = [*options.get("activities", ()), *activities]
        options["max_concurrent_activities"] = _MANY
        # A cancellation arrives with a heartbeat: at the default throttle it takes 8 s.
        options["max_heartbeat_throttle_interval"] = timedelta(seconds=1)
        # Eager activities would bypass queue and priority.
        options["disable_eager_activity_execution"] = True
        # Workflow tasks of a killed worker wait this long in its cache's queue.
        options["sticky_queue_schedule_to_start_timeout"] = timedelta(seconds=3)
        options["graceful_shutdown_timeout"] = timedelta(seconds=1)
        options["identity"] = options.get("identity") or f"fabric@{self.desk.host}"
        return config

    def configure_replayer(self, config: ReplayerConfig) -> ReplayerConfig:
        """Let a replayer know the workflows."""
        config = super().configure_replayer(config)
        config["workflows"] = [*config.get("workflows", []), *_workflows()]
        return config

    def _activities(self, queue: str) -> Sequence[Callable[..., Any]]:
        # Imported by workers only: a client that submits needs none of it.
        from temporal_fabric.activities.absence import EnsureAbsent  # noqa: PLC0415
        from temporal_fabric.activities.acquire import Acquire  # noqa: PLC0415
        from temporal_fabric.activities.attempt import Attempt  # noqa: PLC0415
        from temporal_fabric.activities.backends import Backends  # noqa: PLC0415
        from temporal_fabric.activities.control import Control  # noqa: PLC0415
        from temporal_fabric.activities.execute import Execute  # noqa: PLC0415
        from temporal_fabric.activities.flow_steps import FlowSteps  # noqa: PLC0415
        from temporal_fabric.activities.notify import Notify  # noqa: PLC0415
        from temporal_fabric.activities.plan import Plan  # noqa: PLC0415
        from temporal_fabric.activities.read import Read  # noqa: PLC0415
        from temporal_fabric.activities.seal import Seal  # noqa: PLC0415
        from temporal_fabric.activities.silence import Settle  # noqa: PLC0415

        if queue == names.QUEUE:
            return [Seal(self.desk).seal, Notify(self.desk).notify]
        if queue.startswith(_POOL):
            acquire, settle = Acquire(self.desk).acquire, Settle(self.desk).settle
            return [acquire, settle, Plan(self.desk).plan, Backends(self.desk).backends]
        if queue.startswith(_HOST):
            return [Plan(self.desk).judge, Backends(self.desk).backends]
        if queue.startswith(_BACKEND):
            flows = FlowSteps(self.desk)
            return [
                Acquire(self.desk).acquire,
                Attempt(self.desk).attempt,
                flows.open,
                flows.step,
                flows.finish,
                EnsureAbsent(self.desk).ensure_absent,
                Seal(self.desk).seal,
                Read(self.desk).read,
                Control(self.desk).control,
                Execute(self.desk).execute,
                Backends(self.desk).drain,
                Backends(self.desk).halt,
            ]
        return []


def _workflows() -> list[type]:
    # Imported by workers only, as the activities.
    from temporal_fabric.workflows.certified_flow import CertifiedFlow  # noqa: PLC0415
    from temporal_fabric.workflows.experiment import Experiment  # noqa: PLC0415
    from temporal_fabric.workflows.notify import Notify  # noqa: PLC0415

    return [Experiment, CertifiedFlow, Notify]


def _make_desk(settings: Settings) -> Desk:
    from temporal_fabric.activities.desk import Desk  # noqa: PLC0415
    from temporal_fabric.adapters import registry  # noqa: PLC0415
    from temporal_fabric.observability.observer import Observer  # noqa: PLC0415
    from temporal_fabric.store import open_store  # noqa: PLC0415

    host = host_id(settings.home)
    desk = Desk(settings, host, open_store(settings.store), Observer(settings))
    desk.backends |= registry.build_all(settings, host)
    return desk
