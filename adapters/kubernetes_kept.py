"""Whether an API server kept all that it was sent: an older one drops what it does not know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from temporal_fabric.shapes import is_rows, is_table

if TYPE_CHECKING:
    from collections.abc import Iterator


def dropped(sent: Any, kept: Any) -> list[str]:
    """Return the fields that were sent and are not there, as paths; values may differ."""
    return list(_dropped(sent, kept, ""))


def _dropped(sent: Any, kept: Any, at: str) -> Iterator[str]:
    if is_table(sent):
        for name, value in sent.items():
            if value in ({}, [], "", None, False, 0):
                continue  # an empty value is as good as none
            if not is_table(kept) or name not in kept:
                yield f"{at}/{name}"
            else:
                yield from _dropped(value, kept[name], f"{at}/{name}")
    elif is_rows(sent) and is_rows(kept):
        for place, value in enumerate(sent[: len(kept)]):
            yield from _dropped(value, kept[place], f"{at}/{place}")
        if len(kept) < len(sent):
            yield at
