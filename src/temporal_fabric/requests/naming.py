"""What a request is called: by its id where it brings none, and in one line for people."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from temporal_fabric.shapes import is_table

if TYPE_CHECKING:
    from temporal_fabric.requests.models import ExecutionRequest


def with_id(body: Any) -> Any:
    """Give a body without an id a fresh one: two such submits are two experiments."""
    if is_table(body) and "id" not in body:
        name = str(body.get("name") or next(iter(body.get("payload") or ["run"]), "run"))
        stem = "".join(char if char.isalnum() else "-" for char in name.lower()).strip("-")[:40]
        return {"id": f"{stem or 'run'}-{secrets.token_hex(3)}", **body}
    return body


def summary(request: ExecutionRequest) -> str:
    """Return the one line the UI shows beside the workflow id: what, and for whom."""
    what = request.name or request.id
    process, python = request.payload.process, request.payload.python
    if process is not None:
        what += f": {' '.join(process.command)}"
    elif python is not None:
        what += f": {python.entry_point}"
    return f"{what[:150]} ({request.kind}, for {request.tenant})"
