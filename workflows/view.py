"""What Temporal's own UI, CLI and visibility show of an experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from temporalio import workflow
from temporalio.common import SearchAttributeKey, SearchAttributeUpdate

from temporal_fabric import names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from temporal_fabric.messages import Grant
    from temporal_fabric.outcomes import Compensated, Moment
    from temporal_fabric.questions import Question
    from temporal_fabric.states import State

_TENANT = SearchAttributeKey.for_keyword(names.SA_TENANT)
_STATE = SearchAttributeKey.for_keyword(names.SA_STATE)
_REASON = SearchAttributeKey.for_keyword(names.SA_REASON)
_BACKEND = SearchAttributeKey.for_keyword(names.SA_BACKEND)
_KIND = SearchAttributeKey.for_keyword(names.SA_KIND)
_TAGS = SearchAttributeKey.for_keyword_list(names.SA_TAGS)
_PRIORITY = SearchAttributeKey.for_int(names.SA_PRIORITY)


def search_attributes(state: State, reason: str, grant: Grant) -> list[SearchAttributeUpdate[Any]]:
    """Return what visibility should say of an experiment now."""
    return [
        _TENANT.value_set(grant.tenant),
        _STATE.value_set(str(state)),
        _REASON.value_set(reason) if reason else _REASON.value_unset(),
        _BACKEND.value_set(grant.backend),
        _KIND.value_set(grant.kind),
        _TAGS.value_set(list(grant.tags)),
        _PRIORITY.value_set(grant.priority),
    ]


def details(
    timeline: Sequence[Moment],
    reason: str,
    grant: Grant | None,
    native_id: str,
    capsule: str,
    *,
    question: Question | None,
    undone: Sequence[Compensated],
) -> str:
    """Return the current details: state, place, question and timeline, as markdown."""
    last = timeline[-1]
    lines = [f"**{last.state}** since {last.at}" + (f" ({reason})" if reason else "")]
    if grant is not None:
        where = f"- backend `{grant.backend}`, epoch {grant.epoch}"
        lines += ["", where + (f", {native_id}" if native_id else "")]
    if capsule:
        lines.append(f"- capsule `{capsule}`")
    if question is not None:
        _, request_id = names.request_of(workflow.info().workflow_id)
        lines += ["", question.text, ""]
        lines += [
            f"- `temporal-fabric resolve {request_id} --as {choice.answer}`: {choice.follows}"
            for choice in question.choices
        ]
    for done in undone:
        lines.append(f"- rollback `{done.name}`: {'done' if done.ok else 'FAILED'}")
    # A code block, because the web UI sets a table's columns without a space between them.
    lines += ["", "```", *(f"{moment.state:<11} {moment.at}" for moment in timeline), "```"]
    return "\n".join(lines)
