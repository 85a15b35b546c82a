"""A conda channel of two packages, an environment installed from it, and conda-pack's archive.

The packages are written here: ``python`` from this interpreter's files, and the ``noarch``
package ``tiny``, which has everything that names a prefix: a program, an entry point, a text
and a binary file. It also has ``bin/activate``, as conda has, and a file and a link that
``python`` has as well: conda-pack writes each of them twice. All else is done by others: rattler
indexes the channel, solves and installs, conda-pack packs.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from tests.backends import missing
from tests.environments.packed import bare_python

_TOOLS = Path(__file__).with_name("conda-tools.txt")
_BUILT_AT = "/built/at".ljust(255, "_")
"""What stands in a package for the prefix: as long as conda-build makes it."""

_PROGRAM = """
import asyncio, pathlib, sys
import conda_pack, rattler
from rattler.index import index_fs

async def create(channel, prefix):
    await index_fs(channel)
    platforms = ["linux-64", "noarch"]
    records = await rattler.solve([channel.as_uri()], ["tiny"], platforms=platforms)
    await rattler.install(records, prefix, show_progress=False)

channel, prefix, archive = map(pathlib.Path, sys.argv[1:])
asyncio.run(create(channel, prefix))
conda_pack.pack(prefix=str(prefix), output=str(archive), compress_level=1)
"""


def conda_packed(folder: Path) -> Path:
    """Return an archive that conda-pack made, of an environment that is gone by now."""
    work, archive = folder / "work", folder / "packed.tar.gz"
    tools, channel = _tools(work / "tools"), work / "channel"
    _write_python(work / "python", channel)
    _write_tiny(work / "tiny", channel)
    subprocess.run(
        [sys.executable, "-c", _PROGRAM, channel, work / "prefix", archive],
        env={**os.environ, "PYTHONPATH": str(tools), "RATTLER_CACHE_DIR": str(work / "cache")},
        check=True,
        timeout=120,
    )
    shutil.rmtree(work)
    return archive


def _tools(folder: Path) -> Path:
    """Install conda-pack and rattler into a folder of their own."""
    # conda-pack wants setuptools for Windows only: no dependencies.
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--retries", "1", "--timeout", "15"]
    options = ["--no-compile", "--no-deps", "--require-hashes", "--target", str(folder)]
    done = subprocess.run(
        [*pip, *options, "-r", _TOOLS],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode:
        missing("pypi", done.stderr.strip())
    return folder


def _write_python(folder: Path, channel: Path) -> None:
    name = bare_python(folder)
    _write_shared(folder)
    _write(
        channel / "linux-64",
        folder,
        name="python",
        version=platform.python_version(),
        depends=[],
        python_site_packages_path=f"lib/{name}/site-packages",
    )


def _write_tiny(folder: Path, channel: Path) -> None:
    texts = {
        "python-scripts/activate": "# Of conda itself.\n",
        "python-scripts/tiny-home": f"#!{_BUILT_AT}/bin/python\nimport sys\nprint(sys.prefix)\n",
        "share/tiny.conf": f"home={_BUILT_AT}/share\n",
        "site-packages/tiny.py": (
            "import sys\nNUMBER = 7\ndef main():\n    print(sys.prefix, NUMBER)\n"
        ),
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "python-scripts/tiny-home").chmod(0o755)
    (folder / "share/tiny.bin").write_bytes(b"\xff\0%b/share\0\xfe" % _BUILT_AT.encode())
    _write_shared(folder)
    (folder / "info").mkdir()
    noarch = {"type": "python", "entry_points": ["tool = tiny:main"]}
    link = {"noarch": noarch, "package_metadata_version": 1}
    (folder / "info/link.json").write_text(json.dumps(link))
    _write(
        channel / "noarch",
        folder,
        name="tiny",
        version="1.0",
        depends=["python"],
        noarch="python",
    )


def _write_shared(folder: Path) -> None:
    """Write what both packages have."""
    (folder / "share").mkdir(exist_ok=True)
    (folder / "share/shared.txt").write_text("in both\n")
    (folder / "share/shared").symlink_to("shared.txt")


def _write(subdir: Path, folder: Path, **about: Any) -> None:
    """Write the package that a folder holds, in the older format: no zstd is needed for it."""
    record = {**about, "build": "0", "build_number": 0, "subdir": subdir.name}
    files = sorted(path for path in folder.rglob("*") if not path.is_dir())
    files = [path for path in files if path.parent != folder / "info"]
    paths = {"paths": [_entry(path, folder) for path in files], "paths_version": 1}
    (folder / "info").mkdir(exist_ok=True)
    (folder / "info/index.json").write_text(json.dumps(record))
    (folder / "info/paths.json").write_text(json.dumps(paths))
    subdir.mkdir(parents=True)
    archive = subdir / f"{about['name']}-{about['version']}-0.tar.bz2"
    with tarfile.open(archive, "w:bz2", compresslevel=1) as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)


def _entry(path: Path, folder: Path) -> dict[str, Any]:
    """Return what a package's list says of a file."""
    data = path.read_bytes()
    found: dict[str, Any] = {
        "_path": path.relative_to(folder).as_posix(),
        "path_type": "softlink" if path.is_symlink() else "hardlink",
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_in_bytes": len(data),
    }
    if _BUILT_AT.encode() in data:
        mode = "binary" if b"\0" in data else "text"
        found |= {"prefix_placeholder": _BUILT_AT, "file_mode": mode}
    return found
