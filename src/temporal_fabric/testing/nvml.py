"""A host with GPUs that are not there: the driver's library, answering from a file.

It stands in below NVIDIA's own binding, so discovery, reservation and the payload's view are the
true ones; only no kernel ever runs on such a device.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

LIBRARY = "libnvidia-ml.so.1"
_SOURCE = Path(__file__).with_name("nvml.c")


@dataclass(frozen=True, slots=True)
class StandIn:
    """One device of the stand-in."""

    uuid: str
    name: str = "NVIDIA A100-SXM4-80GB"
    memory_bytes: int = 85_899_345_920
    minor: int = 0
    mig: bool = False
    errors: int = 0
    """Of its memory, not corrected."""

    process: int = 0
    """One that computes on it."""

    def line(self) -> str:
        """Return the device as the library reads it."""
        fields = (self.uuid, self.name, self.memory_bytes, self.minor, int(self.mig), self.errors)
        return ";".join(map(str, (*fields, self.process)))


class NvmlUnavailable(Exception):
    """The stand-in cannot be built; the message says why."""


class StandInNvml:
    """The library and what it tells.

    Args:
        folder: A folder of the test's own.

    Raises:
        NvmlUnavailable: there is no C compiler.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise NvmlUnavailable("no C compiler is installed (cc)")
        library = folder / LIBRARY
        command = [compiler, "-shared", "-fPIC", "-O1", f"-Wl,-soname,{LIBRARY}"]
        done = subprocess.run(
            [*command, "-o", str(library), str(_SOURCE)],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise NvmlUnavailable(f"the C compiler fails: {done.stderr.strip()}")

    def show(self, *devices: StandIn) -> None:
        """Let the library show these devices from now on."""
        text = "".join(f"{device.line()}\n" for device in devices)
        temporary = self._list.with_suffix(".new")
        temporary.write_text(text, encoding="ascii")
        temporary.replace(self._list)

    @property
    def env(self) -> dict[str, str]:
        """Variables of a process that is to see the devices; its reservations are apart."""
        return {
            "LD_LIBRARY_PATH": str(self._folder),
            "FABRIC_STAND_IN_GPUS": str(self._list),
            "FABRIC_GPU_RESERVATIONS": str(self.reservations),
        }

    @property
    def reservations(self) -> Path:
        """Folder of the reservations."""
        return self._folder / "reserved"

    @property
    def _list(self) -> Path:
        return self._folder / "devices"
