"""A person's answer: which are taken, and what an attempt's own question leads to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from temporal_fabric.clock import stamp
from temporal_fabric.outcomes import AttemptResult
from temporal_fabric.questions import Answer, Choice, Resolution, said
from temporal_fabric.shapes import is_table
from temporal_fabric.states import Reason, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from temporal_fabric.workflows.standing import Standing
    from temporal_fabric.workflows.wishes import GivenUp, Wishes

_LONGEST = {"by": 200, "note": 2000}
_OF_AN_ATTEMPT = (
    Choice(Answer.DONE, "it is done: the next attempt goes on from there"),
    Choice(Answer.NOT_DONE, "it is not: the next attempt does it"),
    Choice(Answer.ABORT, "nobody can say: the experiment ends with what is known"),
)


def check_answer(standing: Standing, wishes: Wishes, given: Any) -> None:
    """Refuse what is no answer to the open question; the same answer again is none too many.

    Args:
        standing: Has the question.
        wishes: Has an answer that nobody has taken yet.
        given: ``{"as": ..., "by": ..., "note": ..., "question": ...}``, the last two optional.

    Raises:
        ApplicationError: E_TYPE, E_CONFLICT, with the reason.
    """
    word, wrong = _read(given)
    if word is None:
        raise ApplicationError(wrong, type="E_TYPE")
    known = _known(standing, wishes, word)
    if known is not None:
        if known.answer == word.answer:
            return
        said = f"{known.by} has answered {known.answer} at {known.at}"
        raise ApplicationError(f"it is answered already: {said}", type="E_CONFLICT")
    question = standing.question
    if question is None:
        raise ApplicationError(
            f"nobody is asked: it is {standing.state}, not HELD", type="E_CONFLICT"
        )
    if word.question not in {0, question.number}:
        raise ApplicationError(
            f"question {word.question} is not open: it is {question.number} now", type="E_CONFLICT"
        )
    choices = [choice.answer for choice in question.choices]
    if word.answer not in choices:
        offered = ", ".join(choices)
        raise ApplicationError(
            f"{word.answer} is no answer to this question; it takes {offered}", type="E_CONFLICT"
        )


async def resolve(standing: Standing, wishes: Wishes, given: Any) -> Resolution | None:
    """Give an answer to whoever waits for it; return it once it counts, None where it does not.

    The first answer counts. Who gives the same one again hears the same.
    """
    word, _ = _read(given)
    question = standing.question
    if word is None:
        return None
    known = _known(standing, wishes, word)
    if known is None and question is not None:
        at = stamp(workflow.now())
        known = replace(word, question=question.number, epoch=question.epoch, at=at)
        wishes.answer = known
    await workflow.wait_condition(lambda: wishes.answer is None)
    return known if known in standing.resolutions else None


def _known(standing: Standing, wishes: Wishes, word: Resolution) -> Resolution | None:
    """Return the answer that has been given to the question that this one is about."""
    given = [*standing.resolutions, *([wishes.answer] if wishes.answer else [])]
    number = word.question
    if not number and standing.question is not None:
        number = standing.question.number
    elif not number and given:
        number = given[-1].question
    return next((known for known in given if known.question == number), None)


async def asked(ended: AttemptResult, standing: Standing, wishes: Wishes) -> AttemptResult:
    """Hold the experiment with an attempt's own question, and return the attempt as answered.

    Raises:
        CancelRequested: a person cancelled instead.
        DeadlinePassed: it is too late.
    """
    ended = await put(ended.question, _OF_AN_ATTEMPT, ended, standing, wishes)
    if ended.answer == Answer.ABORT:
        standing.move(State.COLLECTING, ended.reason)
    standing.attempts[-1] = ended
    return ended


async def put(
    text: str, choices: Sequence[Choice], ended: AttemptResult, standing: Standing, wishes: Wishes
) -> AttemptResult:
    """Hold the experiment with a question about what has ended, and return that as answered.

    Raises:
        CancelRequested: a person cancelled instead.
        DeadlinePassed: it is too late.
    """
    standing.hold(text, choices, ended.epoch, ended.backend, ended.reason)
    await wishes.until(lambda: wishes.answer is not None)
    word, wishes.answer = wishes.answer, None
    if word is None:
        return ended
    standing.answered(word)
    return replace(ended, answer=word.answer, message=f"{ended.message}; {said(word)}")


def given_up(exc: GivenUp, at: str) -> AttemptResult:
    """Return the end of a run of which a person says that nobody can know what still runs."""
    return AttemptResult(
        epoch=exc.epoch,
        backend=exc.backend,
        ok=False,
        reason=Reason.LOST,
        message=of_silent(exc.backend, exc.resolution),
        ended_at=at,
        answer=exc.resolution.answer,
    )


def of_silent(backend: str, word: Resolution) -> str:
    """Return a person's word on a silent backend as the message of what came of it."""
    return f"{backend} was silent; {said(word)}"


def _read(given: Any) -> tuple[Resolution | None, str]:
    """Return an answer as it came, or what is wrong with it."""
    if not is_table(given):
        return (None, 'not an answer: give {"as": "done", "by": "NAME"}')
    answer, number = given.get("as"), given.get("question", 0)
    if answer not in set(Answer):
        return (None, f"not an answer: {answer!r}; give one of {', '.join(Answer)}")
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        return (None, f"not the number of a question: {number!r}")
    texts = {name: given.get(name, "") for name in _LONGEST}
    for name, text in texts.items():
        if not isinstance(text, str) or len(text) > _LONGEST[name] or not _plain(text):
            return (None, f"`{name}` is a text of {_LONGEST[name]} characters at most")
    if not texts["by"].strip():
        return (None, "who says so? give `by`")
    return (Resolution(str(answer), texts["by"].strip(), texts["note"], number), "")


def _plain(text: str) -> bool:
    return all(char.isprintable() or char in "\n\t" for char in text)
