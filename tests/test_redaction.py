"""Secret values are hidden in every form, and over the borders of chunks."""

from __future__ import annotations

import base64
import random
import signal
import subprocess
import sys
from urllib.parse import quote

import pytest

from temporal_fabric.secrets import redaction
from temporal_fabric.secrets.redaction import MASK, Redactor

SECRET = b'pa$$ word/+"\xc3\xa9\n2nd-line-of-it'

FORMS = {
    "plain": SECRET,
    "a line of it": b"2nd-line-of-it",
    "base64": base64.b64encode(SECRET),
    "base64, shifted by one": base64.b64encode(b"x" + SECRET + b"yy"),
    "base64, shifted by two": base64.b64encode(b"xx" + SECRET + b"y"),
    "base64, for URLs": base64.urlsafe_b64encode(SECRET),
    "URL": quote(SECRET, safe="").encode(),
    "hex": SECRET.hex().encode(),
    "HEX": SECRET.hex().upper().encode(),
    "repr": repr(SECRET).encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_hidden(form: str) -> None:
    """Whatever encoding carries the value, it is masked."""
    hidden = Redactor([SECRET]).redact(b"before " + FORMS[form] + b" after")

    assert MASK in hidden
    assert hidden.startswith(b"before ")
    assert hidden.endswith(b" after")
    assert b"2nd-line" not in hidden


def test_chunk_borders_hide_nothing() -> None:
    """A value cut into any chunks comes out masked, and all other bytes come out as they were."""
    redactor, chance = Redactor([b"canary-value"]), random.Random(5)
    for _ in range(300):
        parts = [chance.choice([b"canary-value", b"can", b"ary-value", b"xyz\n"]) for _ in range(9)]
        text = b"".join(parts)
        out, rest, at = b"", b"", 0
        while at < len(text):
            step = chance.randint(1, 7)
            ready, rest = redactor.split(rest + text[at : at + step])
            out, at = out + ready, at + step
        out += redactor.redact(rest)

        assert out == text.replace(b"canary-value", MASK)


def test_ordinary_text_is_not_held_back() -> None:
    """Only what may begin a secret waits for more."""
    redactor = Redactor([b"canary-value"])

    assert redactor.split(b"epoch 1\n") == (b"epoch 1\n", b"")
    assert redactor.split(b"epoch 1 cana") == (b"epoch 1 ", b"cana")


@pytest.mark.parametrize(
    ("script", "code"), [("exit 7", 7), ("kill -SEGV $$", -signal.SIGSEGV), ("exit 0", 0)]
)
def test_the_filter_ends_as_its_payload(script: str, code: int) -> None:
    """Exit code and signal pass through the filter, the value does not."""
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            str(redaction.__file__),
            "/bin/sh",
            "-c",
            f"echo $T; {script}",
        ],
        env={"T": "canary-value", redaction.VARIABLES: "T", "PATH": "/bin:/usr/bin"},
        capture_output=True,
        check=False,
        timeout=30,
    )

    assert done.returncode == code
    assert done.stdout == MASK + b"\n"
