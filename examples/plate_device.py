"""A plate handler without moving parts: a SiLA 2 server to try the lab backend on.

::

    pip install "temporal-fabric[sila]" unitelabs-cdk
    python examples/plate_device.py --port 50052 --count plate.jsonl

It takes as long over a step as a device would, only faster, and notes each movement in a file
of its own when it begins and when it ends. That file is what really happened.
"""

import argparse
import asyncio
import datetime as dt
import json
import logging
import math
import os
import time
from pathlib import Path
from typing import Annotated, Any

import structlog
from unitelabs.cdk import Connector, ConnectorBaseConfig, SiLAServerConfig, sila
from unitelabs.cdk.features.core.lock_controller import LockController
from unitelabs.cdk.features.core.lock_controller.lock_controller import (
    InvalidLockIdentifier,
    LockIdentifier,
)
from unitelabs.cdk.sila import constraints
from unitelabs.cdk.sila.constraints import Unit

MICROLITRE = Unit(label="µL", factor=1e-9, components=[Unit.Component("Meter", 3)])
CELSIUS = Unit(label="°C", offset=273.15, components=[Unit.Component("Kelvin")])
SECOND = Unit(label="s", components=[Unit.Component("Second")])
NANOMETRE = Unit(label="nm", factor=1e-9, components=[Unit.Component("Meter")])

Position = Annotated[str, constraints.Set(["stack", "deck", "shaker", "incubator", "reader"])]
Well = Annotated[str, constraints.Pattern("[A-H]([1-9]|1[0-2])")]
Volume = Annotated[
    float, constraints.MinimalInclusive(1.0), constraints.MaximalInclusive(200.0), MICROLITRE
]
Temperature = Annotated[
    float, constraints.MinimalInclusive(4.0), constraints.MaximalInclusive(70.0), CELSIUS
]
Duration = Annotated[
    float, constraints.MinimalInclusive(0.0), constraints.MaximalInclusive(86400.0), SECOND
]
Wavelength = Annotated[
    int, constraints.MinimalInclusive(340), constraints.MaximalInclusive(850), NANOMETRE
]


class PlateMissing(Exception):
    """There is no plate where the gripper looked for one."""


class Clogged(Exception):
    """The dispenser's tip is clogged: change it."""


class Movements:
    """What has really moved: one line when a movement begins, one when it ends."""

    def __init__(self, path: Path, pace_s: float, clogged: str) -> None:
        self._path, self.pace_s, self.clogged = path, pace_s, clogged

    async def make(
        self, name: str, status: sila.Status, seconds: float = 1.0, **given: Any
    ) -> None:
        """Move for some time, and say how far that is."""
        self._note("begin", name, given)
        parts = 10
        for part in range(parts):
            status.update(
                progress=part / parts,
                remaining_time=dt.timedelta(seconds=self.pace_s * (1 - part / parts)),
            )
            await self.pass_time(seconds * self.pace_s / parts)
        self._note("end", name, given)

    async def pass_time(self, seconds: float) -> None:
        """Let the device move for a while."""
        await asyncio.sleep(seconds)

    def _note(self, what: str, name: str, given: dict[str, Any]) -> None:
        line = {"is": what, "movement": name, **given, "at": round(time.time(), 3)}
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(fd, json.dumps(line).encode() + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)


class PlateHandler(sila.Feature):
    """The gripper: it picks a plate up, moves it, and brings it back."""

    def __init__(self, movements: Movements) -> None:
        super().__init__(originator="org.example", category="plates")
        self._movements = movements

    @sila.ObservableCommand(errors=[PlateMissing])
    async def pick(self, position: Position, *, status: sila.Status) -> None:
        """Pick a plate up.

        Args:
          Position: Where the plate is.

        Raises:
          PlateMissing: There is no plate.
        """
        await self._movements.make("pick", status, position=position)

    @sila.ObservableCommand()
    async def move(self, position: Position, *, status: sila.Status) -> None:
        """Move the plate.

        Args:
          Position: Where to.
        """
        await self._movements.make("move", status, position=position)

    @sila.ObservableCommand()
    async def lid(self, on: bool, *, status: sila.Status) -> None:  # noqa: FBT001 - a SiLA parameter
        """Put the lid on the plate or take it off.

        Args:
          On: Whether it is on afterwards.
        """
        await self._movements.make("lid", status, on=on)

    @sila.ObservableCommand()
    async def put_back(self, position: Position, *, status: sila.Status) -> None:
        """Bring the plate back, from wherever it is.

        Args:
          Position: Where it belongs.
        """
        await self._movements.make("put back", status, position=position)

    @sila.ObservableCommand()
    async def park(self, *, status: sila.Status) -> None:
        """Bring the gripper to where it disturbs nobody."""
        await self._movements.make("park", status)


