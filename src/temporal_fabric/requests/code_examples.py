"""What the table of codes cannot say: the limit behind a code, and a body that raises it.

The answer to an example is never written down: it is asked for wherever it is shown.
"""

from __future__ import annotations

from temporal_fabric.requests import limits

__all__ = ["EXAMPLES", "LIMITS", "RAISED_BY"]

_KIB = 1024
_RUN = "payload: {process: {command: [sh, fit.sh]}}\n"


def _input(uri: str, path: str = "data.csv", more: str = "") -> str:
    item = f"{{source_uri: '{uri}', mount_path: '{path}'{more}}}"
    return (
        f"id: fit\npayload:\n  process:\n    command: [sh, fit.sh]\n    inputs:\n      - {item}\n"
    )


def _with(line: str) -> str:
    return f"id: fit\n{line}\n{_RUN}"


def _process(line: str) -> str:
    return f"id: fit\npayload:\n  process:\n    command: [sh, fit.sh]\n    {line}\n"


EXAMPLES: dict[str, str] = {
    "E_TOO_LARGE": _with("name: >-\n" + "\n".join(["  a name that goes on and on"] * 10)),
    "E_ENCODING": '{"id": "fit", "name": "\\ud800", "payload": {"process": {"command": ["a"]}}}\n',
    "E_PARSE": "id: fit\npayload: {process: {command: [sh, fit.sh}}\n",
    "E_DUP_KEY": "id: fit\nid: fit-again\n" + _RUN,
    "E_YAML_FEATURE": _with("context: &shared {lab: north}"),
    "E_DEPTH": _with("context: {a: " + "[" * limits.DEPTH + "]" * limits.DEPTH + "}"),
    "E_UNKNOWN_FIELD": _with("priorty: 8"),
    "E_MISSING": "id: fit\npayload: {process: {env: {MODE: fast}}}\n",
    "E_TYPE": _with("priority: high"),
    "E_RANGE": _with("priority: 11"),
    "E_NAME": "id: My Fit\n" + _RUN,
    "E_CONFLICT": _with("environment: {image: python:3.12, requirements: [numpy]}"),
    "E_EXPR_SYNTAX": _with("requirements: {constraints: ['site ==']}"),
    "E_EXPR_NAME": _with("requirements: {constraints: ['lookup(site)']}"),
    "E_EXPR_COST": _with(
        "requirements: {constraints: ['[1].exists(a, a > 0) && [2].exists(b, b > 0)']}"
    ),
    "E_IMAGE": "id: fit\npayload: {container: {image: My Image}}\n",
    "E_ISOLATION": _process("isolation: vm"),
    "E_COMMAND": "id: fit\npayload: {process: {command: []}}\n",
    "E_ENV": _process("env: {FABRIC_EPOCH: '7'}"),
    "E_ENTRYPOINT": "id: fit\npayload: {python: {entry_point: package.module}}\n",
    "E_URI_SCHEME": _input("ftp://example.org/data.csv"),
    "E_URI_HOST": _input("https://127.0.0.1/data.csv"),
    "E_URI_CRED": _input("https://me:my-word@example.org/data.csv"),
    "E_PATH": _input("https://example.org/data.csv", "../data.csv"),
    "E_OUTPUT_KIND": _process("outputs: [{source_path: fit.json, type: spreadsheet}]"),
    "E_ARCHIVE": _with("environment: {conda_pack: /srv/env.rar}"),
    "E_SECRET": _process("env: {DB_PASSWORD: open-sesame}"),
    "E_SLURM_FIELD": "#!/bin/sh\n#SBATCH --array=1-10\nsh fit.sh\n",
    "E_SSH_TARGET": _with("backends: ['ssh://ada@login.example.org']"),
    "E_INTEGRITY": _input("https://example.org/data.csv", more=", sha256: abc"),
    "E_FLOW": "id: fit\npayload: {flow: {energy: {terms: [], state: {}}}}\n",
    "E_PIPELINE": "id: fit\npayload: {pipeline: {deployment: north, architecture: {system: {}}}}\n",
    "E_AGENT": "id: fit\npayload: {agent: {entry_point: 'agents:walk', count: 9, max_agents: 3}}\n",
    "E_LAB": "id: fit\npayload:\n  lab:\n    device: heater\n    steps:\n"
    "      - {command_id: heat, feature: Heater, command: Set,\n"
    "         parameters: {celsius: 90}, limits: {celsius: {max: 60}}}\n",
}
"""For each code that admission alone can raise, a body that is refused with it."""

LIMITS: dict[str, str] = {
    "E_QUOTA": "`max_open` of the tenant, in the workers' `fabric.toml`.",
    "E_RATE": "`max_per_minute` of the tenant, in the workers' `fabric.toml`.",
    "E_TOO_LARGE": f"The body takes {limits.BODY_BYTES // _KIB} KiB, a string "
    f"{limits.STRING_BYTES // _KIB} KiB, a name for people {limits.TITLE_CHARS} characters, a "
    f"command {limits.ARGV_BYTES // _KIB} KiB in {limits.ARGV_ITEMS} arguments. There are at most "
    f"{limits.ENV_KEYS} variables, {limits.INPUTS} inputs, {limits.OUTPUTS} outputs, {limits.TAGS} "
    f"tags, {limits.CONSTRAINTS} constraints and {limits.SECRETS} secrets. What is brought along "
    "is limited by `artifacts.upload_bytes` and `artifacts.upload_files`.",
    "E_DEPTH": f"{limits.DEPTH} levels.",
    "E_NAME": f"{limits.NAME_CHARS} characters of a-z 0-9 . _ -",
    "E_EXPR_COST": f"{limits.EXPRESSION_BYTES} bytes and {limits.COMPREHENSIONS} comprehension in "
    "each expression.",
}
"""The numbers behind a code, where it has any."""

_SERVER = "`submit` and every other command that speaks to the server."
_WORKER = "A worker, asked by `submit` and `plan` and again when the experiment starts."

RAISED_BY: dict[str, str] = {
    "E_AUTH": _SERVER,
    "E_TENANT": _WORKER,
    "E_QUOTA": _WORKER,
    "E_RATE": _WORKER,
    "E_CONFLICT": "Reading the request, or `submit` where its id is taken by another body.",
    "E_ISOLATION": "Reading the request, or a worker whose host cannot hold what is asked for.",
    "E_SSH_TARGET": "Reading the request, or a worker that reads its own `fabric.toml`.",
    "E_HOSTKEY": _WORKER,
    "E_DATA": "`submit` while it brings data along, or a worker that looks for an input.",
    "E_NO_BACKEND": _WORKER,
}
"""Who raises a code, where it is not only who reads and validates the request."""
