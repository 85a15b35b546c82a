"""The bounds that a specification sets for its run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from temporal_fabric.flows.adjusting import lens_name, scales_of
from temporal_fabric.flows.controller_state import Policy
from temporal_fabric.flows.remedies import Allowed
from temporal_fabric.flows.tuner import TunerPolicy

if TYPE_CHECKING:
    from temporal_fabric.flows.spec import FlowSpec

_CHUNK = 100
_WARM_UP = 10


def policy_of(spec: FlowSpec) -> Policy:
    """Return the bounds that a specification sets for its run."""
    every, budget, dial = spec.sample_every, spec.budget, spec.gap_dial
    own = lens_name(spec)
    lenses = [one.type for one in spec.lens.candidates] if spec.lens else []
    tuner = None
    if dial.target_sparsity is not None or spec.sparsity.adaptive_rule != "none":
        tuner = TunerPolicy(
            scales=scales_of(spec),
            cap=dial.lambda_move_cap,
            validation=math.ceil(20 / every) * every,
            trials=50 if budget.trials is None else budget.trials,
        )
    return Policy(
        max_iterations=budget.iterations,
        chunk=math.ceil(_CHUNK / every) * every,
        warm_up=math.ceil(_WARM_UP / every) * every,
        max_rollbacks=3 if budget.rollbacks is None else budget.rollbacks,
        wall_s=budget.wall_s,
        polish=spec.flow.polish or 0,
        allowed=Allowed(
            lenses=tuple(one for one in lenses if one != own), mu_max=spec.certification.mu_max
        ),
        tuner=tuner,
    )
