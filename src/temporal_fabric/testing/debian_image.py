"""A container image of this machine's own Debian files: Python, a shell, coreutils, tar.

No registry is asked. The same packages give the same bytes and so the same image id, on every
machine. ``/usr`` is merged in Debian, so ``/bin`` and its like are links, and come first.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "fabric/python:3"

_WANTED = ("python3", "dash", "coreutils", "tar", "base-files")
_NOT_NEEDED = frozenset({"debconf", "dpkg", "mailcap", "media-types", "perl-base", "tzdata"})
_LINKS = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
_LEFT_OUT = tuple(f"/usr/share/{name}/" for name in ("doc", "info", "lintian", "locale", "man"))
_FOLDERS = {"dev": 0o755, "proc": 0o555, "sys": 0o555, "tmp": 0o1777, "work": 0o1777}
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_PASSWD = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/sh\n"


def write(path: Path, name: str = NAME, command: tuple[str, ...] = ("python3",)) -> str:
    """Write an archive as ``docker load`` takes it; return the image's id.

    Raises:
        OSError: this is no Debian, or the disk is full.
        subprocess.CalledProcessError: dpkg does not answer.
    """
    layer = _layer()
    config = json.dumps(
        {
            "architecture": _ARCHITECTURES[platform.machine()],
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {"Cmd": list(command), "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        },
        sort_keys=True,
    ).encode()
    image = _digest(config)
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    members = {
        "config.json": config,
        "layer.tar": layer,
        "manifest.json": json.dumps(manifest).encode(),
    }
    with tarfile.open(path, "w") as tar:
        for member, content in members.items():
            _add(tar, _entry(member, len(content)), content)
    return image


def _layer() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in _LINKS:
            if Path("/", name).is_symlink():
                link = _entry(name, kind=tarfile.SYMTYPE)
                link.linkname = f"usr/{name}"
                tar.addfile(link)
        for name, mode in _FOLDERS.items():
            tar.addfile(_entry(name, kind=tarfile.DIRTYPE, mode=mode))
        for name in sorted(_files()):
            _add_file(tar, name)
        tar.addfile(_entry("etc/passwd", len(_PASSWD)), io.BytesIO(_PASSWD))
    return out.getvalue()


def _files() -> set[str]:
    """Return the files of all packages, as paths below the root."""
    listed = _told("dpkg", "-L", *sorted(_packages())).splitlines()
    kept = (path for path in listed if path.startswith("/") and not path.startswith(_LEFT_OUT))
    names = {_merged(path) for path in kept if path != "/."}
    return {name for name in names if name not in {*_LINKS, *_FOLDERS} and _lies_there(name)}


def _merged(path: str) -> str:
    return f"usr{path}" if path.split("/")[1] in _LINKS else path[1:]


def _lies_there(name: str) -> bool:
    return os.path.lexists(f"/{name}")


def _packages() -> set[str]:
    """Return the wanted packages and all they depend on, as far as they are installed."""
    needs = dict(_installed())
    found, rest = set[str](), list(_WANTED)
    while rest:
        name = rest.pop()
        if name in needs and name not in found | _NOT_NEEDED:
            found.add(name)
            rest += needs[name]
    if not {"python3", "dash"} <= found:
        raise FileNotFoundError("Debian's packages python3 and dash are not installed")
    return found


def _installed() -> Iterator[tuple[str, list[str]]]:
    form = "${Package}\t${db:Status-Status}\t${Pre-Depends}, ${Depends}\n"
    for line in _told("dpkg-query", "-W", "-f", form).splitlines():
        name, status, needs = line.split("\t")
        if status == "installed":
            firsts = (need.split("|")[0] for need in needs.split(","))
            yield (name, [first.split("(")[0].split(":")[0].strip() for first in firsts])


def _told(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _add_file(tar: tarfile.TarFile, name: str) -> None:
    entry = tar.gettarinfo(f"/{name}", arcname=name)
    entry.mtime = entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    if entry.isreg() or entry.islnk():
        # A second name of one file is stored as a file of its own: its first may be left out.
        entry.type, entry.linkname = tarfile.REGTYPE, ""
        content = Path("/", name).read_bytes()
        entry.size = len(content)
        _add(tar, entry, content)
    else:
        tar.addfile(entry)


def _add(tar: tarfile.TarFile, entry: tarfile.TarInfo, content: bytes) -> None:
    tar.addfile(entry, io.BytesIO(content))


def _entry(
    name: str, size: int = 0, *, kind: bytes = tarfile.REGTYPE, mode: int = 0o644
) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type, entry.mode = size, kind, mode
    return entry


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
