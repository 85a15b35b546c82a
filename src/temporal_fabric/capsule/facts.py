"""Sections of a report that are words and tables."""

from __future__ import annotations

import json
import shlex
from datetime import datetime
from typing import TYPE_CHECKING, Any

from temporal_fabric import __version__
from temporal_fabric.capsule.axes import number
from temporal_fabric.capsule.markup import tag
from temporal_fabric.errors import CapsuleError, StoreError
from temporal_fabric.units import duration_text, size_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from xml.etree.ElementTree import Element

    from temporal_fabric.capsule.manifest import Entry
    from temporal_fabric.capsule.markup import Child
    from temporal_fabric.capsule.reading import Capsule

_TAIL = 8000
"""Bytes shown of the end of a log."""

_FILES = 200
_LINE = 240
_NAMED = ("digest", "workflow_id", "run_id")
_STREAMS = ("stdout.log", "stderr.log", "error.txt", "environment.log", "rejected.jsonl")


def head(
    result: Mapping[str, Any], request: Mapping[str, Any], wrong: Sequence[str]
) -> list[Element]:
    """Return the title, how it ended, and what ran for whom, where and when."""
    name = str(request.get("name") or result["request_id"])
    sound = "damaged" if wrong else "whole"
    kind = next(iter(request["payload"]))
    rows = [
        ("experiment", f"{result['tenant']}/{result['request_id']}"),
        ("payload", kind),
        ("for tenant", result["tenant"]),
        ("ran on", result.get("backend")),
        ("began", _moment(result["started_at"])),
        ("ended", _moment(result["ended_at"])),
        ("took", duration_text(_between(result["started_at"], result["ended_at"]))),
        ("exit code", _exit(result)),
        ("priority", request.get("priority")),
        ("tags", ", ".join(request.get("tags", ()))),
    ]
    title = tag(
        "div",
        tag("h1", name),
        tag("span", str(result["state"]), class_=f"badge s-{_word(result['state'])}"),
        tag("span", f"capsule {sound}", class_=f"badge s-{sound}"),
        class_="head",
    )
    why = " ".join(filter(None, (result.get("reason"), result.get("message"))))
    known = [[tag("dt", key), tag("dd", str(value))] for key, value in rows if value not in _EMPTY]
    what = _command(request["payload"][kind])
    return [
        title,
        *([tag("p", what, class_="command")] if what else []),
        *([tag("p", why, class_="message")] if why else []),
        tag("dl", [tag("div", pair) for pair in known]),
    ]


_EMPTY = (None, "")


def attempts(result: Mapping[str, Any]) -> list[Element]:
    """Return every attempt: where, how long, how it ended, and what it used."""
    rows: list[list[Child]] = [
        [
            one["epoch"],
            one["backend"],
            duration_text(_between(one.get("started_at"), one.get("ended_at"))),
            _ended(one),
            _exit(one),
            "" if one.get("cpu_s") is None else duration_text(one["cpu_s"]),
            "" if one.get("max_rss_bytes") is None else size_text(one["max_rss_bytes"]),
        ]
        for one in result["attempts"]
    ]
    heads = ("epoch", "backend", "took", "ended", "exit code", "CPU time", "peak memory")
    return _section("Attempts", heads, rows, numbers={0, 2, 5, 6})


def certificates(result: Mapping[str, Any]) -> list[Element]:
    """Return what a certified flow came to, and every certificate against its bound."""
    found = [one["flow"] for one in result["attempts"] if one.get("flow")]
    if not found:
        return []
    flow = found[-1]
    energy = "" if flow["energy"] is None else f"energy {flow['energy']:.10g}, "
    said = f"{flow['verdict']} at iteration {flow['iteration']}, {energy}state "
    rows: list[list[Child]] = [
        [
            one["stage"],
            one["name"],
            _figure(one["value"]),
            "" if one["bound"] is None else f"{one['relation']} {_figure(one['bound'])}",
            one["kind"],
            tag("span", one["verdict"], class_=f"v-{_word(one['verdict'])}"),
            one["sentence"],
        ]
        for one in flow["certificates"]
    ]
    heads = ("stage", "certificate", "value", "bound", "kind", "verdict", "why")
    title, *rest = _section("Certificates", heads, rows, numbers={2, 3})
    state = tag("p", said, _digest(flow["sha256"]) if flow["sha256"] else "none")
    return [title, state, *rest]


