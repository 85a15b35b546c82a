"""What opens a gate, what closes one, and what a verdict says."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from temporal_fabric.flows.certificates.decision import Colour, decide, propose
from temporal_fabric.flows.certificates.profiles import (
    ALLOWED,
    DEFAULT,
    ProfileName,
    Scheme,
    Stage,
    profile_for,
)
from temporal_fabric.flows.certificates.record import Finding, Kind, Need, Relation, Verdict, judge
from temporal_fabric.flows.certificates.table import certificate_table

EIGENVALUE = Finding(
    name="gamma_low",
    value=1e-3,
    kind=Kind.RIGOROUS,
    relation=Relation.AT_LEAST,
    method="Fourier symbol",
    found="the least eigenvalue is at least 0.001",
    meaning="The minimiser may be not unique",
    remedy="Add mu >= 1e-6, or use `convex`",
)


def _rigorous(name: str, value: float | None, relation: Relation = Relation.AT_MOST) -> Finding:
    return Finding(
        name=name,
        value=value,
        kind=Kind.RIGOROUS,
        relation=relation,
        method="known",
        found=f"{name} is {value}",
    )


def _good(scheme: Scheme = Scheme.PROXIMAL) -> dict[str, Finding]:
    """What the best of problems is found to be, before the run."""
    step = {
        Scheme.PRECONDITIONED: ("preconditioner", "prox_metric"),
        Scheme.PRIMAL_DUAL: ("primal_dual_step",),
    }.get(scheme, ("step",))
    at_most = ("lint", "finite", "adjoint", "transform", "eta_dd", "momentum", *step)
    found = {name: _rigorous(name, 0.0) for name in at_most}
    found["beta_up"] = _rigorous("beta_up", 1.0)
    found["manifold_step"] = _rigorous("manifold_step", 1.5)
    found["gamma_low"] = EIGENVALUE
    found["existence"] = _rigorous("existence", 1.0, relation=Relation.AT_LEAST)
    return found


@pytest.mark.parametrize(
    ("kind", "delta", "need", "verdict"),
    [
        (Kind.RIGOROUS, 0.0, Need.PROOF, Verdict.PASS),
        (Kind.PROBABLE, 1e-6, Need.PROOF, Verdict.PASS),
        (Kind.PROBABLE, 1.1e-6, Need.PROOF, Verdict.UNPROVEN),
        (Kind.PROBABLE, math.nan, Need.PROOF, Verdict.UNPROVEN),
        (Kind.MEASURED, 0.0, Need.PROOF, Verdict.UNPROVEN),
        (Kind.ESTIMATE, 0.0, Need.PROOF, Verdict.UNPROVEN),
        (Kind.ESTIMATE, 0.0, Need.WATCH, Verdict.HELD),
        (Kind.MEASURED, 0.0, Need.WATCH, Verdict.HELD),
        (Kind.RIGOROUS, 0.0, Need.REPORT, Verdict.REPORTED),
    ],
)
def test_only_proof_passes(kind: Kind, delta: float, need: Need, verdict: Verdict) -> None:
    """A value on the right side of its bound passes only if it is proved, or nearly so."""
    finding = replace(EIGENVALUE, kind=kind, delta=delta)

    assert judge(finding, 1e-6, need).verdict is verdict


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("need", [Need.PROOF, Need.WATCH])
def test_every_kind_fails_a_gate(kind: Kind, need: Need) -> None:
    """On the wrong side of the bound even an estimate closes the gate."""
    certificate = judge(replace(EIGENVALUE, value=1e-9, kind=kind), 1e-6, need)

    assert certificate.verdict is Verdict.FAIL
    assert "at least 1e-06 is asked for" in certificate.sentence
    assert "Add mu >= 1e-6" in certificate.sentence


@pytest.mark.parametrize("value", [math.nan, None])
def test_what_is_no_number_closes_the_gate(value: float | None) -> None:
    """Neither NaN nor a missing value passes, and NaN never reaches the record."""
    certificate = judge(replace(EIGENVALUE, value=value), 0.0, Need.WATCH)

    assert certificate.verdict.closes
    assert certificate.value is None


@pytest.mark.parametrize("name", list(ProfileName))
def test_a_good_problem_is_green_under_every_profile_and_scheme(name: ProfileName) -> None:
    """Every allowed pair of profile and scheme can be met, and its verdict names the profile."""
    for scheme in ALLOWED[name]:
        findings = _good(scheme)
        decision = decide(profile_for(name, scheme=scheme), findings.values(), Stage.BEFORE)

        assert decision.name == f"GREEN({name.value})"
        assert decision.claims == ()


@pytest.mark.parametrize("name", list(ProfileName))
def test_no_gate_opens_on_estimates(name: ProfileName) -> None:
    """Each finding that a profile needs proved closes the gate as an estimate, and as none."""
    scheme = min(ALLOWED[name])
    profile = profile_for(name, scheme=scheme)
    findings = _good(scheme)
    for line in profile.of(Stage.BEFORE):
        if line.need is not Need.PROOF or line.instead:
            continue
        for broken in ({"kind": Kind.ESTIMATE}, {"value": None}, {"value": math.nan}):
            planted = findings | {line.name: replace(findings[line.name], **broken)}
            decision = decide(profile, planted.values(), Stage.BEFORE)

            assert decision.colour is Colour.RED
            assert decision.failing == (line.name,)


def test_what_was_not_looked_at_keeps_it_amber() -> None:
    """A missing finding is no failure and no success."""
    findings = _good()
    del findings["adjoint"]
    decision = decide(profile_for(), findings.values(), Stage.BEFORE)

    assert decision.name == "AMBER(strict)"
    assert decision.missing == ("adjoint",)


def test_a_low_estimate_closes_the_gate() -> None:
    """A Ritz value below the bound is proof enough that the least eigenvalue is below it too."""
    estimate = replace(EIGENVALUE, name="gamma_est", value=1e-9, kind=Kind.ESTIMATE)
    decision = decide(profile_for(), (*_good().values(), estimate), Stage.BEFORE)

    assert decision.failing == ("gamma_est",)


def test_of_two_with_one_name_both_have_to_hold() -> None:
    """Two transforms, one of them bad: the gate stays closed."""
    bad = replace(_rigorous("transform", 0.1), found="the second transform has lost energy")
    decision = decide(profile_for(), (*_good().values(), bad), Stage.BEFORE)

    assert decision.colour is Colour.RED
    assert decision.sentences[0].startswith("the second transform")


def test_the_default_is_the_gate_as_first_written() -> None:
    """`strict`: eta_dd at most 0.9 and gamma at least 1e-6, both proved."""
    profile = profile_for()

    assert profile.name is DEFAULT is ProfileName.STRICT
    assert (profile.bound("eta_dd"), profile.bound("gamma_low")) == (0.9, 1e-6)


def test_a_loosened_bound_shows_in_every_verdict() -> None:
    """Easier bounds are allowed and named; harder ones need no name."""
    profile = profile_for().with_bounds({"eta_dd": 20.0, "gamma_low": 1e-4})
    findings = _good() | {"eta_dd": _rigorous("eta_dd", 13.1)}
    decision = decide(profile, findings.values(), Stage.BEFORE)

    assert decision.name == "GREEN(strict, eta_dd<=20)"
    with pytest.raises(ValueError, match="unknown=etta"):
        profile.with_bounds({"etta": 1.0})


def test_a_scheme_without_a_theorem_is_refused() -> None:
    """Primal-dual steps have no descent theorem for a nonconvex f."""
    with pytest.raises(ValueError, match="no descent theorem"):
        profile_for(ProfileName.NONCONVEX, scheme=Scheme.PRIMAL_DUAL)


def test_the_claim_is_downgraded_without_a_dual() -> None:
    """Without a gap a small gradient mapping ends the run, and claims only what it shows."""
    profile = profile_for(ProfileName.CONVEX)
    no_gap, small = _rigorous("gap", None), _rigorous("kkt", 1e-7)
    both = decide(profile, [_rigorous("gap", 1e-8), small], Stage.EXIT)
    without = decide(profile, [no_gap, small], Stage.EXIT)
    neither = decide(profile, [no_gap], Stage.EXIT)
    missed = decide(profile, [_rigorous("gap", 1e-3), small], Stage.EXIT)

    assert "the objective is within the gap of its minimum" in both.claims
    assert "nothing is claimed about the objective" in without.claims[1]
    assert (neither.colour, missed.colour) == (Colour.RED, Colour.RED)
    assert missed.claims == ()


def test_a_float32_flow_is_asked_for_what_float32_can_show() -> None:
    """The gap of a float32 flow is asked for above its floor, unless float64 steps follow."""
    bounds = [
        profile_for(dtype=dtype, polished=polished).bound("gap")
        for dtype, polished in (("float64", False), ("float32", False), ("float32", True))
    ]

    assert bounds == [1e-6, 1e-2, 1e-4]


@pytest.mark.parametrize(
    ("planted", "proposed"),
    [
        ({}, "GREEN(strict)"),
        ({"eta_dd": 13.1}, "GREEN(strongly_convex)"),
        ({"eta_dd": 13.1, "gamma_low": 0.0}, "GREEN(convex)"),
        ({"gamma_low": -1.0}, "GREEN(nonconvex)"),
        ({"step": 2.1}, None),
    ],
)
def test_the_strongest_class_that_holds_is_proposed(
    planted: dict[str, float], proposed: str | None
) -> None:
    """A problem is given the first profile, from the strongest, whose gate it opens."""
    found = _good()
    changed = {name: replace(found[name], value=value) for name, value in planted.items()}
    decision = propose((found | changed).values(), Scheme.PROXIMAL)

    assert (decision.name if decision else None) == proposed


def test_json_has_stable_keys_and_only_numbers() -> None:
    """The record of every kind of value is valid JSON with the keys that others read."""
    values = [_rigorous("gap", math.inf), _rigorous("kkt", math.nan), _rigorous("extra", 1.0)]
    decision = decide(profile_for(ProfileName.CONVEX), values, Stage.EXIT)
    read = json.loads(json.dumps(decision.as_json(), allow_nan=False))

    assert list(read) == [
        "schema_version",
        "verdict",
        "colour",
        "profile",
        "stage",
        "failing",
        "missing",
        "claims",
        "certificates",
    ]
    assert list(read["certificates"][0]) == [
        "name",
        "value",
        "bound",
        "relation",
        "kind",
        "delta",
        "method",
        "error",
        "verdict",
        "sentence",
    ]
    assert read["certificates"][0]["value"] == "inf"


def test_the_table_says_what_failed_and_what_to_change() -> None:
    """At a terminal: every value beside its bound, and below the table the remedy."""
    findings = _good() | {"gamma_low": replace(EIGENVALUE, value=0.0)}
    out = io.StringIO()
    decision = decide(profile_for(), findings.values(), Stage.BEFORE)
    Console(file=out, width=160).print(certificate_table(decision))
    shown = out.getvalue()

    assert "RED(strict)" in shown
    assert "gamma_low" in shown
    assert ">= 1e-06" in shown
    assert "Add mu >= 1e-6, or use `convex`." in shown


def test_verdicts_need_only_the_standard_library() -> None:
    """Workflow code imports records, profiles and decisions: no JAX comes with them."""
    script = (
        "import sys, temporal_fabric.flows.certificates.decision;"
        "sys.exit(bool({'jax', 'numpy', 'rich'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
