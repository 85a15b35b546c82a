"""What a submission brings along: found, hashed, limited and unpacked, without a server."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from temporal_fabric.artifacts.packing import Packed, pack, send
from temporal_fabric.artifacts.transfer import Transfer
from temporal_fabric.artifacts.trees import (
    TreeRefused,
    blob_key,
    check_link,
    read_listing,
    tree_digest,
    tree_key,
)
from temporal_fabric.artifacts.workdirs import unpack
from temporal_fabric.config import ArtifactsConfig
from temporal_fabric.errors import ArtifactFailed, RequestRejected, StoreError
from temporal_fabric.store import Objects, open_objects

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder to bring along."""
    (tmp_path / "tree/src").mkdir(parents=True)
    (tmp_path / "tree/src/a.py").write_text("print(1)\n")
    (tmp_path / "tree/run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "tree/run.sh").chmod(0o755)
    (tmp_path / "tree/latest").symlink_to("src")
    return tmp_path / "tree"


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    """An empty store."""
    return open_objects((tmp_path / "store").as_uri())


def _body(workdir: Path | None = None, *uris: str, **row: Any) -> dict[str, Any]:
    rows = [{"source_uri": uri, "mount_path": "x", **row} for uri in uris]
    body: dict[str, Any] = {"payload": {"process": {"command": ["true"], "inputs": rows}}}
    return body | ({"workdir": str(workdir)} if workdir else {})


def _pack(
    body: dict[str, Any], objects: Objects | None = None, limits: ArtifactsConfig | None = None
) -> Packed:
    return pack(body, limits or ArtifactsConfig(), objects, lambda _: None)


def _brought(tree: Path) -> list[str]:
    packed = _pack(_body(tree))
    digest = tree_digest(packed.body["workdir"]) or ""
    return [leaf.path for leaf in read_listing(packed.listings[digest], digest)]


def _unpack(packed: Packed, objects: Objects, folder: Path) -> Path:
    target = folder / "task"
    target.mkdir(parents=True)
    limits = Transfer(10**9, 60, lambda _: None)
    unpack(objects, packed.body["workdir"], target, aside=folder / "aside", transfer=limits)
    return target


def _problems(caught: pytest.ExceptionInfo[RequestRejected]) -> set[tuple[str, str]]:
    return {(problem.code, problem.path) for problem in caught.value.problems}


def test_a_folder_arrives_as_it_was(tree: Path, objects: Objects, tmp_path: Path) -> None:
    """Content, permission to execute and links inside the folder survive the journey."""
    packed = _pack(_body(tree))
    send(packed, objects, lambda _: None)

    found = _unpack(packed, objects, tmp_path / "host")

    assert sorted(str(p.relative_to(found)) for p in found.rglob("*")) == [
        "latest",
        "run.sh",
        "src",
        "src/a.py",
    ]
    assert (found / "latest/a.py").read_text() == "print(1)\n"
    assert os.access(found / "run.sh", os.X_OK)
    assert not os.access(found / "src/a.py", os.X_OK)
    assert not (tmp_path / "host/aside").exists()


def test_the_digest_is_the_content_alone(tree: Path, tmp_path: Path) -> None:
    """Another place, other times and other order of creation give the same digest."""
    first = _pack(_body(tree)).body["workdir"]
    (tmp_path / "copy/src").mkdir(parents=True)
    (tmp_path / "copy/latest").symlink_to("src")
    shutil.copy(tree / "run.sh", tmp_path / "copy/run.sh")
    (tmp_path / "copy/src/a.py").write_text("print(1)\n")
    os.utime(tmp_path / "copy/src/a.py", (0, 0))

    assert _pack(_body(tmp_path / "copy")).body["workdir"] == first
    (tmp_path / "copy/run.sh").chmod(0o644)
    assert _pack(_body(tmp_path / "copy")).body["workdir"] != first


def test_only_what_is_new_is_sent(tree: Path, objects: Objects) -> None:
    """After one file changed, one content and one listing are written."""
    send(_pack(_body(tree)), objects, lambda _: None)
    before = set(objects.names("blobs/sha256"))
    (tree / "src/a.py").write_text("print(2)\n")

    send(_pack(_body(tree)), objects, lambda _: None)

    changed = hashlib.sha256(b"print(2)\n").hexdigest()
    assert set(objects.names("blobs/sha256")) - before == {changed}


@pytest.mark.skipif(shutil.which("git") is None, reason="git is the judge here")
def test_gitignore_means_what_git_means(tmp_path: Path) -> None:
    """Forty random trees with rules at every depth: git lists the files that we bring."""
    rules = ["*.log", "!keep.log", "build/", "/top", "a/b", "**/deep", "d*", "!d1", "*", "!*/"]
    rules += ["d1/**", "a/**/b", "!/a", "!f.txt", "a/", "?"]
    for seed in range(40):
        pick, root = random.Random(seed), tmp_path / str(seed)
        folders = [root, *(root / name for name in ("a", "a/b", "build", "d1", "d1/deep"))]
        for folder in folders:
            folder.mkdir(parents=True)
        for folder in folders:
            for name in ("x.log", "keep.log", "top", "b", "deep", "d2", "f.txt"):
                if pick.random() < 0.6 and not (folder / name).exists():
                    (folder / name).write_text(name)
            if pick.random() < 0.6:
                (folder / ".gitignore").write_text("\n".join(pick.sample(rules, 3)) + "\n")
        subprocess.run(["git", "init", "-q", root], check=True)
        said = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"],
            cwd=root,
            env=os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert _brought(root) == sorted(said.stdout.split("\0")[:-1]), seed


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "src/../../outside", "src/.."])
def test_a_link_out_of_the_folder_is_refused(tree: Path, target: str) -> None:
    """A link that leads out, or could, is a problem that names it."""
    (tree / "out").symlink_to(target)

    with pytest.raises(RequestRejected, match="'out' -> ") as caught:
        _pack(_body(tree))

    assert _problems(caught) == {("E_PATH", "/workdir")}


