"""What kinds of terms and lenses there are, by the names that a specification gives them."""

from __future__ import annotations

__all__ = ["SMOOTH", "SPARSE", "WAVELETS"]

SMOOTH = frozenset({"quadratic", "tikhonov", "huber", "kl", "quadratic_form"})
SPARSE = frozenset({"l1", "l0", "wavelet_l1", "group_l1", "tree"})
"""Those that lambda, lenses and the sparsity policy are about."""

WAVELETS = frozenset({"haar", "db4", "db8"})
