"""A specification with the controller's settings put into it.

Everything goes through the specification: what the tuner or a remedy changes is compiled,
certified and recorded like what the user wrote, and reaches the step by the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from temporal_fabric.flows.spec import (
    FlowSpec,
    L1Spec,
    LensSpec,
    SmoothSpec,
    Term,
    TreeSpec,
    WaveletL1Spec,
)
from temporal_fabric.flows.term_kinds import SPARSE, WAVELETS

if TYPE_CHECKING:
    from temporal_fabric.flows.remedies import Settings

__all__ = ["adjusted", "lambda_of", "lens_name", "resolved", "scales_of"]


def adjusted(spec: FlowSpec, settings: Settings) -> FlowSpec:
    """Return the specification with another lens, lambda and mu; the step is not part of it."""
    terms = [_changed(spec, term, settings) for term in spec.terms]
    if settings.mu > 0:
        terms += [
            SmoothSpec(type="tikhonov", weight=settings.mu, variable=slot, name=f"added_mu_{slot}")
            for slot in spec.state
        ]
    return spec.model_copy(update={"terms": tuple(terms)})


def lens_name(spec: FlowSpec) -> str:
    """Return the name of the lens of the first sparse term; empty where there is none."""
    for term in spec.terms:
        if term.type in SPARSE:
            lens = getattr(term, "lens", None)
            return str(getattr(term, "wavelet", "") or (lens.type if lens else ""))
    return ""


def lambda_of(spec: FlowSpec) -> float:
    """Return the lambda of the first sparse term, at its finest scale."""
    term = next(one for one in spec.terms if one.type in SPARSE)
    factors = getattr(term, "scale_weights", ()) or (1.0,)
    return float(term.weight * factors[-1])


def scales_of(spec: FlowSpec) -> int:
    """Return how many lambdas may be tuned: one for each scale that has its own, else one."""
    counts = [len(getattr(term, "scale_weights", ())) for term in spec.terms]
    if spec.gap_dial.per_scale_seed is not None:
        counts += [1 + lens.levels for lens in map(_wavelet, spec.terms) if lens is not None]
    return max(counts, default=0) or 1


def resolved(spec: FlowSpec) -> FlowSpec:
    """Return the specification with the penalties that its sparsity policy asks for.

    ``hard`` thresholding is the prox of the number of coefficients: it replaces the norm, and with
    it convexity.
    """
    policy = spec.sparsity
    if policy.penalty is None and policy.thresholding == "soft":
        return spec
    terms = [_penalised(term, policy.penalty, policy.thresholding) for term in spec.terms]
    return spec.model_copy(update={"terms": tuple(terms)})


def _penalised(term: Term, penalty: str | None, thresholding: str) -> Term:
    lens = _wavelet(term)
    if term.type not in {"l1", "wavelet_l1", "tree"}:
        return term
    kept: dict[str, Any] = {
        "weight": term.weight,
        "variable": term.variable,
        "name": term.name,
    }
    if thresholding == "hard":
        weights = getattr(term, "scale_weights", ())
        return L1Spec(type="l0", lens=lens or _lens(term), scale_weights=weights, **kept)
    if lens is None or penalty in (None, term.type, "group_l1"):
        return term
    more = {"wavelet": lens.type, "levels": lens.levels}
    if penalty == "tree":
        return TreeSpec.model_validate({"type": "tree", **more, **kept})
    if term.type == "tree":
        return WaveletL1Spec.model_validate({"type": "wavelet_l1", **more, **kept})
    return term


def _wavelet(term: Term) -> LensSpec | None:
    """Return the wavelet of a sparse term; None where it has another lens, or none."""
    if isinstance(term, (WaveletL1Spec, TreeSpec)):
        return LensSpec(type=term.wavelet, levels=term.levels)
    lens = _lens(term)
    return lens if lens.type in WAVELETS else None


def _lens(term: Term) -> LensSpec:
    lens = getattr(term, "lens", None)
    return lens if isinstance(lens, LensSpec) else LensSpec()


def _changed(spec: FlowSpec, term: Term, settings: Settings) -> Term:
    if term.type not in SPARSE:
        return term
    changes: dict[str, Any] = {}
    factors = settings.lambdas
    if len(factors) == 1:
        changes["weight"] = term.weight * factors[0]
    elif isinstance(term, (L1Spec, WaveletL1Spec)):
        own = term.scale_weights or (1.0,) * len(factors)
        changes["scale_weights"] = tuple(a * b for a, b in zip(own, factors, strict=True))
    return term.model_copy(update=changes | _through(spec, term, settings.lens))


def _through(spec: FlowSpec, term: Term, name: str) -> dict[str, Any]:
    """Return what another lens changes of a term: the candidate of that name, as it was written."""
    if not name:
        return {}
    old = _wavelet(term) or _lens(term)
    written = [one for one in (spec.lens.candidates if spec.lens else ()) if one.type == name]
    new = written[0] if written else old.model_copy(update={"type": name})
    if hasattr(term, "wavelet"):
        return {"wavelet": new.type, "levels": new.levels}
    return {"lens": new} if hasattr(term, "lens") else {}
