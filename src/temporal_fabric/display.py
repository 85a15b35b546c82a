"""Short tables for notebooks. Everything shown is escaped: a payload wrote some of it."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_LONGEST = 300


def table(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """Return a two-column table as HTML; rows without a value are left out."""
    lines = [
        f"<tr><th style='text-align:left'>{escape(name)}</th>"
        f"<td style='text-align:left'>{escape(_short(value))}</td></tr>"
        for name, value in rows
        if value not in (None, "", 0)
    ]
    return f"<table><caption>{escape(title)}</caption>{''.join(lines)}</table>"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
