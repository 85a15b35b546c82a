"""How many random problems a test draws: a tenth in the suite, all in the campaign."""

from __future__ import annotations

import os

CAMPAIGN = os.environ.get("FABRIC_CAMPAIGN") == "1"
SEED = int(os.environ.get("FABRIC_CAMPAIGN_SEED", "20261121"))


def drawn(whole: int) -> int:
    """Return how many of a campaign's problems to draw here."""
    return whole if CAMPAIGN else whole // 10