class Dispenser(sila.Feature):
    """The dispenser of the deck."""

    def __init__(self, movements: Movements) -> None:
        super().__init__(originator="org.example", category="plates")
        self._movements = movements

    @sila.ObservableCommand(errors=[Clogged])
    async def dispense(
        self,
        well: Well,
        volume: Volume,
        *,
        status: sila.Status,
        intermediate: sila.Intermediate[float],
    ) -> float:
        """Dispense into one well.

        Args:
          Well: From A1 to H12.
          Volume: How much.

        Yields:
          Dispensed: What has left the tip so far.

        Returns:
          Volume: What has left the tip.

        Raises:
          Clogged: The tip is clogged.
        """
        intermediate.send(volume / 2)
        await self._movements.make("dispense", status, well=well, volume=volume)
        if well == self._movements.clogged:
            raise Clogged
        intermediate.send(volume)
        return volume


class Incubator(sila.Feature):
    """The incubator, which shakes as well."""

    def __init__(self, movements: Movements) -> None:
        super().__init__(originator="org.example", category="plates")
        self._movements = movements

    @sila.ObservableCommand()
    async def incubate(
        self,
        temperature: Temperature,
        duration: Duration,
        *,
        status: sila.Status,
        intermediate: sila.Intermediate[float],
    ) -> None:
        """Keep the plate warm.

        Args:
          Temperature: Of the plate.
          Duration: How long; this device is faster.

        Yields:
          Temperature: As it is now.
        """
        intermediate.send(temperature - 0.5)
        await self._movements.make(
            "incubate", status, 2.0, temperature=temperature, duration=duration
        )
        intermediate.send(temperature)


class Reader(sila.Feature):
    """The plate reader."""

    def __init__(self, movements: Movements) -> None:
        super().__init__(originator="org.example", category="plates")
        self._movements = movements

    @sila.ObservableCommand()
    async def read(self, wavelength: Wavelength, well: Well, *, status: sila.Status) -> float:
        """Read one well.

        Args:
          Wavelength: Of the light.
          Well: From A1 to H12.

        Returns:
          Absorbance: Of the well.
        """
        await self._movements.make("read", status, wavelength=wavelength, well=well)
        return round(0.4 + 0.1 * math.sin(wavelength), 4)


class CancelController(sila.Feature):
    """Ends what the device performs."""

    def __init__(self) -> None:
        super().__init__(originator="org.silastandard", category="core.commands")

    @sila.UnobservableCommand()
    async def cancel_command(self, command_execution_uuid: str) -> None:
        """End one execution.

        Args:
          CommandExecutionUUID: Of the execution.
        """
        self.app.sila_server.get_command_execution(command_execution_uuid).cancel()

    @sila.UnobservableCommand()
    async def cancel_all(self) -> None:
        """Stop at once whatever the device does."""
        for execution in list(self.app.sila_server.command_executions.values()):
            execution.cancel()


async def _check_lock(shown: LockIdentifier, _command: sila.Handler) -> None:
    """Let a command pass that shows who has locked the device."""
    lock = shown.feature.lock
    if lock is None or lock.identifier != shown.lock_identifier:
        raise InvalidLockIdentifier
    lock.last_usage = dt.datetime.now()  # noqa: DTZ005 - as the CDK has it


async def serve(port: int, movements: Movements, *, lock: bool = False) -> None:
    """Serve one plate handler until it is killed; with a lock it takes nothing unlocked."""
    quiet = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=quiet)
    server = SiLAServerConfig(hostname="127.0.0.1", port=port, tls=False, name="Plate handler")
    app = Connector(ConnectorBaseConfig(sila_server=server, discovery=None))
    for feature in (PlateHandler, Dispenser, Incubator, Reader):
        app.register(feature(movements))
    app.register(CancelController())
    if lock:
        LockIdentifier.intercept = _check_lock  # the CDK's own takes one argument too few
        controller = LockController()
        app.register(controller)
        plates = ("PlateHandler", "Dispenser", "Incubator", "Reader")
        controller.metadata["LockIdentifier"].affects = [
            f"org.example/plates/{name}/v1" for name in plates
        ]
    await app.start()
    print(f"a plate handler listens at 127.0.0.1:{port}", flush=True)
    await app.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=50052)
    parser.add_argument("--count", type=Path, default=Path("plate.jsonl"), help="what has moved")
    parser.add_argument("--pace", type=float, default=1.0, help="seconds a movement takes")
    parser.add_argument("--clogged", default="", help="a well at which the tip clogs")
    parser.add_argument("--lock", action="store_true", help="take commands only when locked")
    asked = parser.parse_args()
    moves = Movements(asked.count, asked.pace, asked.clogged)
    asyncio.run(serve(asked.port, moves, lock=asked.lock))
