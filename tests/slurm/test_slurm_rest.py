"""A site by its slurmrestd: tokens, certificates, versions, a folder that is not mounted."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import subprocess
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from temporal_fabric.adapters.contract import JobHandle, Phase
from temporal_fabric.adapters.slurm_options import check_options
from temporal_fabric.errors import PermanentBackendError, TransientBackendError
from temporal_fabric.testing.environment import FabricEnvironment
from temporal_fabric.testing.http_relay import PortRelay
from temporal_fabric.testing.slurm_rest_bench import rest_options
from tests import portable
from tests.slurm.adapting import adapter_with
from tests.slurm.conftest import backend_table
from tests.test_docs import ON_SLURM, ROOT, fences

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from temporal_fabric.testing.slurm_rest_bench import SlurmRestBench
    from temporal_fabric.testing.slurm_site import SlurmSite

pytestmark = pytest.mark.asyncio(loop_scope="module")

REPORTING = "report('start'); time.sleep({}); report('end')"


def _jwt(exp: int) -> str:
    parts = ({"alg": "HS256"}, {"exp": exp, "sun": "root"})
    texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts]
    return ".".join([*(text.rstrip("=") for text in texts), "c2lnbmF0dXJl"])


async def test_a_new_token_counts_at_once(
    rest_bench: SlurmRestBench, site: SlurmSite, tmp_path: Path
) -> None:
    """One that has ended is told with what to write; a new one in the file is used at once."""
    token = tmp_path / "token"
    token.write_text(_jwt(1_600_000_000))
    async with adapter_with(rest_bench, token=str(token)) as adapter:
        with pytest.raises(TransientBackendError) as ended:
            await adapter.find(rest_bench.key())
        token.write_text("no token")
        with pytest.raises(TransientBackendError, match="scontrol token"):
            await adapter.find(rest_bench.key())
        token.write_text(_jwt(4_000_000_000))
        with pytest.raises(TransientBackendError) as wrong:
            await adapter.find(rest_bench.key())
        token.write_text(site.token())
        status = await adapter.find(rest_bench.key())

    assert "2020-09-13T12:26:40Z" in str(ended.value)
    assert str(token) in str(ended.value)
    assert "token of another cluster" in str(wrong.value)
    assert "c2lnbmF0dXJl" not in f"{ended.value}{wrong.value}{wrong.value.__cause__}"
    assert status.phase is Phase.ABSENT
    await rest_bench.settle()


async def test_a_certificate_that_is_not_trusted_gets_no_token(
    rest_bench: SlurmRestBench, site: SlurmSite, tmp_path: Path
) -> None:
    """A site's own certificate counts once it is named; whoever shows another is sent nothing."""
    key, certificate, other = (tmp_path / name for name in ("key", "site.pem", "other.pem"))
    for path in (other, certificate):
        argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        argv += ["-nodes", "-subj", "/CN=site", "-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run([*argv, "-keyout", key, "-out", path], check=True, capture_output=True)
    shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown.load_cert_chain(certificate, key)
    way = ("127.0.0.1", site.rest_port, "HTTP", "lost_request")
    relay = PortRelay(*way, lambda answer, _: answer, shown=shown)
    await relay.start()
    url = f"https://127.0.0.1:{relay.port}"
    try:
        async with adapter_with(rest_bench, url=url, ca=str(other)) as adapter:
            with pytest.raises(TransientBackendError, match="E_HOSTKEY"):
                await adapter.inventory()
            verdict = await adapter.can_fulfill(rest_bench.request("pass"))
        async with adapter_with(rest_bench, url=url, ca=str(certificate)) as adapter:
            # It is sent, and this relay answers nobody.
            with pytest.raises(TransientBackendError, match="does not answer"):
                await adapter.inventory()
    finally:
        await relay.aclose()

    assert [shortfall.code for shortfall in verdict.shortfalls] == ["E_HOSTKEY"]


async def test_a_refusal_for_good_forbids_the_attempt(rest_bench: SlurmRestBench) -> None:
    """What Slurm never accepts is permanent by this way too, in Slurm's own words."""
    key = rest_bench.key()

    async with adapter_with(rest_bench, partition="nowhere") as adapter:
        with pytest.raises(PermanentBackendError, match="Invalid partition"):
            await adapter.submit(rest_bench.attempt(key, "report('start')"))
    status = await rest_bench.adapter().find(key)

    assert status.phase is Phase.LOST
    await rest_bench.settle()


async def test_what_a_request_needs_reaches_slurm(
    rest_bench: SlurmRestBench, site: SlurmSite
) -> None:
    """Cores, memory, nodes, licences and time are in Slurm's books as the request has them."""
    key = rest_bench.key()
    resources = [{"type": "cpu", "cores": 3}, {"type": "license", "name": "solver", "count": 1}]
    more: dict[str, Any] = {"requirements": {"resources": resources}}
    more["limits"] = {"wall_s": 600, "memory_bytes": 200 * 2**20}
    attempt = rest_bench.attempt(key, REPORTING.format(120), **more)
    job = (await rest_bench.adapter().submit(attempt)).native_id.removeprefix("job ")

    told = site.run("scontrol", "show", "job", job).stdout

    for part in ("NumCPUs=3", "MinMemoryNode=248M", "Licenses=solver:1", "Requeue=0"):
        assert part in told
    assert f"Comment=temporal-fabric:{key}" in told
    assert "TimeLimit=00:" in told
    await rest_bench.settle()


async def test_several_members_are_one_job(rest_bench: SlurmRestBench) -> None:
    """Two members on a node are started by srun, which this way's jobs find too."""
    key = rest_bench.key()
    resources = {"resources": [{"type": "nodes", "count": 1, "tasks_per_node": 2}]}
    code = "report('rank' + os.environ['SLURM_PROCID'])"
    await rest_bench.adapter().submit(rest_bench.attempt(key, code, requirements=resources))

    status = await rest_bench.adapter().wait(JobHandle(key, ""), 60)

    assert status.exit_code == 0, status
    assert (rest_bench.effects(key, "rank0"), rest_bench.effects(key, "rank1")) == (1, 1)
    await rest_bench.settle()


async def test_a_slurmrestd_that_restarts_loses_nothing(
    rest_bench: SlurmRestBench, site: SlurmSite
) -> None:
    """While slurmrestd is away a running job is unknown; it runs on, and ends once."""
    key = rest_bench.key()
    await rest_bench.adapter().submit(rest_bench.attempt(key, REPORTING.format(2)))
    site.kill_part("slurmrestd")
    try:
        with pytest.raises(TransientBackendError, match="does not answer"):
            await rest_bench.adapter().find(key)
    finally:
        await asyncio.to_thread(site.start_part, "slurmrestd")
    status = await rest_bench.adapter().wait(JobHandle(key, ""), 60)

    assert status.exit_code == 0
    assert (rest_bench.effects(key, "start"), rest_bench.effects(key, "end")) == (1, 1)
    await rest_bench.settle()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def environment(site: SlurmSite) -> AsyncIterator[FabricEnvironment]:
    """A server, and a worker whose one backend is the site by its slurmrestd."""
    config = backend_table(rest_options(site))
    async with FabricEnvironment.fresh(config=config) as found:
        yield found


async def test_doctor_tells_what_is_missing(
    environment: FabricEnvironment, site: SlurmSite
) -> None:
    """Interface and end of the token; else the version, the folder or the way that is missing."""

    def row(**more: Any) -> str:
        file.write_text(backend_table(rest_options(site) | more))
        lines = environment.cli("doctor").stdout.splitlines()
        place = next(n for n, line in enumerate(lines) if " backend cluster " in line)
        return "\n".join(lines[place : place + 2])

    file = environment.home / "fabric.toml"
    kept = file.read_text()
    try:
        well = row()
        unmounted = row(folder=str(site.shared / "none"))
        strange = row(folder=str(site.home))
        away = row(url="http://127.0.0.1:1")
        pinned = row(api="v0.0.38", answer_s=5)
        site.stop_part("slurmrestd")
        site.rest_api = "v0.0.37"
        await asyncio.to_thread(site.start_part, "slurmrestd")
        old = row()
    finally:
        site.stop_part("slurmrestd")
        site.rest_api = "v0.0.38"
        await asyncio.to_thread(site.start_part, "slurmrestd")
        file.write_text(kept)

    for part in ("v0.0.38", "main", "until 20"):
        assert part in well
        assert part in pinned
    for told, part in (
        (unmounted, "mount it"),
        (strange, "another user's"),
        (away, "does not answer"),
        (old, "offers=v0.0.37"),
    ):
        assert told.startswith("fail")
        assert part in told


async def test_the_portable_example_gives_the_same(
    environment: FabricEnvironment, tmp_path: Path
) -> None:
    """The portable example gives the same outputs and telemetry here and as a process."""
    given = portable.make_input(tmp_path)
    found = await asyncio.to_thread(portable.run_on, "cluster", environment, given)
    async with FabricEnvironment.fresh() as other:
        local = await asyncio.to_thread(portable.run_on, "local", other, given)

    assert found == local
    assert set(found[0]) == portable.OUTPUTS


async def test_every_wrong_option_is_told_with_its_place(tmp_path: Path) -> None:
    """All problems come at once; an option of the other way is told as one."""
    wrong = {
        "url": "http://slurm.example.org:6820",
        "user": "a b",
        "token": str(tmp_path / "none"),
        "ca": str(tmp_path / "none"),
        "folder": "fabric",
        "api": "v0.0.1",
        "host": "login.example.org",
    }

    problems = check_options(wrong, "c")

    found = {(p.code, p.path.removeprefix("/backends/c/options/")) for p in problems}
    assert found == {
        ("E_URI_SCHEME", "url"),
        ("E_SLURM_FIELD", "user"),
        ("E_PATH", "token"),
        ("E_PATH", "ca"),
        ("E_PATH", "folder"),
        ("E_RANGE", "api"),
        ("E_UNKNOWN_FIELD", "host"),
    }
    assert {p.path[-5:] for p in check_options({"url": "https://x/y"}, "c")} == {
        "s/url",
        "/user",
        "token",
        "older",
    }


async def test_the_page_about_slurm_has_options_that_there_are(tmp_path: Path) -> None:
    """The page's configuration for slurmrestd is one that a worker takes."""
    config = next(fence.text for fence in fences(ROOT / ON_SLURM) if "cloud.toml" in fence.info)
    options = tomllib.loads(config)["backends"]["cloud"]["options"]
    file = tmp_path / "file"
    file.touch()

    assert check_options(options | {"token": str(file), "ca": str(file)}, "cloud") == []
