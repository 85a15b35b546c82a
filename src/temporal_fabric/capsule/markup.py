"""Elements of an HTML page, as a tree: text is escaped because it is text.

No part of a page is ever put together from strings, so nothing that a payload wrote can become
a tag or an attribute.
"""

from __future__ import annotations

import re
from typing import TypeAlias
from xml.etree.ElementTree import Element, tostring

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

Child: TypeAlias = Element | str | int | float | None


def tag(name: str, /, *children: Child | list[Element], **attributes: str | float) -> Element:
    """Return an element.

    Args:
        name: Of HTML or SVG.
        children: Elements and text, or lists of elements; None is left out.
        attributes: ``class_`` stands for ``class``, ``stroke_width`` for ``stroke-width``.
    """
    names = {key: key.rstrip("_").replace("_", "-") for key in attributes}
    element = Element(name, {names[key]: _value(value) for key, value in attributes.items()})
    for child in children:
        for one in child if isinstance(child, list) else (child,):
            _append(element, one)
    return element


def page(title: str, style: str, body: list[Element]) -> str:
    """Return a page that is whole in itself: a browser loads nothing and runs nothing for it."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", style),
    )
    html = tag("html", head, tag("body", body), lang="en")
    return f"<!doctype html>\n{tostring(html, encoding='unicode', method='html')}\n"


def plain(text: str) -> str:
    """Return text without colours of terminals; other control characters become visible."""
    lines = _ANSI.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL.sub("�", lines)


def _append(element: Element, child: Child) -> None:
    if child is None:
        return
    if isinstance(child, Element):
        element.append(child)
    elif len(element):
        element[-1].tail = (element[-1].tail or "") + plain(str(child))
    else:
        element.text = (element.text or "") + plain(str(child))


def _value(value: str | float) -> str:
    return plain(value) if isinstance(value, str) else f"{value:.6g}"