def test_no_chain_of_allowed_links_leads_out(tmp_path: Path) -> None:
    """Whatever links pass the check, following them ends below the folder."""
    pick = random.Random(5)
    for round_ in range(200):
        root = tmp_path / str(round_) / "root"
        (root / "a/b/c").mkdir(parents=True)
        made: list[Path] = []
        for number in range(8):
            at = pick.choice(["", "a/", "a/b/", "a/b/c/"]) + f"l{number}"
            parts = pick.choices(["..", "a", "b", "c", *(f"l{n}" for n in range(8))], k=3)
            try:
                check_link(at, "/".join(parts))
            except TreeRefused:
                continue
            (root / at).symlink_to("/".join(parts))
            made.append(root / at)
        for link in made:
            try:
                end = link.resolve()
            except (OSError, RuntimeError):
                continue  # a loop leads nowhere
            assert end.is_relative_to(root)


def test_everything_wrong_is_told_at_once(tree: Path, tmp_path: Path) -> None:
    """A pipe, a link and a digest that does not hold are three problems of one refusal."""
    os.mkfifo(tree / "pipe")
    (tree / "out").symlink_to("/")
    (tmp_path / "data").write_text("x")

    with pytest.raises(RequestRejected) as caught:
        _pack(_body(tree, (tmp_path / "data").as_uri(), sha256="sha256:" + "0" * 64))

    assert _problems(caught) == {
        ("E_PATH", "/workdir"),
        ("E_INTEGRITY", "/payload/process/inputs/0/sha256"),
    }
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    "limits", [ArtifactsConfig(upload_bytes=12), ArtifactsConfig(upload_files=1)]
)
def test_too_much_is_refused(tree: Path, limits: ArtifactsConfig) -> None:
    """Bytes and files are limited, and the refusal says what to do."""
    with pytest.raises(RequestRejected, match="gitignore") as caught:
        _pack(_body(tree), limits=limits)

    assert _problems(caught) == {("E_TOO_LARGE", "/workdir")}


def test_no_folder_is_refused(tmp_path: Path) -> None:
    """A working folder that is not here is refused, not left to the host."""
    with pytest.raises(RequestRejected) as caught:
        _pack(_body(tmp_path / "none"))

    assert _problems(caught) == {("E_PATH", "/workdir")}


