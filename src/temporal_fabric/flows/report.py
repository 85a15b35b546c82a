"""The report of a flow's run: one page that is whole in itself.

It shows the images before and after, every certificate against its bound, the curves of the run,
and what the controller decided.
"""

from __future__ import annotations

import base64
import io
import json
import math
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from temporal_fabric.capsule import facts
from temporal_fabric.capsule.axes import Axis, number, value_axis
from temporal_fabric.capsule.curves import COLUMNS, Curve
from temporal_fabric.capsule.drawing import chart
from temporal_fabric.capsule.markup import page, tag
from temporal_fabric.errors import CapsuleError
from temporal_fabric.flows.certificates.profiles import Stage
from temporal_fabric.flows.certificates.table import TITLES
from temporal_fabric.recorder.arrow import parquet
from temporal_fabric.units import duration_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from xml.etree.ElementTree import Element

    from temporal_fabric.capsule.reading import Capsule

__all__ = ["is_flow", "report"]

_CURVES = {
    "E": "energy",
    "step_norm": "length of the step",
    "grad_norm": "norm of the gradient of f",
    "alpha": "step size alpha",
    "lambda": "lambda",
    "sparsity_wx": "share of zero coefficients",
    "level_active_max": "finest active scale",
    "phi_residual": "physics residual",
    "invariant_drift_max": "largest drift of an invariant",
}
_EVENTS = 60
_WIDE = 220
_DECADES = 3
"""How many powers of ten a bar shows on either side of its bound."""


def is_flow(capsule: Capsule) -> bool:
    """Return whether a capsule is that of a flow's run."""
    return any(entry.path == "certificates.json" for entry in capsule.manifest.files)


def report(capsule: Capsule) -> str:
    """Return the page of a flow's capsule as HTML; a browser loads and runs nothing for it.

    Raises:
        CapsuleError: Its tables or records are missing or damaged.
    """
    try:
        summary = json.loads(capsule.read("artifacts/summary.json"))
        decisions = json.loads(capsule.read("certificates.json"))
        rows = _rows(capsule, "telemetry")
        events = _rows(capsule, "events")
    except (OSError, ValueError) as exc:
        raise CapsuleError(f"damaged: {exc}; 'capsule verify' says more") from exc
    wrong = capsule.verify()
    body = [
        *_head(capsule, summary, rows, wrong),
        *_images(capsule),
        *_certificates(decisions),
        *_charts(rows),
        *_told(events),
        *facts.verdict(capsule, wrong),
    ]
    style = files("temporal_fabric.capsule").joinpath("page.css").read_text()
    title = str(capsule.manifest.experiment["request_id"])
    return page(f"{title}: {summary['verdict']}", style, body)


def _rows(capsule: Capsule, name: str) -> list[dict[str, Any]]:
    table = parquet().read_table(io.BytesIO(capsule.read(f"{name}.parquet")))
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def _head(
    capsule: Capsule,
    summary: Mapping[str, Any],
    rows: list[dict[str, Any]],
    wrong: list[str],
) -> list[Element]:
    experiment = capsule.manifest.experiment
    state, sound = str(experiment["state"]), "damaged" if wrong else "whole"
    energy = summary["energy"]
    known = {
        "verdict": summary["verdict"],
        "iterations": summary["iteration"],
        "energy": None if energy is None else f"{energy:.10g}",
        "family": rows[0]["flow_family"] if rows else None,
        "lens": rows[-1]["lens_name"] if rows else None,
        "took": duration_text(rows[-1]["t_wall_ms"] / 1e3) if rows else None,
        **{
            f"PSNR of {slot}": f"{number(one['start'])} to {number(one['result'])} dB"
            for slot, one in summary.get("psnr", {}).items()
        },
        "state": f"sha256:{summary['sha256'][:16]}",
    }
    title = tag(
        "div",
        tag("h1", str(experiment["request_id"])),
        tag("span", state, class_=f"badge s-{state}"),
        tag("span", f"capsule {sound}", class_=f"badge s-{sound}"),
        class_="head",
    )
    why = " ".join(filter(None, (experiment.get("reason"), experiment.get("message"))))
    pairs = [
        tag("div", tag("dt", key), tag("dd", str(value)))
        for key, value in known.items()
        if value is not None
    ]
    return [title, *([tag("p", why, class_="message")] if why else []), tag("dl", pairs)]


def _images(capsule: Capsule) -> list[Element]:
    shown = [entry.path for entry in capsule.manifest.files if entry.path.endswith(".png")]
    order = {"start": 0, "result": 1, "reference": 2}
    shown.sort(key=lambda path: (path.rpartition("-")[0], order.get(_kind(path), 3)))
    figures: list[Element] = []
    for path in shown:
        data = base64.b64encode(capsule.read(path)).decode()
        name = f"{path.rpartition('/')[2].rpartition('-')[0]}, {_kind(path)}"
        picture = tag("img", src=f"data:image/png;base64,{data}", alt=name)
        figures.append(tag("figure", tag("header", tag("h3", name)), picture))
    return [tag("h2", "Images"), tag("div", figures, class_="images")] if figures else []


