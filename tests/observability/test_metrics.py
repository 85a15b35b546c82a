"""The metrics endpoint of a real worker: who may read it, and what stands in it."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from temporal_fabric import ExperimentFailed, RequestRejected
from temporal_fabric.observability.endpoint import ROUTES, serving
from temporal_fabric.watch_settings import MetricsSettings
from tests.bodies import shell
from tests.observability.conftest import TOKEN

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from temporal_fabric.client import Fabric
    from temporal_fabric.testing.environment import FabricEnvironment

pytestmark = pytest.mark.asyncio(loop_scope="module")

BEARER = {"Authorization": f"Bearer {TOKEN}"}
REFUSED: dict[str, Mapping[str, str]] = {
    "none": {},
    "empty": {"Authorization": ""},
    "scheme only": {"Authorization": "Bearer"},
    "wrong": {"Authorization": "Bearer wrong"},
    "prefix": {"Authorization": f"Bearer {TOKEN[:-1]}"},
    "longer": {"Authorization": f"Bearer {TOKEN}x"},
    "bare": {"Authorization": TOKEN},
    "basic": {"Authorization": f"Basic {TOKEN}"},
    "not ascii": {"Authorization": "Bearer \xff\xfe"},
    "cookie": {"Cookie": f"token={TOKEN}"},
}


def lines(environment: FabricEnvironment) -> list[dict[str, Any]]:
    """Return what the worker has logged, as JSON."""
    text = (environment.settings.logs / "worker.log").read_text()
    return [json.loads(line) for line in text.splitlines()]


def address(environment: FabricEnvironment) -> str:
    """Return where the worker says that its metrics are."""
    said = [str(line["message"]) for line in lines(environment)]
    url = [text.split()[1] for text in said if text.startswith("metrics ")][-1]
    return urlsplit(url).netloc


def ask(
    environment: FabricEnvironment,
    path: str,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
) -> tuple[int, str]:
    """Return status and body of one request."""
    connection = http.client.HTTPConnection(address(environment), timeout=10)
    try:
        connection.request(method, path, headers=dict(headers or {}))
        answer = connection.getresponse()
        return (answer.status, answer.read().decode())
    finally:
        connection.close()


def samples(environment: FabricEnvironment) -> dict[tuple[str, ...], float]:
    """Return every sample of a scrape, by name and label values."""
    status, text = ask(environment, "/metrics", BEARER)
    assert status == 200
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize(
    "path", [*ROUTES, "/", "/nothing", "/metrics/", "/../metrics", "/healthz/x"]
)
async def test_no_path_answers_without_the_token(environment: FabricEnvironment, path: str) -> None:
    """Every route, and every path that is none, is refused in the same words."""
    answers = {ask(environment, path, headers) for headers in REFUSED.values()}

    assert answers == {(401, "a bearer token is needed\n")}


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_no_method_is_a_way_round(environment: FabricEnvironment, method: str) -> None:
    """The token is asked for under every method."""
    status, _ = ask(environment, "/metrics", method=method)

    assert status == 401


async def test_the_token_opens_the_routes_only(environment: FabricEnvironment) -> None:
    """With the token every route answers, and what is no route is not found."""
    found = {path: ask(environment, path, BEARER)[0] for path in [*ROUTES, "/nothing"]}

    assert found == {**dict.fromkeys(ROUTES, 200), "/nothing": 404}


async def test_two_authorizations_are_none(environment: FabricEnvironment) -> None:
    """A second header does not decide for the first."""
    host, _, port = address(environment).partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        twice = f"Authorization: Bearer {TOKEN}\r\nAuthorization: Bearer x\r\n"
        connection.sendall(f"GET /metrics HTTP/1.0\r\n{twice}\r\n".encode())
        answer = connection.recv(4096)

    assert answer.split()[1] == b"401"


async def test_health_says_nothing_else(environment: FabricEnvironment) -> None:
    """Liveness needs no token and carries no data."""
    assert ask(environment, "/healthz") == (200, "ok\n")


async def test_a_success_and_a_failure_are_counted(
    environment: FabricEnvironment, fabric: Fabric
) -> None:
    """Counter and histogram rise by one task each, under outcome and reason."""
    good, bad = ("process", "SUCCEEDED", ""), ("process", "FAILED", "EXIT_CODE")
    before = samples(environment)
    await (await fabric.submit(shell("true"))).result()
    with pytest.raises(ExperimentFailed):
        await (await fabric.submit(shell("exit 3"))).result()

    after = samples(environment)

    for key in (
        ("fabric_tasks_total", *good),
        ("fabric_tasks_total", *bad),
        ("fabric_task_duration_seconds_count", *good[:2]),
        ("fabric_task_duration_seconds_count", *bad[:2]),
    ):
        assert after[key] - before.get(key, 0) == 1


async def test_a_refusal_is_counted_under_a_closed_label(
    environment: FabricEnvironment, fabric: Fabric
) -> None:
    """What a direct start wrote never becomes a label value."""
    body: dict[str, Any] = {"id": "odd", "payload": {"x" * 100: {}}}
    handle = await fabric.client.start_workflow(
        "Experiment", body, id="experiment/default/odd", task_queue="fabric"
    )
    with pytest.raises(Exception, match="failed"):
        await handle.result()

    assert samples(environment)["fabric_tasks_total", "other", "FAILED", "REFUSED"] >= 1


async def test_places_are_gauges(environment: FabricEnvironment, fabric: Fabric) -> None:
    """One attempt runs, a second request waits for its place, and then nothing is left."""
    handles = [await fabric.submit(shell("sleep 2")) for _ in range(2)]
    async with asyncio.timeout(20):
        while not (waiting := _gauges(environment, "fabric_queue_depth")):
            await asyncio.sleep(0.1)
    running = _gauges(environment, "fabric_active_tasks")
    await asyncio.gather(*(handle.result() for handle in handles))

    assert list(running.values()) == list(waiting.values()) == [1.0]
    assert [name.partition("@")[0] for name in (*running, *waiting)] == ["local", "local"]
    assert _gauges(environment, "fabric_active_tasks") == {}
    assert _gauges(environment, "fabric_queue_depth") == {}


async def test_ipv6_is_served_as_well() -> None:
    """An address with colons is an IPv6 one."""
    with serving("::1", 0, CollectorRegistry(), TOKEN) as url:
        port = urlsplit(url).port
        connection = http.client.HTTPConnection("::1", port, timeout=10)
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
        connection.close()

    assert status == 200


async def test_build_info(environment: FabricEnvironment) -> None:
    """The worker says what it is."""
    assert any(key[0] == "fabric_build_info" for key in samples(environment))


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"FABRIC_METRICS_TOKEN": ""}, "metrics have no token"),
        ({"FABRIC_METRICS_TOKEN": "short"}, "no secret"),
        (
            {"FABRIC_METRICS_TOKEN": "", "FABRIC_METRICS_TOKEN_FILE": "/no/such/file"},
            "cannot be read",
        ),
        ({"FABRIC_METRICS_HOST": "192.0.2.1"}, "cannot be served"),
        ({"FABRIC_METRICS_PORT": "65536"}, "FABRIC_METRICS_PORT"),
    ],
    ids=["none", "short", "file", "address", "port"],
)
async def test_an_unsafe_endpoint_stops_the_worker(
    environment: FabricEnvironment, env: dict[str, str], words: str
) -> None:
    """Metrics without a token are refused at the start, never served open."""
    home = environment.home / "other"
    environment.env |= env
    try:
        done = await asyncio.to_thread(
            environment.cli, "worker", "--home", str(home), "--address", environment.address
        )
    finally:
        environment.env |= {"FABRIC_METRICS_PORT": "0", "FABRIC_METRICS_TOKEN": TOKEN}
        for name in env.keys() - {"FABRIC_METRICS_PORT", "FABRIC_METRICS_TOKEN"}:
            del environment.env[name]

    assert done.returncode == 2
    assert words in done.stderr


async def test_a_token_may_lie_in_a_file(tmp_path: Path) -> None:
    """The file's last newline is not part of the token, and the variable wins over it."""
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    settings = MetricsSettings(1, token_file=str(file))

    assert settings.token({}) == TOKEN
    assert settings.token({"FABRIC_METRICS_TOKEN": TOKEN[::-1]}) == TOKEN[::-1]


async def test_refusals_at_submission_start_nothing(
    environment: FabricEnvironment, fabric: Fabric
) -> None:
    """A request that is refused by the client never becomes a task."""
    before = sum(v for key, v in samples(environment).items() if key[0] == "fabric_tasks_total")
    with pytest.raises(RequestRejected):
        await fabric.submit({"id": "Bad Name", "payload": {}})

    after = sum(v for key, v in samples(environment).items() if key[0] == "fabric_tasks_total")
    assert after == before


def _gauges(environment: FabricEnvironment, name: str) -> dict[str, float]:
    return {key[1]: v for key, v in samples(environment).items() if key[0] == name and v}
