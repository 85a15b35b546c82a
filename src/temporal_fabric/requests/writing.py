"""Writing a body as YAML that every reader takes the same way.

Strings are written as in JSON unless they are plain words, so nothing depends on which YAML
version a reader follows: ``no``, ``1e5`` and ``12:30`` stay strings.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from temporal_fabric.shapes import is_rows, is_table

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["to_yaml"]

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_RESERVED = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf"})
# Several lines, none of them of a kind that a literal block would change.
_LINES = re.compile(r"[!-~][ -~]*(?:\n[ -~]*)*\n?(?<![\n ]\n)(?<! )", re.ASCII)
# Not printable in YAML, or taken for a line break by some readers.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")


def to_yaml(body: dict[str, Any]) -> str:
    """Return a body as block-style YAML."""
    return "\n".join(_block(body, "", "")) + "\n"


def _block(value: Any, indent: str, first: str) -> Iterator[str]:
    """Yield the lines of a mapping or list; the first one starts with `first`."""
    if is_table(value):
        for key, item in value.items():
            yield from _entry(f"{first}{_string(key)}:", item, indent)
            first = indent
    else:
        for item in value:
            if (is_table(item) or is_rows(item)) and item:
                yield from _block(item, f"{indent}  ", f"{first}- ")
            else:
                yield from _entry(f"{first}-", item, indent)
            first = indent


def _entry(head: str, item: Any, indent: str) -> Iterator[str]:
    inner = f"{indent}  "
    if (is_table(item) or is_rows(item)) and item:
        yield head
        yield from _block(item, inner, inner)
    elif isinstance(item, str) and "\n" in item[:-1] and _LINES.fullmatch(item):
        yield f"{head} {'|' if item.endswith(chr(10)) else '|-'}"
        for line in item.removesuffix("\n").split("\n"):
            yield f"{inner}{line}" if line else ""
    else:
        yield f"{head} {_scalar(item)}"


def _scalar(value: Any) -> str:
    return _string(value) if isinstance(value, str) else json.dumps(value, allow_nan=False)


def _string(text: str) -> str:
    if _WORD.fullmatch(text) and text.lower() not in _RESERVED:
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)