def _kind(path: str) -> str:
    return path.rpartition("-")[2].removesuffix(".png")


def _certificates(decisions: Mapping[str, Any]) -> Iterator[Element]:
    for stage in Stage:
        decision = decisions.get(stage.value)
        if decision is None:
            continue
        heads = ("certificate", "value", "bound", "", "kind", "verdict", "how")
        rows = [
            (
                one["name"],
                _value(one["value"]),
                "" if one["bound"] is None else f"{one['relation']} {_value(one['bound'])}",
                _bar(one),
                one["kind"],
                one["verdict"],
                one["method"],
            )
            for one in decision["certificates"]
        ]
        yield tag("h2", f"{decision['verdict']}: {TITLES[stage]}")
        yield facts.grid(heads, rows, numbers={1, 2})
        said = [
            one["sentence"]
            for one in decision["certificates"]
            if one["name"] in decision["failing"]
        ]
        said += [f"claimed: {claim}" for claim in decision["claims"]]
        if said:
            yield tag("ul", [tag("li", text) for text in said])


def _value(value: float | str | None) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else number(value)


def _bar(one: Mapping[str, Any]) -> Element | None:
    """Draw how far a value is from its bound, in powers of ten; the line is the bound."""
    value, bound = one["value"], one["bound"]
    if not isinstance(value, float) or not isinstance(bound, float) or bound <= 0:
        return None
    room = math.log10(max(value, 1e-300) / bound) if value > 0 else -math.inf
    room = max(-_DECADES, min(_DECADES, room))
    middle, x = _WIDE / 2, _WIDE / 2 * (1 + room / _DECADES)
    good = one["verdict"] in {"PASS", "HELD"}
    colour = "s-whole" if good else "s-RUNNING" if one["verdict"] == "REPORTED" else "s-damaged"
    return tag(
        "svg",
        tag("title", f"{_value(value)} of {_value(bound)}, over six powers of ten"),
        tag("line", class_="grid", x1=0, y1=6, x2=_WIDE, y2=6),
        tag(
            "rect", class_=colour, x=min(x, middle), y=3, width=max(abs(x - middle), 1.5), height=6
        ),
        tag("line", class_="axis", x1=middle, y1=0, x2=middle, y2=12),
        class_="gauge",
        viewBox=f"0 0 {_WIDE} 12",
        role="img",
    )


def _charts(rows: list[dict[str, Any]]) -> list[Element]:
    run = [row for row in rows if row["trial_id"] is None]
    if not run:
        return []
    figures = [_figure(name, words, run) for name, words in _CURVES.items()]
    drawn = [one for one in figures if one is not None]
    said = "Over the iterations of the run, trials of the tuner left out."
    return [
        tag("h2", "The run"),
        tag("p", said, class_="soft"),
        tag("div", drawn, class_="charts"),
    ]


def _figure(name: str, words: str, run: list[dict[str, Any]]) -> Element | None:
    points = [(float(row["iter"]), float(row[name])) for row in run if row[name] is not None]
    if name != "E" and len({value for _, value in points}) <= 1:
        return None
    last = points[-1][1] if points else math.nan
    curve = Curve(words, len(points), 0, repr(last), {1: _thinned(points)})
    base = value_axis(run[0]["iter"], run[-1]["iter"])
    time = Axis(base.low, base.high, base.ticks, unit="iterations")
    header = tag("header", tag("h3", words), tag("span", f"last {number(last)}"))
    return tag("figure", header, chart(curve, (), time, 0.0))


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the lowest and the highest of every column of pixels, where there are too many."""
    every = max(1, len(points) // COLUMNS)
    if every == 1:
        return points
    kept: list[tuple[float, float]] = []
    for at in range(0, len(points), every):
        column = points[at : at + every]
        kept += sorted({min(column, key=lambda p: p[1]), max(column, key=lambda p: p[1])})
    return kept


def _told(events: list[dict[str, Any]]) -> list[Element]:
    rows = [
        (duration_text(row["t_wall_ms"] / 1e3), row["event"], _payload(json.loads(row["payload"])))
        for row in events[:_EVENTS]
    ]
    more = len(events) - len(rows)
    left = [tag("p", f"and {more} more in events.parquet", class_="soft")] if more > 0 else []
    return [tag("h2", "What was decided"), facts.grid(("at", "event", "what"), rows), *left]


def _payload(payload: Mapping[str, Any]) -> str:
    if "verdict" in payload:
        failing = ", ".join(one["name"] for one in payload["failing"])
        return f"{payload.get('stage', '')}: {payload['verdict']}" + (
            f"  {failing}" if failing else ""
        )
    kept = {key: value for key, value in payload.items() if value not in ("", None, [], {})}
    return "  ".join(f"{key}={value}" for key, value in kept.items())
