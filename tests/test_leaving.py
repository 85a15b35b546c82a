"""A program that used the client ends with its own exit code, however short it is."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from temporal_fabric.testing.environment import FabricEnvironment

_PROGRAM = """
import asyncio, sys, threading, time
from temporalio.client import Client
from temporal_fabric import Fabric

class Loop(asyncio.SelectorEventLoop):
    def _write_to_self(self):
        super()._write_to_self()
        if threading.get_ident() != MAIN:
            time.sleep(0.4)

MAIN = threading.get_ident()

async def main():
    Fabric(await Client.connect(sys.argv[1]))

with asyncio.Runner(loop_factory=Loop) as runner:
    runner.run(main())
print("the end")
"""
"""Its client's native thread is still on its way out of Python when the program is at its end."""


@pytest.mark.asyncio(loop_scope="module")
async def test_a_program_ends_while_the_client_still_answers(
    environment: FabricEnvironment,
) -> None:
    """The interpreter is not finalised under a native thread, which would abort the process."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", _PROGRAM, environment.address],
        env=environment.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "the end\n"), done.stderr
