"""What the policies of a specification say that its terms cannot follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from temporal_fabric.flows.term_kinds import SPARSE, WAVELETS
from temporal_fabric.shapes import is_rows, is_table

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["policies"]

Finding = tuple[tuple[str | int, ...], str]
Terms = list[tuple[int, dict[str, Any]]]


def policies(tree: dict[str, Any], terms: Terms) -> Iterator[Finding]:
    """Return where lens, sparsity and gap_dial ask for what has no meaning here.

    Args:
        tree: The specification.
        terms: Its terms that are tables, with their numbers.
    """
    sparse = [(number, term) for number, term in terms if term.get("type") in SPARSE]
    lens, sparsity, dial = (_table(tree, key) for key in ("lens", "sparsity", "gap_dial"))
    if lens:
        yield from _lenses(lens, sparse, _table(tree, "flow").get("family", "proximal"))
    yield from _sparsity(sparsity, sparse)
    yield from _dial(
        tree, dial, sparse, str(_table(tree, "certification").get("profile", "strict"))
    )
    if dial.get("target_sparsity") and sparsity.get("adaptive_rule", "none") != "none":
        yield ("sparsity", "adaptive_rule"), "and target_sparsity are two aims of one tuner; choose"


def _table(tree: dict[str, Any], key: str) -> dict[str, Any]:
    found = tree.get(key)
    return found if is_table(found) else {}


def _lens_type(term: dict[str, Any]) -> str:
    if term.get("type") in ("wavelet_l1", "tree"):
        return str(term.get("wavelet", "haar"))
    return str(_table(term, "lens").get("type", "identity"))


def _lenses(lens: dict[str, Any], sparse: Terms, family: Any) -> Iterator[Finding]:
    if not sparse:
        yield ("lens",), "no term has a lens to choose; add a sparse term, or leave this out"
    if len(sparse) > 1:
        yield ("lens",), f"{len(sparse)} sparse terms have lenses; a choice is among those of one"
    rows = lens.get("candidates")
    types = (
        [one.get("type", "identity") if is_table(one) else "" for one in rows or ()]
        if is_rows(rows)
        else []
    )
    wavelet = any(term.get("type") in ("wavelet_l1", "tree") for _, term in sparse)
    for number, kind in enumerate(types):
        path = ("lens", "candidates", number)
        if kind in types[:number]:
            yield path, f"is the second {kind}; a lens is chosen by its type, so name each once"
        if wavelet and kind not in WAVELETS:
            yield path, f"{kind} is no wavelet, which the term needs; write the term as l1"
        if kind == "graph" and family != "primal_dual":
            yield path, f"a redundant frame has no closed prox, which {family} needs"
    wanted = {"min_reconstruction_error": "reconstruction_error"}.get(
        str(lens.get("rule")), "compressibility"
    )
    metrics = lens.get("probe_metrics")
    if is_rows(metrics) and wanted not in metrics:
        yield ("lens", "probe_metrics"), f"lack {wanted}, which the rule chooses by; add it"


def _sparsity(sparsity: dict[str, Any], sparse: Terms) -> Iterator[Finding]:
    penalty, hard = sparsity.get("penalty"), sparsity.get("thresholding") == "hard"
    adaptive = sparsity.get("adaptive_rule", "none") != "none"
    if (penalty or hard or adaptive) and not sparse:
        yield ("sparsity",), "there is no sparse term; add one, or leave this out"
    if hard and penalty not in (None, "l1"):
        yield ("sparsity", "thresholding"), f"hard counts coefficients, and {penalty} adds norms up"
    for number, term in sparse:
        kind, wavelet = term.get("type"), _lens_type(term) in WAVELETS
        where = f"terms/{number}, {kind}"
        if penalty == "group_l1" and kind != "group_l1":
            what = f"needs groups, and {where}, has none; write it as group_l1 with axes or labels"
            yield ("sparsity", "penalty"), what
        if penalty in ("l1", "tree") and kind in ("group_l1", "l0"):
            yield ("sparsity", "penalty"), f"cannot replace {where}; write the term as {penalty}"
        if penalty == "tree" and kind == "l1" and not wavelet:
            yield ("sparsity", "penalty"), f"needs the tree of a wavelet; {where}, has another lens"
        if hard and kind in ("group_l1", "tree"):
            yield ("sparsity", "thresholding"), f"hard has no prox for {where}; leave it out"


def _dial(
    tree: dict[str, Any], dial: dict[str, Any], sparse: Terms, profile: str
) -> Iterator[Finding]:
    if dial.get("beta_estimator") == "power":
        yield (
            ("gap_dial", "beta_estimator"),
            "a power iteration bounds beta from below, so no step is safe by it; use lanczos",
        )
    for key, default in (("eta_max", 0.9), ("gamma_min", 1e-6)):
        if profile != "strict" and dial.get(key, default) != default:
            yield (
                ("gap_dial", key),
                f"is the strict profile's; under {profile} write it into certification.tolerances",
            )
    levels = {
        one.get("levels", 1) for one in _table(tree, "lens").get("candidates", ()) if is_table(one)
    }
    if dial.get("per_scale_seed") and len(levels) > 1:
        yield ("lens", "candidates"), "differ in levels, and each scale has a lambda; use the same"
    tuned = dial.get("target_sparsity") or dial.get("per_scale_seed")
    if tuned and not sparse:
        yield ("gap_dial",), "there is no lambda to move; add a sparse term, or leave this out"
    if dial.get("per_scale_seed") and not any(
        _lens_type(term) in WAVELETS and term.get("type") in ("l1", "wavelet_l1")
        for _, term in sparse
    ):
        yield ("gap_dial", "per_scale_seed"), "needs an l1 of a wavelet, whose scales it weighs"
