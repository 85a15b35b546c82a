"""Which adapters have shown that they keep the contract, by the reports that ship with them.

A report of `temporal_fabric.testing.conformance` lies in the folder ``conformance`` beside the
module that the adapter's entry point names: ours in this package, a third party's in theirs.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from temporal_fabric.adapters.conformance_report import FAILED, Report
from temporal_fabric.adapters.registry import GROUP

FOLDER = "conformance"


def experimental(kind: str) -> str:
    """Return why an installed kind of adapter is experimental, empty where it is not."""
    entries = [entry for entry in entry_points(group=GROUP) if entry.name == kind]
    if not entries:
        return "no such adapter is installed"
    spec = find_spec(entries[0].module)
    folder = Path(spec.origin).parent / FOLDER if spec and spec.origin else Path()
    paths = sorted([*folder.glob(f"{kind}.json"), *folder.glob(f"{kind}-*.json")])
    if not paths:
        return "no conformance report ships with its adapter"
    try:
        reports = [Report.read(path) for path in paths]
    except (OSError, ValueError) as exc:
        return f"its conformance report cannot be read: {exc}"
    failed = {found.case for told in reports for found in told.outcomes if found.verdict == FAILED}
    if failed or not all(told.passed for told in reports):
        return f"its adapter does not pass the conformance suite: {', '.join(sorted(failed))}"
    shipped = entries[0].dist.version if entries[0].dist else ""
    other = {told.version for told in reports} - {shipped}
    return f"its conformance report is of version {other.pop()}, not {shipped}" if other else ""
