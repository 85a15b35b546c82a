"""The long answer to one error code or reason token: for the terminal and for the reference.

The answer to a code's example is asked of admission each time, so it cannot be out of date.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from temporal_fabric.errors import RequestRejected
from temporal_fabric.reasons import REASONS
from temporal_fabric.requests.code_examples import EXAMPLES, LIMITS, RAISED_BY
from temporal_fabric.requests.codes import CODES
from temporal_fabric.states import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Entry", "Example", "known", "look_up", "nearest"]


@dataclass(frozen=True, slots=True)
class Example:
    """A file, and what ``temporal-fabric validate`` says to it."""

    file: str
    text: str
    answer: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One code or token: its title, then named paragraphs."""

    token: str
    title: str
    parts: Mapping[str, str]
    example: Example | None = None


def known() -> dict[str, str]:
    """Return every error code and reason token, each with its meaning."""
    codes = {code: row.meaning for code, row in CODES.items()}
    return codes | {str(reason): row.means for reason, row in REASONS.items()}


def nearest(token: str) -> str:
    """Return the known token that looks most like this one, or an empty text."""
    return next(iter(get_close_matches(token.upper(), known(), n=1)), "")


def look_up(token: str) -> Entry:
    """Explain an error code or a reason token.

    Raises:
        KeyError: neither is called so.
    """
    return _of_code(token) if token in CODES else _of_reason(token)


def _of_code(code: str) -> Entry:
    row = CODES[code]
    parts = {
        "Means": row.meaning,
        "Limit": LIMITS.get(code, ""),
        "Raised by": RAISED_BY.get(code, ""),
        "What to do": row.remedy,
    }
    return Entry(code, row.title, _told(parts), _example(code))


def _of_reason(token: str) -> Entry:
    if token not in set(Reason):
        raise KeyError(token)
    row = REASONS[Reason(token)]
    parts = {"Certain": row.certain, "Look first at": row.first}
    return Entry(token, row.means, parts)


def _told(parts: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in parts.items() if text}


def _example(code: str) -> Example | None:
    from temporal_fabric.requests import admit  # noqa: PLC0415 - loads pydantic

    text = EXAMPLES.get(code)
    if text is None:
        return None
    file = "request.json" if text.startswith("{") else "request.yaml"
    file = "job.sh" if text.startswith("#!") else file
    try:
        admit(text.encode(), source=file)
    except RequestRejected as refused:
        answer = str(refused)
    else:
        raise AssertionError(f"the example of {code} is accepted")
    return Example(file, text, f"error: {answer}")
