"""Bounds of what float64 adds to a certificate's own computation.

Higham, Accuracy and Stability of Numerical Algorithms (2nd ed., 2002): section 3.1 for gamma_n,
section 24.1 for the fast Fourier transform.
"""

from __future__ import annotations

import math

from temporal_fabric.flows.precision import CERT_DTYPE, unit_roundoff

__all__ = ["U", "of_fft", "of_sum"]

U = unit_roundoff(CERT_DTYPE)
"""Unit roundoff of float64, in which certificates are evaluated."""


def of_sum(terms: int) -> float:
    """Return gamma_n = n u / (1 - n u): the relative error of a sum of n terms, in any order."""
    return terms * U / (1 - terms * U)


def of_fft(points: int) -> float:
    """Return e: every output of an FFT is within e * (sum of moduli of the input).

    Each output is a tree of log2(n) additions and products with twiddles, each of which adds
    less than 8 u. Lengths with large prime factors go through three longer transforms.
    """
    return 24 * U * math.log2(4 * points)
