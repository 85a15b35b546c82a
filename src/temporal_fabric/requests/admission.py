"""Admission: a body in any form becomes a validated request, or every problem is reported.

The same code runs in the client and in the first activity. It is a pure function of the body:
no clock, no network, no configuration, so both come to the same answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from temporal_fabric.errors import Problem, RequestRejected
from temporal_fabric.names import parse_workflow_id
from temporal_fabric.requests import limits
from temporal_fabric.requests.consistency import contradictions
from temporal_fabric.requests.digests import digest, field_digests
from temporal_fabric.requests.leaks import leaked_credentials
from temporal_fabric.requests.locating import Locator
from temporal_fabric.requests.models import ExecutionRequest
from temporal_fabric.requests.problems import model_problems, not_below, ordered
from temporal_fabric.requests.reading import decode, hole, read_object, read_text
from temporal_fabric.requests.sbatch import converted_script
from temporal_fabric.requests.tasks import converted_task
from temporal_fabric.requests.texts import show
from temporal_fabric.shapes import is_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from temporal_fabric.requests.conversions import Conversion
    from temporal_fabric.requests.fields import Model
    from temporal_fabric.requests.trees import Document

__all__ = ["Admission", "admit", "convert", "read_file"]

_FIRING = re.compile(r"(.+)-(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)Z")


@dataclass(frozen=True, slots=True)
class Admission:
    """An admitted request."""

    request: ExecutionRequest
    digest: str
    """``sha256:<hex>`` of what the request asks for, without id and tenant."""

    field_digests: dict[str, str]
    """Short digest of each field, to name what differs between two requests."""

    notes: tuple[str, ...] = ()
    """How a task or a script was mapped, one line each; empty for a request."""


def admit(
    body: bytes | str | Mapping[str, Any] | Any,
    *,
    source: str | None = None,
    workflow_id: str | None = None,
    default_id: str | None = None,
) -> Admission:
    """Validate a body.

    Args:
        body: YAML, JSON, a task, or a script with #SBATCH lines, as bytes or text; or a
            mapping; or an `ExecutionRequest`.
        source: Name of the file, for messages; its ending decides between JSON and YAML.
        workflow_id: ``experiment/<tenant>/<id>``: fills in id and tenant where the body has
            none, and must agree where it has. A Schedule's time at its end is understood.
        default_id: Id of a body that has none, where no workflow id gives one.

    Raises:
        RequestRejected: with every problem, at most 20, the first ones by line.
    """
    document, conversion = _read(body, source)
    if not isinstance(document.tree, dict):
        found = document.problems or [_not_a_mapping(document)]
        raise RequestRejected(ordered(found), source=source)
    if conversion is not None and conversion.default_id is not None:
        default_id = conversion.default_id
    conflicts = _identify(document, workflow_id, default_id)
    request, problems = _validated(document, conversion)
    problems += conflicts
    if problems or request is None:
        raise RequestRejected(ordered(problems), source=source)
    notes = () if conversion is None else conversion.notes
    return Admission(request, digest(request), field_digests(request), notes)


def convert(body: bytes | str, *, source: str | None = None) -> Admission:
    """Admit a task or a script; `Admission.notes` says how each part was mapped.

    Raises:
        RequestRejected: with every problem; also for a body that needs no conversion.
    """
    _, conversion = _read(body, source)
    if conversion is None:
        message = "is neither a task with an `execution` block nor a script with #SBATCH lines"
        raise RequestRejected([Problem("E_PARSE", "", message)], source=source)
    return admit(body, source=source)


def read_file(path: Path) -> bytes:
    """Return a request file's content.

    Raises:
        RequestRejected: where it cannot be read or is too large.
    """
    try:
        with path.open("rb") as file:
            # One byte more than the limit is enough to see that it is too large.
            return file.read(limits.BODY_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the name is not usable"
        message = f"cannot be read: {reason}; check the file's name and permissions"
        problem = Problem("E_PATH", "", message, actual=show(str(path)))
        raise RequestRejected([problem], source=str(path)) from None


def _read(body: Any, source: str | None) -> tuple[Document, Conversion | None]:
    if isinstance(body, ExecutionRequest):
        return _read_model(body), None
    if isinstance(body, (bytes, bytearray, str)):
        text = decode(bytes(body) if isinstance(body, bytearray) else body)
        if isinstance(text, Problem):
            return hole(text), None
        script = converted_script(text)
        if script is not None:
            return script.document, script
        document = read_text(text, source=source)
    else:
        document = read_object(body)
    task = converted_task(document)
    return (document, None) if task is None else (task.document, task)


def _read_model(request: ExecutionRequest) -> Document:
    try:
        return read_object(request.model_dump(exclude_defaults=True, by_alias=True, warnings=False))
    except (ValueError, AttributeError):
        # `model_construct` takes anything without looking.
        message = "is a request that was built without validation; use ExecutionRequest(...)"
        return hole(Problem("E_TYPE", "", message))


def _not_a_mapping(document: Document) -> Problem:
    what = "is empty" if document.tree is None else "is not a mapping"
    message = f"{what}; a request starts with `id:` and `payload:`"
    return Problem("E_TYPE", "", message, line=document.mark.line)


def _identify(document: Document, workflow_id: str | None, default_id: str | None) -> list[Problem]:
    """Bring id and tenant of the body together with those of the workflow id."""
    tree: dict[str, Any] = document.tree
    if workflow_id is None:
        if default_id is not None:
            tree.setdefault("id", default_id)
        return []
    parsed = parse_workflow_id(workflow_id)
    if parsed is None:
        message = "the workflow id must be experiment/<tenant>/<request id>"
        return [Problem("E_NAME", "", message, actual=show(workflow_id))]
    tenant, given = parsed
    firing = _FIRING.fullmatch(given)
    accepted = {given}
    if firing is not None:
        # A Schedule appends the time of each firing; each of them is an experiment.
        given = f"{firing[1]}-{''.join(firing.groups()[1:4])}t{''.join(firing.groups()[4:])}z"
        accepted = {firing[1], given}
    locator = Locator(tree, document.mark)
    problems: list[Problem] = []
    for key, wanted, values in (("id", given, accepted), ("tenant", tenant, {tenant})):
        stated = tree.get(key)
        if stated is None or (isinstance(stated, str) and stated in values):
            tree[key] = wanted
        elif isinstance(stated, str):
            problems.append(_disagreement(locator, key, stated, wanted))
    return problems


def _disagreement(locator: Locator, key: str, stated: str, wanted: str) -> Problem:
    message = f"contradicts the workflow id, which says {show(wanted)}; make them agree"
    line = locator.mark((key,)).line
    return Problem("E_CONFLICT", f"/{key}", message, actual=show(stated), line=line)


def _validated(
    document: Document, conversion: Conversion | None
) -> tuple[ExecutionRequest | None, list[Problem]]:
    """Validate a tree: the request where the models accept it, and every problem."""
    tree: dict[str, Any] = document.tree
    origin = None if conversion is None else conversion.origin
    locator = Locator(tree, document.mark, origin)
    models: dict[int, type[Model]] = {}
    request: ExecutionRequest | None = None
    found: list[Problem] = []
    try:
        request = ExecutionRequest.model_validate(
            tree, by_alias=True, by_name=False, context=models
        )
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        found = model_problems(errors, locator, models, document.problems)
    found = [*document.problems, *found]
    found += _engine_problems(tree if request is None else request.to_body(), found)
    # An accepted request is searched in its normal form, with defaults and without short forms.
    body = tree if request is None else request.to_full_body()
    return request, [*found, *not_below(_across_fields(body, locator), found)]


_ENGINES = {"flow": "temporal_fabric.flows.requested"}
"""Whose ``problems`` looks into a payload that it is going to run. Engines stand above requests,
so they are named here and not imported; a request of another kind loads none of them."""


def _engine_problems(body: dict[str, Any], known: list[Problem]) -> list[Problem]:
    payload = body.get("payload")
    kind = next(iter(payload), None) if is_table(payload) and len(payload) == 1 else None
    if kind not in _ENGINES:
        return []
    found: list[Problem] = import_module(_ENGINES[kind]).problems(body)
    return list(not_below(found, known))


def _across_fields(body: dict[str, Any], locator: Locator) -> list[Problem]:
    return [
        Problem(
            code,
            locator.pointer(path),
            what,
            actual=None if code == "E_SECRET" else _short(locator.node(path)),
            line=locator.mark(path).line,
        )
        for code, path, what in (*contradictions(body), *leaked_credentials(body))
    ]


def _short(value: Any) -> str | None:
    return show(value) if isinstance(value, str) else None
