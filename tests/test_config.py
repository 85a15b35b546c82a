"""Settings: precedence, and every mistake at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from temporal_fabric.config import BackendConfig, Settings, host_id
from temporal_fabric.errors import RequestRejected
from temporal_fabric.tenants import TenantConfig

if TYPE_CHECKING:
    from pathlib import Path


def test_defaults(tmp_path: Path) -> None:
    """Without a file there is one local backend and a store below the home."""
    settings = Settings.load(home=tmp_path, env={}, cwd=tmp_path)

    assert settings.store == tmp_path.as_uri()
    assert settings.backends == (BackendConfig("local"),)
    assert settings.pools == ("default",)


def test_environment_wins_over_the_file(tmp_path: Path) -> None:
    """FABRIC_STORE wins over fabric.toml, which wins over the default."""
    (tmp_path / "fabric.toml").write_text('store = "file:///from/file"\n')

    from_file = Settings.load(home=tmp_path / "h", env={}, cwd=tmp_path)
    from_env = Settings.load(home=tmp_path, env={"FABRIC_STORE": "file:///e/"}, cwd=tmp_path)

    assert from_file.store == "file:///from/file"
    assert from_env.store == "file:///e"


def test_project_file_wins_over_the_users(tmp_path: Path) -> None:
    """./fabric.toml wins over the one in the home."""
    home, project = tmp_path / "home", tmp_path / "project"
    for folder, name in ((home, "user"), (project, "project")):
        folder.mkdir()
        (folder / "fabric.toml").write_text(f'[backends.{name}]\nkind = "local"\n')

    assert Settings.load(home=home, env={}, cwd=project).backends[0].name == "project"
    assert Settings.load(home=home, env={}, cwd=tmp_path).backends[0].name == "user"


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    """Every wrong setting is reported with its path, not only the first."""
    (tmp_path / "fabric.toml").write_text(
        'stoer = 1\nstore = 3\n[backends.Bad]\nslots = 0\nknid = "local"\n'
    )

    with pytest.raises(RequestRejected) as caught:
        Settings.load(home=tmp_path, env={}, cwd=tmp_path)

    found = {(problem.code, problem.path) for problem in caught.value.problems}
    assert found == {
        ("E_UNKNOWN_FIELD", "/stoer"),
        ("E_TYPE", "/store"),
        ("E_NAME", "/backends/Bad"),
        ("E_RANGE", "/backends/Bad/slots"),
        ("E_UNKNOWN_FIELD", "/backends/Bad/knid"),
    }


def test_tenants_are_read_and_checked(tmp_path: Path) -> None:
    """A tenant has its own limits or those of '*'; without either it is not known."""
    path = tmp_path / "fabric.toml"
    path.write_text('[tenants.a]\nmax_open = 3\n[tenants."*"]\nmax_per_minute = 9\n')
    found = Settings.load(home=tmp_path, env={}, cwd=tmp_path).tenants
    path.write_text("[tenants.a]\n")
    closed = Settings.load(home=tmp_path, env={}, cwd=tmp_path).tenants
    path.write_text(
        "[tenants]\nb = 1\n[tenants.Bad]\n"
        '[tenants.c]\nmax_open = -1\nmax_per_minute = true\nprincipals = "me"\nmax = 1\n'
    )

    with pytest.raises(RequestRejected) as caught:
        Settings.load(home=tmp_path, env={}, cwd=tmp_path)

    assert found.of("a") == TenantConfig(max_open=3)
    assert found.of("b") == TenantConfig(max_per_minute=9)
    assert (closed.of("a"), closed.of("b")) == (TenantConfig(), None)
    assert {(problem.code, problem.path) for problem in caught.value.problems} == {
        ("E_TYPE", "/tenants/b"),
        ("E_NAME", "/tenants/Bad"),
        ("E_RANGE", "/tenants/c/max_open"),
        ("E_RANGE", "/tenants/c/max_per_minute"),
        ("E_TYPE", "/tenants/c/principals"),
        ("E_UNKNOWN_FIELD", "/tenants/c/max"),
    }


def test_host_id_is_made_once(tmp_path: Path) -> None:
    """A queue name carries the host id, so it survives restarts."""
    first = host_id(tmp_path, env={})

    assert host_id(tmp_path, env={}) == first
    assert host_id(tmp_path / "other", env={}) != first
    assert host_id(tmp_path, env={"FABRIC_HOST_ID": "node-7"}) == "node-7"


def test_host_id_must_be_a_name(tmp_path: Path) -> None:
    """A host id that cannot stand in a queue name is refused."""
    with pytest.raises(RequestRejected, match="E_NAME"):
        host_id(tmp_path, env={"FABRIC_HOST_ID": "Not A Name"})
