"""Commands beside a live payload: started in its container, their output read through the keeper.

A command's folder lies with the pod's other files, and is made exclusively: so a repetition starts
nothing. The payload's image needs a shell for it, and for nothing else.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, NamedTuple

from temporal_fabric.adapters.contract import CommandPiece
from temporal_fabric.adapters.kubernetes_exec import Command, CommandFailed
from temporal_fabric.adapters.kubernetes_job import KEEPER, PAYLOAD
from temporal_fabric.adapters.kubernetes_keeper import STATE
from temporal_fabric.errors import BackendUnknown, PermanentBackendError

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.adapters.kubernetes_api import KubernetesApi

FOLDER = "commands"
_AT = f"at={STATE}/{FOLDER}/$1"
_SILENT_S = 30.0
_PIECE = 128 * 1024
_UNKNOWN = 9
_BY_SIGNAL = 128

_START = f"""\
{_AT}
mkdir -p {STATE}/{FOLDER}
mkdir "$at" 2> /dev/null || exit 0
shift
for name in $1; do unset "$name"; done
shift
seconds() {{ read -r up rest < /proc/uptime; up=${{up%.*}}; }}
seconds
echo "$up" > "$at/heard"
(
    "$@" > "$at/out" 2> "$at/err" < /dev/null &
    pid=$!
    (
        while kill -0 $pid 2> /dev/null; do
            sleep 0.5
            seconds
            read -r heard < "$at/heard" || heard=$up
            if [ -e "$at/end" ] || [ $((up - ${{heard:-$up}})) -gt 60 ]; then
                kill $pid
                sleep 1
                kill -9 $pid
            fi
        done
    ) 2> /dev/null &
    wait $pid
    echo $? > "$at/code.part"
    mv "$at/code.part" "$at/code"
) > /dev/null 2>&1 < /dev/null &
"""
"""Arguments: the command's name, variables that it must not get, program and arguments."""

_FETCH = f"""\
{_AT}
[ -d "$at" ] || exit {_UNKNOWN}
read -r up rest < /proc/uptime
echo "${{up%.*}}" > "$at/heard.part" && mv "$at/heard.part" "$at/heard"
code=-
[ ! -e "$at/code" ] || read -r code < "$at/code"
: >> "$at/out" && : >> "$at/err"
size() {{ n=$(($(wc -c < "$1") - $2)); [ $n -ge 0 ] || n=0; [ $n -le {_PIECE} ] || n={_PIECE}; }}
size "$at/out" "$2"; out=$n
size "$at/err" "$3"; err=$n
echo "$code $out $err"
tail -c "+$(($2 + 1))" "$at/out" | head -c "$out"
tail -c "+$(($3 + 1))" "$at/err" | head -c "$err"
"""
"""Arguments: the command's name, and the offsets from which its output and its error are wanted."""

_END = f'{_AT}; [ ! -d "$at" ] || : > "$at/end"'


class PodCommands:
    """Commands in one pod. Its methods block.

    Args:
        api: The cluster.
        pod: Name of the pod.
    """

    def __init__(self, api: KubernetesApi, pod: str) -> None:
        self._api, self._pod = api, pod

    def start(self, name: str, argv: tuple[str, ...], withheld: frozenset[str]) -> None:
        """See `Executing.execute`."""
        words = ["sh", "-c", _START, "sh", name, " ".join(sorted(withheld)), *argv]
        try:
            with Command(self._api, self._pod, PAYLOAD, words, _SILENT_S) as command:
                command.finish()
        except CommandFailed as exc:
            text = f"its container cannot start a command: {exc}; the image needs a shell"
            raise PermanentBackendError(text) from exc

    def fetch(self, name: str, offsets: tuple[int, int]) -> CommandPiece:
        """Return what is new of a command now; see `Executing.fetch`."""
        words = ["sh", "-c", _FETCH, "sh", name, str(offsets[0]), str(offsets[1])]
        try:
            with Command(self._api, self._pod, KEEPER, words, _SILENT_S) as command:
                answer = b"".join(command.output())
        except CommandFailed as exc:
            if exc.code == _UNKNOWN:
                raise PermanentBackendError(f"no such command is known [command={name}]") from exc
            raise BackendUnknown(f"the keeper does not answer: {exc}") from exc
        return _piece(answer)

    def end(self, name: str) -> None:
        """See `Executing.end`."""
        words = ["sh", "-c", _END, "sh", name]
        try:
            with Command(self._api, self._pod, KEEPER, words, _SILENT_S) as command:
                command.finish()
        except CommandFailed as exc:
            raise BackendUnknown(f"the keeper does not answer: {exc}") from exc


def left_behind(folder: Path, offsets: tuple[int, int]) -> CommandPiece:
    """Return what is new of a command whose pod has gone: its folder was carried over.

    Raises:
        PermanentBackendError: it was not.
    """
    if not folder.is_dir():
        raise PermanentBackendError(f"the attempt has ended [command={folder.name}]")
    texts: list[bytes] = []
    for name, offset in zip(("out", "err"), offsets, strict=True):
        path = folder / name
        texts.append(path.read_bytes()[offset : offset + _PIECE] if path.is_file() else b"")
    code = folder / "code"
    said = code.read_text().strip() if code.is_file() else str(_BY_SIGNAL + signal.SIGKILL)
    return _ended(_Read(said, *texts), whole=all(len(text) < _PIECE for text in texts))


class _Read(NamedTuple):
    code: str
    stdout: bytes
    stderr: bytes


def _piece(answer: bytes) -> CommandPiece:
    head, _, rest = answer.partition(b"\n")
    try:
        code, out, err = head.decode().split()
        sizes = int(out), int(err)
    except ValueError as exc:
        raise BackendUnknown(f"what came of a command means nothing: {exc}") from exc
    if len(rest) != sum(sizes):
        raise BackendUnknown(f"of {sum(sizes)} bytes of a command {len(rest)} came")
    read = _Read(code, rest[: sizes[0]], rest[sizes[0] :])
    if code == "-":
        return CommandPiece(read.stdout, read.stderr)
    return _ended(read, whole=max(sizes) < _PIECE)


def _ended(read: _Read, *, whole: bool) -> CommandPiece:
    """Return the end of a command, once all that it wrote before has arrived."""
    if not whole or not read.code.isdecimal():
        return CommandPiece(read.stdout, read.stderr)
    code = int(read.code)
    killed = code - _BY_SIGNAL if code > _BY_SIGNAL else None
    exit_code = code if killed is None else None
    return CommandPiece(read.stdout, read.stderr, ended=True, exit_code=exit_code, signal=killed)
