"""The profile that a specification chooses, with its own bounds; nothing is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporal_fabric.errors import Problem, RequestRejected
from temporal_fabric.flows.certificates.profiles import Profile, ProfileName, Scheme, profile_for

if TYPE_CHECKING:
    from temporal_fabric.flows.spec import FlowSpec

__all__ = ["check_profile", "profile_of"]


def profile_of(spec: FlowSpec, *, polished: bool = False) -> Profile:
    """Return the profile that a specification chose, with its bounds.

    Args:
        spec: The specification.
        polished: Whether float64 steps have followed a float32 flow.

    Raises:
        ValueError: The scheme has no theorem under it, or a tolerance names no bound.
    """
    certification = spec.certification
    name = ProfileName(certification.profile)
    scheme = Scheme(spec.flow.family)
    profile = profile_for(name, scheme=scheme, dtype=spec.dtype, polished=polished)
    bounds = dict(certification.tolerances)
    if name is ProfileName.STRICT:
        bounds = {"eta_dd": spec.gap_dial.eta_max, "gamma_low": spec.gap_dial.gamma_min} | bounds
    return profile.with_bounds(bounds)


def check_profile(spec: FlowSpec) -> None:
    """Refuse a specification whose profile and scheme, or tolerances, do not fit.

    Raises:
        RequestRejected: They do not.
    """
    try:
        profile_of(spec)
    except ValueError as exc:
        raise RequestRejected([Problem("E_FLOW", "/certification", str(exc))]) from None
