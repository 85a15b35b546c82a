"""What a notebook or a program uses: submit an experiment, follow it, read its result."""

from __future__ import annotations

import asyncio
import atexit
import secrets
import time
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from temporalio.client import ActivityFailureError
from temporalio.common import Priority, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import (
    WorkflowAlreadyStartedError,
)
from temporalio.service import RPCError, RPCStatusCode

from temporal_fabric import names
from temporal_fabric.backend_state import HaltInput
from temporal_fabric.backends import halt, halt_here, read_backends, set_drained, set_drained_here
from temporal_fabric.config import Settings
from temporal_fabric.connection import asking, server_error
from temporal_fabric.errors import (
    RequestRejected,
    StoreError,
)
from temporal_fabric.failures import not_found, refusal_of
from temporal_fabric.functions import P, R, T, Task, map_items, task_fields
from temporal_fabric.handle import ExperimentHandle
from temporal_fabric.luggage import Luggage, conflict
from temporal_fabric.messages import PlanAnswer
from temporal_fabric.native_threads import wait_until_outside
from temporal_fabric.record import RequestRecord
from temporal_fabric.requests import ExecutionRequest, admit, digests
from temporal_fabric.requests.naming import summary, with_id
from temporal_fabric.status import ExperimentStatus, fill, fill_queued
from temporal_fabric.store import open_store
from temporal_fabric.verdicts import unplaceable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from temporalio.client import Client

    from temporal_fabric.backend_state import BackendState, HaltAnswer
    from temporal_fabric.requests.admission import Admission

_POLL_S = 0.5
_PLAN_HOLDS_S = 30.0
_SHAPES = 1000
_PLAN_LIMIT = timedelta(seconds=3)

atexit.register(wait_until_outside)


