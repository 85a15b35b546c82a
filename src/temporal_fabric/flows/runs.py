"""Reading runs: their manifest, their tables, and the state to go on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from temporal_fabric.errors import CapsuleError
from temporal_fabric.flows.checkpoint import RNG_KEY
from temporal_fabric.flows.run_folder import RunFolder
from temporal_fabric.recorder.arrow import arrow, parquet
from temporal_fabric.recorder.flow_runs import parts

__all__ = ["load_run", "load_run_manifest", "resume_run"]


def load_run_manifest(run_dir: str | Path) -> dict[str, Any]:
    """Return the manifest of a run.

    Raises:
        CapsuleError: There is none, it is damaged, or of another schema_version.
    """
    return RunFolder(Path(run_dir)).manifest()


def load_run(run_dir: str | Path) -> dict[str, Any]:
    """Return a run as far as it is durable: manifest, telemetry, events, state.

    Returns:
        ``manifest``, a dictionary; ``telemetry`` and ``events``, Arrow tables; ``state``, arrays
        by slot at the last good checkpoint, empty where there is none.

    Raises:
        CapsuleError: There is no run, or it is damaged.
    """
    path = Path(run_dir)
    folder = RunFolder(path)
    manifest = folder.manifest()
    found = folder.last_good()
    return {
        "manifest": manifest,
        "telemetry": _table(path, "telemetry"),
        "events": _table(path, "events"),
        "state": found[1].state if found else {},
    }


def resume_run(run_dir: str | Path, *, dtype: str = "") -> dict[str, Any]:
    """Return what a run goes on from, its schema_version, digest and dtype checked first.

    Args:
        run_dir: Folder of the run.
        dtype: Dtype that the flow must have; empty: that of the run's manifest.

    Returns:
        ``state``, arrays by slot; ``tuner_state``; ``phase``, the colour; ``iter``; ``rng_key``,
        a `jax.random.PRNGKey`.

    Raises:
        CapsuleError: There is no checkpoint, it is damaged, or of another version or dtype.
    """
    found = RunFolder(Path(run_dir)).last_good(dtype)
    if found is None:
        raise CapsuleError(f"the run has no checkpoint [folder={run_dir}]: it never was GREEN")
    # Only the key needs JAX: a manifest is read without loading it.
    import jax.numpy as jnp  # noqa: PLC0415

    checkpoint = found[1]
    controller = checkpoint.meta["controller"]
    return {
        "state": checkpoint.state,
        "tuner_state": controller["tuner"] | {"settings": controller["settings"]},
        "phase": controller["colour"],
        "iter": int(checkpoint.meta["iteration"]),
        "rng_key": jnp.asarray(checkpoint.arrays[RNG_KEY]),
    }


def _table(path: Path, name: str) -> Any:
    whole = path / f"{name}.parquet"
    files = [whole] if whole.is_file() else parts(path, name)
    read = [parquet().read_table(file, partitioning=None) for file in files]
    return arrow().concat_tables(read, promote_options="default") if read else None
