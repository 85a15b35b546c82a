"""Keeping secret values out of a payload's output, also encoded and over chunk borders.

Standard library only, because it runs in two places: imported, and as a program that starts a
payload and filters what it writes::

    python -I -S redaction.py COMMAND...

The values to hide are those of the variables named in ``FABRIC_SECRET_VARS`` and of the files
in ``FABRIC_SECRETS_DIR``. The program ends as the payload ended: same exit code, same signal.
"""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import quote, quote_plus

VARIABLES = "FABRIC_SECRET_VARS"
FOLDER = "FABRIC_SECRETS_DIR"
MASK = b"[redacted]"

_SHORTEST = 4
"""Shorter values would blank out ordinary text; they are refused when they are resolved."""

_CHUNK = 64 * 1024
_DRAIN_S = 2.0


class Redactor:
    """Replaces secret values in a stream of bytes.

    Hidden forms of a value: itself, each of its longer lines, base64 (plain and URL-safe, at
    any alignment), URL-encoded, hexadecimal, and as JSON and Python write it.

    Args:
        values: The secret values.
    """

    def __init__(self, values: list[bytes]) -> None:
        forms = {form for value in values for form in _forms(value) if len(form) >= _SHORTEST}
        self._forms = sorted(forms, key=len, reverse=True)
        joined = b"|".join(re.escape(form) for form in self._forms)
        self._pattern = re.compile(joined) if joined else None
        self._starts = {form[:size] for form in self._forms for size in range(1, len(form))}
        self._longest = max((len(form) for form in self._forms), default=0)

    def redact(self, data: bytes) -> bytes:
        """Return whole data without secrets."""
        return data if self._pattern is None else self._pattern.sub(MASK, data)

    def text(self, text: str) -> str:
        """Return text without secrets."""
        return self.redact(text.encode("utf-8", "surrogateescape")).decode(errors="replace")

    def split(self, data: bytes) -> tuple[bytes, bytes]:
        """Return what can be passed on of a stream, and the end that may begin a secret."""
        data = self.redact(data)
        for size in range(min(self._longest - 1, len(data)), 0, -1):
            if data[-size:] in self._starts:
                return (data[:-size], data[-size:])
        return (data, b"")

    def file(self, path: Path) -> None:
        """Rewrite a small file without secrets; a missing one and a link are left alone."""
        if path.is_file() and not path.is_symlink():
            before = path.read_bytes()
            after = self.redact(before)
            if after != before:
                path.write_bytes(after)


def _forms(value: bytes) -> set[bytes]:
    text = value.decode("utf-8", "surrogateescape")
    forms = {value, *(line for line in value.splitlines() if len(line) >= 2 * _SHORTEST)}
    forms |= {quote(text, safe="", errors="surrogateescape").encode()}
    forms |= {quote_plus(text, errors="surrogateescape").encode(), quote(text).encode()}
    forms |= {value.hex().encode(), value.hex().upper().encode()}
    forms |= {text.encode("unicode_escape"), repr(value)[2:-1].encode()}
    for shift in range(3):
        # Without the characters that neighbouring bytes also shape.
        coded = base64.b64encode(b"\0" * shift + value)
        first = (shift * 8 + 5) // 6
        last = (shift + len(value)) * 8 // 6
        middle = coded[first:last]
        forms |= {middle, middle.translate(bytes.maketrans(b"+/", b"-_"))}
    return forms


def from_environment() -> Redactor:
    """Return the redactor of this process's own secrets."""
    names = os.environ.get(VARIABLES, "").split(",")
    values = [os.environ[name].encode() for name in names if name in os.environ]
    folder = os.environ.get(FOLDER)
    if folder:
        values += [path.read_bytes().strip() for path in Path(folder).iterdir()]
    return Redactor(values)


def _pump(redactor: Redactor, source: int, target: int) -> None:
    rest = b""
    while chunk := os.read(source, _CHUNK):
        ready, rest = redactor.split(rest + chunk)
        _write(target, ready)
    _write(target, redactor.redact(rest))


def _write(target: int, data: bytes) -> None:
    while data:
        data = data[os.write(target, data) :]


def main(command: list[str]) -> None:
    """Run a command, filter its output, and end as it ended."""
    redactor = from_environment()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    # The stop signal reaches every process of the attempt: the payload decides, not we.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pumps: list[threading.Thread] = []
    for stream, target in ((child.stdout, 1), (child.stderr, 2)):
        if stream is not None:
            pump = threading.Thread(target=_pump, args=(redactor, stream.fileno(), target))
            pump.daemon = True
            pump.start()
            pumps.append(pump)
    code = child.wait()
    for pump in pumps:
        # A daemon of the payload may hold the pipe open for ever; it is killed after us.
        pump.join(_DRAIN_S)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as exc:
        sys.stderr.write(f"cannot start {sys.argv[1]!r}: {exc.strerror}\n")
        sys.exit(127)