def inputs(result: Mapping[str, Any]) -> list[Element]:
    """Return the inputs as the last attempt found them."""
    found = [one for one in result["attempts"] if one["epoch"] == result["epoch"]]
    rows = [
        [given["path"], given["uri"], size_text(given["size"]), _digest(given["sha256"])]
        for given in (found[-1].get("inputs", ()) if found else ())
    ]
    return _section("Inputs", ("path", "from", "size", "sha256"), rows, numbers={2})


def outputs(result: Mapping[str, Any]) -> list[Element]:
    """Return the outputs."""
    rows = [
        [one["path"], one.get("target_uri"), size_text(one["size"]), _digest(one["sha256"])]
        for one in result["outputs"]
    ]
    return _section("Outputs", ("path", "stored at", "size", "sha256"), rows, numbers={2})


def logs(capsule: Capsule) -> list[Element]:
    """Return the end of each log that is not empty, those of the last epoch opened."""
    found = [
        entry
        for entry in capsule.manifest.files
        if entry.path.startswith("logs/") and entry.path.rpartition("/")[2] in _STREAMS
    ]
    found = sorted((entry for entry in found if entry.size), key=_log_order)
    last = max((_epoch(entry) for entry in found), default=0)
    parts = [_log(capsule, entry, opened=_epoch(entry) == last) for entry in found]
    return [tag("h2", "Logs"), *parts] if parts else []


def request(body: Mapping[str, Any]) -> list[Element]:
    """Return the admitted request, collapsed."""
    text = json.dumps(body, ensure_ascii=False, indent=2, sort_keys=True)
    shown = tag("details", tag("summary", "The request, as it was admitted"), tag("pre", text))
    return [tag("h2", "Request"), shown]


def environment(capsule: Capsule, body: Mapping[str, Any]) -> list[Element]:
    """Return what was asked for as environment, and the packages that were installed."""
    asked = body.get("environment")
    said = json.dumps(asked, ensure_ascii=False, indent=2) if asked else ""
    packages = [
        entry for entry in capsule.manifest.files if entry.path.endswith("/environment.txt")
    ]
    parts = [tag("pre", said)] if said else []
    parts += [_log(capsule, entry, opened=False, all_of_it=True) for entry in packages[-1:]]
    return [tag("h2", "Environment"), *parts] if parts else []


def verdict(capsule: Capsule, wrong: Sequence[str]) -> list[Element]:
    """Return whether the capsule still is what was sealed, and what it is."""
    entries = capsule.manifest.files
    total = size_text(sum(entry.size for entry in entries))
    told = f"{len(entries)} files, {total}, each hashed again for this report: "
    said = f"{len(wrong)} missing or different" if wrong else "all as they were sealed"
    experiment = capsule.manifest.experiment
    rows: list[list[Child]] = [
        [entry.path, size_text(entry.size), _digest(entry.sha256)] for entry in entries[:_FILES]
    ]
    more = len(entries) - _FILES
    listed = grid(("file", "size", "sha256"), rows, numbers={1})
    left = tag("p", f"and {more} more") if more > 0 else None
    return [
        tag("h2", "Capsule"),
        tag("p", told, tag("strong", said), "."),
        *([tag("ul", [tag("li", problem) for problem in wrong])] if wrong else []),
        tag("details", tag("summary", "Its files"), listed, left),
        tag(
            "footer",
            tag("p", f"Sealed {_moment(capsule.manifest.sealed_at)} at {capsule.uri}"),
            tag("p", ", ".join(f"{key} {experiment[key]}" for key in _NAMED if key in experiment)),
            tag("p", f"temporal-fabric {__version__}"),
        ),
    ]


