"""The documentation is run: every command and every example of it, page by page.

A page is one shell session in an empty folder, against a real server and a real worker. Its
fences become one script, in their order: ``sh`` is run, ``python`` is run, and a fence with
``title="FILE"`` becomes that file. A fence marked ``{.no-run}`` is left out; the comment
before it says why.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from docs.reference import make_reference
from temporal_fabric.reasons import REASONS
from temporal_fabric.states import Reason, State
from temporal_fabric.testing.docker_daemon import IMAGE
from temporal_fabric.testing.environment import FabricEnvironment
from tests.backends import missing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from temporal_fabric.testing.docker_daemon import DockerDaemon

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
KILLS_THE_WORKER = "docs/how-to/survive-a-restart.md"
ON_DOCKER = "docs/how-to/docker.md"
ON_SLURM = "docs/how-to/slurm.md"
"""Run on a site, by the tests of that backend."""

OWN_WORKER = {"docs/how-to/take-a-machine-out-of-service.md"}
"""Pages that would let the others wait."""

NEEDS = {"docs/how-to/limit-a-payload.md": ("bubblewrap", "bwrap")}
"""Pages that need a backend of the tests: its name, and its program."""
_LIMIT_S = 300
"""Seconds for one page: a guard against a page that hangs, also on a loaded machine."""

_FENCE = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?"
    r"^(?P<indent> *)```(?P<language>\w+)(?P<info>[^\n]*)\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
_TITLE = re.compile(r'title="([^"]+)"')
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")


@dataclass(frozen=True)
class Fence:
    """One fenced block of a page."""

    language: str
    info: str
    text: str
    reason: str | None

    @property
    def script(self) -> str:
        """What the fence does in its page's session; empty where it only shows something."""
        title = _TITLE.search(self.info)
        if title:
            return f"cat > {title[1]} <<'END_OF_FILE'\n{self.text}END_OF_FILE\n"
        if "{.no-run}" in self.info or self.language not in {"sh", "python"}:
            return ""
        if self.language == "python":
            return f"python - <<'END_OF_FILE'\n{self.text}END_OF_FILE\n"
        return self.text


def fences(page: Path) -> Iterator[Fence]:
    """Yield the fenced blocks of a page."""
    for match in _FENCE.finditer(page.read_text()):
        indent = len(match["indent"])
        text = "".join(line[indent:] for line in match["text"].splitlines(keepends=True))
        yield Fence(match["language"], match["info"], text, match["reason"])


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _runs(page: Path) -> bool:
    return any(fence.script and fence.language in {"sh", "python"} for fence in fences(page))


ALONE = {KILLS_THE_WORKER, ON_DOCKER, ON_SLURM}
ON_SHARED_WORKER = [page for page in PAGES if _runs(page) and _name(page) not in ALONE]


