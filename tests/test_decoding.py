"""Messages decode by types that are worked out once."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass

from temporalio.converter import value_to_type

from temporal_fabric import decoding, flow_messages, messages, outcomes, questions


def test_every_message_has_types_in_place_of_strings() -> None:
    """A field that is added later is decoded as quickly."""
    decoding.prepare()

    known = [
        value
        for module in (questions, outcomes, messages, flow_messages)
        for value in vars(module).values()
        if isinstance(value, type) and is_dataclass(value)
    ]
    texts = [
        f"{message.__name__}.{name}"
        for message in known
        for name, kind in message.__annotations__.items()
        if isinstance(kind, str)
    ]
    assert messages.Grant in known
    assert outcomes.ExperimentResult in known
    assert texts == []


def test_a_message_decodes_as_it_was() -> None:
    """Also its lists, what may be absent, and what is a message itself."""
    decoding.prepare()
    attempt = outcomes.AttemptResult(
        epoch=2, backend="local@h", ok=True, outputs=[outcomes.OutputFile("a", 1, "00")]
    )
    result = outcomes.ExperimentResult(
        "SUCCEEDED", attempts=[attempt], timeline=[outcomes.Moment("QUEUED", "now")]
    )

    sent = messages.SealInput(result)
    grant = messages.Grant("t", "id", "00", 2, "local@h", "process", "", recorded=result)

    assert value_to_type(messages.SealInput, asdict(sent)) == sent
    assert value_to_type(messages.Grant, asdict(grant)) == grant
