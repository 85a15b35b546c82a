"""Settings of metrics and traces: precedence, and every mistake at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from temporal_fabric.config import Settings
from temporal_fabric.errors import RequestRejected

if TYPE_CHECKING:
    from pathlib import Path


def test_both_are_off_by_default(tmp_path: Path) -> None:
    """Nothing listens and nothing is sent unless it is asked for."""
    settings = Settings.load(home=tmp_path, env={}, cwd=tmp_path)

    assert settings.metrics.port is None
    assert settings.metrics.host == "127.0.0.1"
    assert settings.tracing.endpoint == ""


def test_variables_win_over_the_file(tmp_path: Path) -> None:
    """Our variables and OpenTelemetry's both win over fabric.toml."""
    (tmp_path / "fabric.toml").write_text(
        '[metrics]\nport = 1\nhost = "::1"\n[tracing]\nendpoint = "http://file:4318/"\n'
    )
    given = {"FABRIC_METRICS_PORT": "2", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://env:4318"}

    from_file = Settings.load(home=tmp_path, env={}, cwd=tmp_path)
    from_env = Settings.load(home=tmp_path, env=given, cwd=tmp_path)

    assert (from_file.metrics.port, from_file.metrics.host) == (1, "::1")
    assert from_file.tracing.endpoint == "http://file:4318/v1/traces"
    assert from_env.metrics.port == 2
    assert from_env.tracing.endpoint == "http://env:4318/v1/traces"


@pytest.mark.parametrize(
    ("env", "endpoint"),
    [
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x/y"}, "http://x/y"),
        ({"OTEL_TRACES_EXPORTER": "none"}, ""),
        ({"OTEL_SDK_DISABLED": "true"}, ""),
    ],
)
def test_opentelemetrys_own_variables(tmp_path: Path, env: dict[str, str], endpoint: str) -> None:
    """The exact endpoint is taken as it is, and either switch turns spans off."""
    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://base:4318"} | env

    assert Settings.load(home=tmp_path, env=given, cwd=tmp_path).tracing.endpoint == endpoint


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    """Every wrong setting is reported with its path."""
    (tmp_path / "fabric.toml").write_text(
        'tracing = 1\n[metrics]\nport = 70000\nhost = 3\ntoken = "in the file"\n'
    )

    with pytest.raises(RequestRejected) as caught:
        Settings.load(home=tmp_path, env={"FABRIC_METRICS_PORT": "x"}, cwd=tmp_path)

    found = {(problem.code, problem.path) for problem in caught.value.problems}
    assert found == {
        ("E_TYPE", "/tracing"),
        ("E_RANGE", "/metrics/port"),
        ("E_TYPE", "/metrics/host"),
        ("E_UNKNOWN_FIELD", "/metrics/token"),
    }
