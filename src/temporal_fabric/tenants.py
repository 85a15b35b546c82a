"""Which tenants there are, what each may have, and who may act for it: ``[tenants.NAME]``.

A tenant is a name inside a Temporal namespace. Temporal's authorizer decides who may write
into the namespace at all; this table decides, in the worker, what is then accepted. Without
any table every tenant is accepted without limits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from temporal_fabric.errors import Problem
from temporal_fabric.shapes import is_list, is_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OTHERS = "*"
"""Entry for every tenant without one of its own; without it those are refused."""

_PATH = "/tenant"
_KEYS = ("max_open", "max_per_minute", "principals")
_LIMITS = ("max_open", "max_per_minute")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")


@dataclass(frozen=True, slots=True)
class TenantConfig:
    """What one tenant may have."""

    max_open: int | None = None
    """Experiments that have not ended, waiting ones included; None sets no limit."""

    max_per_minute: int | None = None
    """Experiments started in any 60 seconds; None sets no limit."""

    principals: tuple[str, ...] = ()
    """Callers that may act for it, as the server's authorizer names them; empty is anybody."""


@dataclass(frozen=True, slots=True)
class TenantsConfig:
    """Every configured tenant."""

    entries: dict[str, TenantConfig] = field(default_factory=dict[str, TenantConfig])

    def of(self, tenant: str) -> TenantConfig | None:
        """Return what a tenant may have; None where it is not known."""
        if not self.entries:
            return TenantConfig()
        return self.entries.get(tenant, self.entries.get(OTHERS))


def tenants(table: Mapping[str, Any]) -> TenantsConfig:
    """Return the tenants of a checked configuration."""
    entries: dict[str, TenantConfig] = {}
    for name, entry in table.get("tenants", {}).items():
        own: dict[str, Any] = {**entry, "principals": tuple(entry.get("principals", ()))}
        entries[name] = TenantConfig(**own)
    return TenantsConfig(entries)


def check(table: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield every problem of the table."""
    given = table.get("tenants", {})
    if not is_table(given):
        yield Problem("E_TYPE", "/tenants", "write one [tenants.NAME] table each")
        return
    for name, entry in given.items():
        at = f"/tenants/{name}"
        if name != OTHERS and not _NAME.match(name):
            message = "a tenant's name is lower case [a-z0-9._-], 63 at most; '*' is every other"
            yield Problem("E_NAME", at, message)
        if is_table(entry):
            yield from _check_entry(at, entry)
        else:
            yield Problem("E_TYPE", at, "a tenant is a table; an empty one sets no limit")


def _check_entry(at: str, entry: Mapping[str, Any]) -> Iterator[Problem]:
    for key, value in entry.items():
        if key not in _KEYS:
            message = f"unknown setting {key!r}"
            yield Problem("E_UNKNOWN_FIELD", f"{at}/{key}", message, allowed=_KEYS)
        elif key in _LIMITS:
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                yield Problem("E_RANGE", f"{at}/{key}", f"{key} is a whole number from 0 on")
        elif not is_list(value) or not all(isinstance(item, str) and item for item in value):
            yield Problem("E_TYPE", f"{at}/{key}", f"{key} is a list of names")


def unknown(tenant: str) -> Problem:
    """Return the refusal of a tenant that is not known here; the known ones are not told."""
    message = "is not a tenant here; use yours, or ask the server's owner to add it"
    return Problem("E_TENANT", _PATH, message, actual=tenant)


def not_for(tenant: str, principal: str) -> Problem:
    """Return the refusal of a caller who may not act for a tenant."""
    who = f"the caller {principal!r} may not" if principal else "a caller without a name may not"
    message = f"{who} act for this tenant; use yours, or ask the server's owner to be added"
    return Problem("E_TENANT", _PATH, message, actual=tenant)


def too_many_open(tenant: str, limit: int, found: int) -> Problem:
    """Return the refusal of an experiment beyond those a tenant may have open."""
    message = (
        f"the tenant {tenant!r} has {found} experiments that have not ended and may have {limit}; "
        "wait for some of them to end, cancel some, or ask for a larger quota"
    )
    return Problem("E_QUOTA", _PATH, message, limit=limit, actual=found, retryable=True)


def too_fast(tenant: str, limit: int, found: int, wait_s: float) -> Problem:
    """Return the refusal of an experiment that comes too soon after others."""
    message = (
        f"the tenant {tenant!r} has started {found} experiments in the last minute and may start "
        f"{limit}; send it again in {wait_s:g} s"
    )
    return Problem(
        "E_RATE", _PATH, message, limit=limit, actual=found, retryable=True, retry_after_s=wait_s
    )
