"""Batch scripts with ``#SBATCH`` lines: the options become a request, the script its command.

Only options with an equivalent are taken; one that would change what runs and has none is
refused, so that a script never runs differently in silence. Options are data: nothing of them
is handed to a command line.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from temporal_fabric.requests import limits
from temporal_fabric.requests.conversions import Conversion, Draft
from temporal_fabric.requests.sbatch_options import SHORT, TAKES_NOTHING, Job
from temporal_fabric.requests.trees import Mark

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["converted_script"]

_DIRECTIVE = re.compile(r"#SBATCH(?:[ \t]+(.*))?$")
_PLACEHOLDER = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]{0,63}(?::?-([^${}]{0,256}))?\}")
_LINE_CHARS = 4096
_SHELLS = ("sh", "bash", "dash", "ksh", "zsh")
_PYTHON = re.compile(r"python(?:3(?:\.[0-9]{1,2})?)?")


@dataclass(slots=True)
class _Script:
    lines: list[str]
    draft: Draft


def converted_script(text: str) -> Conversion | None:
    """Return the request made from a script, or None where the text is none."""
    lines = text.split("\n")
    if not (text.startswith("#!") or _has_directive(lines)):
        return None
    script = _Script(lines, Draft(Mark(1)))
    job = Job(script.draft)
    for number, line in _directives(script):
        for option, value in _options(script, number, line):
            job.take(option, value, Mark(number))
    job.finish()
    _put_command(script, text, job.name)
    slug = re.sub(r"[^a-z0-9._-]+", "-", job.name.lower()).strip("._-")[:40] or "script"
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return script.draft.conversion([], f"{slug}-{digest}")


def _has_directive(lines: list[str]) -> bool:
    for line in lines:
        if line.startswith("#SBATCH"):
            return True
        if line.strip() and not line.lstrip().startswith("#"):
            return False
    return False


def _directives(script: _Script) -> Iterator[tuple[int, str]]:
    """Yield the option lines before the first command, as Slurm does."""
    ended = False
    for number, line in enumerate(script.lines, start=1):
        match = _DIRECTIVE.match(line.removesuffix("\r"))
        if match is not None and not ended:
            yield number, match[1] or ""
        elif match is not None:
            script.draft.note(
                f"line {number}", "left out: Slurm stops reading at the first command"
            )
        ended = ended or bool(line.strip() and not line.lstrip().startswith("#"))


def _options(script: _Script, number: int, line: str) -> Iterator[tuple[str, str]]:
    words = _words(script, number, line)
    while words and not script.draft.is_full:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if word.startswith("--"):
            option = name[2:]
        elif word.startswith("-") and len(word) > 1:
            option, equals, value = SHORT.get(word[1], word[1]), word[2:3], word[2:].lstrip("=")
        else:
            _refuse(script, number, "is not an option", word)
            continue
        if not equals and option not in TAKES_NOTHING and words:
            value = words.pop(0)
        yield option, value


def _words(script: _Script, number: int, line: str) -> list[str]:
    if len(line) > _LINE_CHARS:
        _refuse(script, number, f"is longer than {_LINE_CHARS} characters", line)
        return []
    for match in _PLACEHOLDER.finditer(line):
        if match[1] is None:
            _refuse(script, number, "has a placeholder without a default", match[0])
            return []
        script.draft.note(f"line {number}: {match[0]}", f"its default {match[1]!r}")
    try:
        return shlex.split(_PLACEHOLDER.sub(lambda match: match[1], line), comments=True)
    except ValueError:
        _refuse(script, number, "has a quote that is not closed", line)
        return []


def _refuse(script: _Script, number: int, what: str, actual: str) -> None:
    script.draft.refuse("E_SLURM_FIELD", what, Mark(number), "", actual)


def _put_command(script: _Script, text: str, name: str) -> None:
    command = ("payload", "process", "command")
    if len(text.encode("utf-8", "surrogatepass")) > limits.STRING_BYTES:
        what = "is a script too long to carry; put it into a file and bring that as `workdir`"
        script.draft.refuse("E_TOO_LARGE", what, Mark(1), "")
    interpreter = _interpreter(script)
    tail = [] if _PYTHON.fullmatch(interpreter[-1].rpartition("/")[2]) else [name]
    script.draft.put(command, [*interpreter, "-c", text, *tail], Mark(1))
    script.draft.note("the script", f"payload.process.command: {' '.join(interpreter)} -c ...")


def _interpreter(script: _Script) -> list[str]:
    first = script.lines[0] if script.lines else ""
    if not first.startswith("#!"):
        script.draft.note("no #! line", "/bin/sh")
        return ["/bin/sh"]
    words = first[2:].split()
    program = next((word for word in words if not word.startswith("-")), "").rpartition("/")[2]
    if program == "env":
        words = words[1:]
        program = (words or [""])[0].rpartition("/")[2]
    if program in _SHELLS or _PYTHON.fullmatch(program):
        return words
    what = "has an interpreter other than a shell or Python"
    script.draft.refuse("E_SLURM_FIELD", what, Mark(1), "", first)
    return ["/bin/sh"]
