"""What the engine benchmark compares with: a bare workflow of three activities, SDK defaults.

``python benchmarks/bare_worker.py ADDRESS`` runs its worker until it is killed.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

QUEUE = "bare"
READY = "bare worker polls"

_LIMIT = timedelta(seconds=60)


@activity.defn
async def step(number: int) -> int:
    """Do nothing."""
    return number


@workflow.defn
class Bare:
    """Three activities, one after the other."""

    @workflow.run
    async def run(self) -> int:
        """Return how many ran."""
        done = 0
        for number in range(3):
            await workflow.execute_activity(step, number, start_to_close_timeout=_LIMIT)
            done += 1
        return done


async def _main(address: str) -> None:
    client = await Client.connect(address)
    async with Worker(client, task_queue=QUEUE, workflows=[Bare], activities=[step]):
        print(READY, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
