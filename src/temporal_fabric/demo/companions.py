"""The demo's other experiments: two photographs, and one that waits for the first."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

_PILLOW = "pillow==13.0.0"
_BEST = (
    "import json, os, pathlib; "
    "path = pathlib.Path(os.environ['FABRIC_INPUT_DIR'], 'result.json'); "
    "best = max(json.loads(path.read_text())['history'], key=lambda row: row['accuracy']); "
    "print(json.dumps(best))"
)


def photograph() -> dict[str, Any]:
    """Return a request that outlines the photograph that scikit-learn brings along."""
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise ModuleNotFoundError(
            "the demo needs scikit-learn: pip install 'temporal-fabric[demo]'"
        )
    photo = Path(package.origin).parent / "datasets" / "images" / "china.jpg"
    python = {
        "entry_point": f"{Path(__file__).with_name('photo.py')}:outline",
        "args": [40],
        "inputs": [{"source_uri": photo.as_uri(), "mount_path": "photo.jpg"}],
        "outputs": [{"source_path": "outline.png"}],
    }
    return {
        "name": "photograph",
        "tags": ["demo"],
        "environment": {"requirements": [_PILLOW]},
        "payload": {"python": python},
    }


def best_epoch(tenant: str, request_id: str) -> dict[str, Any]:
    """Return a request that reads another experiment's output, and waits until it exists."""
    source = f"capsule://{tenant}/{request_id}/result.json"
    process = {
        "command": [sys.executable, "-S", "-c", _BEST],
        "inputs": [{"source_uri": source, "mount_path": "result.json"}],
    }
    return {"name": "best-epoch", "tags": ["demo"], "payload": {"process": process}}


def deblurring() -> dict[str, Any] | None:
    """Return a request that sharpens a photograph under certificates; None without JAX."""
    if not all(importlib.util.find_spec(name) for name in ("jax", "pywt")):
        return None
    photo = {"package": "pywt.data", "path": "camera.npz", "divide": 255.0, "shrink": 4}
    seen = {"source": "photo", "operator": "blur", "noise": 0.01, "seed": 1}
    energy = {
        "name": "deblur",
        "data": {"photo": {"type": "file", **photo}, "blurred": {"type": "observed", **seen}},
        "operators": {"blur": {"type": "separable_convolution", "sigma": 0.7}},
        "state": {"x": {"shape": [128, 128], "initial": "blurred", "reference": "photo"}},
        "terms": [
            {"type": "quadratic", "operator": "blur", "target": "blurred"},
            {"type": "wavelet_l1", "wavelet": "db4", "levels": 4, "weight": 3e-3},
        ],
        "flow": {"family": "accelerated"},
        "certification": {"profile": "convex"},
        "sample_every": 10,
    }
    return {"name": "deblurring", "tags": ["demo"], "payload": {"flow": {"energy": energy}}}
