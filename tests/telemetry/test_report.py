"""The report of a capsule: what a person reads in it, and what a payload cannot do to it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from temporal_fabric.capsule.axes import time_axis, value_axis
from temporal_fabric.capsule.curves import curves
from temporal_fabric.capsule.report import report
from temporal_fabric.store import open_objects
from tests.browser import opened_page
from tests.store.conftest import in_bucket, objects
from tests.telemetry.sealed import at, seal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from temporal_fabric.store import Objects

__all__ = ["in_bucket", "objects"]

HOSTILE = (
    "</title></style></pre><script>document.title='owned'</script><img src=x onerror=alert(1)>"
)
TAGS = """
html head meta title style body div h1 h2 h3 p span dl dt dd svg rect line text polyline circle
ul li i table thead tbody tr th td code pre details summary figure header strong footer
"""


def _lines(*rows: Mapping[str, object]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


class _Elements(HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)


def test_a_report_tells_the_run(objects: Objects, tmp_path: Path) -> None:
    """Attempts, outputs, logs, metrics and the verdict, from a folder and from a bucket."""
    rows = [{"at": at(20 + n), "loss": 1 / (n + 1), "step": n} for n in range(50)]
    left = {
        1: {"stderr.log": "first try\n"},
        2: {
            "telemetry.jsonl": _lines(*rows, {"at": at(80), "event": "saved", "file": "m.npz"}),
            "stdout.log": "second \x1b[31mtry\x1b[0m\n",
            "output/model.npz": "weights",
        },
    }
    lost = {"reason": "LOST", "message": "host away", "ok": False, "changes": ["memory 2Gi"]}
    capsule = seal(objects, tmp_path / "runs", left=left, attempts={1: lost})

    page = report(capsule)

    assert "default/one" in page
    assert "LOST: host away: asked for memory 2Gi" in page
    assert "second try" in page
    assert "file=m.npz" in page
    assert "model.npz" in page
    assert capsule.result["outputs"][0]["sha256"] in page
    assert "all as they were sealed" in page
    assert page.count("<polyline") == 1


def test_nothing_of_a_payload_is_more_than_text(tmp_path: Path) -> None:
    """Hostile names, values, logs, events and messages: no tag, no attribute, no script."""
    left = {
        1: {
            "telemetry.jsonl": _lines(
                {"at": at(20), HOSTILE: 1.0, "stage": HOSTILE, "event": HOSTILE, "k": HOSTILE}
            ),
            "stdout.log": f"{HOSTILE}\0\x1b]0;title\x07&lt;b&gt;",
            "environment.txt": HOSTILE,
            f"output/{HOSTILE.replace('/', '|')}": HOSTILE,
        }
    }
    body = {
        "name": HOSTILE,
        "tags": [HOSTILE],
        "payload": {"process": {"command": [HOSTILE]}},
        "environment": {"requirements": [HOSTILE]},
    }
    ended = {"message": HOSTILE, "reason": HOSTILE, "backend": f'" onload="{HOSTILE}'}
    store = _folder(tmp_path)
    capsule = seal(store, tmp_path / "runs", left=left, body=body, attempts={1: ended}, **ended)
    target = tmp_path / "report.html"

    page = report(capsule)

    found = _Elements(page)
    assert found.tags <= set(TAGS.split())
    assert not {name for name in found.attributes if name.startswith("on")}
    assert found.attributes.isdisjoint({"href", "src", "style"})
    assert "&amp;lt;b" in page
    target.write_text(page)
    with opened_page() as browser:
        asked: list[str] = []
        browser.on("request", lambda request: asked.append(request.url))
        browser.goto(target.as_uri())
        assert asked == [target.as_uri()]
        assert "owned" in browser.inner_text("h1")
        assert browser.title().startswith("default/one")
        assert browser.locator("script, img").count() == 0


def test_peaks_survive(tmp_path: Path) -> None:
    """Of many thousand values the one high and the one low are drawn, at their times."""
    rows = [{"at": at(n / 20), "x": 0.5} for n in range(20_000)]
    rows[7001]["x"], rows[13_007]["x"] = 9.0, -4.0
    capsule = seal(
        _folder(tmp_path), tmp_path / "runs", left={1: {"telemetry.jsonl": _lines(*rows)}}
    )

    (curve,) = curves(capsule)

    points = curve.lines[1]
    assert curve.rows == 20_000
    assert len(points) < 2500
    assert max(points, key=lambda point: point[1]) == pytest.approx((at(350.05), 9.0))
    assert min(points, key=lambda point: point[1]) == pytest.approx((at(650.35), -4.0))
    assert points == sorted(points, key=lambda point: point[0])


def test_values_at_the_edge_of_what_can_be_drawn(tmp_path: Path) -> None:
    """Values that are huge, equal or alone are drawn at places that are numbers."""
    text = _lines(
        {"at": at(1), "huge": 1e308, "flat": 3, "one": 1},
        {"at": at(2), "huge": -1e308, "flat": 3},
    )
    capsule = seal(_folder(tmp_path), tmp_path / "runs", left={1: {"telemetry.jsonl": text}})

    page = report(capsule)

    drawn = {curve.name for curve in curves(capsule)}
    assert {"huge", "flat", "one"} <= drawn
    places = re.findall(r' (?:points|cx|cy|x1|x2|y1|y2|x|y)="([^"]*)"', page)
    assert page.count("<polyline") == 2
    assert all(re.fullmatch(r"[-0-9., ]+", place) for place in places)


def test_on_the_command_line(tmp_path: Path) -> None:
    """The page is written whole under the id or the name given; a folder that is none is told."""
    store = open_objects(tmp_path.as_uri())
    seal(store, tmp_path / "runs", left={1: {"stdout.log": "said\n"}})

    plain = _cli(tmp_path, "one")
    named = _cli(tmp_path, "last", "--to", "named.html", "-o", "json")
    nowhere = _cli(tmp_path, "one", "--to", "missing/x.html")
    unknown = _cli(tmp_path, "two")

    assert (plain.returncode, plain.stderr) == (0, "")
    assert plain.stdout.strip() == str(tmp_path / "one.html")
    assert "said" in (tmp_path / "one.html").read_text()
    assert json.loads(named.stdout)["report"] == str(tmp_path / "named.html")
    assert (nowhere.returncode, "cannot write" in nowhere.stderr) == (1, True)
    assert (unknown.returncode, "no sealed capsule" in unknown.stderr) == (1, True)


def _cli(home: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "temporal_fabric.cli", "capsule", "report", *args],
        cwd=home,
        env=os.environ | {"FABRIC_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_damaged_capsule_is_reported_as_one(tmp_path: Path) -> None:
    """A table that is gone and a log that was changed: the page is there and says so."""
    left = {1: {"stdout.log": "before", "telemetry.jsonl": _lines({"at": at(1), "x": 1})}}
    capsule = seal(_folder(tmp_path), tmp_path / "runs", left=left)
    (capsule.folder / "telemetry.parquet").write_bytes(b"nonsense")
    (capsule.folder / "logs/1/stdout.log").write_text("after")

    page = report(capsule)

    assert "capsule damaged" in page
    assert "2 missing or different" in page
    assert "tables of telemetry cannot be read" in page


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.0, 1.0, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (-3.0, 12.0, ["-5", "0", "5", "10", "15"]),
        (1e-5, 0.3, ["1e-5", "1e-4", "1e-3", "1e-2", "1e-1", "1e0"]),
        (0.001, 0.0012, None),
        (5.0, 5.0, None),
        (0.0, 0.0, None),
        (-1.7e308, 1.7e308, None),
        (5e-324, 1e-323, None),
        (1e9, 1e9 + 1, None),
    ],
)
def test_ticks_of_values(low: float, high: float, labels: list[str] | None) -> None:
    """Ticks are few, all different, and all values lie between the first and the last."""
    axis = value_axis(low, high)

    found = [label for _, label in axis.ticks]
    assert 2 <= len(found) <= 8
    assert len(set(found)) == len(found)
    assert axis.low <= low <= high <= axis.high
    assert 0 <= axis.place(low) <= axis.place(high) <= 1
    assert labels is None or [float(one) for one in found] == [float(one) for one in labels]


@pytest.mark.parametrize(
    ("high", "unit", "last"),
    [
        (0.4, "s", "0.4"),
        (90, "s", "80"),
        (3000, "min", "50"),
        (30_000, "h", "8"),
        (9e6, "d", "100"),
    ],
)
def test_ticks_of_times(high: float, unit: str, last: str) -> None:
    """Times are told in the unit that a person would use."""
    axis = time_axis(0.0, high)

    assert (axis.unit, axis.ticks[-1][1]) == (unit, last)
    assert 3 <= len(axis.ticks) <= 8


def _folder(tmp_path: Path) -> Objects:
    return open_objects((tmp_path / "store").as_uri())
