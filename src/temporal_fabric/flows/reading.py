"""Reading a specification: YAML, JSON, TOML, a mapping, or the seed family's dictionary.

Every problem is reported at once, with code, place, and what to do. Nothing is computed.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from temporal_fabric.errors import Problem, RequestRejected
from temporal_fabric.flows.linting import contradictions
from temporal_fabric.flows.seed_form import is_seed_form, translated
from temporal_fabric.flows.spec import FlowSpec
from temporal_fabric.requests.locating import Locator
from temporal_fabric.requests.problems import model_problems, not_below, ordered
from temporal_fabric.requests.reading import decode, hole, read_object, read_text
from temporal_fabric.shapes import is_table

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.requests.fields import Model
    from temporal_fabric.requests.trees import Document

__all__ = ["read_spec", "read_spec_file"]


def read_spec(body: Any, *, source: str | None = None) -> FlowSpec:
    """Return the specification that a body holds.

    Args:
        body: YAML, JSON or TOML as text or bytes; a mapping; or a `FlowSpec`.
        source: Name of the file; ``.toml`` and ``.json`` decide the language.

    Raises:
        RequestRejected: with every problem, under E_FLOW where parts contradict each other.
    """
    document = _document(body, source)
    if not is_table(document.tree):
        found = document.problems or [
            Problem("E_TYPE", "", "is not a mapping; start with `state:`")
        ]
        raise RequestRejected(ordered(found), source=source)
    locator = Locator(document.tree, document.mark)
    models: dict[int, type[Model]] = {}
    spec: FlowSpec | None = None
    found = document.problems
    try:
        spec = FlowSpec.model_validate(document.tree, context=models)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        found = [*found, *model_problems(errors, locator, models, found)]
    across = [
        Problem("E_FLOW", locator.pointer(path), what, line=locator.mark(path).line)
        for path, what in contradictions(document.tree if spec is None else spec.model_dump())
    ]
    found = [*found, *not_below(across, found)]
    if found or spec is None:
        raise RequestRejected(ordered(found), source=source)
    return spec


def read_spec_file(path: Path) -> FlowSpec:
    """Return the specification in a file.

    Raises:
        RequestRejected: as `read_spec`, and where the file cannot be read.
    """
    try:
        body = path.read_bytes()
    except OSError as error:
        problem = Problem("E_PATH", "", f"cannot be read: {error.strerror}; check the file's name")
        raise RequestRejected([problem], source=str(path)) from None
    return read_spec(body, source=str(path))


def _document(body: Any, source: str | None) -> Document:
    if isinstance(body, FlowSpec):
        return read_object(body.model_dump(exclude_defaults=True))
    if isinstance(body, (bytes, str)):
        text = decode(body)
        if isinstance(text, Problem):
            return hole(text)
        if (source or "").endswith(".toml"):
            return _toml(text)
        document = read_text(text, source=source)
    else:
        document = read_object(translated(body) if is_seed_form(body) else body)
    if is_seed_form(document.tree):
        return read_object(translated(document.tree))
    return document


def _toml(text: str) -> Document:
    try:
        return read_object(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        return hole(Problem("E_PARSE", "", f"is not valid TOML: {error}"))
