"""Run a coroutine from code that may itself run inside an event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end on an event loop of its own, in a thread of its own, and wait for it."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="devserver") as pool:
        return pool.submit(asyncio.run, work).result()
