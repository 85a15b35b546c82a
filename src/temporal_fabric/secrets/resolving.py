"""From a reference to its value, on the host that runs the payload, just before launch.

What a request may refer to is chosen by the host's owner in fabric.toml::

    [secrets]
    env = ["HF_TOKEN"]              # variables of the worker: secret://env/HF_TOKEN
    folder = "/etc/fabric/secrets"  # files in it: secret://file/NAME

Nothing is offered by default: a worker's environment is not every tenant's to read.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from temporal_fabric.errors import PermanentBackendError
from temporal_fabric.secrets import redaction
from temporal_fabric.secrets.redaction import FOLDER, VARIABLES, Redactor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from temporal_fabric.config import SecretsConfig
    from temporal_fabric.requests.settings import SecretUse

_SHM = Path("/dev/shm")  # noqa: S108 - memory, in a folder of our own that only we can enter
_LEAST = 4
_PREFIX = "secret://"


@dataclass(frozen=True, slots=True)
class Secret:
    """A resolved secret; never logged, never stored."""

    name: str
    value: str
    as_file: bool


def unavailable(uses: Sequence[SecretUse], config: SecretsConfig) -> list[str]:
    """Return the references that this host does not offer, without reading any value."""
    return [use.ref for use in uses if _source(use.ref, config) is None]


def resolve(uses: Sequence[SecretUse], config: SecretsConfig) -> list[Secret]:
    """Read the values.

    Raises:
        PermanentBackendError: a reference is not offered, is gone, or is too short to hide.
    """
    return [Secret(use.name, _read(use.ref, config), use.expose == "file") for use in uses]


def redactor(secrets: Sequence[Secret]) -> Redactor:
    """Return what hides these secrets."""
    return Redactor([secret.value.encode() for secret in secrets])


def hand_over(
    secrets: Sequence[Secret], key: str, argv: tuple[str, ...], env: dict[str, str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Give a payload its secrets and put the filter in front of it.

    Args:
        secrets: What it asked for.
        key: The attempt's key, which names the folder of the files.
        argv: The payload's command.
        env: Its environment.

    Returns:
        Command and environment to launch instead.
    """
    files = [secret for secret in secrets if secret.as_file]
    env = env | {secret.name: secret.value for secret in secrets if not secret.as_file}
    env[VARIABLES] = ",".join(secret.name for secret in secrets if not secret.as_file)
    if files:
        folder = _folder(key)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for secret in files:
            fd = os.open(folder / secret.name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(fd, "w") as file:  # noqa: PTH123 - a descriptor with its mode
                file.write(secret.value)
        env[FOLDER] = str(folder)
    return ((sys.executable, "-I", "-S", str(redaction.__file__), *argv), env)


def remove(key: str) -> None:
    """Remove the files of an attempt; repeating it changes nothing."""
    shutil.rmtree(_folder(key), ignore_errors=True)


def _folder(key: str) -> Path:
    """Return the attempt's folder, in memory where the host has such a place."""
    base = _SHM if os.access(_SHM, os.W_OK) else Path(os.environ.get("TMPDIR", "/tmp"))  # noqa: S108
    return base / f"fabric-{os.geteuid()}" / key


def _source(ref: str, config: SecretsConfig) -> str | Path | None:
    """Return a variable's name or a file, None where the host does not offer it."""
    kind, _, name = ref.removeprefix(_PREFIX).partition("/")
    if kind == "env" and name in config.env:
        return name
    if kind == "file" and config.folder and "/" not in name and name not in {"", ".", ".."}:
        return Path(config.folder) / name
    return None


def _read(ref: str, config: SecretsConfig) -> str:
    source = _source(ref, config)
    try:
        if isinstance(source, Path):
            value = source.read_text().strip()
        else:
            value = os.environ.get(source or "", "")
    except (OSError, UnicodeDecodeError) as exc:
        raise PermanentBackendError(
            f"cannot read a secret [ref={ref}]: {type(exc).__name__}"
        ) from exc
    if len(value) < _LEAST:
        raise PermanentBackendError(
            f"a secret is missing or shorter than {_LEAST} characters [ref={ref}]: set it on "
            "the worker's host"
        )
    return value