def test_which_inputs_are_brought(tmp_path: Path) -> None:
    """A file and a folder that are here get digests; another host's, and what is not here, none."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/.gitignore").write_text("*")
    (tmp_path / "d/f").write_text("1")
    here, there = tmp_path.as_uri(), f"file://localhost{tmp_path}"
    body = _body(None, f"{here}/d/f", f"{here}/d", f"{there}/d/f", f"{here}/none")

    rows = _pack(body).body["payload"]["process"]["inputs"]

    digests = [row.get("sha256", "") for row in rows]
    lines = "".join(
        f"{hashlib.sha256(data).hexdigest()}  {name}\n"
        for name, data in ((".gitignore", b"*"), ("f", b"1"))
    )
    assert digests[0] == f"sha256:{hashlib.sha256(b'1').hexdigest()}"
    assert digests[1] == f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"
    assert digests[2:] == ["", ""]
    assert rows[1]["source_uri"] == f"{here}/d/"


def test_what_the_store_has_is_not_read_again(objects: Objects, tmp_path: Path) -> None:
    """A copy of an old request runs with the old content, though the file has changed."""
    file = tmp_path / "f"
    file.write_text("old")
    packed = _pack(_body(None, file.as_uri()))
    send(packed, objects, lambda _: None)
    file.write_text("new")

    again = _pack(packed.body, objects)

    assert again.empty
    assert again.body == packed.body


def test_a_file_that_changes_meanwhile_is_not_sent(tree: Path, objects: Objects) -> None:
    """What was hashed and what is read differ: nothing of it is stored under that digest."""
    packed = _pack(_body(tree))
    (tree / "src/a.py").write_text("print(2)\n")

    with pytest.raises(StoreError, match="did it change"):
        send(packed, objects, lambda _: None)

    assert objects.names("trees/sha256") == []
    digest = hashlib.sha256(b"print(1)\n").hexdigest()
    assert objects.read(blob_key(digest)) is None


_HOSTILE = ("../out", "/etc/out", "a/../../out", "a//b", "./a", "a\x1bb")


@pytest.mark.parametrize("path", _HOSTILE)
def test_a_hostile_listing_writes_nothing(objects: Objects, tmp_path: Path, path: str) -> None:
    """A path that climbs is refused before anything is written."""
    content = hashlib.sha256(b"x").hexdigest()
    objects.replace(blob_key(content), b"x")

    with pytest.raises(ArtifactFailed, match="E_ARCHIVE"):
        _unpack(_listed(objects, f"{content}  {path}\n"), objects, tmp_path / "host")

    assert sorted(p.name for p in (tmp_path / "host").rglob("*")) == ["task"]


def test_nothing_is_written_through_a_link(objects: Objects, tmp_path: Path) -> None:
    """A link and a file below its name: the link is made last, and the attempt fails."""
    victim = tmp_path / "victim"
    victim.mkdir()
    target, content = str(victim).encode(), hashlib.sha256(b"x").hexdigest()
    link = hashlib.sha256(target).hexdigest()
    objects.replace(blob_key(link), target)
    objects.replace(blob_key(content), b"x")
    packed = _listed(objects, f"{link} @d\n{content}  d/f\n")

    with pytest.raises(ArtifactFailed, match="E_ARCHIVE"):
        _unpack(packed, objects, tmp_path / "host")

    assert list(victim.iterdir()) == []
    assert list((tmp_path / "host/task").iterdir()) == []


def test_a_damaged_content_is_found(tree: Path, objects: Objects, tmp_path: Path) -> None:
    """A blob that is no longer what its name says never reaches the payload."""
    packed = _pack(_body(tree))
    send(packed, objects, lambda _: None)
    objects.replace(blob_key(hashlib.sha256(b"print(1)\n").hexdigest()), b"print(666)\n")

    with pytest.raises(ArtifactFailed, match="differs") as caught:
        _unpack(packed, objects, tmp_path / "host")

    assert caught.value.reason == "INTEGRITY"
    assert list((tmp_path / "host/task").iterdir()) == []


def _listed(objects: Objects, text: str) -> Packed:
    data = text.encode()
    digest = hashlib.sha256(data).hexdigest()
    objects.replace(tree_key(digest), data)
    return Packed({"workdir": f"tree://sha256/{digest}"})
