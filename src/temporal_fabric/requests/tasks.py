"""The env runner's task JSON (``{id, class, payload: {execution, artifacts, ...}}``)."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from temporal_fabric.requests.conversions import Conversion, Draft
from temporal_fabric.requests.quantities import GIGABYTE
from temporal_fabric.requests.texts import pointer
from temporal_fabric.shapes import is_rows, is_table

if TYPE_CHECKING:
    from temporal_fabric.requests.trees import Document, Mark

__all__ = ["converted_task"]

Path = tuple[str | int, ...]
Row = dict[str, Any]
_EXECUTION: Path = ("payload", "execution")
_RESOURCES: Path = (*_EXECUTION, "resources")
_ARTIFACTS: Path = ("payload", "artifacts")


def converted_task(document: Document) -> Conversion | None:
    """Return the request made from a task, or None where the body is none."""
    source = _Source(document)
    if not is_table(source.node(_EXECUTION)):
        return None
    task = _Task(source, Draft(document.mark))
    # The blocks in this order: resources look at nothing else, files at the kind only.
    for block, fields in _BLOCKS:
        _convert_block(task, block, fields)
    return task.draft.conversion(document.problems)


class _Source:
    def __init__(self, document: Document) -> None:
        self._document = document

    def node(self, path: Path) -> Any:
        """Return the value at a path of mappings; None where it is absent."""
        node = self._document.tree
        for part in path:
            node = node.get(str(part)) if is_table(node) else None
        return node

    def mark(self, path: Path) -> Mark:
        """Return the mark of the deepest node on a path."""
        mark = self._document.mark
        for part in path:
            mark = (mark.children or {}).get(part, mark)
        return mark


class _Task:
    """One conversion: where it reads from and what it writes."""

    def __init__(self, source: _Source, draft: Draft) -> None:
        self.source = source
        self.draft = draft
        has_image = source.node((*_EXECUTION, "image")) is not None
        self.kind = "container" if has_image else "process"
        # Registers where a missing command would have been written.
        self.body: Row = {}
        draft.put(("payload", self.kind), self.body, source.mark(_EXECUTION), pointer(_EXECUTION))

    def put(self, target: Path, place: Path, value: Any) -> None:
        self.draft.put(target, value, self.source.mark(place), pointer(place))
        self.draft.note(_dotted(place), _dotted(target))

    def put_payload(self, key: str, place: Path, value: Any) -> None:
        self.put(("payload", self.kind, key), place, value)

    def left_out(self, place: Path, why: str) -> None:
        self.draft.note(_dotted(place), why)

    def refuse(self, place: Path, code: str, what: str) -> None:
        self.draft.refuse(code, what, self.source.mark(place), pointer(place))

    def rows(self, place: Path, value: Any, known: frozenset[str]) -> Iterator[tuple[Path, Row]]:
        """Yield the mappings of a list that have known keys only; refuse the others."""
        if not is_rows(value):
            self.refuse(place, "E_TYPE", "must be a list")
            return
        for index, row in enumerate(value):
            if self.draft.is_full:
                return
            here = (*place, index)
            if not is_table(row):
                self.refuse(here, "E_TYPE", "must be a mapping")
            elif set(row) - known:
                self.refuse(here, "E_UNKNOWN_FIELD", f"takes only {', '.join(sorted(known))}")
            else:
                yield here, row


_Field = Callable[[_Task, Path, Any], None]


def _convert_block(task: _Task, block: Path, fields: dict[str, _Field]) -> None:
    node = task.source.node(block)
    if node is None:
        return
    if not is_table(node):
        task.refuse(block, "E_TYPE", "must be a mapping")
        return
    for key, value in node.items():
        if task.draft.is_full:
            return
        field = fields.get(key)
        if field is None:
            near = difflib.get_close_matches(key[:64], list(fields), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            task.refuse((*block, key), "E_UNKNOWN_FIELD", f"is not a field of a task{hint}")
        elif value is not None:
            field(task, (*block, key), value)


def _nothing(_task: _Task, _place: Path, _value: Any) -> None:
    """Take a block that is converted on its own."""


def _to(*target: str) -> _Field:
    return lambda task, place, value: task.put(target, place, value)


def _to_payload(key: str) -> _Field:
    return lambda task, place, value: task.put_payload(key, place, value)


def _command(task: _Task, place: Path, value: Any) -> None:
    if task.kind == "container":
        task.put_payload("args", place, value)
    else:
        _program(task, place, value)


def _entrypoint(task: _Task, place: Path, value: Any) -> None:
    parts = [value] if isinstance(value, str) else value
    if task.kind == "container":
        task.put_payload("command", place, parts)
    else:
        _program(task, place, parts)


def _program(task: _Task, place: Path, parts: Any) -> None:
    if not is_rows(parts):
        task.refuse(place, "E_TYPE", "must be a list of strings")
        return
    before: list[Any] = task.body.get("command", [])
    # The entry point stands before the command, whichever comes first in the file.
    both = [*parts, *before] if place[-1] == "entrypoint" else [*before, *parts]
    task.put_payload("command", place, both)


_MOUNT = frozenset({"host_path", "mount_path", "read_only"})
_INPUT = frozenset({"uri", "source_uri", "path", "mount_path", "name", "type", "sha256"})
_OUTPUT = frozenset({"path", "type", "name", "target_uri"})


def _mounts(task: _Task, place: Path, value: Any) -> None:
    for here, row in task.rows(place, value, _MOUNT):
        host, mount = row.get("host_path"), row.get("mount_path")
        if not isinstance(host, str) or not isinstance(mount, str):
            task.refuse(here, "E_MISSING", "needs host_path and mount_path")
        elif row.get("read_only") is not True:
            what = "is a writable mount, which reaches out of the run; declare an output instead"
            task.refuse(here, "E_ISOLATION", what)
        else:
            _add_file(task, "inputs", here, {"source_uri": f"file://{host}", "mount_path": mount})


def _inputs(task: _Task, place: Path, value: Any) -> None:
    for here, row in task.rows(place, value, _INPUT):
        uri = next((row[key] for key in ("uri", "source_uri", "path") if row.get(key)), None)
        if not isinstance(uri, str):
            task.refuse(here, "E_MISSING", "needs a path or a uri")
            continue
        full = uri if "://" in uri else f"file://{uri}"
        mount = row.get("mount_path") or row.get("name") or full.rstrip("/").rpartition("/")[2]
        digest = {"sha256": row["sha256"]} if row.get("sha256") else {}
        _add_file(task, "inputs", here, {"source_uri": full, "mount_path": mount, **digest})


def _outputs(task: _Task, place: Path, value: Any) -> None:
    for here, row in task.rows(place, value, _OUTPUT):
        path = row.get("path")
        if not isinstance(path, str):
            task.refuse(here, "E_MISSING", "needs a path")
            continue
        kept = {key: row[key] for key in ("type", "name", "target_uri") if row.get(key)}
        _add_file(task, "outputs", here, {"source_path": _below_task_dir(task, path), **kept})


def _below_task_dir(task: _Task, path: str) -> str:
    # The runner's folder of the task is this fabric's folder of the attempt.
    base = task.source.node((*_EXECUTION, "working_dir"))
    if task.kind == "process" and isinstance(base, str) and path.startswith(f"{base}/"):
        return path.removeprefix(f"{base}/")
    return path


def _add_file(task: _Task, key: str, place: Path, row: Row) -> None:
    rows: list[Row] = task.body.setdefault(key, [])
    rows.append(row)
    # A place for each row, so that a problem with it names the row in the task.
    task.draft.mark_row(("payload", task.kind, key), len(rows) - 1, task.source.mark(place))
    task.draft.origins[pointer(("payload", task.kind, key, len(rows) - 1))] = pointer(place)
    below = ", below FABRIC_OUTPUT_DIR" if key == "outputs" else ""
    task.draft.note(_dotted(place), f"payload.{task.kind}.{key}.{len(rows) - 1}{below}")


def _working_dir(task: _Task, place: Path, _value: Any) -> None:
    task.left_out(place, "FABRIC_TASK_DIR: every attempt has a folder of its own")


def _container_workdir(task: _Task, place: Path, value: Any) -> None:
    if task.kind == "container":
        task.put_payload("workdir", place, value)
    else:
        task.left_out(place, "left out: there is no container")


def _resource(kind: str, key: str, scale: int) -> _Field:
    def field(task: _Task, place: Path, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            task.refuse(place, "E_TYPE", "must be a number of at least 0")
        elif value > 0:
            _detail(task, kind, key, place, value / scale if scale > 1 else value)

    return field


def _gpu_detail(key: str) -> _Field:
    def field(task: _Task, place: Path, value: Any) -> None:
        if value and task.source.node((*_RESOURCES, "gpu_count")):
            _detail(task, "gpu", key, place, value)

    return field


def _detail(task: _Task, kind: str, key: str, place: Path, value: Any) -> None:
    resources: Row = task.draft.body.get("requirements", {}).get("resources", {})
    entry: Row = {**resources.get(kind, {}), key: value}
    task.put(("requirements", "resources", kind), place, entry)


def _dotted(path: Path) -> str:
    return ".".join(str(part) for part in path)


_BLOCKS: tuple[tuple[Path, dict[str, _Field]], ...] = (
    (
        (),
        {
            "id": _to("id"),
            "class": _to("class"),
            "priority": _to("priority"),
            "payload": _nothing,
        },
    ),
    (
        ("payload",),
        {
            "workflow_id": _to("context", "workflow_id"),
            "tenant": _to("tenant"),
            "context": _to("context", "context"),
            "execution": _nothing,
            "artifacts": _nothing,
        },
    ),
    (
        _EXECUTION,
        {
            "image": _to_payload("image"),
            "entrypoint": _entrypoint,
            "command": _command,
            "env": _to_payload("env"),
            "mounts": _mounts,
            "resources": _nothing,
            "timeout_seconds": _to("limits", "wall_s"),
            "working_dir": _working_dir,
            "container_workdir": _container_workdir,
        },
    ),
    (
        _RESOURCES,
        {
            "cpu_millicores": _resource("cpu", "cores", 1000),
            "mem_bytes": _resource("memory", "size_gb", GIGABYTE),
            "gpu_count": _resource("gpu", "count", 1),
            "storage_gb": _resource("disk", "size_gb", 1),
            "gpu_class": _gpu_detail("model"),
            "gpu_memory_gb": _gpu_detail("memory_gb"),
            "working_dir": _working_dir,
        },
    ),
    (_ARTIFACTS, {"inputs": _inputs, "outputs": _outputs}),
)
