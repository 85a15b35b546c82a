"""Which devices JAX has on this host: ``python -m temporal_fabric.flows.device_probe``.

It runs in a process of its own, for JAX binds devices when it is loaded, and before any flow.
"""

from __future__ import annotations

import json

__all__ = ["main"]


def main() -> None:
    """Print kind and number of the devices as JSON."""
    import jax  # noqa: PLC0415 - the worker imports this module's name only

    here = jax.local_devices()
    print(json.dumps({"platform": here[0].platform, "count": len(here)}))  # noqa: T201


if __name__ == "__main__":
    main()
