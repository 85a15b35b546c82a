"""Certified flows beside their peers: steps, gaps, transforms, certificates, telemetry, disk.

Each row is a ratio of two things that ran in turn, so that a busy machine slows both; the median
of the pairs counts, of time and of processor time. On a machine that others use too the second
says more, but not of what waits for the disk. It needs jaxopt and jaxwt on the path, `cc`, and
SCICO in an environment of its own, since it asks for an older JAX; without that its rows are left
out:
``uv pip install --target peers --no-deps jaxopt==0.8.5 jaxwt==0.1.1``,
``uv venv peers/scico && uv pip install --python peers/scico scico==0.0.7``, then
``PYTHONPATH=peers python benchmarks/bench_flows.py [PAIRS] [PART ...]``
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import jaxwt
import numpy as np
import orbax.checkpoint as ocp
import pywt
from flow_problem import (
    LAMBDA,
    LEVELS,
    Ours,
    blurred,
    by_jaxopt,
    flow,
    matrix,
    signal,
    unpyramid,
    value,
)
from fused_step import Fused
from scipy.sparse.linalg import LinearOperator, eigsh
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso

from temporal_fabric.flows.certificates.curvature import beta_up
from temporal_fabric.flows.certificates.dominance import eta_dd, row_sums
from temporal_fabric.flows.certificates.hessian import hessians
from temporal_fabric.flows.certificates.krylov import lanczos
from temporal_fabric.flows.checkpoint import Checkpoint, Saver, write
from temporal_fabric.flows.chunk import Job, run_chunks
from temporal_fabric.flows.wavelets import Wavelet

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = {9_984: 400, 99_968: 60, 999_936: 10}
"""Unknowns, and the iterations that are timed."""

GAP = 1e-4
SHOWN = "| what | beside | ratio, median | least | most | of processor time | goal | met |"


class Table:
    """Prints one row for each pair of works, as soon as it is measured."""

    def __init__(self, pairs: int) -> None:
        self._pairs = pairs
        print(SHOWN + "\n|---|---|---|---|---|---|---|---|", flush=True)

    def faster(self, what: str, peer: str, goal: float, ours: Any, theirs: Any) -> None:
        """Show how many times faster ours is."""
        self._row(what, peer, f">= {goal:g}", self._ratios(theirs, ours), lambda x: x >= goal)

    def costs(self, what: str, peer: str, goal: float, ours: Any, theirs: Any) -> None:
        """Show how many times longer ours takes."""
        self._row(what, peer, f"<= {goal:g}", self._ratios(ours, theirs), lambda x: x <= goal)

    def _ratios(self, above: Any, below: Any) -> list[tuple[float, float]]:
        for work in (above, below):
            work()
        ratios: list[tuple[float, float]] = []
        for number in range(self._pairs):
            if number % 2:
                first, second = _seconds(above), _seconds(below)
            else:
                second, first = _seconds(below), _seconds(above)
            ratios.append((first[0] / second[0], first[1] / max(second[1], 1e-9)))
        return ratios

    def _row(
        self, what: str, peer: str, goal: str, ratios: list[tuple[float, float]], met: Any
    ) -> None:
        walls = [wall for wall, _ in ratios]
        median, work = statistics.median(walls), statistics.median(cpu for _, cpu in ratios)
        shown = (f"{x:.3g}" for x in (median, min(walls), max(walls), work))
        verdict = {
            (True, True): "yes",
            (True, False): "by time",
            (False, True): "by processor time",
            (False, False): "no",
        }[bool(met(median)), bool(met(work))]
        print("| " + " | ".join([what, peer, *shown, goal, verdict]) + " |", flush=True)


def _seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return the time of a work, and what processors worked for it, in children and peers too."""
    began, spent = time.perf_counter(), _processor(work)
    work()
    finished = time.perf_counter()
    return finished - began, _processor(work) - spent


def _processor(work: Any) -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = time.process_time() + children.ru_utime + children.ru_stime
    return own + getattr(work, "spent", 0.0)


