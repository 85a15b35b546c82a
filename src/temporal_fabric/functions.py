"""Python functions as experiments: ``@fabric.task`` and ``fabric.map``.

A call becomes a request with a `python` payload: the source the function needs travels in the
body, arguments and return value as JSON. Nothing is pickled, so a request can be read, kept
and run again by anybody.
"""

from __future__ import annotations

import asyncio
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar

from temporal_fabric.errors import FabricError, MapFailed
from temporal_fabric.function_source import function_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from temporal_fabric.handle import ExperimentHandle

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Submitter(Protocol):
    """What takes requests: `temporal_fabric.Fabric` does."""

    async def submit(self, request: dict[str, Any], /) -> ExperimentHandle:
        """See `Fabric.submit`."""
        ...


class Task(Generic[P, R]):
    """A function that runs as an experiment when it is called.

    Args:
        fabric: Where its calls are submitted.
        function: A function at the top level of a module or of a notebook's cell.
        fields: Further fields of the request of each call.

    Raises:
        TypeError: the function's source cannot be shipped; the message says why.
    """

    def __init__(self, fabric: Submitter, function: Callable[P, R], fields: dict[str, Any]) -> None:
        self.fabric = fabric
        self.function = function
        """The plain function, for a call right here."""
        self._fields = fields
        self._file, self._source = function_source(function)
        update_wrapper(self, function)

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function as an experiment and return its value.

        Raises:
            ExperimentFailed: it raised, or could not be run.
            RequestRejected: an argument is not JSON, or no backend could ever run it.
        """
        handle = await self.submit(*args, **kwargs)
        value: R = await handle.value()
        return value

    async def submit(self, *args: P.args, **kwargs: P.kwargs) -> ExperimentHandle:
        """Start the experiment of one call and return its handle.

        Raises:
            RequestRejected: an argument is not JSON, or no backend could ever run it.
        """
        return await self.fabric.submit(self.body(*args, **kwargs))

    def body(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        """Return the request body of one call; without an ``id``, so each call is a new one."""
        name = str(getattr(self.function, "__name__", "task"))
        payload: dict[str, Any] = {
            "entry_point": f"{self._file}:{name}",
            "source": self._source,
            "args": list(args),
            "kwargs": dict(kwargs),
        }
        return {"name": name, **self._fields, "payload": {"python": payload}}


def task_fields(cpus: float | None, memory: str | None, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the request fields of a decorator's arguments.

    Raises:
        TypeError: resources are given twice.
    """
    short = {"cpu": cpus, "memory": memory}
    resources = {name: value for name, value in short.items() if value is not None}
    if not resources:
        return fields
    if "requirements" in fields:
        raise TypeError("give either cpus and memory, or requirements")
    return {**fields, "requirements": {"resources": resources}}


async def map_items(
    task: Task[[T], R], items: Iterable[T], *, id_prefix: str | None, at_once: int
) -> list[R]:
    """See `Fabric.map`."""
    places = asyncio.Semaphore(at_once)
    failures: dict[int, Exception] = {}
    values: dict[int, R] = {}
    wanted = list(items)

    async def call(place: int, item: T) -> None:
        async with places:
            body = task.body(item)
            if id_prefix is not None:
                body["id"] = f"{id_prefix}-{place}"
            try:
                handle = await task.fabric.submit(body)
                values[place] = await handle.value()
            except FabricError as exc:
                failures[place] = exc

    async with asyncio.TaskGroup() as group:
        for place, item in enumerate(wanted):
            group.create_task(call(place, item))
    if failures:
        raise MapFailed(failures, len(wanted)) from failures[min(failures)]
    return [values[place] for place in range(len(wanted))]
