"""One experiment as a program sees it: where it stands, its result, cancel and retry."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError
from temporalio.converter import value_to_type
from temporalio.exceptions import ApplicationError, CancelledError, TerminatedError
from temporalio.service import RPCError, RPCStatusCode

from temporal_fabric import names
from temporal_fabric.artifacts.getting import get_outputs
from temporal_fabric.capsule.reading import Capsule
from temporal_fabric.commands import run_command
from temporal_fabric.connection import asking, server_error
from temporal_fabric.display import table
from temporal_fabric.errors import (
    AccessDenied,
    ExperimentCanceled,
    ExperimentFailed,
    ExperimentNotFinished,
    Problem,
    RequestRejected,
    ServerUnavailable,
)
from temporal_fabric.events import read_events
from temporal_fabric.explaining import explain
from temporal_fabric.failures import not_found, refusal_of
from temporal_fabric.host_calls import ask_backend
from temporal_fabric.messages import ReadAnswer
from temporal_fabric.outcomes import ExperimentResult
from temporal_fabric.requests import ExecutionRequest, admit
from temporal_fabric.shapes import is_table
from temporal_fabric.states import Reason, State
from temporal_fabric.status import ExperimentStatus, read_flow, read_status
from temporal_fabric.steering import ask
from temporal_fabric.values import returned

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from temporalio.client import Client, WorkflowHandle

    from temporal_fabric.commands import CommandEnd
    from temporal_fabric.config import Settings
    from temporal_fabric.explaining import Explanation
    from temporal_fabric.messages import PlanAnswer, ReadInput
    from temporal_fabric.record import RequestRecord

_AWAY_S = 1.0


class Owner(Protocol):
    """What a handle needs of the `Fabric` it came from."""

    client: Client
    settings: Settings

    def record(self, tenant: str, request_id: str) -> RequestRecord | None:
        """Return the request record, or None where the store is out of reach."""
        ...

    async def plan(self, request: ExecutionRequest) -> PlanAnswer | None:
        """Return a verdict per backend, or None where no worker answers in time."""
        ...

    async def start_again(
        self, handle: ExperimentHandle, body: Mapping[str, Any], failed_run: str
    ) -> None:
        """Start another run of a request whose last run failed."""
        ...


class ExperimentHandle:
    """One experiment, by tenant and request id."""

    def __init__(
        self, fabric: Owner, tenant: str, request_id: str, workflow_id: str | None = None
    ) -> None:
        self._fabric = fabric
        self.tenant = tenant
        self.id = request_id
        self.workflow_id = workflow_id or names.workflow_id(tenant, request_id)
        """The Temporal workflow id; a Schedule's differs from the request id."""

    def __repr__(self) -> str:
        return f"ExperimentHandle({self.tenant}/{self.id})"

    def _repr_html_(self) -> str:
        rows = (("id", self.id), ("tenant", self.tenant), ("workflow", self.workflow_id))
        return table("experiment", rows)

    @property
    def workflow(self) -> WorkflowHandle[Any, Any]:
        """The Temporal handle of the newest run."""
        return self._fabric.client.get_workflow_handle(self.workflow_id)

    async def exists(self) -> bool:
        """Return whether Temporal or the store knows the experiment."""
        try:
            await self.workflow.describe()
        except RPCError as exc:
            if exc.status != RPCStatusCode.NOT_FOUND:
                raise server_error(exc, "the server did not answer") from exc
            record = self._fabric.record(self.tenant, self.id)
            return record is not None and await record.digest() is not None
        return True

    async def body(self) -> dict[str, Any]:
        """Return the admitted request body.

        Raises:
            ExperimentNotFound: neither the store nor Temporal has it.
            RequestRejected: it was started with a body that is no request.
        """
        record = self._fabric.record(self.tenant, self.id)
        digest = None if record is None else await record.digest()
        if record is not None and digest is not None:
            return await record.body(digest)
        try:
            started = await self.started_with()
        except RPCError as exc:
            raise self._missing(exc) from exc
        return admit(started, workflow_id=self.workflow_id).request.to_body()

    async def started_with(self) -> Any:
        """Return the input of the newest run, unread, as it stands in its history."""
        async for event in self.workflow.fetch_history_events(page_size=1):
            payloads = event.workflow_execution_started_event_attributes.input.payloads
            decoded = await self._fabric.client.data_converter.decode(list(payloads))
            return decoded[0] if decoded else None
        return None

    async def retry(self) -> None:
        """Run it again after it failed: the same request under the next epoch.

        Raises:
            RequestRejected: E_CONFLICT where it still runs or has succeeded.
            ExperimentNotFound: there is no such experiment.
        """
        status = await self.status()
        if not status.final or status.state == State.SUCCEEDED:
            what = "has succeeded: clone it" if status.final else "still runs: cancel it first"
            problem = Problem("E_CONFLICT", "/id", f"the experiment {what}", actual=status.state)
            raise RequestRejected([problem])
        await self._fabric.start_again(self, await self.body(), status.run_id)

    async def status(self, *, detail: bool = True) -> ExperimentStatus:
        """Return where the experiment stands.

        Args:
            detail: Also ask the workflow for its timeline and attempts; leave it out where
                you poll, because each such question needs a worker's time.

        Raises:
            ExperimentNotFound: neither Temporal nor the store knows it.
        """
        record = self._fabric.record(self.tenant, self.id)
        with asking():
            known = (self.tenant, self.id)
            status = await read_status(self.workflow, record, known, detail=detail)
            if status.flow:
                flow = self._fabric.client.get_workflow_handle(status.flow)
                await read_flow(status, flow, detail=detail)
            return status

    async def next_status(self, *, detail: bool = False) -> ExperimentStatus:
        """Return where the experiment stands, for one who asks again and again.

        A server that is away is waited for: what it carries goes on when it is back.

        Args:
            detail: As for `status`.

        Raises:
            ExperimentNotFound: neither Temporal nor the store knows it.
        """
        while True:
            try:
                return await self.status(detail=detail)
            except ServerUnavailable:
                await asyncio.sleep(_AWAY_S)

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Yield each state it enters, what its payload tells, and each new heartbeat.

        Ends with the experiment; of one that has ended it yields everything at once. See
        `temporal_fabric.events.read_events` for the fields.
        """
        async for event in read_events(self, self._fabric.settings):
            yield event

    async def read(self, backend: str, asked: ReadInput) -> ReadAnswer:
        """Ask a backend's worker for a piece of a log; it waits up to 20 s for something new.

        Raises:
            ServerUnavailable: neither the server nor a worker of the backend answers.
            RequestRejected: the worker refuses it.
        """
        client, about = self._fabric.client, f"{self.tenant}/{self.id}"
        reading = ask_backend(
            client, backend, names.ACTIVITY_READ, asked, kind=ReadAnswer, about=about
        )
        return await reading

    async def execute(
        self, *argv: str, write: Callable[[str, bytes], object] = lambda _, __: None
    ) -> CommandEnd:
        """Run a command beside the live payload, in its isolation and folder; wait for its end.

        Cancelling this call ends the command; so does the end of the attempt.

        Args:
            argv: Program and arguments; its standard input is empty.
            write: Given each piece of output: ``stdout`` or ``stderr``, and the bytes.

        Raises:
            RequestRejected: E_CONFLICT; nothing of the experiment runs, it is paused, or its
                backend runs no commands.
            ServerUnavailable: neither the server nor the backend's worker answers.
            ExperimentNotFound: there is no such experiment.
        """
        return await run_command(self._fabric.client, await self.status(), argv, write)

    async def cancel(self) -> None:
        """Ask for cancellation; CANCELED follows once nothing of the experiment runs.

        Raises:
            ExperimentNotFound: there is no such experiment.
        """
        try:
            await self.workflow.cancel()
        except RPCError as exc:
            raise self._missing(exc) from exc

    async def pause(self) -> ExperimentStatus:
        """Let the experiment stand still; return where it stands.

        In line it keeps its place and gets none; a running payload is frozen, whole, and its
        wall limit with it; between attempts the next one waits. A second pause changes nothing.

        Raises:
            RequestRejected: E_CONFLICT; it has ended, is about to, or its backend cannot.
            ServerUnavailable: no worker took it.
            ExperimentNotFound: there is no such experiment.
        """
        return await self._asked(names.UPDATE_PAUSE)

    async def resume(self) -> ExperimentStatus:
        """Let a paused experiment go on; return where it stands. Raises as `pause` does."""
        return await self._asked(names.UPDATE_RESUME)

    async def reprioritise(self, priority: int) -> ExperimentStatus:
        """Change how urgent the experiment is, 1 to 10, 10 most urgent; return where it stands.

        While it waits for a place it moves in line at once; later the number counts for its
        next attempt. Raises as `pause` does, and E_RANGE.
        """
        return await self._asked(names.UPDATE_REPRIORITISE, priority)

    async def resolve(
        self, answer: str, *, by: str, note: str = "", question: int = 0
    ) -> ExperimentStatus:
        """Answer the question that HELD the experiment; return where it stands then.

        The first answer counts; the same one again changes nothing. Raises as `pause` does.

        Args:
            answer: One of those that the question offers: done, not-done, abort.
            by: Who says so; it stays in the result for good.
            note: Why.
            question: Its number, so that no other is answered; 0 for the one that is open.
        """
        given = {"as": answer, "by": by, "note": note, "question": question}
        return await self._asked(names.UPDATE_RESOLVE, given)

    async def explain(self) -> Explanation:
        """Say why the experiment stands where it stands, and what would move it now.

        Raises:
            ExperimentNotFound: there is no such experiment.
        """
        status, plan = await self.status(), None
        if not status.final:
            request = ExecutionRequest.from_mapping(await self.body())
            plan = await self._fabric.plan(request)
        return explain(status, plan)

    async def _asked(self, update: str, *args: Any) -> ExperimentStatus:
        try:
            await ask(self.workflow, update, *args)
        except RPCError as exc:
            raise self._missing(exc) from exc
        return await self.status()

    async def result(self) -> ExperimentResult:
        """Wait for the end and return the result.

        Raises:
            ExperimentFailed: it FAILED; reason, exit code and stderr excerpt are attached.
            ExperimentCanceled: it was cancelled.
            RequestRejected: a direct start had a bad body.
            ExperimentNotFound: there is no such experiment.
        """
        while True:
            try:
                return _result(dict(await self.workflow.result()))
            except WorkflowFailureError as exc:
                raise await self._failure(exc) from exc
            except RPCError as exc:
                if exc.status == RPCStatusCode.NOT_FOUND:
                    return await self._recorded(exc)
                denied = server_error(exc, "")
                if isinstance(denied, AccessDenied):
                    raise denied from exc
                # The SDK gives up after some ten seconds; a server that restarts takes longer.
                await asyncio.sleep(1)

    async def get(self, to: Path | str, output: str | None = None) -> list[Path]:
        """Copy outputs out of the capsule into a folder, each verified against the manifest.

        Args:
            to: The folder; created where it is missing.
            output: Name of one output; all of them by default.

        Returns:
            The files that were written.

        Raises:
            ExperimentNotFinished: it has not ended yet, so there is no capsule.
            CapsuleError: no such output, or its content is not what was sealed.
            ExperimentNotFound: there is no such experiment.
        """
        status = await self.status()
        if not status.final:
            raise ExperimentNotFinished(f"{self.tenant}/{self.id} is {status.state}")
        capsule = await asyncio.to_thread(Capsule.open, status.capsule)
        return await asyncio.to_thread(get_outputs, capsule, Path(to), output)

    async def value(self) -> Any:
        """Wait for the end and return what the function of a `python` payload returned.

        Raises:
            ExperimentFailed: it FAILED, as for `result`.
            CapsuleError: it returned nothing: it is a file, or a program.
        """
        return await returned(await self.result())

    async def was_refused(self) -> bool:
        """Say whether the newest run was refused: then its id is free, and nothing is kept."""
        description = await self.workflow.describe()
        if description.status is not WorkflowExecutionStatus.FAILED:
            return False
        try:
            await self.workflow.result()
        except WorkflowFailureError as exc:
            return refusal_of(exc.cause) is not None
        return False

    async def _recorded(self, error: RPCError) -> ExperimentResult:
        record = self._fabric.record(self.tenant, self.id)
        last = None if record is None else await record.last_outcome()
        if last is None:
            raise self._missing(error) from error
        result = _result(last[1])
        if result.state == State.SUCCEEDED:
            return result
        kind = ExperimentCanceled if result.state == State.CANCELED else ExperimentFailed
        raise kind(result.message or result.reason, last[1])

    async def _failure(self, error: WorkflowFailureError) -> Exception:
        cause = error.cause
        rejected = refusal_of(cause)
        if rejected is not None:
            return rejected
        if isinstance(cause, ApplicationError):
            detail: Any = cause.details[0] if cause.details else {}
            if is_table(detail) and detail:
                return ExperimentFailed(f"{cause.type}: {cause.message}", detail)
        status = await self.status()
        summary = {"state": status.state, "reason": status.reason, "capsule": status.capsule}
        if isinstance(cause, CancelledError):
            return ExperimentCanceled("the experiment was cancelled", summary)
        if isinstance(cause, TerminatedError):
            lost = summary | {"state": State.FAILED, "reason": Reason.LOST}
            return ExperimentFailed("LOST: the workflow was terminated", lost)
        return ExperimentFailed(f"{Reason.INTERNAL}: {cause or error}", summary)

    def _missing(self, error: RPCError) -> Exception:
        if error.status != RPCStatusCode.NOT_FOUND:
            return server_error(error, "the server did not answer")
        return not_found(f"{self.tenant}/{self.id}", [])


def _result(data: Mapping[str, Any]) -> ExperimentResult:
    result: ExperimentResult = value_to_type(ExperimentResult, dict(data))
    return result
