"""``--set path=value``: changing single fields of a request body."""

from __future__ import annotations

import copy
from typing import Any

import yaml

from temporal_fabric.errors import Problem, RequestRejected
from temporal_fabric.shapes import is_list, is_table

_LONGEST = 80


def apply_overrides(body: dict[str, Any], settings: tuple[str, ...]) -> dict[str, Any]:
    """Return a body with fields replaced.

    Args:
        body: A request body; it is not changed.
        settings: ``path=value`` each. A path is dotted (``retry.max_attempts``), a number in
            it is a place in a list. A value is read as YAML, so ``3`` is a number and
            ``"3"`` a string; an empty one is null. A variable below ``env`` is always text.

    Raises:
        RequestRejected: every setting that has no such form or no such place.
    """
    changed, problems = copy.deepcopy(body), list[Problem]()
    for setting in settings:
        path, equals, text = setting.partition("=")
        try:
            _check_form(path, equals)
            _put(changed, path.strip("/").replace("/", ".").split("."), text)
        except (ValueError, yaml.YAMLError) as exc:
            message = f"--set {setting[:_LONGEST]!r} {str(exc).splitlines()[0]}"
            problems.append(Problem("E_PARSE", "/" + path.replace(".", "/"), message))
    if problems:
        raise RequestRejected(problems)
    return changed


def _check_form(path: str, equals: str) -> None:
    if not equals or not path:
        raise ValueError("is not path=value")


def _put(box: Any, path: list[str], text: str) -> None:
    *parents, last = path
    value = text if parents[-1:] == ["env"] else yaml.safe_load(text)
    for key in parents:
        box = _step(box, key)
    if is_list(box):
        box[_place(box, last)] = value
    else:
        box[last] = value


def _step(box: Any, key: str) -> Any:
    inner: Any = box[_place(box, key)] if is_list(box) else box.setdefault(key, {})
    if not (is_table(inner) or is_list(inner)):
        raise ValueError(f"leads through {key!r}, which holds no fields")
    return inner


def _place(box: list[Any], key: str) -> int:
    if not key.isdecimal() or int(key) >= len(box):
        raise ValueError(f"names place {key!r} of a list of {len(box)}")
    return int(key)