class Fabric:
    """Submits experiments to a Temporal namespace and finds them again.

    Args:
        client: A connected client; it needs the `FabricPlugin` only where it also runs workers.
        settings: Where the store is; read from the environment by default.
    """

    def __init__(self, client: Client, settings: Settings | None = None) -> None:
        self.client = client
        self.settings = settings or Settings.load()
        self._possible: dict[str, float] = {}
        """When a worker last said that a request of this shape can run somewhere."""

        self._workers_store = ""
        """Where the worker that was last asked keeps its store."""

    async def submit(
        self,
        request: ExecutionRequest | Mapping[str, Any] | str | bytes,
        *,
        check: bool = True,
        progress: Callable[[str], None] | None = None,
    ) -> ExperimentHandle:
        """Start an experiment, or return the one that already runs under this id.

        The call is idempotent: the same body gives the same experiment, also after it ended.

        Args:
            request: A request, or a body in YAML, JSON or as a mapping.
            check: Ask a worker first whether any backend could ever run it. Without, or
                where no worker answers, the experiment itself fails with E_NO_BACKEND.
            progress: Told what is being read and uploaded: the working folder, and inputs
                that are files of this machine.

        Raises:
            StoreError: what it brings along cannot be stored.
            RequestRejected: the body is wrong, its id is taken by another body (E_CONFLICT),
                or no backend could ever run it (E_NO_BACKEND).
            AccessDenied: the server refuses the caller's credential (E_AUTH).
            ServerUnavailable: the server stopped answering; submitting again is safe.
        """
        body = request.to_body() if isinstance(request, ExecutionRequest) else request
        luggage = Luggage(self.settings, progress)
        admission = await luggage.pack(admit(with_id(body)))
        handle = self.get(admission.request.id, admission.request.tenant)
        if await self._is_new(handle, admission):
            if check:
                await self._refuse_impossible(admission.request)
            await luggage.send(self._workers_store)
        try:
            await self._start(handle, admission)
        except WorkflowAlreadyStartedError:
            with asking():
                await self._join(handle, admission)
        except RPCError as exc:
            raise server_error(exc, "the server did not take the request") from exc
        return handle

    async def _refuse_impossible(self, request: ExecutionRequest) -> None:
        """Ask a worker, unless a request that differs only in what is run was just asked for."""
        shape = f"{request.tenant} {digests.shape(request)}"
        asked_at = self._possible.get(shape)
        if asked_at is not None and time.monotonic() - asked_at < _PLAN_HOLDS_S:
            return
        answer = await self.plan(request)
        if answer is None:
            return
        self._workers_store = answer.store
        if not answer.backend and not answer.silent:
            raise unplaceable(answer)
        if answer.counted or not answer.backend:
            return
        if len(self._possible) >= _SHAPES:
            self._possible.clear()
        self._possible[shape] = time.monotonic()

    async def plan(self, request: ExecutionRequest) -> PlanAnswer | None:
        """Ask where a request would run, without any effect.

        Returns:
            A verdict per backend, or None where no worker of the pool answers in time.

        Raises:
            RequestRejected: the worker refuses it: its tenant, or an input that cannot be had.
            ServerUnavailable: the server does not answer.
        """
        try:
            answer: PlanAnswer = await self.client.execute_activity(
                names.ACTIVITY_PLAN,
                request.to_body(),
                id=f"plan/{request.tenant}/{request.id}/{secrets.token_hex(4)}",
                task_queue=names.pool_queue(request.pool),
                result_type=PlanAnswer,
                schedule_to_start_timeout=_PLAN_LIMIT,
                start_to_close_timeout=_PLAN_LIMIT,
                schedule_to_close_timeout=2 * _PLAN_LIMIT,
            )
        except ActivityFailureError as exc:
            refusal = refusal_of(exc.cause)
            if refusal is not None:
                raise refusal from exc
            return None
        except RPCError as exc:
            if exc.status == RPCStatusCode.UNIMPLEMENTED:
                return None  # a server without standalone activities
            raise server_error(exc, "the server did not answer") from exc
        return answer

    async def backends(self) -> list[BackendState]:
        """Return the backends of the pools as their workers tell of them, and silent ones.

        Raises:
            ServerUnavailable: the server does not answer.
        """
        return await read_backends(self.client, self.settings)

    async def drain(self, backend: str, reason: str = "") -> BackendState:
        """Grant nothing new on a backend; what runs there goes on to its end.

        Args:
            backend: Its name, or the part before the ``@`` where only one has that.
            reason: Why; whoever waits for the backend is shown it.

        Returns:
            The backend as it is then.

        Raises:
            RequestRejected: E_NAME; no backend has that name, or more than one.
            BackendError: its host could not write that down; nothing has changed.
            ServerUnavailable: neither the server nor the backend's worker answers.
        """
        return await self._set_drained(backend, reason, drained=True)

    async def undrain(self, backend: str) -> BackendState:
        """Grant places on a drained backend again. Raises as `drain` does."""
        return await self._set_drained(backend, "", drained=False)

    async def halt(self, backend: str, *, by: str, reason: str = "") -> HaltAnswer:
        """Stop the device of a laboratory backend at once; nothing is undone, or placed there.

        A person is asked before the experiment that has the device goes on.

        Args:
            backend: Its name, or the part before the ``@`` where only one has that.
            by: Who wants it; it stays in the experiment's log.
            reason: Why.

        Returns:
            What became of the experiment that had the device.

        Raises:
            RequestRejected: E_NAME; no backend has that name, or more than one.
            BackendError: it cannot be stopped so, or nobody knows whether it has stopped.
            ServerUnavailable: neither the server nor the backend's worker answers.
        """
        asked = HaltInput(backend, by, reason)
        here = await halt_here(self.settings, asked)
        return here or await halt(self.client, self.settings, asked)

    async def _set_drained(self, backend: str, reason: str, *, drained: bool) -> BackendState:
        asked: dict[str, Any] = {"drained": drained, "reason": reason}
        here = await asyncio.to_thread(set_drained_here, self.settings, backend, **asked)
        return here or await set_drained(self.client, self.settings, backend, **asked)

    def task(
        self, *, cpus: float | None = None, memory: str | None = None, **fields: Any
    ) -> Callable[[Callable[P, R]], Task[P, R]]:
        """Return a decorator: calling the function runs it as an experiment.

        The function's source travels in the request, arguments and return value as JSON. It
        may use what its module imports and defines at the top level.

        Args:
            cpus: Cores it needs.
            memory: Memory it needs, such as ``"2GB"``.
            fields: Further fields of the request: ``environment``, ``limits``, ``retry``, ...

        Raises:
            TypeError: where it decorates something whose source cannot be shipped.
        """
        asked = task_fields(cpus, memory, fields)
        return lambda function: Task(self, function, asked)

    async def map(
        self,
        task: Task[[T], R],
        items: Iterable[T],
        *,
        id_prefix: str | None = None,
        at_once: int = 32,
    ) -> list[R]:
        """Call a task once per item and return the values in the items' order.

        Args:
            task: A function of one argument, decorated with `task`.
            items: The arguments, each JSON.
            id_prefix: Makes the call repeatable: the experiments are named ``<prefix>-0``,
                ``<prefix>-1`` and so on, and one that has ended before is not run again.
            at_once: How many experiments are pending at a time.

        Raises:
            MapFailed: some calls failed; all the others have ended, too.
        """
        return await map_items(task, items, id_prefix=id_prefix, at_once=at_once)

    def get(self, request_id: str, tenant: str = names.DEFAULT_TENANT) -> ExperimentHandle:
        """Return the handle of an experiment; nothing is looked up yet."""
        return ExperimentHandle(self, tenant, request_id)

    async def find(self, wanted: str) -> ExperimentHandle:
        """Find an experiment by id, ``tenant/id``, unique prefix of an id, or ``last``.

        Raises:
            ExperimentNotFound: nothing fits, or more than one does.
        """
        tenant, _, request_id = wanted.removeprefix("experiment/").rpartition("/")
        tenant = tenant or names.DEFAULT_TENANT
        if wanted != "last":
            for workflow_id in (None, names.scheduled_workflow_id(tenant, request_id)):
                handle = ExperimentHandle(self, tenant, request_id, workflow_id)
                if await handle.exists():
                    return handle
        found = await self.list(limit=1 if wanted == "last" else 1000)
        if wanted != "last":
            found = [s for s in found if s.tenant == tenant and s.request_id.startswith(request_id)]
        if len(found) == 1:
            only = found[0]
            return ExperimentHandle(self, only.tenant, only.request_id, only.workflow_id)
        raise not_found(wanted, [status.request_id for status in found])

    async def list(
        self,
        *,
        limit: int = 50,
        query: str = "",
        tenant: str | None = None,
        detail: bool = False,
    ) -> list[ExperimentStatus]:
        """Return the newest experiments.

        Args:
            limit: How many at most.
            query: A further condition in Temporal's visibility query language.
            tenant: Only this tenant's.
            detail: Also ask of each queued one why it waits.
        """
        condition = f"WorkflowType = '{names.WORKFLOW_EXPERIMENT}'"
        if tenant is not None:
            prefix = names.workflow_id(tenant, "")
            condition += f" AND WorkflowId STARTS_WITH '{prefix}'"
        if query:
            condition += f" AND ({query})"
        found: list[ExperimentStatus] = []
        with asking():
            async for execution in self.client.list_workflows(condition, limit=limit):
                status = ExperimentStatus(*names.request_of(execution.id))
                await fill(status, execution)
                found.append(status)
            if detail:
                await fill_queued(found, self.client)
        return found

    def record(self, tenant: str, request_id: str) -> RequestRecord | None:
        """Return the request record, or None where the store is out of this client's reach."""
        try:
            return RequestRecord(open_store(self.settings.store), tenant, request_id)
        except StoreError:
            return None

    async def _start(
        self,
        handle: ExperimentHandle,
        admission: Admission,
        *,
        reuse: WorkflowIDReusePolicy = WorkflowIDReusePolicy.REJECT_DUPLICATE,
        memo: Mapping[str, str] | None = None,
    ) -> None:
        request = admission.request
        own = {names.MEMO_DIGEST: admission.digest, names.MEMO_NAME: request.name or ""}
        await self.client.start_workflow(
            names.WORKFLOW_EXPERIMENT,
            request.to_body(),
            id=handle.workflow_id,
            task_queue=names.QUEUE,
            # Joining tells no more than failing does, and hides which of the two happened.
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            id_reuse_policy=reuse,
            memo=own | dict(memo or {}),
            static_summary=summary(request),
            priority=Priority(
                priority_key=names.temporal_priority(request.priority),
                fairness_key=request.tenant,
            ),
        )

    async def _join(self, handle: ExperimentHandle, admission: Admission) -> None:
        """Join the run that has the id, running or ended; one that was refused frees it."""
        if await handle.was_refused():
            again = WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY
            with suppress(WorkflowAlreadyStartedError):
                return await self._start(handle, admission, reuse=again)
        return await self._compare(handle, admission)

    async def start_again(
        self, handle: ExperimentHandle, body: Mapping[str, Any], failed_run: str
    ) -> None:
        """Start another run of a request whose last run failed; see `ExperimentHandle.retry`."""
        admission = admit(body)
        reuse = WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY
        memo = {names.MEMO_RETRY_OF: failed_run or "unknown"}
        try:
            await self._start(handle, admission, reuse=reuse, memo=memo)
        except RPCError as exc:
            raise server_error(exc, "the server did not take the request") from exc

    async def _is_new(self, handle: ExperimentHandle, admission: Admission) -> bool:
        """Say whether the store knows the id; refuse it where it belongs to another body.

        The record outlives Temporal's own memory of the id.
        """
        record = self.record(handle.tenant, handle.id)
        known = None if record is None else await record.digest()
        if known is not None and known != admission.digest:
            raise await conflict(handle, known, admission)
        return known is None

    async def _compare(self, handle: ExperimentHandle, admission: Admission) -> None:
        """Compare digests: the server itself never compares two starts of one id."""
        description = await handle.workflow.describe()
        memo = await description.memo()
        known = memo.get(names.MEMO_DIGEST) or await _digest_of_start(handle)
        if known != admission.digest:
            raise await conflict(handle, str(known), admission)


async def _digest_of_start(handle: ExperimentHandle) -> str | None:
    """Return the digest of a run that was started without our client."""
    try:
        return admit(await handle.started_with(), workflow_id=handle.workflow_id).digest
    except RequestRejected:
        return None
