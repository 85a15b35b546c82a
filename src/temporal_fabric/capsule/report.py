"""The report of a capsule: one page that is whole in itself, to be looked at, sent and printed."""

from __future__ import annotations

import json
from datetime import datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from temporal_fabric.capsule import facts
from temporal_fabric.capsule.axes import time_axis
from temporal_fabric.capsule.curves import Curve, curves
from temporal_fabric.capsule.drawing import chart, state_bar
from temporal_fabric.capsule.markup import page, tag
from temporal_fabric.capsule.queries import query
from temporal_fabric.errors import CapsuleError, StoreError
from temporal_fabric.recorder import schema
from temporal_fabric.shapes import is_table
from temporal_fabric.units import duration_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from xml.etree.ElementTree import Element

    from temporal_fabric.capsule.drawing import Mark, Span
    from temporal_fabric.capsule.reading import Capsule

_CHARTS = 40
_EVENTS = 60
_EVENT_ROWS = """
SELECT event, epoch, detail, epoch_ms(time) / 1000 AS seconds, count(*) OVER () AS total
FROM events WHERE event <> 'state' ORDER BY seq LIMIT {limit}
"""


def report(capsule: Capsule) -> str:
    """Return the page of a capsule as HTML.

    Nothing that a payload wrote is more than text in it, and a browser loads and runs nothing
    for it. What is damaged is left out of the page, and named in its verdict.

    Raises:
        CapsuleError: even the run's record or its request is missing or damaged.
        StoreError: the capsule is out of reach.
    """
    result, request = _json(capsule, "result.json"), _json(capsule, "request.json")
    wrong = capsule.verify()
    body = [
        *facts.head(result, request, wrong),
        *_times(capsule, result),
        *facts.certificates(result),
        *facts.attempts(result),
        *facts.inputs(result),
        *facts.outputs(result),
        *facts.logs(capsule),
        *facts.request(request),
        *facts.environment(capsule, request),
        *facts.verdict(capsule, wrong),
    ]
    style = files("temporal_fabric.capsule").joinpath("page.css").read_text()
    return page(f"{result['tenant']}/{result['request_id']}: {result['state']}", style, body)


def _json(capsule: Capsule, name: str) -> dict[str, Any]:
    try:
        value: Any = json.loads(capsule.read(name))
    except ValueError as exc:
        raise CapsuleError(f"damaged [file={name}]: {exc}; 'capsule verify' says more") from exc
    if not is_table(value):
        raise CapsuleError(f"damaged [file={name}]: not an object; 'capsule verify' says more")
    return value


def _times(capsule: Capsule, result: Mapping[str, Any]) -> list[Element]:
    """Return what has a place in time: the states, the payload's events and its metrics."""
    told: list[list[Any]] = []
    drawn: list[Curve] = []
    problem = ""
    try:
        told = query([capsule], _EVENT_ROWS.format(limit=_EVENTS))[1]
        drawn = curves(capsule)
    except (CapsuleError, StoreError) as exc:
        problem = f"The tables of telemetry cannot be read: {exc}"
    start = _unix(result["started_at"])
    marks = [(row[3] - start, number) for number, row in enumerate(told, 1)]
    parts = [*_timeline(result, marks), *_events(told, marks)]
    if drawn:
        parts += _charts(drawn, marks, start)
    return [*parts, tag("p", problem)] if problem else parts


def _timeline(result: Mapping[str, Any], marks: list[Mark]) -> list[Element]:
    start, moments = _unix(result["started_at"]), result["timeline"]
    begins = [_unix(moment["at"]) - start for moment in moments]
    end = max([*begins, *(at for at, _ in marks), 0.001])
    spans: list[Span] = [
        (str(moment["state"]), begin, until)
        for moment, begin, until in zip(moments, begins, begins[1:], strict=False)
    ]
    lasted: dict[str, float] = {}
    for state, begin, until in spans:
        lasted[state] = lasted.get(state, 0.0) + until - begin
    legend = [
        tag("li", tag("i", class_=f"s-{state}"), f"{state}  {duration_text(seconds)}")
        for state, seconds in lasted.items()
    ]
    return [
        tag("h2", "Timeline"),
        state_bar(spans, marks, time_axis(min([*begins, *(at for at, _ in marks), 0.0]), end, 8)),
        tag("ul", legend, class_="legend"),
    ]


def _events(told: list[list[Any]], marks: list[Mark]) -> list[Element]:
    rows = [
        [number, f"+{duration_text(at)}", row[0], facts.event_text(row[0], row[2]), row[1]]
        for (at, number), row in zip(marks, told, strict=True)
    ]
    if not rows:
        return []
    more = told[0][4] - len(rows)
    left = tag("p", f"and {more} more: 'capsule query' has all", class_="soft") if more else None
    grid = facts.grid(("#", "at", "event", "what", "epoch"), rows, numbers={0, 1, 4})
    if len(rows) <= _EVENTS // 4:
        return [grid] if left is None else [grid, left]
    return [tag("details", tag("summary", f"{told[0][4]} events"), grid, left)]


def _charts(drawn: list[Curve], marks: list[Mark], start: float) -> list[Element]:
    times = [at - start for curve in drawn for line in curve.lines.values() for at, _ in line]
    time = time_axis(min(times, default=0.0), max(times, default=1.0))
    unit = dict(schema.telemetry().field("value").metadata or {}).get(b"unit", b"").decode()
    epochs = sorted({epoch for curve in drawn for epoch in curve.lines})
    lines = "" if len(epochs) <= 1 else f" One line for each epoch: {', '.join(map(str, epochs))}."
    said = (
        f"Over the time since the beginning of the run, in {time.unit}; values in {unit} unit. "
        f"Of values too dense to draw, the lowest and the highest are kept.{lines}"
    )
    more = len(drawn) - _CHARTS
    return [
        tag("h2", "Metrics"),
        tag("p", said, class_="soft"),
        tag("div", [_figure(one, marks, time, start) for one in drawn[:_CHARTS]], class_="charts"),
        *([tag("p", f"and {more} more metrics: 'capsule query' has all")] if more > 0 else []),
    ]


def _figure(curve: Curve, marks: list[Mark], time: Any, start: float) -> Element:
    holes = f", {curve.holes} not finite" if curve.holes else ""
    said = (
        f"{curve.rows} value{'s' if curve.rows != 1 else ''}{holes}, last {facts.short(curve.last)}"
    )
    return tag(
        "figure",
        tag("header", tag("h3", curve.name), tag("span", said)),
        chart(curve, marks, time, start),
    )


def _unix(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()