def grid(
    heads: Sequence[str], rows: Iterable[Sequence[Child]], numbers: AbstractSet[int] = frozenset()
) -> Element:
    """Return a table; ``numbers`` are the columns that are aligned as numbers."""

    def cells(name: str, row: Sequence[Child]) -> list[Element]:
        kinds = ({"class_": "number"} if at in numbers else {} for at in range(len(row)))
        return [tag(name, cell, **kind) for cell, kind in zip(row, kinds, strict=True)]

    body = tag("tbody", [tag("tr", cells("td", row)) for row in rows])
    table = tag("table", tag("thead", tag("tr", cells("th", heads))), body)
    return tag("div", table, class_="wide")


def event_text(event: str, detail: str | None) -> str:
    """Return what an event says in one line."""
    fields = dict(json.loads(detail or "{}"))
    first = str(fields.pop(event, ""))
    return "  ".join(filter(None, (first, *(f"{key}={value}" for key, value in fields.items()))))


def short(value: str) -> str:
    """Return a recorded value with few digits."""
    return number(float(value)) if value not in {"nan", "inf", "-inf"} else value


def _figure(value: float | str | None) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _section(
    title: str, heads: Sequence[str], rows: Sequence[Sequence[Child]], numbers: AbstractSet[int]
) -> list[Element]:
    """Return a titled table without its empty columns; nothing where there are no rows."""
    if not rows:
        return []
    kept = [at for at in range(len(heads)) if any(row[at] not in _EMPTY for row in rows)]
    shown = [[row[at] for at in kept] for row in rows[:_FILES]]
    table = grid(
        [heads[at] for at in kept], shown, {kept.index(at) for at in numbers if at in kept}
    )
    more = len(rows) - _FILES
    left = [tag("p", f"and {more} more: 'capsule show' lists them")] if more > 0 else []
    return [tag("h2", title), table, *left]


def _log(capsule: Capsule, entry: Entry, *, opened: bool, all_of_it: bool = False) -> Element:
    start = 0 if all_of_it else max(0, entry.size - _TAIL)
    try:
        data = capsule.objects.piece(entry.path, start, entry.size - start)
        text = "missing" if data is None else data.decode(errors="replace")
    except (CapsuleError, StoreError) as exc:
        text = f"cannot be read: {exc}"
    cut = f", the last {size_text(_TAIL)} of {size_text(entry.size)}" if start else ""
    shown = tag("details", tag("summary", f"{entry.path}{cut}"), tag("pre", text))
    if opened:
        shown.set("open", "")
    return shown


def _command(payload: Mapping[str, Any]) -> str:
    """Return what a payload runs, in one line; its arguments are in the request."""
    parts = payload.get("command") or [payload.get("image") or payload.get("entry_point") or ""]
    line = shlex.join(map(str, parts)) if len(parts) > 1 else str(parts[0])
    return line if len(line) <= _LINE else f"{line[:_LINE]}..."


def _log_order(entry: Entry) -> tuple[int, int]:
    return (-_epoch(entry), _STREAMS.index(entry.path.rpartition("/")[2]))


def _epoch(entry: Entry) -> int:
    epoch = entry.path.split("/")[1]
    return int(epoch) if epoch.isdecimal() else 0


def _ended(attempt: Mapping[str, Any]) -> str:
    reason = str(attempt.get("reason") or ("ok" if attempt.get("ok") else "failed"))
    said = [reason, str(attempt.get("message") or "")]
    said += [f"asked for {change}" for change in attempt.get("changes", ())]
    return ": ".join(filter(None, said))


def _exit(record: Mapping[str, Any]) -> str:
    if record.get("signal") is not None:
        return f"signal {record['signal']}"
    return "" if record.get("exit_code") is None else str(record["exit_code"])


def _digest(sha256: str) -> Element:
    return tag("code", sha256)


def _word(text: object) -> str:
    return "".join(letter for letter in str(text) if letter.isalpha())


def _moment(at: str) -> str:
    return f"{at[:10]} {at[11:19]} UTC" if at else ""


def _between(start: str | None, end: str | None) -> float:
    if not start or not end:
        return 0.0
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