class Scico:
    """SCICO's iterations, in its own process: see `scico_peer`."""

    python = Path(os.environ.get("SCICO_PYTHON", "peers/scico/bin/python"))

    def __init__(self, compiled: Any, folder: Path, *, accelerated: bool, iterations: int) -> None:
        y = np.asarray(compiled.energy.smooth[0].loss.target)
        symbol = np.fft.rfft(blurred(np.eye(1, y.size)[0])).real.astype(y.dtype)
        np.savez(folder / "scico.npz", y=y, symbol=symbol)
        command = [str(self.python), str(Path(__file__).with_name("scico_peer.py"))]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        family = "accelerated" if accelerated else "plain"
        self._ask(f"{y.size} {family} {iterations} {folder / 'scico.npz'}")
        self.spent = 0.0

    def __call__(self) -> None:
        """Run them, from where the last ones ended."""
        self.spent = float(self._ask("go"))

    def found(self, path: Path) -> Any:
        """Return its coefficients."""
        self._ask(f"save {path}")
        return np.load(path)

    def close(self) -> None:
        """End its process."""
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait()

    def _ask(self, line: str) -> str:
        self._process.stdin.write(line + "\n")  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]
        answer = self._process.stdout.readline()  # type: ignore[union-attr]
        if not answer:
            raise RuntimeError(f"SCICO's process has ended [code={self._process.wait()}]")
        return answer


