"""How many submissions with lost replies are tried, and from which seed."""

from __future__ import annotations

import os

TRIALS = 100 if os.environ.get("FABRIC_CAMPAIGN") == "1" else 10
SEED = int(os.environ.get("FABRIC_CAMPAIGN_SEED", "20261121"))
