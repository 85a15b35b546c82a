"""Plate handlers of which each stands still in the middle of one movement until it may go on.

Run as ``python -m tests.lab.held_devices FOLDER PORT...``: the device at the n-th port stands
still in its n-th movement, and all go on once ``FOLDER/go`` is there.
"""

# No `from __future__ import annotations`: the CDK reads the annotations as they are.
import asyncio
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).parents[2] / "examples/plate_device.py"


def example() -> Any:
    """Return the module of the example's device."""
    spec = importlib.util.spec_from_file_location("plate_device", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def _serve(folder: Path, ports: list[int]) -> None:
    plate = example()

    class Held(plate.Movements):  # type: ignore[misc, name-defined]
        """Stands still in one movement."""

        def __init__(self, place: int) -> None:
            super().__init__(folder / f"{place}.jsonl", 0.05, "")  # pyright: ignore[reportUnknownMemberType]
            self._place = place

        async def pass_time(self, seconds: float) -> None:
            """Let time pass; in the one movement until the test lets it go on."""
            lines = await asyncio.to_thread((folder / f"{self._place}.jsonl").read_text)
            begun = [json.loads(line)["is"] for line in lines.splitlines()].count("begin")
            while begun == self._place and not (folder / "go").exists():
                await asyncio.sleep(0.02)
            await asyncio.sleep(seconds)

    await asyncio.gather(*(plate.serve(port, Held(place)) for place, port in enumerate(ports, 1)))


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), [int(port) for port in sys.argv[2:]]))
