"""The same without ``await``, for notebooks and scripts.

::

    with SyncFabric.connect() as fabric:
        handle = fabric.submit(ExecutionRequest.from_file("request.yaml"))
        print(handle.result().state)

An event loop of its own runs in a thread, so every call also works where a loop already runs,
as it does in a notebook.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Generic

from temporal_fabric.client import Fabric
from temporal_fabric.config import Settings
from temporal_fabric.connection import connect
from temporal_fabric.functions import P, R, T, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping
    from types import TracebackType
    from typing import Self

    from temporal_fabric.backend_state import BackendState, HaltAnswer
    from temporal_fabric.explaining import Explanation
    from temporal_fabric.handle import ExperimentHandle
    from temporal_fabric.outcomes import ExperimentResult
    from temporal_fabric.requests.models import ExecutionRequest
    from temporal_fabric.status import ExperimentStatus


class _Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="temporal-fabric", daemon=True
        )
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end; an interrupt cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End the thread; a second call does nothing."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


class SyncHandle:
    """One experiment; see `ExperimentHandle` for what each call raises."""

    def __init__(self, handle: ExperimentHandle, loop: _Loop) -> None:
        self.handle = handle
        """The handle this one calls."""
        self.id = handle.id
        self._loop = loop

    def __repr__(self) -> str:
        return f"SyncHandle({self.handle.tenant}/{self.id})"

    def _repr_html_(self) -> str:
        return self.handle._repr_html_()  # pyright: ignore[reportPrivateUsage]

    def result(self) -> ExperimentResult:
        """Wait for the end and return the result."""
        return self._loop.run(self.handle.result())

    def value(self) -> Any:
        """Wait for the end and return what the function returned."""
        return self._loop.run(self.handle.value())

    def status(self) -> ExperimentStatus:
        """Return where the experiment stands."""
        return self._loop.run(self.handle.status())

    def explain(self) -> Explanation:
        """Say why it stands where it stands, and what would move it now."""
        return self._loop.run(self.handle.explain())

    def cancel(self) -> None:
        """Ask for cancellation."""
        self._loop.run(self.handle.cancel())

    def pause(self) -> ExperimentStatus:
        """Let the experiment stand still; return where it stands."""
        return self._loop.run(self.handle.pause())

    def reprioritise(self, priority: int) -> ExperimentStatus:
        """Change how urgent it is, 1 to 10; return where it stands."""
        return self._loop.run(self.handle.reprioritise(priority))

    def resume(self) -> ExperimentStatus:
        """Let it go on; return where it stands."""
        return self._loop.run(self.handle.resume())

    def resolve(self, answer: str, *, by: str, note: str = "") -> ExperimentStatus:
        """Answer the question that HELD it; return where it stands."""
        return self._loop.run(self.handle.resolve(answer, by=by, note=note))


class SyncTask(Generic[P, R]):
    """A function that runs as an experiment when it is called, and returns its value."""

    def __init__(self, task: Task[P, R], loop: _Loop) -> None:
        self.task = task
        """The task this one calls."""
        self._loop = loop

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """See `Task.__call__`."""
        return self._loop.run(self.task(*args, **kwargs))

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> SyncHandle:
        """See `Task.submit`."""
        return SyncHandle(self._loop.run(self.task.submit(*args, **kwargs)), self._loop)


class SyncFabric:
    """`Fabric` without ``await``; made by `connect`, ended by `close` or a ``with`` block."""

    def __init__(self, fabric: Fabric, loop: _Loop) -> None:
        self.fabric = fabric
        """The fabric this one calls."""
        self._loop = loop

    @classmethod
    def connect(cls, address: str | None = None, *, settings: Settings | None = None) -> Self:
        """Connect to a server.

        Args:
            address: The server; from Temporal's own environment configuration, or the
                embedded server of this home, by default.
            settings: Where the store is; read from the environment by default.

        Raises:
            ServerUnavailable: no server answers.
        """
        chosen, loop = settings or Settings.load(), _Loop()
        try:
            return cls(Fabric(loop.run(connect(chosen, address=address)), chosen), loop)
        except BaseException:
            loop.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the thread; experiments go on."""
        self._loop.close()

    def submit(
        self, request: ExecutionRequest | Mapping[str, Any] | str | bytes, *, check: bool = True
    ) -> SyncHandle:
        """See `Fabric.submit`."""
        handle = self._loop.run(self.fabric.submit(request, check=check))
        return SyncHandle(handle, self._loop)

    def get(self, request_id: str, tenant: str = "default") -> SyncHandle:
        """See `Fabric.get`."""
        return SyncHandle(self.fabric.get(request_id, tenant), self._loop)

    def backends(self) -> list[BackendState]:
        """See `Fabric.backends`."""
        return self._loop.run(self.fabric.backends())

    def drain(self, backend: str, reason: str = "") -> BackendState:
        """See `Fabric.drain`."""
        return self._loop.run(self.fabric.drain(backend, reason))

    def halt(self, backend: str, *, by: str, reason: str = "") -> HaltAnswer:
        """See `Fabric.halt`."""
        return self._loop.run(self.fabric.halt(backend, by=by, reason=reason))

    def undrain(self, backend: str) -> BackendState:
        """See `Fabric.undrain`."""
        return self._loop.run(self.fabric.undrain(backend))

    def task(
        self, *, cpus: float | None = None, memory: str | None = None, **fields: Any
    ) -> Callable[[Callable[P, R]], SyncTask[P, R]]:
        """See `Fabric.task`."""
        decorate = self.fabric.task(cpus=cpus, memory=memory, **fields)
        return lambda function: SyncTask(decorate(function), self._loop)

    def map(
        self,
        task: SyncTask[[T], R],
        items: Iterable[T],
        *,
        id_prefix: str | None = None,
        at_once: int = 32,
    ) -> list[R]:
        """See `Fabric.map`."""
        return self._loop.run(
            self.fabric.map(task.task, items, id_prefix=id_prefix, at_once=at_once)
        )
