"""Pictures of a report, as SVG within the page: the states of a run, and its metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporal_fabric.capsule.axes import Axis, value_axis
from temporal_fabric.capsule.markup import tag
from temporal_fabric.units import duration_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from xml.etree.ElementTree import Element

    from temporal_fabric.capsule.curves import Curve

_BAR_WIDTH, _BAR_HEIGHT, _FOOT = 960, 26, 34
_WIDTH, _HEIGHT = 460, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 14, 30
_THIN = 1.5
"""Units of the drawing that a state has at least, however short it was."""

Span = tuple[str, float, float]
"""A state, and when it began and ended, in seconds since the beginning of the run."""

Mark = tuple[float, int]
"""When an event happened, in seconds since the beginning of the run, and its number."""


def state_bar(spans: Sequence[Span], marks: Sequence[Mark], time: Axis) -> Element:
    """Draw the states of a run along its time, and what the payload told below them."""
    height = _BAR_HEIGHT + _FOOT
    drawing = _drawing(_BAR_WIDTH, height, "bar", "States of the run along its time")
    for state, start, end in spans:
        left, right = (time.place(at) * _BAR_WIDTH for at in (start, end))
        block = tag(
            "rect",
            tag("title", f"{state}, {duration_text(end - start)}"),
            class_=f"s-{state}",
            x=min(left, _BAR_WIDTH - _THIN),
            y=0,
            width=max(right - left, _THIN),
            height=_BAR_HEIGHT,
        )
        drawing.append(block)
    for at, number in marks:
        x = time.place(at) * _BAR_WIDTH
        drawing.append(_line(x, _BAR_HEIGHT, x, _BAR_HEIGHT + 6, "event"))
        drawing.append(_text(x, _BAR_HEIGHT + 15, str(number), "event", _anchor(x, _BAR_WIDTH)))
    for value, label in time.ticks:
        x = time.place(value) * _BAR_WIDTH
        drawing.append(_line(x, _BAR_HEIGHT, x, _BAR_HEIGHT + 4, "axis"))
        drawing.append(_text(x, height - 4, f"{label} {time.unit}", "tick", _anchor(x, _BAR_WIDTH)))
    return drawing


def chart(curve: Curve, marks: Sequence[Mark], time: Axis, start: float) -> Element:
    """Draw one metric over time, one line for each epoch.

    Args:
        curve: The metric; Unix seconds.
        marks: Events, drawn as vertical lines with their numbers.
        time: Seconds since the beginning of the run.
        start: That beginning, in Unix seconds.
    """
    drawing = _drawing(_WIDTH, _HEIGHT, "chart", f"{curve.name} along the run")
    values = [value for line in curve.lines.values() for _, value in line]
    if not values:
        drawing.append(_text(_WIDTH / 2, _HEIGHT / 2, "no finite value", "tick", "middle"))
        return drawing
    axis = value_axis(min(values), max(values))
    _grid(drawing, axis, time)
    for at, number in marks:
        if time.low <= at <= time.high:
            x = _x(time, at)
            drawing.append(_line(x, _TOP, x, _HEIGHT - _BOTTOM, "event"))
            drawing.append(_text(x, _TOP - 3, str(number), "event", "middle"))
    for number, (epoch, points) in enumerate(sorted(curve.lines.items())):
        places = [(_x(time, at - start), _y(axis, value)) for at, value in points]
        drawing.append(_curve(places, f"{curve.name}, epoch {epoch}", f"c{number % 4}"))
    return drawing


def _grid(drawing: Element, axis: Axis, time: Axis) -> None:
    for value, label in axis.ticks:
        y = _y(axis, value)
        drawing.append(_line(_LEFT, y, _WIDTH - _RIGHT, y, "grid"))
        drawing.append(_text(_LEFT - 6, y + 3.5, label, "tick", "end"))
    floor = _HEIGHT - _BOTTOM
    drawing.append(_line(_LEFT, floor, _WIDTH - _RIGHT, floor, "axis"))
    for value, label in time.ticks:
        x = _x(time, value)
        drawing.append(_line(x, floor, x, floor + 4, "axis"))
        drawing.append(_text(x, floor + 15, label, "tick", "middle"))
    drawing.append(_text(_WIDTH - _RIGHT, _HEIGHT - 2, time.unit, "tick", "end"))


def _curve(places: Sequence[tuple[float, float]], title: str, style: str) -> Element:
    if len(places) == 1:
        (x, y) = places[0]
        return tag("circle", tag("title", title), class_=f"dot {style}", cx=x, cy=y, r=3)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return tag("polyline", tag("title", title), class_=f"curve {style}", points=points)


def _x(time: Axis, at: float) -> float:
    return _LEFT + time.place(at) * (_WIDTH - _LEFT - _RIGHT)


def _y(axis: Axis, value: float) -> float:
    return _HEIGHT - _BOTTOM - axis.place(value) * (_HEIGHT - _TOP - _BOTTOM)


def _anchor(x: float, width: float) -> str:
    if x < width * 0.02:
        return "start"
    return "end" if x > width * 0.98 else "middle"


def _drawing(width: float, height: float, style: str, title: str) -> Element:
    return tag(
        "svg",
        tag("title", title),
        class_=style,
        viewBox=f"0 0 {width} {height}",
        role="img",
    )


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> Element:
    return tag("line", class_=style, x1=x1, y1=y1, x2=x2, y2=y2)


def _text(x: float, y: float, text: str, style: str, anchor: str) -> Element:
    return tag("text", text, class_=style, x=x, y=y, text_anchor=anchor)
