"""The benchmark's proximal step in C, built when it is asked for, and checked against ours."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from flow_problem import BLOCK, LAMBDA, RADIUS, SIGMA, blurred, pyramid, signal

from temporal_fabric.flows.convolutions import gaussian_taps

TILE = 64
"""Blocks of one tile; the C file has the same number."""

FLAGS = ("-O3", "-march=native", "-ffast-math", "-shared", "-fPIC")


@lru_cache
def _library() -> Any:
    folder = Path(tempfile.mkdtemp())
    source = Path(__file__).with_name("fused_step.c")
    compiler = shutil.which("cc") or "cc"
    subprocess.run([compiler, *FLAGS, str(source), "-o", str(folder / "fused.so")], check=True)
    found = ctypes.CDLL(str(folder / "fused.so"))
    one = np.ctypeslib.ndpointer(np.float32, flags="C_CONTIGUOUS")
    found.steps.argtypes = [one] * 4 + [ctypes.c_long, ctypes.c_float, ctypes.c_long]
    found.steps.restype = None
    return found


class Fused:
    """Iterations of the same problem, on a whole number of tiles near n."""

    def __init__(self, n: int, iterations: int) -> None:
        self.tiles = max(2, round(n / (BLOCK * TILE)))
        self.n = self.tiles * BLOCK * TILE
        once = gaussian_taps(SIGMA, RADIUS)
        self._taps = np.convolve(once, once).astype(np.float32)
        # A Gaussian is its own transpose.
        self._wanted = self._tiled(pyramid(blurred(signal(self.n))))
        self._iterations = iterations

    def __call__(self) -> Any:
        """Run them from zero; return the coefficients as the pyramid orders them."""
        u, other = np.zeros(self.n, np.float32), np.zeros(self.n, np.float32)
        count = self._iterations
        _library().steps(u, other, self._wanted, self._taps, self.tiles, LAMBDA, count)
        return other if count % 2 else u

    def _tiled(self, u: Any) -> Any:
        """Return coefficients in tiles: within each, row by row, a block a column."""
        bands = [np.asarray(u)[: self.n // BLOCK].reshape(-1, 1)]
        at, width = self.n // BLOCK, 1
        while at < self.n:
            bands.append(np.asarray(u)[at : 2 * at].reshape(-1, width))
            at, width = 2 * at, 2 * width
        rows = np.concatenate(bands, 1).reshape(self.tiles, TILE, BLOCK)
        return np.ascontiguousarray(rows.transpose(0, 2, 1).reshape(-1), np.float32)

    def signal(self, tiled: Any) -> Any:
        """Return coefficients in tiles as coefficients of the pyramid."""
        rows = tiled.reshape(self.tiles, BLOCK, TILE).transpose(0, 2, 1).reshape(-1, BLOCK)
        bands, at = [rows[:, 0]], 1
        while at < BLOCK:
            bands.append(rows[:, at : 2 * at].reshape(-1))
            at *= 2
        return np.concatenate(bands)
