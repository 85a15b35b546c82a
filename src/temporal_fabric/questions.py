"""What a person is asked where nobody else can know, and what they answered.

Like `messages`, these stand in recorded histories: fields are only ever added, with a default.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Answer(StrEnum):
    """What a person may answer; which of them are offered depends on the question."""

    DONE = "done"
    NOT_DONE = "not-done"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer that a question offers."""

    answer: str
    follows: str
    """What it says, and what follows from it."""


@dataclass(frozen=True, slots=True)
class Question:
    """What only a person can settle, put while an experiment is HELD."""

    number: int
    """1, 2, ... within one run; an answer may name it."""

    text: str
    choices: list[Choice] = field(default_factory=list[Choice])
    epoch: int = 0
    backend: str = ""


@dataclass(frozen=True, slots=True)
class Resolution:
    """Who answered a question, when, and how. It stays in the result of the run for good."""

    answer: str
    by: str
    """Who says so, by their own account: the fabric knows no passwords."""

    note: str = ""
    """Why, in their words."""

    question: int = 0
    """Number of the question; 0 for the one that is open."""

    epoch: int = 0
    at: str = ""


def said(word: Resolution) -> str:
    """Return an answer as a sentence."""
    return f"{word.by} says: {word.answer}" + (f" ({word.note})" if word.note else "")
