"""What the seed's own engine says, and what this one says: ``bench_seed.py CLONE [PYTHON]``.

CLONE is one of github.com/LindsayRex/afs at d36b38b, which has no licence: it is run where it lies.
PYTHON is an interpreter with what that asks for (jax, pydantic, pyarrow, duckdb, toml, frozendict,
jaxwt, websockets); this one where left out. Prints the table of ``docs/evidence/seed.md``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from temporal_fabric.flows import load_run_manifest, run_certified
from temporal_fabric.flows.chunk import advance
from temporal_fabric.flows.compiling import compile_flow
from temporal_fabric.flows.judging import before
from temporal_fabric.flows.reading import read_spec

if TYPE_CHECKING:
    from temporal_fabric.flows.running import RunResult

N = 64
Spec = dict[str, Any]


def spec(terms: list[Any], shape: list[int] | None = None, **more: Any) -> Spec:
    """Return a specification with the data y."""
    shape = shape or [N]
    data = {"y": {"type": "values", "values": np.linspace(-1, 1, int(np.prod(shape))).tolist()}}
    if len(shape) > 1 or shape[0] > N:
        data = {"y": {"type": "normal", "shape": shape, "seed": 1}}
    state = {"x": {"shape": shape}}
    return {"data": data | more.pop("data", {}), "state": state, "terms": terms} | more


def ran(body: Spec) -> tuple[RunResult, dict[str, Any]]:
    """Return what became of a run, and the settings that it ended with."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        return run_certified(read_spec(body), out=out), load_run_manifest(out)["settings"]


def ours_of_diagonal(entries: list[float]) -> str:
    """Return what the strict gate makes of a diagonal operator."""
    data = {"d": {"type": "values", "values": entries}}
    form = {"type": "quadratic_form", "operator": "D", "linear": "y"}
    operators = {"D": {"type": "mask", "entries": "d"}}
    decision, found = before(compile_flow(read_spec(spec([form], data=data, operators=operators))))
    gamma = next(one.value for one in found if one.name == "gamma_low")
    return f"{decision.colour.value}, gamma >= {gamma:.3g}"


def ours() -> dict[str, str]:
    """Return what this engine says of each case."""
    fit, sparse = {"type": "quadratic", "target": "y"}, {"type": "l1", "weight": 0.1}
    blurred = {"operators": {"A": {"type": "separable_convolution", "sigma": 3.0}}}
    began = spec([fit, sparse])
    began["state"]["x"]["initial"] = "y"
    apart = [ran(spec([fit, sparse | {"weight": w}]))[0].energy or 0.0 for w in (0.01, 0.5)]
    _, settings = ran(
        spec([fit, sparse], gap_dial={"target_sparsity": 0.3}, certification={"profile": "convex"})
    )
    wave = {"type": "wavelet_l1", "wavelet": "haar", "levels": 2, "weight": 0.1}
    seeds = {
        "atoms": [
            {
                "type": "quadratic",
                "params": {"A": np.eye(2).tolist(), "b": [1.0, 2.0]},
                "weight": 1.0,
                "variable": "x",
            },
            {"type": "l1", "params": {"lambda": 0.1}, "weight": 0.5, "variable": "x"},
        ],
        "state": {"x": {"shape": [2]}},
        "initial_state": {"x": [10.0, 5.0]},
        "num_iterations": 100,
        "step_alpha": 0.1,
    }
    return {
        "documented": _end(seeds),
        "controlled": _end(spec([fit, sparse])),
        "singular": ours_of_diagonal([0.0, *[1.0] * (N - 1)]),
        "indefinite": ours_of_diagonal([-1e-7, *np.linspace(1, 2, N)[1:].tolist()]),
        "descent": _end(began),
        "remediation": _end(spec([fit | {"operator": "A"}, sparse], **blurred)),
        "tuner": f"the step's lambda goes to {0.1 * settings['lambdas'][0]:.3g}",
        "scales": f"the energies are {abs(apart[0] - apart[1]):.3g} apart",
        "wavelets": _end(spec([fit, wave])),
        "wavelets_2d": _end(spec([fit, wave], [N, N])),
        "dominance": _dominance(),
        "step": f"{_step_ms():.3g} ms",
    }


def _end(body: Spec) -> str:
    result, _ = ran(body)
    return f"{result.outcome.value}, {result.verdict}, {result.iteration} iterations"


def _dominance() -> str:
    blur = {"operators": {"A": {"type": "separable_convolution", "sigma": 0.7}}}
    body = spec([{"type": "quadratic", "operator": "A", "target": "y"}], [65_536], **blur)
    compiled = compile_flow(read_spec(body))
    began = time.perf_counter()
    _, found = before(compiled)
    took = time.perf_counter() - began
    eta = next(one.value for one in found if one.name == "eta_dd")
    return f"n = 65,536: eta {eta:.3f}; {took:.2f} s with all certificates"


def _step_ms() -> float:
    body = spec([{"type": "quadratic", "target": "y"}, {"type": "l1", "weight": 0.1}], [100_000])
    compiled, count = compile_flow(read_spec(body)), 200
    advance(compiled, iterations=count, sample_every=count)
    began = time.perf_counter()
    chunk = advance(compiled, iterations=count, sample_every=count)
    jax.block_until_ready(chunk.carry.z)
    return 1e3 * (time.perf_counter() - began) / count


CASES = {
    "documented": "the dictionary of its documentation, run",
    "controlled": "its controller with its own step",
    "singular": "diag(0, 1, 1, ...) at the strict gate",
    "indefinite": "diag(-1e-7, 1 .. 2) at the strict gate",
    "descent": "quadratic and l1, begun at the data",
    "remediation": "a blur of 3 pixels under the strict gate",
    "tuner": "a tuner beside the run",
    "scales": "the same step under two lambdas",
    "wavelets": "wavelet l1 with data, 1-D",
    "wavelets_2d": "the same on an image",
    "dominance": "eta_dd of a blur",
    "step": "a step of quadratic and l1, n = 100,000",
}


def said(found: dict[str, Any]) -> str:
    """Return what the seed says of a case, in few words."""
    if "error" in found:
        return str(found["error"])
    if "opens" in found:
        colour = "GREEN" if found["opens"] else "RED"
        return f"{colour}, gamma = {found['gamma']:.3g}"
    if "bytes" in found:
        megabytes = found["bytes"] / 2**20
        size = f"a matrix of {megabytes:.0f} MiB"
        return f"n = 4,096: eta {found['eta']:.3f}; {found['s']:.2f} s, {size}"
    if "lambda" in found:
        apart = f"the results are {found['apart']:.3g} apart"
        return f"its lambda goes to {found['lambda']:.3g}, and {apart}"
    if "ms" in found:
        return f"{found['ms']:.3g} ms"
    return f"the results are {found['apart']:.3g} apart" if "apart" in found else "ends"


def main() -> None:
    """Print the table."""
    clone, python = sys.argv[1], (sys.argv[2:] or [sys.executable])[0]
    peer = Path(__file__).with_name("seed_peer.py")
    done = subprocess.run([python, str(peer), clone], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    theirs = {line["case"]: said(line) for line in lines}
    here = ours()
    print("| what | what it says | what we say |\n|---|---|---|")
    for case, what in CASES.items():
        print(f"| {what} | {theirs[case]} | {here[case]} |")


if __name__ == "__main__":
    main()
