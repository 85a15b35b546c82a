"""A container image with Debian's Python, made of this machine's own files: no registry is asked.

``python -m tests.backends.python_image FILE`` writes a docker-archive, which ``docker load`` and
``ctr images import`` take. The same packages give the same bytes, hence the same digest. It holds
two images over one layer: the Python one, and one that only sleeps, for a pod's sandbox.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PYTHON_IMAGE = "local/python:3"
PAUSE_IMAGE = "local/pause:1"

_COMMANDS = {PYTHON_IMAGE: ["/usr/bin/python3"], PAUSE_IMAGE: ["/usr/bin/sleep", "infinity"]}
_WANTED = ("python3", "dash", "coreutils", "tar", "base-files", "ca-certificates")
_NOT_NEEDED = frozenset(
    {"debconf", "dpkg", "mailcap", "mawk", "media-types", "openssl", "perl-base", "tzdata"}
)
_MORE = ("/etc/ssl/certs/ca-certificates.crt", "/etc/passwd", "/etc/group")
_LEFT_OUT = tuple(f"/usr/share/{name}/" for name in ("doc", "info", "lintian", "locale", "man"))
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_FOLDERS = {"dev": 0o755, "proc": 0o555, "root": 0o700, "sys": 0o555, "tmp": 0o1777}
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def write_image(target: Path) -> dict[str, str]:
    """Write the archive, replaced whole, and return the digest of each image by its name.

    Raises:
        OSError: this is no Debian, or the file cannot be written.
        subprocess.CalledProcessError: a package is not installed.
    """
    layer = _layer()
    diff = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    members, manifest, digests = {"layer.tar": layer}, list[dict[str, object]](), {}
    for name, command in _COMMANDS.items():
        config = _config(command, diff)
        digest = hashlib.sha256(config).hexdigest()
        members[f"{digest}.json"] = config
        manifest.append({"Config": f"{digest}.json", "RepoTags": [name], "Layers": ["layer.tar"]})
        digests[name] = f"sha256:{digest}"
    members["manifest.json"] = json.dumps(manifest).encode()
    partial = target.with_name(f"{target.name}.part")
    with tarfile.open(partial, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    partial.replace(target)
    return digests


def _config(command: list[str], diff: str) -> bytes:
    around = {
        "Cmd": command,
        "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
        "WorkingDir": "/",
    }
    config = {
        "architecture": _MACHINES[platform.machine()],
        "config": around,
        "created": "1970-01-01T00:00:00Z",
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "python_image"}],
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [diff]},
    }
    return json.dumps(config, sort_keys=True).encode()


def _layer() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        # The links come first: what lies in /bin is found in /usr/bin.
        for name in _MERGED:
            if Path("/", name).is_symlink():
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname = tarfile.SYMTYPE, f"usr/{name}"
                archive.addfile(entry)
        for name, mode in _FOLDERS.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            archive.addfile(entry)
        for name in sorted(set(_names()) - _FOLDERS.keys() - set(_MERGED)):
            _add(archive, name)
    return out.getvalue()


def _names() -> Iterator[str]:
    """Yield the path of each file of the packages as it is in an image, without the first slash."""
    listed = _run("dpkg", "-L", *sorted(_packages())).splitlines()
    for path in (*listed, *_MORE):
        if path in {"", "/."} or not path.startswith("/") or path.startswith(_LEFT_OUT):
            continue
        name = path.lstrip("/")
        if name.partition("/")[0] in _MERGED:
            name = f"usr/{name}"
        if os.path.lexists(f"/{name}"):
            yield name


def _packages() -> set[str]:
    """Return the wanted packages with all that they depend on and that is installed."""
    fields = "${Package}\t${db:Status-Status}\t${Pre-Depends}, ${Depends}\n"
    needs: dict[str, list[str]] = {}
    for line in _run("dpkg-query", "-W", "-f", fields).splitlines():
        name, status, depends = line.split("\t")
        if status == "installed":
            first = (part.split("|")[0].split("(")[0] for part in depends.split(","))
            needs[name] = [part.split(":")[0].strip() for part in first]
    found, wanted = set[str](), list(_WANTED)
    while wanted:
        name = wanted.pop()
        if name in needs and name not in found | _NOT_NEEDED:
            found.add(name)
            wanted += needs[name]
    return found


def _add(archive: tarfile.TarFile, name: str) -> None:
    source = Path("/", name)
    entry = archive.gettarinfo(source, arcname=name)
    entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
    if entry.islnk():
        # Two names of one file: a copy does, and needs no order.
        entry.type, entry.linkname, entry.size = tarfile.REGTYPE, "", source.stat().st_size
    if not entry.isreg():
        archive.addfile(entry)
        return
    with source.open("rb") as content:
        archive.addfile(entry, content)


def _run(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    for image, digest in write_image(Path(sys.argv[1])).items():
        print(image, digest)
