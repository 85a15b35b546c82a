"""Reading objects of Kubernetes, which are plain JSON, without believing in their shape."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from temporal_fabric.shapes import is_rows, is_table

if TYPE_CHECKING:
    from collections.abc import Mapping


def part(thing: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a part that is a table, empty where there is none."""
    found = thing.get(name)
    return dict(found) if is_table(found) else {}


def parts(thing: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return a part that is a list of tables, empty where there is none."""
    found = thing.get(name)
    return [dict(row) for row in found if is_table(row)] if is_rows(found) else []


def native_id(job: Mapping[str, Any]) -> str:
    """Return what identifies a Job for people, the same as long as it exists."""
    found = job["metadata"]
    return f"job {found['namespace']}/{found['name']} (uid {found['uid']})"


def annotation(thing: Mapping[str, Any], name: str) -> str:
    """Return an annotation, empty where there is none."""
    return str(part(part(thing, "metadata"), "annotations").get(name) or "")


def container_state(pod: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the state of a container: ``waiting``, ``running`` or ``terminated``; or nothing."""
    for group in ("initContainerStatuses", "containerStatuses"):
        for found in parts(part(pod, "status"), group):
            if found.get("name") == name:
                return part(found, "state")
    return {}


def condition(thing: Mapping[str, Any], kind: str, value: str = "True") -> dict[str, Any] | None:
    """Return a condition of an object where it has that value."""
    for found in parts(part(thing, "status"), "conditions"):
        if found.get("type") == kind and found.get("status") == value:
            return found
    return None


def finished(job: Mapping[str, Any]) -> bool:
    """Return whether a Job is over, which it never ceases to be."""
    return condition(job, "Complete") is not None or condition(job, "Failed") is not None


def moment(text: Any) -> float | None:
    """Return a time of the API server in Unix seconds."""
    return datetime.fromisoformat(text).timestamp() if text else None
