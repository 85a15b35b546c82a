"""Decoding what travels through Temporal without working out its types each time.

Temporal's converter asks `typing.get_type_hints` for the fields of each value it decodes, and
each time that compiles every annotation of ours, which are strings. It was half of the time of
decoding.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import TYPE_CHECKING, get_type_hints

from temporal_fabric import flow_messages, messages, outcomes, questions

if TYPE_CHECKING:
    from types import ModuleType


@cache
def prepare() -> None:
    """Put types in place of the strings, in every message; once for a process."""
    for module in (questions, outcomes, messages, flow_messages):
        for known in _messages(module):
            known.__annotations__ = get_type_hints(known)


def _messages(module: ModuleType) -> list[type]:
    found = [known for known in vars(module).values() if isinstance(known, type)]
    return [known for known in found if dataclasses.is_dataclass(known)]
