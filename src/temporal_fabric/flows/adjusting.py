"""A specification with the controller's settings put into it.

Everything goes through the specification: what the tuner or a remedy changes is compiled,
certified and recorded like what the user wrote, and reaches the step by the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from temporal_fabric.flows.spec import FlowSpec, LensSpec, SmoothSpec, Term

if TYPE_CHECKING:
    from temporal_fabric.flows.remedies import Settings

__all__ = ["adjusted", "lens_name", "scales_of"]

_SPARSE = frozenset({"l1", "l0", "wavelet_l1", "group_l1", "tree"})
_WAVELETS = frozenset({"haar", "db4", "db8"})


def adjusted(spec: FlowSpec, settings: Settings) -> FlowSpec:
    """Return the specification with another lens, lambda and mu; the step is not part of it."""
    terms = [_changed(term, settings) for term in spec.terms]
    if settings.mu > 0:
        terms += [
            SmoothSpec(type="tikhonov", weight=settings.mu, variable=slot, name=f"added_mu_{slot}")
            for slot in spec.state
        ]
    return spec.model_copy(update={"terms": tuple(terms)})


def lens_name(spec: FlowSpec) -> str:
    """Return the name of the lens of the first sparse term; empty where there is none."""
    for term in spec.terms:
        if term.type in _SPARSE:
            lens = getattr(term, "lens", None)
            return str(getattr(term, "wavelet", "") or (lens.type if lens else ""))
    return ""


def scales_of(spec: FlowSpec) -> int:
    """Return how many lambdas may be tuned: one for each scale that has its own, else one."""
    weights = (getattr(term, "scale_weights", ()) for term in spec.terms)
    return max((len(one) for one in weights), default=0) or 1


def _changed(term: Term, settings: Settings) -> Term:
    if term.type not in _SPARSE:
        return term
    changes: dict[str, Any] = {}
    factors = settings.lambdas
    if len(factors) == 1:
        changes["weight"] = term.weight * factors[0]
    elif getattr(term, "scale_weights", ()):
        own: tuple[float, ...] = term.scale_weights  # type: ignore[union-attr]
        changes["scale_weights"] = tuple(a * b for a, b in zip(own, factors, strict=True))
    if settings.lens in _WAVELETS and hasattr(term, "wavelet"):
        changes["wavelet"] = settings.lens
    elif settings.lens and (lens := getattr(term, "lens", None)):
        changes["lens"] = LensSpec.model_validate({"type": settings.lens, "levels": lens.levels})
    return term.model_copy(update=changes)