def steps(table: Table, folder: Path) -> None:
    """Iterations at a fixed step."""
    for n, its in SIZES.items():
        for family, accelerated in (("proximal", False), ("accelerated", True)):
            compiled = flow(n, family, folder)
            ours = Ours(compiled, its)
            for natural, goal in ((True, 10.0), (False, 1.1)):
                fewer = max(4, its // 4) if natural else its
                theirs = by_jaxopt(
                    compiled, natural=natural, accelerated=accelerated, iterations=fewer
                )
                where = "its user's operator" if natural else "our operator"
                mine = Ours(compiled, fewer) if natural else ours
                table.faster(f"{family} steps, n = {n:,}", f"jaxopt, {where}", goal, mine, theirs)
            if Scico.python.exists():
                fewer = max(4, its // 4)
                peer = Scico(compiled, folder, accelerated=accelerated, iterations=fewer)
                mine = Ours(compiled, fewer)
                table.faster(f"{family} steps, n = {n:,}", "SCICO", 10, mine, peer)
                peer.close()
        fused = Fused(n, its)
        ours = Ours(flow(fused.n, "proximal", folder), its)
        table.faster(f"proximal steps, n = {fused.n:,}", "a fused loop in C", 0.6, ours, fused)


def gaps(table: Table, folder: Path) -> None:
    """Time to a relative gap of 1e-4."""
    for n in list(SIZES)[:2]:
        best = value(
            compiled := flow(n, "accelerated", folder),
            Ours(flow(n, "accelerated", folder, "float64"), 3000)().carry.z["x"],
        )

        def near(x: Any, best: float = best, one: Any = compiled) -> bool:
            return value(one, x) <= best * (1 + GAP)

        counts = range(60, 1000, 20)
        mine = next(k for k in counts if near(Ours(compiled, k)().carry.z["x"]))
        theirs = next(
            solver
            for k in counts
            if near(
                unpyramid(
                    (solver := by_jaxopt(compiled, natural=True, accelerated=True, iterations=k))()
                )
            )
        )
        what = f"time to a gap of 1e-4, n = {n:,} ({mine} iterations)"
        table.faster(what, "jaxopt accelerated", 10, Ours(compiled, mine), theirs)
        if Scico.python.exists():
            _agrees(compiled, folder, best)
        if n == next(iter(SIZES)):
            table.faster(what, "scikit-learn", 25, Ours(compiled, mine), _lasso(n, best))


def _agrees(compiled: Any, folder: Path, best: float) -> None:
    """Show how far SCICO's objective is from ours, after as many iterations as it needs."""
    peer = Scico(compiled, folder, accelerated=True, iterations=1000)
    peer()
    theirs = value(compiled, unpyramid(jnp.asarray(peer.found(folder / "scico.npy"))))
    peer.close()
    print(f"SCICO's objective after 1,000 iterations: {(theirs - best) / best:.2g} above ours")


def _lasso(n: int, best: float) -> Any:
    columns, y = matrix(n), signal(n)
    warnings.simplefilter("ignore", ConvergenceWarning)  # a number of sweeps is what is looked for
    for sweeps in (5, 10, 20, 40, 80, 160, 320):
        solver = Lasso(alpha=LAMBDA / n, fit_intercept=False, tol=0.0, max_iter=sweeps)
        u = solver.fit(columns, y).coef_
        found = 0.5 * np.sum((columns @ u - y) ** 2) + LAMBDA * np.abs(u).sum()
        if found <= best * (1 + GAP):
            break
    return partial(solver.fit, columns, y)


def transforms(table: Table, _folder: Path) -> None:
    """Analysis and synthesis."""
    n = 102_400
    x = np.random.default_rng(0).normal(size=n).astype(np.float32)
    device = jnp.asarray(x)
    for name, beside in (("haar", (10.0, 4.0)), ("db4", (3.0, 1.0))):
        lens, basis = Wavelet(name, LEVELS, (n,), "float32"), pywt.Wavelet(name)
        both = jax.jit(lambda v, lens=lens: lens.adjoint(lens.matvec(v)))
        ours = partial(lambda f: jax.block_until_ready(f(device)), both)

        def by_jaxwt(v: Any, basis: Any = basis) -> Any:
            parts = jaxwt.wavedec(v, basis, level=LEVELS, mode="reflect")
            return jaxwt.waverec(parts, basis)

        def by_pywt(name: str = name) -> Any:
            parts = pywt.wavedec(x, name, mode="periodization", level=LEVELS)
            return pywt.waverec(parts, name, mode="periodization")

        compiled = jax.jit(by_jaxwt)
        theirs = partial(lambda f: jax.block_until_ready(f(device)), compiled)
        table.faster(f"{name}, both ways, n = {n:,}", "jaxwt", beside[0], ours, theirs)
        table.faster(f"{name}, both ways, n = {n:,}", "pywt", beside[1], ours, by_pywt)


def certificates(table: Table, folder: Path) -> None:
    """Both ends of the spectrum, and dominance, beside iterations of the flow."""
    n = next(iter(SIZES))
    # With 0.05 I: without it the lower end is so crowded that no Krylov method finds it.
    compiled = flow(n, "accelerated", folder, mu=0.05)
    (block,) = hessians(compiled.energy, compiled.start)
    lens: Any = compiled.energy.nonsmooth[0].operator
    ends = partial(lanczos, block.apply, (n,), steps=20)
    apply = jax.jit(block.apply)
    operator = LinearOperator(
        (n, n), matvec=lambda v: np.asarray(apply(jnp.asarray(v.reshape(-1)))), dtype=np.float64
    )

    def peers() -> None:
        for which in ("LA", "SA"):
            eigsh(operator, k=1, which=which, tol=1e-2, return_eigenvectors=False, maxiter=200)

    def dominance() -> Any:
        return eta_dd(block, lens, row_sums(block, lens))

    def everything() -> None:
        ends()
        dominance()
        beta_up((block,), seed=0)

    table.faster("both ends of the spectrum, 20 Lanczos steps", "eigsh, tol 1e-2", 5, ends, peers)
    table.costs("the same", "60 iterations", 1, ends, Ours(compiled, 60))
    table.costs("eta_dd, exact", "150 iterations", 1, dominance, Ours(compiled, 150))
    table.costs("all of them", "1,000 iterations", 0.07, everything, Ours(compiled, 1000))


def telemetry(table: Table, folder: Path) -> None:
    """Rows of the run as outputs of its one scan, and as calls of the host."""
    n = list(SIZES)[1]
    compiled = flow(n, "accelerated", folder)
    bare = Ours(compiled, 60)
    table.costs(
        f"a row every 10 iterations, n = {n:,}", "one row", 1.1, Ours(compiled, 60, 10), bare
    )
    table.costs(f"a row every iteration, n = {n:,}", "one row", 1.5, Ours(compiled, 60, 1), bare)
    table.faster(
        "a row every iteration", "a host callback", 1, Ours(compiled, 60, 1), _called(compiled)
    )


def _called(compiled: Any) -> Any:
    rows: list[Any] = []

    def step(carry: Any, _: None) -> tuple[Any, None]:
        carry, found = compiled.scheme.step(compiled.problem, carry)
        energy = compiled.energy.f_at(carry.z, carry.images)
        scalars = [energy, carry.alpha, carry.square, found.violation, found.curvature]
        jax.debug.callback(rows.append, jnp.stack(scalars))
        return carry, None

    run = jax.jit(lambda carry: jax.lax.scan(step, carry, None, 60)[0])
    carry = compiled.scheme.init(compiled.problem, compiled.start)

    def work() -> None:
        jax.block_until_ready(run(carry))
        jax.effects_barrier()

    return work


def checkpoints(table: Table, folder: Path) -> None:
    """4 MB to the disk, durably."""
    z = np.random.default_rng(0).normal(size=1_000_000).astype(np.float32)
    made = Checkpoint("float32", {}, {"z": z})
    other = ocp.StandardCheckpointer()
    count = iter(range(10_000))

    def ours() -> Any:
        return write(folder / "ours.ckpt", made)

    def by_numpy() -> None:
        with (folder / "new.npy").open("wb") as file:
            np.save(file, z)
            file.flush()
            os.fsync(file.fileno())
        (folder / "new.npy").replace(folder / "z.npy")

    def by_orbax() -> None:
        other.save(folder.absolute() / f"orbax-{next(count)}", {"z": z})
        other.wait_until_finished()

    table.costs("a durable checkpoint of 4 MB", "np.save and fsync", 1.3, ours, by_numpy)
    table.faster("a durable checkpoint of 4 MB", "Orbax", 4, ours, by_orbax)
    with Saver() as saver:

        def handed_over() -> None:
            saver.submit(lambda: None)
            saver.wait()

        table.costs("what the loop waits for", "the write", 0.2, handed_over, ours)


def batches(table: Table, folder: Path) -> None:
    """Sixteen small flows as one program."""
    compiled = flow(1_024, "accelerated", folder)
    start = compiled.scheme.init(compiled.problem, compiled.start)
    jobs = [Job(compiled.scheme, compiled.problem, start, compiled.observables)] * 16
    together = partial(run_chunks, jobs, iterations=100, sample_every=100)
    table.faster(
        "16 flows of 1,024 at once", "in turn", 1, together, lambda: [j.run(100, 100) for j in jobs]
    )


def cold(table: Table, folder: Path) -> None:
    """A warm start beside a process that loads JAX and compiles."""
    script = "import jax; jax.jit(lambda x: x + 1)(1.0).block_until_ready()"

    def process() -> None:
        subprocess.run([sys.executable, "-c", script], check=True)

    warm = Ours(flow(next(iter(SIZES)), "accelerated", folder), 100)
    table.faster("100 iterations in a warm process", "a cold JAX process", 100, warm, process)


PARTS = {
    one.__name__: one
    for one in (steps, gaps, transforms, certificates, telemetry, checkpoints, batches, cold)
}


def main(arguments: list[str]) -> None:
    """Measure the parts that are named, or all."""
    pairs = int(arguments[0]) if arguments else 7
    table = Table(pairs)
    with tempfile.TemporaryDirectory() as name:
        for part in arguments[1:] or PARTS:
            PARTS[part](table, Path(name))


if __name__ == "__main__":
    main(sys.argv[1:])
