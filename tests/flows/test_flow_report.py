"""What a run shows of itself: how near the truth it came, pictures, and a page."""

from __future__ import annotations

import struct
import zlib
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml

from temporal_fabric.capsule.reading import Capsule
from temporal_fabric.flows import load_run_manifest, run_certified
from temporal_fabric.flows.pictures import png, psnr
from temporal_fabric.flows.report import report
from tests.flows.test_flow_cli import flow
from tests.flows.test_runs import SPEC

if TYPE_CHECKING:
    from pathlib import Path

    from temporal_fabric.flows.running import RunResult

SQUARES = np.kron(np.arange(16.0).reshape(4, 4) % 5, np.ones((4, 4)))
IMAGE: dict[str, Any] = SPEC | {
    "name": "<squares>",
    "data": {
        "truth": {"type": "values", "values": SQUARES.tolist()},
        "seen": {"type": "observed", "source": "truth", "operator": "blur", "noise": 0.3},
    },
    "state": {"x": {"shape": [16, 16], "initial": "seen", "reference": "truth"}},
    "terms": [SPEC["terms"][0], SPEC["terms"][1] | {"weight": 0.3}],
}


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """Return a run on an image whose truth is known; its folder is only read."""
    return run_certified(IMAGE, out=tmp_path_factory.mktemp("squares") / "run")


def test_psnr_is_told(squares: RunResult, tmp_path: Path) -> None:
    """The result is nearer the truth than the start, by the definition, wherever it is told."""
    error = np.mean((squares.state["x"] - SQUARES) ** 2)
    assert squares.psnr["x"]["result"] == pytest.approx(10 * np.log10(4**2 / error))
    assert squares.psnr["x"]["result"] > squares.psnr["x"]["start"] + 1
    assert load_run_manifest(squares.folder)["psnr"] == squares.psnr
    path = tmp_path / "squares.yaml"
    path.write_text(yaml.safe_dump(IMAGE))
    told = flow("run", str(path), "--out", str(tmp_path / "run"))
    both = squares.psnr["x"]
    assert f"PSNR      {both['start']:.2f} -> {both['result']:.2f} dB" in told.stdout


def test_psnr_of_the_truth_is_no_number() -> None:
    """Where nothing differs, or the truth is constant, there is none; never infinity."""
    assert psnr(SQUARES, SQUARES) is None
    assert psnr(SQUARES, np.ones_like(SQUARES)) is None


def test_pictures_are_what_the_arrays_are(squares: RunResult) -> None:
    """Start, result and reference are greys of one scale, readable as PNG."""
    for name, array in (("result", squares.state["x"]), ("reference", SQUARES)):
        grey = _grey((squares.folder / "artifacts" / f"x-{name}.png").read_bytes())
        wanted = np.clip(array / 4 * 255, 0, 255)
        assert np.abs(grey - wanted).max() <= 0.5 + 1e-9
    assert (squares.folder / "artifacts" / "x-start.png").exists()
    constant = _grey(png(np.zeros((2, 3)), 0.0, 0.0))
    assert constant.shape == (2, 3)


def _grey(data: bytes) -> np.ndarray:
    """Return the greys of a PNG, its checksums looked at."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, packed, size = 8, b"", (0, 0)
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length :][:4])[0] == zlib.crc32(kind + body)
        if kind == b"IHDR":
            size = struct.unpack(">II", body[:8])
        packed += body if kind == b"IDAT" else b""
        at += 12 + length
    rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(size[1], size[0] + 1)
    assert (rows[:, 0] == 0).all()
    return rows[:, 1:].astype(np.float64)


class _Tags(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for key, value in attrs if key in {"src", "href"}]

    def handle_data(self, data: str) -> None:
        self.text += data


def _read(folder: Path) -> _Tags:
    page = _Tags()
    page.feed(report(Capsule.open(folder)))
    return page


def test_report(squares: RunResult) -> None:
    """The page has the images, every certificate, the curves and events, and loads nothing."""
    page = _read(squares.folder)
    assert page.tags.count("img") == 3
    assert all(one.startswith("data:image/png;base64,") for one in page.sources)
    assert "script" not in page.tags
    for words in ("GREEN(convex): certificates of the result", "gap", "energy", "RUN_FINISHED"):
        assert words in page.text
    assert page.tags.count("polyline") >= 2
    assert "PSNR of x" in page.text


def test_report_of_a_refused_run(tmp_path: Path) -> None:
    """A run that was never begun has a page that says why."""
    blur = {"blur": {"type": "separable_convolution", "sigma": 3.0}}
    spec = IMAGE | {"operators": blur, "certification": {"profile": "strict"}}
    result = run_certified(spec, out=tmp_path / "run")
    page = _read(result.folder)
    assert "RED(strict)" in page.text
    assert "eta_dd" in page.text
    assert "CERT_FAIL" in page.text


def test_redacted_runs_have_no_pictures(tmp_path: Path) -> None:
    """Redaction keeps numbers of the result, and no picture of it."""
    result = run_certified(IMAGE, out=tmp_path / "run", redact_artifacts=True)
    assert not list(result.folder.rglob("*.png"))
    assert result.psnr["x"]["result"] > 0
    assert "img" not in _read(result.folder).tags
