"""Tiny packages made by a test: they bring their own build backend, so no index is asked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_BACKEND = """
import os, pathlib, time, zipfile

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    log = pathlib.Path({log!r})
    with log.open("a") as file:
        file.write("start\\n")
    log.with_name("builder.pid").write_text(str(os.getpid()))
    time.sleep({seconds})
    if {broken}:
        raise SystemExit("this package cannot be built: no luck")
    name = "tiny-1.0-py3-none-any.whl"
    about = "tiny-1.0.dist-info/"
    with zipfile.ZipFile(pathlib.Path(wheel_directory, name), "w") as wheel:
        wheel.writestr("tiny.py", pathlib.Path("tiny.py").read_text())
        wheel.writestr(about + "METADATA", "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n")
        tag = "Root-Is-Purelib: true\\nTag: py3-none-any\\n"
        wheel.writestr(about + "WHEEL", "Wheel-Version: 1.0\\n" + tag)
        wheel.writestr(about + "RECORD", "")
    with log.open("a") as file:
        file.write("end\\n")
    return name
"""


class TinyPackage:
    """The package ``tiny``, whose module holds one number.

    Args:
        folder: Where its source lies.
        seconds: How long a build takes.
        broken: Whether a build fails.
    """

    def __init__(self, folder: Path, *, seconds: float = 0, broken: bool = False) -> None:
        self.folder = folder / "tiny"
        self._log = folder / "builds.log"
        self.folder.mkdir()
        backend = _BACKEND.format(log=str(self._log), seconds=seconds, broken=broken)
        (self.folder / "backend.py").write_text(backend)
        (self.folder / "pyproject.toml").write_text(
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
            '[project]\nname = "tiny"\nversion = "1.0"\n'
        )
        self.set_number(1)

    @property
    def requirement(self) -> str:
        """How a request names it."""
        return f"tiny @ {self.folder.as_uri()}"

    def set_number(self, number: int) -> None:
        """Change the package."""
        (self.folder / "tiny.py").write_text(f"NUMBER = {number}\n")

    def building(self) -> bool:
        """Return whether the process of the last build is still there."""
        pid = int(self._log.with_name("builder.pid").read_text())
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True

    def builds(self) -> list[str]:
        """Return ``start`` and ``end`` of every build so far."""
        return self._log.read_text().split() if self._log.exists() else []