def run_page(page: Path, environment: FabricEnvironment, folder: Path) -> str:
    """Run the session of a page; return what was printed.

    The address in the examples is a server's default one; the environment has its own.
    """
    programs = folder / ".bin"
    programs.mkdir()
    if environment.server is not None:
        (programs / "temporal").symlink_to(environment.server.cli)
    script = "set -euo pipefail\n" + "\n".join(fence.script for fence in fences(page))
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", script.replace("localhost:7233", environment.address)],
        cwd=folder,
        env=environment.env | {"PATH": path, "TEMPORAL_ADDRESS": environment.address},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def restarts() -> AsyncIterator[asyncio.Task[str]]:
    """The session of the page that kills its worker, beside the others: it mostly waits."""
    async with FabricEnvironment.fresh() as environment:
        folder = environment.home / "page"
        folder.mkdir()
        session = asyncio.to_thread(run_page, ROOT / KILLS_THE_WORKER, environment, folder)
        task = asyncio.create_task(session)
        try:
            yield task
        finally:
            await asyncio.wait([task])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sessions(
    environment: FabricEnvironment,
    restarts: asyncio.Task[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[dict[Path, asyncio.Task[str]]]:
    """The sessions of all other pages, two at a time: most of each is waiting too."""
    del restarts  # only started first, so that its waiting costs no time
    two = asyncio.Semaphore(2)

    async def session(page: Path) -> str:
        folder = tmp_path_factory.mktemp(page.stem)
        async with two:
            if _name(page) not in OWN_WORKER:
                return await asyncio.to_thread(run_page, page, environment, folder)
            async with FabricEnvironment.fresh() as own:
                return await asyncio.to_thread(run_page, page, own, folder)

    tasks = {page: asyncio.create_task(session(page)) for page in ON_SHARED_WORKER}
    yield tasks
    await asyncio.wait(tasks.values())


@pytest.mark.timeout(2 * _LIMIT_S)
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("page", ON_SHARED_WORKER, ids=_name)
async def test_a_page_does_what_it_says(
    page: Path, sessions: dict[Path, asyncio.Task[str]]
) -> None:
    """Every command and every example of a page runs, in the page's order."""
    backend, program = NEEDS.get(_name(page), ("", ""))
    if program and shutil.which(program) is None:
        missing(backend, f"there is no {program}")
    said = await sessions[page]

    assert "Traceback" not in said, said


@pytest.mark.timeout(2 * _LIMIT_S)
@pytest.mark.asyncio(loop_scope="module")
async def test_the_page_about_restarts_does_what_it_says(restarts: asyncio.Task[str]) -> None:
    """The worker is killed as the page tells, and every step was still printed once."""
    said = await restarts

    steps = [line for line in said.splitlines() if line.startswith("step ")]
    assert steps == [f"step {number}" for number in range(1, 9)], said
    assert '"epoch": 1' in said
    assert '"epoch": 2' not in said


@pytest.mark.timeout(_LIMIT_S)
@pytest.mark.asyncio(loop_scope="module")
async def test_the_page_about_docker_does_what_it_says(
    docker: DockerDaemon, tmp_path: Path
) -> None:
    """Its own configuration is read, with the test engine and its image in the place of others."""
    page = ROOT / ON_DOCKER
    config = next(fence.text for fence in fences(page) if "docker.toml" in fence.info)
    own = config.replace('image = "python:3.12-slim"', f'image = "{IMAGE}"\nhost = "{docker.host}"')
    async with FabricEnvironment.fresh(config=own) as environment:
        said = await asyncio.to_thread(run_page, page, environment, tmp_path)

    assert "Traceback" not in said, said
    assert "\n95\n" in said
    assert "docker@" in said


def test_what_is_not_run_says_why() -> None:
    """A command that is left out is rare, and has its reason beside it."""
    left_out = [
        (_name(page), fence) for page in PAGES for fence in fences(page) if ".no-run" in fence.info
    ]

    assert [name for name, fence in left_out if not fence.reason] == []
    assert len(left_out) <= 24


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_internal_links_resolve(page: Path) -> None:
    """Every relative link leads to a file that exists, and to a heading in it."""
    for target, anchor in _LINK.findall(_without_fences(page)):
        found = (page.parent / target).resolve() if target else page
        assert found.exists(), f"{_name(page)} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", _without_fences(found), re.MULTILINE)
            slugs = {_slug(heading) for heading in headings}
            assert anchor in slugs, f"{_name(page)} links to {target}#{anchor}"


def test_every_page_is_in_the_navigation() -> None:
    """No page is hidden from a reader of the site."""
    navigation = (ROOT / "mkdocs.yml").read_text()
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in PAGES[1:]]

    assert [page for page in pages if f": {page}\n" not in navigation] == []


def test_reference_pages_are_up_to_date() -> None:
    """Generated parts are what the code says now; the script named here writes them again."""
    outdated = [page.name for page in make_reference.outdated()]

    assert outdated == [], "run: python docs/reference/make_reference.py"


def test_every_state_and_reason_is_explained() -> None:
    """A new state or reason needs a sentence in the reference."""
    assert set(make_reference.STATES) == set(State)
    assert set(REASONS) == set(Reason)


def test_the_picture_loads_nothing_from_elsewhere() -> None:
    """Pictures are whole in themselves: no font and no image of another host."""
    for picture in (ROOT / "docs/images").glob("*.svg"):
        assert not re.search(r"url\(.?https?:|href=.https?:|@import", picture.read_text()), picture


def _slug(heading: str) -> str:
    # As Python-Markdown makes the ids of headings.
    words = re.sub(r"[^\w\s-]", "", heading).strip().lower()
    return re.sub(r"[-\s]+", "-", words)


def _without_fences(page: Path) -> str:
    return _FENCE.sub("", page.read_text())
