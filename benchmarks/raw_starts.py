"""How each backend starts something without the fabric: what `bench_backends.py` compares with.

A way starts one program and returns when its backend has taken it; `clear` removes what it left.
"""

from __future__ import annotations

import asyncio
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from temporal_fabric.adapters.slurm_rest_forms import OLD

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from temporal_fabric.adapters.contract import AttemptSpec

_SEEN = ("FABRIC_REQUEST_ID", "FABRIC_EPOCH")


class Way(Protocol):
    """A raw client of one backend, with its connection open."""

    async def start(self, attempt: AttemptSpec) -> None:
        """Start the attempt's program; return when the backend has taken it."""

    async def clear(self) -> None:
        """Remove what the starts have left, and close the connection."""


def _program(attempt: AttemptSpec) -> tuple[Sequence[str], Mapping[str, str]]:
    """Return the command of an attempt, and the variables that it needs to report."""
    process = attempt.request.payload.process
    if process is None:
        raise ValueError("the bench runs no process")
    return process.command, {**process.env, **{name: attempt.env[name] for name in _SEEN}}


class Local:
    """`subprocess`, of the standard library."""

    def __init__(self, bench: Any) -> None:
        del bench
        self._started: list[asyncio.subprocess.Process] = []

    async def start(self, attempt: AttemptSpec) -> None:
        """Start a child."""
        command, env = _program(attempt)
        self._started.append(await asyncio.create_subprocess_exec(*command, env=env))

    async def clear(self) -> None:
        """Wait for the children."""
        for child in self._started:
            await child.wait()


class Docker:
    """`containers.run` of Docker's SDK, with the same image and no network."""

    def __init__(self, bench: Any) -> None:
        import docker  # noqa: PLC0415

        made: Any = docker
        self._client = made.DockerClient(base_url=bench.make()._options.host)  # noqa: SLF001
        self._image, self._started = bench.made_with()._options.image, list[Any]()  # noqa: SLF001

    async def start(self, attempt: AttemptSpec) -> None:
        """Create and start a container."""
        command, env = _program(attempt)
        mounts = [f"{env['EVIDENCE']}:{env['EVIDENCE']}"]
        started = await asyncio.to_thread(
            self._client.containers.run,
            self._image,
            list(command),
            environment=dict(env),
            volumes=mounts,
            network_mode="none",
            detach=True,
        )
        self._started.append(started)

    async def clear(self) -> None:
        """Remove the containers."""
        for container in self._started:
            await asyncio.to_thread(container.remove, force=True)
        self._client.close()


class Kubernetes:
    """`create_namespaced_job` of the Kubernetes client, with the same image."""

    def __init__(self, bench: Any) -> None:
        from kubernetes import client, config  # noqa: PLC0415

        options = bench.make()._options  # noqa: SLF001
        api = config.new_client_from_config(options.kubeconfig)
        self._jobs, self._image = client.BatchV1Api(api), options.image
        self._started: list[str] = []

    async def start(self, attempt: AttemptSpec) -> None:
        """Create a Job."""
        command, env = _program(attempt)
        name = f"raw-{attempt.key.request_id}"
        container = {
            "name": "raw",
            "image": self._image,
            "imagePullPolicy": "Never",
            "command": list(command),
            "env": [{"name": key, "value": value} for key, value in env.items()],
        }
        pod = {"restartPolicy": "Never", "containers": [container]}
        spec = {"backoffLimit": 0, "template": {"spec": pod}}
        body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}
        await asyncio.to_thread(self._jobs.create_namespaced_job, "default", body)
        self._started.append(name)

    async def clear(self) -> None:
        """Delete the Jobs with their pods."""
        for name in self._started:
            await asyncio.to_thread(
                self._jobs.delete_namespaced_job, name, "default", propagation_policy="Background"
            )


class Slurm:
    """`sbatch` over one open connection of paramiko, the script on its standard input."""

    def __init__(self, bench: Any) -> None:
        import paramiko  # noqa: PLC0415

        site = bench.site
        self._client = paramiko.SSHClient()
        self._client.load_host_keys(str(site.known_hosts))
        self._client.connect(
            "127.0.0.1",
            port=site.port,
            username=site.user,
            key_filename=str(site.key),
            look_for_keys=False,
            allow_agent=False,
        )

    async def start(self, attempt: AttemptSpec, *options: str) -> None:
        """Submit a job, with some more options of sbatch."""
        await asyncio.to_thread(self._submit, *_program(attempt), options)

    def _submit(
        self, command: Sequence[str], env: Mapping[str, str], options: Sequence[str]
    ) -> None:
        asked = shlex.join(["sbatch", "--parsable", "--output=/dev/null", *options])
        stdin, stdout, _ = self._client.exec_command(asked)
        stdin.write(_script(command, env))
        stdin.channel.shutdown_write()
        if not stdout.read().strip().isdigit():
            raise RuntimeError("sbatch did not take the job")

    async def clear(self) -> None:
        """Close the connection."""
        self._client.close()


class SlurmRest:
    """One POST of a job to slurmrestd, by urllib3."""

    def __init__(self, bench: Any) -> None:
        import urllib3  # noqa: PLC0415

        options = bench.options()
        token = Path(options["token"]).read_text().removeprefix("SLURM_JWT=").strip()
        headers = {"X-SLURM-USER-NAME": options["user"], "X-SLURM-USER-TOKEN": token}
        self._client = urllib3.connection_from_url(options["url"], headers=headers)

    async def start(self, attempt: AttemptSpec) -> None:
        """Submit a job."""
        await asyncio.to_thread(self._submit, *_program(attempt))

    def _submit(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        job = {
            "name": "raw",
            "environment": {"PATH": os.defpath},
            "current_working_directory": "/",
            "standard_output": "/dev/null",
        }
        body = {"job": job, "script": _script(command, env)}
        answer = self._client.request("POST", f"/slurm/{OLD}/job/submit", json=body)
        if not answer.json().get("job_id"):
            raise RuntimeError(f"slurmrestd did not take the job: {answer.data!r}")

    async def clear(self) -> None:
        """Close the connection."""
        self._client.close()


def _script(command: Sequence[str], env: Mapping[str, str]) -> str:
    exports = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in env.items())
    return f"#!/bin/sh\n{exports}exec {shlex.join(command)}\n"


class Sila:
    """One command, by the SiLA client alone."""

    def __init__(self, bench: Any) -> None:
        self._port = bench._port  # noqa: SLF001
        self._client: Any = None
        self._started: list[Any] = []

    async def start(self, attempt: AttemptSpec) -> None:
        """Let the device begin the one step."""
        if self._client is None:
            from sila.client import Client, ClientConfig  # noqa: PLC0415

            self._client = Client(ClientConfig("127.0.0.1", self._port, tls=False))
            await self._client.open()
        lab = attempt.request.payload.lab
        if lab is None:
            raise ValueError("the bench runs no lab payload")
        features = self._client.features.values()
        programs = next(one for one in features if one.identifier == "Programs")
        given = dict(lab.steps[0].parameters)
        self._started.append(await programs.commands["Run"].execute(given))

    async def clear(self) -> None:
        """End the subscriptions."""
        for started in self._started:
            started.cancel()
        if self._client is not None:
            await self._client.close()


WAYS = {
    "local": (Local, "subprocess"),
    "docker": (Docker, "docker SDK"),
    "kubernetes": (Kubernetes, "Kubernetes client"),
    "slurm": (Slurm, "sbatch over paramiko"),
    "slurm-rest": (SlurmRest, "POST by urllib3"),
    "sila": (Sila, "SiLA client"),
}
"""The raw client of each kind of backend, and what it is."""
