"""The seed's own engine on the cases that `bench_seed` compares, as its own users would call it.

It has no licence, so nothing of it is here: ``python seed_peer.py CLONE`` loads it from a clone,
and prints one line of JSON for each case, with what it says or the error that it raises. Its
controller expects of a step a pair that its step does not return, so cases of the controller
pass it a step that does; the first case shows what happens without.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import logging
import re
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_GENERIC = re.compile(rb"^(\s*(?:async )?def \w+)\[\w+\]\(", re.MULTILINE)


class _Older(importlib.machinery.SourceFileLoader):
    """Leaves out type parameters of functions: syntax of Python 3.12, without effect in a run."""

    def get_data(self, path: str) -> bytes:
        """Return the source."""
        return _GENERIC.sub(rb"\1(", super().get_data(path))

    def get_code(self, fullname: str) -> Any:
        """Return the code, never a cached one."""
        del fullname
        return self.source_to_code(self.get_data(self.path), self.path)


def _readable(clone: Path) -> None:
    sys.path.insert(0, str(clone / "src"))
    if sys.version_info < (3, 12):
        hook = importlib.machinery.FileFinder.path_hook((_Older, [".py"]))
        sys.path_hooks.insert(0, lambda path: _below(path, clone, hook))
        sys.path_importer_cache.clear()


def _below(path: str, clone: Path, hook: Any) -> Any:
    if not path.startswith(str(clone)):
        raise ImportError
    return hook(path)


class Seed:
    """Its engine, and the cases."""

    def __init__(self) -> None:
        from computable_flows_shim import api, controller  # noqa: PLC0415
        from computable_flows_shim.energy import compile as compiling  # noqa: PLC0415
        from computable_flows_shim.energy import policies, specs  # noqa: PLC0415
        from computable_flows_shim.fda import certificates  # noqa: PLC0415
        from computable_flows_shim.multi import transform_op  # noqa: PLC0415
        from computable_flows_shim.runtime import engine, step  # noqa: PLC0415
        from computable_flows_shim.tuner import gap_dial  # noqa: PLC0415

        self.api, self.controller, self.specs = api, controller, specs
        self.compiling, self.policies, self.certificates = compiling, policies, certificates
        self.transforms, self.engine, self.step, self.tuner = transform_op, engine, step, gap_dial
        logging.disable(logging.CRITICAL)

    def compiled(self, n: Any, weight: float, op: Any = None, **sparse: Any) -> Any:
        """Return min |A x - y|^2 / 2 + weight |x|_1, or with the sparse term of another kind."""
        shape = list(n) if isinstance(n, tuple) else [n]
        terms = [
            self.specs.TermSpec(type="quadratic", op="A", weight=1.0, variable="x", target="y")
        ]
        if weight:
            more: dict[str, Any] = {"type": "l1", "op": "I", "weight": weight, "variable": "x"}
            terms.append(self.specs.TermSpec(**more | sparse))
        state = self.specs.StateSpec(shapes={"x": shape, "y": shape})
        spec = self.specs.EnergySpec(terms=terms, state=state)
        return self.compiling.compile_energy(spec, {"A": op or _same, "I": _same})

    def run(self, compiled: Any, state: Any, iterations: int = 30, **more: Any) -> Any:
        """Return the state that the controller ends with."""
        pair = lambda *args: (self.step.run_flow_step(*args), 0.0)  # noqa: E731
        return self.controller.FlightController().run_certified_flow(
            state, compiled, iterations, 0.5, _step_function_for_testing=pair, **more
        )

    def gate(self, diagonal: Any) -> dict[str, Any]:
        """Return what its gate makes of a diagonal operator."""
        found = SimpleNamespace(L_apply=lambda v: diagonal * v)
        judge = self.controller.FlightController().assess_certificates
        eta, gamma, opens = judge(found, diagonal.shape, jax.random.PRNGKey(42))
        return {"eta": eta, "gamma": gamma, "opens": bool(opens)}

    def documented(self) -> Any:
        """Run the example of its documentation."""
        atoms = [
            {
                "type": "quadratic",
                "params": {"A": jnp.eye(2), "b": jnp.array([1.0, 2.0])},
                "weight": 1.0,
                "variable": "x",
            },
            {"type": "l1", "params": {"lambda": 0.1}, "weight": 0.5, "variable": "x"},
        ]
        with tempfile.TemporaryDirectory() as out:
            state, _ = self.api.run_certified(
                {
                    "atoms": atoms,
                    "state": {"x": {"shape": [2]}},
                    "initial_state": {"x": jnp.array([10.0, 5.0])},
                    "num_iterations": 100,
                    "step_alpha": 0.1,
                    "flow_name": "example",
                    "run_id": "one",
                    "out_dir": out,
                }
            )
        return {"x": np.asarray(state["x"]).tolist()}

    def controlled(self) -> Any:
        """Run its controller with its own step, on a problem that its gate lets pass."""
        state = {"x": jnp.zeros(64), "y": jnp.ones(64)}
        run = self.controller.FlightController().run_certified_flow
        return {"x": float(run(state, self.compiled(64, 0.1), 10, 0.5)["x"][0])}

    def singular(self) -> Any:
        """Ask its gate about diag(0, 1, 1, ...)."""
        return self.gate(jnp.ones(64).at[0].set(0.0))

    def indefinite(self) -> Any:
        """Ask its gate about diag(-1e-7, 1 .. 2)."""
        return self.gate(jnp.linspace(1.0, 2.0, 64).at[0].set(-1e-7))

    def descent(self) -> Any:
        """Begin a quadratic with an l1 term at its data: the first step raises f and lowers E."""
        y = jnp.linspace(1.0, 2.0, 64)
        state = self.run(self.compiled(64, 0.1), {"x": y, "y": y})
        return {"x": float(state["x"][0])}

    def remediation(self) -> Any:
        """Ask for a wide blur, which its gate refuses."""
        blur = _blur(64, 3.0)
        y = jnp.ones(64)
        self.run(self.compiled(64, 0.1, blur), {"x": y, "y": y})
        return {}

    def tuner_reaches(self) -> Any:
        """Run with its tuner and without, from 0."""
        state = {"x": jnp.zeros(64), "y": jnp.linspace(-1.0, 1.0, 64)}
        plain = self.run(self.compiled(64, 0.0), dict(state))
        rule = self.tuner.GapDialConfig(warmup_iterations=1, monitoring_interval=2)
        tuner = self.tuner.GapDialTuner(rule)
        tuned = self.run(self.compiled(64, 0.0), dict(state), gap_dial_tuner=tuner)
        apart = float(jnp.abs(plain["x"] - tuned["x"]).max())
        return {"lambda": float(tuner.current_lambda), "apart": apart}

    def scales(self) -> Any:
        """Make a step with scales under two lambdas."""
        lens = self.transforms.make_transform("haar", levels=2)
        rule = self.policies.MultiscaleSchedule(
            mode="fixed_schedule", levels=2, activate_rule="iteration%1==0"
        )
        y = jnp.sin(jnp.arange(64.0))
        ends = [
            self.engine.run_flow_step(
                {"x": y, "y": y}, self.compiled(64, lam), 0.1, W=lens, multiscale_schedule=rule
            )[0]["x"]
            for lam in (0.01, 5.0)
        ]
        return {"apart": float(jnp.abs(ends[0] - ends[1]).max())}

    def wavelets(self, shape: Any) -> Any:
        """Make three steps with a wavelet l1 term and data."""
        n = len(shape)
        sparse = {"type": "wavelet_l1", "wavelet": "haar", "levels": 2, "ndim": n}
        compiled = self.compiled(shape, 0.1, **sparse)
        state = {"x": jnp.zeros(shape), "y": jnp.ones(shape)}
        for _ in range(3):
            state = self.step.run_flow_step(state, compiled, 0.5)
        return {"x": float(jnp.ravel(state["x"])[0])}

    def dominance(self, n: int) -> Any:
        """Time its eta_dd of a blur, the second call."""
        blur = _blur(n, 0.7)
        took: float = 0.0
        for _ in range(2):
            began = time.perf_counter()
            eta = self.certificates.estimate_eta_dd(lambda v: blur(blur(v)), (n,))
            took = time.perf_counter() - began
        return {"eta": eta, "s": took, "bytes": 8 * n * n}

    def step_time(self, n: int) -> Any:
        """Time its steps as shipped, quadratic and l1."""
        compiled = self.compiled(n, 0.1)
        state = {"x": jnp.zeros(n), "y": jnp.ones(n)}
        state = self.step.run_flow_step(state, compiled, 0.5)
        began, count = time.perf_counter(), 50
        for _ in range(count):
            state = self.step.run_flow_step(state, compiled, 0.5)
        state["x"].block_until_ready()
        return {"ms": 1e3 * (time.perf_counter() - began) / count}


def _same(x: Any) -> Any:
    return x


def _blur(n: int, sigma: float) -> Any:
    at = np.minimum(np.arange(n), n - np.arange(n))
    taps = np.exp(-(at**2) / (2 * sigma**2))
    symbol = jnp.fft.rfft(jnp.asarray(taps / taps.sum()))
    return lambda x: jnp.fft.irfft(symbol * jnp.fft.rfft(x), n)


def _told(case: Callable[[], Any]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = case()
    except Exception as exc:  # noqa: BLE001 - what it raises is what it says
        first = _ADDRESS.sub("", str(exc)).split(". ")[0].splitlines()[0]
        return {"error": f"{type(exc).__name__}: {first[:110]}"}
    return found


def main() -> None:
    """Print what it says of each case."""
    jax.config.update("jax_enable_x64", True)  # noqa: FBT003 - the signature is JAX's
    _readable(Path(sys.argv[1]).absolute())
    seed = Seed()
    cases: dict[str, Callable[[], Any]] = {
        "documented": seed.documented,
        "controlled": seed.controlled,
        "singular": seed.singular,
        "indefinite": seed.indefinite,
        "descent": seed.descent,
        "remediation": seed.remediation,
        "tuner": seed.tuner_reaches,
        "scales": seed.scales,
        "wavelets": lambda: seed.wavelets((64,)),
        "wavelets_2d": lambda: seed.wavelets((64, 64)),
        "dominance": lambda: seed.dominance(4096),
        "step": lambda: seed.step_time(100_000),
    }
    for name, case in cases.items():
        print(json.dumps({"case": name} | _told(case)), flush=True)


if __name__ == "__main__":
    main()
