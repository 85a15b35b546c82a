"""A Python prefix in the layout of conda-pack, made of this interpreter, without any index.

`tests.environments.channel` has conda-pack itself make one. This one has what a packed
environment has: ``bin/python`` with its standard library, a record in ``conda-meta``, a program
with the packer's prefix in its first line, and ``bin/conda-unpack``, which puts the present
place there.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import sysconfig
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_PREFIX = "/placeholder/of/the/packer"
_NOT_NEEDED = shutil.ignore_patterns(
    *("test", "tests", "site-packages", "dist-packages", "__pycache__", "config-*", "idlelib"),
    *("tkinter", "ensurepip", "lib2to3", "pydoc_data", "turtledemo", "unittest", "distutils"),
)
_UNPACK = f"""#!/usr/bin/env python
import pathlib, sys
tool = pathlib.Path(sys.prefix, "bin", "tool")
tool.write_text(tool.read_text().replace({_PREFIX!r}, sys.prefix))
print("prefix is", sys.prefix)
"""
_TOOL = f"#!{_PREFIX}/bin/python\nimport sys, tiny\nprint(sys.prefix, tiny.NUMBER)\n"


def bare_python(prefix: Path) -> str:
    """Copy this interpreter and its library below a prefix; return its name with the version."""
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    library = sysconfig.get_path("stdlib")
    shutil.copytree(library, prefix / "lib" / name, symlinks=False, ignore=_NOT_NEEDED)
    (prefix / "bin").mkdir()
    shutil.copy(os.path.realpath(sys.executable), prefix / "bin" / name)
    (prefix / "bin" / "python").symlink_to(name)
    return name


def packed_prefix(folder: Path) -> Path:
    """Return an archive of a prefix with the module ``tiny`` in it."""
    prefix = folder / "prefix"
    packages = prefix / "lib" / bare_python(prefix) / "site-packages"
    packages.mkdir()
    (packages / "tiny.py").write_text("NUMBER = 7\n")
    (prefix / "conda-meta").mkdir()
    (prefix / "conda-meta" / "tiny-1.0-0.json").write_text("{}")
    for name, text in (("tool", _TOOL), ("conda-unpack", _UNPACK), ("activate", "")):
        (prefix / "bin" / name).write_text(text)
        (prefix / "bin" / name).chmod(0o755)
    archive = folder / "packed.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for path in sorted(prefix.iterdir()):
            tar.add(path, path.name)
    shutil.rmtree(prefix)
    return archive


def archive_of(path: Path, *entries: tuple[str, bytes, str]) -> Path:
    """Write an archive of entries as they are given: name, type of the entry, link or content."""
    with tarfile.open(path, "w:gz") as tar:
        for name, kind, text in entries:
            entry = tarfile.TarInfo(name)
            entry.type = kind
            data = b"" if kind != tarfile.REGTYPE else text.encode()
            entry.size = len(data)
            entry.linkname = "" if data else text
            tar.addfile(entry, io.BytesIO(data))
    return path
