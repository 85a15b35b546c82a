"""Bodies that admission accepts, one for each kind and each way of writing it."""

from __future__ import annotations

import copy
from typing import Any

SEED_YAML = """\
# Example ExecutionRequest
id: "exec_req_123"
provenance_hash: "sha256:..." # Links to the Methodology node in the Knowledge Lattice
priority: 8 # 1-10 scale
requirements:
  type: "computation" # or "physical_manipulation", "synthesis", etc.
  resources:
    - type: "cpu"
      cores: 16
    - type: "gpu"
      model: "A100"
      count: 2
    - type: "memory"
      size_gb: 128
  # Constraints can be used to target specific backends
  constraints:
    - "location == 'us-east-1'"
    - "secure_enclave == true"
# The actual work to be done
payload:
  # For computation, this could be a container image and command
  container:
    image: "research/protein-folding:v1.2"
    command: ["python", "run.py", "--data", "/input/data.bin"]
    inputs:
      - source_uri: "s3://foundry-artifacts/dataset-1"
        mount_path: "/input/data.bin"
    outputs:
      - source_path: "/output/results.json"
        target_uri: "s3://foundry-artifacts/results/exec_req_123"
"""

SHORT_YAML = """\
id: short-forms
name: Every short form
tags: [sweep/7, "owner:lab"]
class: gpu
priority: 10
requirements:
  resources: {cpu: 16+, gpu: A100:2, memory: 128GB, disk: 1TiB}
  constraints:
    - "gpu.memory >= 40 && location in ['a', 'b']"
objective: 0.0 - price
limits: {wall_s: 1h30m, log_bytes: 10MB, output_bytes: 1GiB, grace_s: 30s}
retry:
  max_attempts: 4
  lost_after: 10m
  on:
    OOM: {memory: x2, max: 256GB}
    TIMEOUT: {wall_s: x1.5, max: 4h}
    LOST:
deadline: 2026-12-24T18:00:00+01:00
queue_timeout: 2d
environment:
  requirements: ["numpy>=2", "scipy"]
notify:
  - {on: [FAILED, HELD], url: "https://hooks.example.org/fabric"}
secrets:
  - {name: HF_TOKEN, ref: "secret://env/HF_TOKEN"}
  - {name: key.pem, ref: secret://file/key.pem, as: file}
checkpoint: {path: checkpoints, interval_s: 5m}
backends: [local@host-1, slurm-a]
workdir: .
context: {run: 7, nested: {list: [1, 2.5, null, true]}}
payload:
  process:
    command: [python, train.py, "--lr", "0.1"]
    env: {OMP_NUM_THREADS: "4", PAD_TOKEN: "[PAD]"}
    inputs:
      - {source_uri: "capsule://default/prepare-1/table", mount_path: table.parquet}
    outputs:
      - {source_path: model.bin, name: model, type: binary}
    isolation: sandbox
"""

SCRIPT = """\
#!/bin/bash
#SBATCH -J train_small --time=01:30:00
#SBATCH -N ${NODES:-2}
#SBATCH --ntasks-per-node=4 # two for each socket
#SBATCH --gpus-per-node=a100:4
#SBATCH --cpus-per-task 8
#SBATCH --mem=32G -p long
#SBATCH --output=logs/%j.out

set -euo pipefail
srun python train.py
#SBATCH --mem=1G
"""

PROCESS: dict[str, Any] = {"id": "p", "payload": {"process": {"command": ["true"]}}}

TASK: dict[str, Any] = {
    "id": "embed-context-1a2b",
    "class": "cpu_short",
    "payload": {
        "workflow_id": "wf-7",
        "tenant": "acme",
        "context": {"stage": "embed"},
        "execution": {
            "image": None,
            "command": ["python", "-m", "embed", "--module", "context"],
            "env": {"PYTHONPATH": "."},
            "mounts": [{"host_path": "/data/in", "mount_path": "/in", "read_only": True}],
            "resources": {
                "cpu_millicores": 500,
                "mem_bytes": 536870912,
                "gpu_count": 1,
                "gpu_class": "A100",
                "gpu_memory_gb": 40,
                "storage_gb": 0,
                "working_dir": None,
            },
            "timeout_seconds": 1800,
            "working_dir": "/tasks/acme/embed-context-1a2b",
            "container_workdir": None,
        },
        "artifacts": {
            "inputs": [{"path": "s3://data/words.txt", "name": "words"}],
            "outputs": [
                {
                    "path": "/tasks/acme/embed-context-1a2b/result.json",
                    "type": "json",
                    "name": "result",
                }
            ],
        },
    },
}

PAYLOADS: dict[str, dict[str, Any]] = {
    "container": {
        "image": "registry.example.org:5000/team/tool:1.2@sha256:" + "a" * 64,
        "args": ["--fast"],
        "env": {"MODE": "test"},
        "workdir": "/srv/app",
        "network": "outbound",
    },
    "process": {"command": ["sh", "-c", "echo hello\necho world"]},
    "python": {
        "entry_point": "package.module:function",
        "args": [1, "two", None, [3.5]],
        "kwargs": {"seed": 7, "options": {"deep": True}},
    },
    "flow": {
        "energy": {
            "terms": [{"type": "quadratic", "op": "I", "weight": 1.0, "variable": "x"}],
            "state": {"shapes": {"x": [10]}},
        },
        "policy": {"family": "proximal"},
        "certificates": {"profile": "strict", "eta_max": 0.9, "gamma_min": 1e-6},
        "budgets": {"iterations": 500, "wall_s": "10m"},
    },
    "pipeline": {
        "architecture": {"system": {"name": "s", "components": [{"name": "a", "type": "Source"}]}},
        "deployment": "deployment.yaml",
        "build_lock": "build.lock",
    },
    "agent": {
        "entry_point": "agents.py:Explorer",
        "count": 10,
        "scheduler": {"policy": "priority", "time_slice": "100ms"},
        "isolation": {"level": "limits", "memory_limit": "512MB", "cpu_quota": 0.5},
        "supervision": {"max_restarts": 3, "backoff": {"strategy": "linear", "initial": "1s"}},
    },
    "lab": {
        "device": "pipette-1",
        "steps": [
            {
                "command_id": "s1",
                "feature": "org.example/handling/Pipetting/v1",
                "command": "Aspirate",
                "parameters": {"volume": {"value": 20.0, "unit": "µL"}, "well": "A1"},
                "limits": {"volume": {"min": 0, "max": 200, "unit": "µL"}},
                "compensate": {"feature": "org.example/handling/Pipetting/v1", "command": "Eject"},
            }
        ],
    },
}


def body(kind: str = "process", **more: Any) -> dict[str, Any]:
    """Return a fresh body with a payload of one kind and more top-level fields."""
    return {"id": "r-1", "payload": {kind: copy.deepcopy(PAYLOADS[kind])}, **more}


def with_payload(kind: str, **fields: Any) -> dict[str, Any]:
    """Return a body whose payload has some fields replaced; None removes one."""
    made = body(kind)
    made["payload"][kind] = {
        key: value
        for key, value in {**made["payload"][kind], **fields}.items()
        if value is not None
    }
    return made
