"""A SiLA device for the conformance suite: its one command performs a Python program.

So the suite can try on a device what it tries on a process: the program is what moves. Its
CancelController ends a program as SIGTERM does, and all of them as SIGKILL does; its
PauseController lets one stand still. A program's end is the command's: with another exit code than
0 it is a defined error.

Run as ``python -m temporal_fabric.testing.sila_program_device PORT FOLDER``.
"""

# No `from __future__ import annotations`: the CDK reads the annotations as they are.
import asyncio
import json
import logging
import os
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
from unitelabs.cdk import Connector, ConnectorBaseConfig, SiLAServerConfig, sila

MARK = "FABRIC_PROGRAM_DEVICE"
"""Variable of every process of a program, with the device's folder."""


class ProgramFailed(Exception):
    """The program has ended badly."""


class InvalidCommandState(Exception):
    """The program is not in a state in which that can be done."""


def living(folder: Path) -> list[int]:
    """Return the processes of all programs of the device with this folder."""
    wanted, found = f"{MARK}={folder}".encode(), list[int]()
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def kill_all(folder: Path) -> None:
    """Leave no process of any program."""
    while pids := living(folder):
        for pid in pids:  # one that is dead but not reaped has no environment any more
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class Programs(sila.Feature):
    """Performs programs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(originator="org.example", category="tests")  # pyright: ignore[reportUnknownMemberType]
        self._folder = folder
        self.running = dict[str, asyncio.subprocess.Process]()

    def signal(self, uuid: str, *signals: signal.Signals) -> bool:
        """Send a program signals; return whether it runs."""
        process = self.running.get(uuid)
        if process is None:
            return False
        for one in signals:
            os.killpg(process.pid, one)
        return True

    @sila.ObservableCommand(errors=[ProgramFailed])
    async def run(self, program: str, *, status: sila.Status) -> str:
        """Perform a program.

        Args:
          Program: Path of a Python file.

        Returns:
          Answer: What it has written, as a JSON object.

        Raises:
          ProgramFailed: It has ended badly.
        """
        told: Any = status
        uuid: str = told.command_execution.command_execution_uuid
        output = Path(tempfile.mkdtemp(dir=self._folder))
        env = {MARK: str(self._folder), "FABRIC_OUTPUT_DIR": str(output), "PATH": os.defpath}
        said = self._folder / f"{uuid}.out"
        with said.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-S", "-E", program, env=env, stdout=file, start_new_session=True
            )
        self.running[uuid] = process
        code = await process.wait()
        del self.running[uuid]
        if code:
            raise ProgramFailed(f"exit code {code if code > 0 else 128 - code}")
        return await asyncio.to_thread(_answer, said, output)


def _answer(said: Path, output: Path) -> str:
    files = {path.name: path.read_text() for path in output.iterdir()}
    return json.dumps({"said": said.read_text(), "files": files})


class CancelController(sila.Feature):
    """Ends programs."""

    def __init__(self, programs: Programs, folder: Path) -> None:
        super().__init__(originator="org.silastandard", category="core.commands")  # pyright: ignore[reportUnknownMemberType]
        self._programs, self._folder = programs, folder

    @sila.UnobservableCommand()
    async def cancel_command(self, command_execution_uuid: str) -> None:
        """Ask one program to end.

        Args:
          CommandExecutionUUID: Of its execution.
        """
        self._programs.signal(command_execution_uuid, signal.SIGTERM, signal.SIGCONT)

    @sila.UnobservableCommand()
    async def cancel_all(self) -> None:
        """End all programs, and every process that they have started."""
        await asyncio.to_thread(kill_all, self._folder)


class PauseController(sila.Feature):
    """Lets programs stand still."""

    def __init__(self, programs: Programs) -> None:
        super().__init__(originator="org.silastandard", category="core.commands")  # pyright: ignore[reportUnknownMemberType]
        self._programs = programs
        self._still = set[str]()

    @sila.UnobservableCommand(errors=[InvalidCommandState])
    async def pause(self, command_execution_uuid: str) -> None:
        """Let one program stand still.

        Args:
          CommandExecutionUUID: Of its execution.

        Raises:
          InvalidCommandState: It has ended, or stands still already.
        """
        known = command_execution_uuid in self._still
        if known or not self._programs.signal(command_execution_uuid, signal.SIGSTOP):
            raise InvalidCommandState("it does not run")
        self._still.add(command_execution_uuid)

    @sila.UnobservableCommand(errors=[InvalidCommandState])
    async def resume(self, command_execution_uuid: str) -> None:
        """Let one program go on.

        Args:
          CommandExecutionUUID: Of its execution.

        Raises:
          InvalidCommandState: It does not stand still.
        """
        if command_execution_uuid not in self._still:
            raise InvalidCommandState("it does not stand still")
        self._still.discard(command_execution_uuid)
        self._programs.signal(command_execution_uuid, signal.SIGCONT)


async def _serve(port: int, folder: Path) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    server = SiLAServerConfig(hostname="127.0.0.1", port=port, tls=False, name="Programs")
    app = Connector(ConnectorBaseConfig(sila_server=server, discovery=None))
    programs = Programs(folder)
    app.register(programs)
    app.register(CancelController(programs, folder))
    app.register(PauseController(programs))
    await app.start()
    print("ready", flush=True)
    await app.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), Path(sys.argv[2])))
