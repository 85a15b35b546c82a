"""What a host's owner says about isolation: the options of a local backend in fabric.toml.

::

    [backends.local.options]
    isolation = "limits"          # what a request gets that does not say, and the least it may ask
    owner = "default"             # the tenant that is trusted with this host's user
    others = "sandbox"            # the same as isolation, for every other tenant
    network = true                # whether a sandboxed payload may ask for the host's network
    read = ["/data/models"]       # what every sandboxed payload may read, beside the system
    bubblewrap = "/opt/bin/bwrap" # the sandbox program, where it is not on PATH
    gpus = ["0", "GPU-5a1f..."]   # devices, each given whole to one payload; ["all"] by default
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from temporal_fabric.errors import Problem, RequestRejected
from temporal_fabric.names import DEFAULT_TENANT
from temporal_fabric.shapes import is_list

if TYPE_CHECKING:
    from collections.abc import Mapping

NONE, LIMITS, SANDBOX = "none", "limits", "sandbox"
LEVELS = (NONE, LIMITS, SANDBOX)
"""From the least to the most isolation."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the host's owner allows and demands."""

    isolation: str = NONE
    owner: str = DEFAULT_TENANT
    others: str = SANDBOX
    network: bool = False
    read: tuple[str, ...] = ()
    bubblewrap: str = ""
    gpus: tuple[str, ...] = ("all",)

    def least(self, tenant: str) -> str:
        """Return the level of a tenant's requests that name none, and the least it may ask for."""
        if tenant != self.owner:
            return self.least_of_others
        return self.isolation

    @property
    def least_of_others(self) -> str:
        """The same level of every tenant but the owner."""
        return max(self.isolation, self.others, key=LEVELS.index)


def read_rules(options: Mapping[str, Any], backend: str) -> Rules:
    """Return the rules of a backend.

    Raises:
        RequestRejected: an option is unknown or has a wrong value; every one is a problem.
    """
    at = f"/backends/{backend}/options"
    known = tuple(field.name for field in fields(Rules))
    wrong = [
        Problem("E_UNKNOWN_FIELD", f"{at}/{name}", f"unknown option {name!r}", allowed=known)
        for name in options
        if name not in known
    ]
    for name in ("isolation", "others"):
        if options.get(name, NONE) not in LEVELS:
            text = f"{name} is one of {', '.join(LEVELS)}"
            wrong.append(Problem("E_ISOLATION", f"{at}/{name}", text, allowed=LEVELS))
    if not isinstance(options.get("owner", ""), str):
        wrong.append(Problem("E_TYPE", f"{at}/owner", "owner is the name of a tenant"))
    if not isinstance(options.get("network", False), bool):
        wrong.append(Problem("E_TYPE", f"{at}/network", "network is true or false"))
    read = options.get("read", [])
    if not is_list(read) or not all(isinstance(p, str) and p.startswith("/") for p in read):
        wrong.append(Problem("E_PATH", f"{at}/read", "read is a list of full paths"))
    gpus = options.get("gpus", ["all"])
    if not is_list(gpus) or not all(isinstance(name, str) and name for name in gpus):
        text = 'gpus is a list of UUIDs or numbers, such as ["0"], or ["all"]'
        wrong.append(Problem("E_TYPE", f"{at}/gpus", text))
    if not isinstance(options.get("bubblewrap", ""), str):
        wrong.append(Problem("E_TYPE", f"{at}/bubblewrap", "bubblewrap is a full path"))
    if wrong:
        raise RequestRejected(wrong, source="fabric.toml")
    given: dict[str, Any] = {**options, "read": tuple(read), "gpus": tuple(gpus)}
    return Rules(**given)
