"""What Kubernetes says is read as it is meant: states, logs, archives, options. No cluster."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from temporal_fabric.adapters.archives import TooLarge, pack, unpack
from temporal_fabric.adapters.contract import AttemptKey, Phase
from temporal_fabric.adapters.kubernetes_job import job_name, label_value
from temporal_fabric.adapters.kubernetes_kept import dropped
from temporal_fabric.adapters.kubernetes_logs import GAP, FollowedLog
from temporal_fabric.adapters.kubernetes_nodes import amount
from temporal_fabric.adapters.kubernetes_options import check_options
from temporal_fabric.adapters.kubernetes_states import as_record, judge, recorded
from temporal_fabric.states import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_JOB: dict[str, Any] = {
    "metadata": {"namespace": "n", "name": "j", "uid": "u", "annotations": {}},
    "spec": {"completions": 1},
}


def _exited(reason: str, code: int, **more: str) -> dict[str, Any]:
    times = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:05Z"}
    return {"terminated": {"reason": reason, "exitCode": code, **times, **more}}


def _pod(state: dict[str, Any] | None, phase: str = "Running", **status: Any) -> dict[str, Any]:
    states = [] if state is None else [{"name": "payload", "state": state}]
    return {
        "metadata": {"name": "p"},
        "status": status | {"phase": phase, "containerStatuses": states},
    }


def _disrupted(why: str, second: int = 3) -> dict[str, Any]:
    row = {"type": "DisruptionTarget", "status": "True", "reason": why, "message": "it had to go"}
    return {"conditions": [row | {"lastTransitionTime": f"2026-01-01T00:00:0{second}Z"}]}


def _deleted(pod: dict[str, Any], second: int) -> dict[str, Any]:
    """Return a pod that somebody has deleted in that second, with a grace of half a minute."""
    gone_by = f"2026-01-01T00:00:{30 + second}Z"
    told = {"deletionTimestamp": gone_by, "deletionGracePeriodSeconds": 30}
    return pod | {"metadata": pod["metadata"] | told}


_STATES = [
    (_pod(_exited("Completed", 0)), Phase.ENDED, "", 0),
    (_pod(_exited("Error", 3)), Phase.ENDED, "", 3),
    (_pod(_exited("OOMKilled", 137)), Phase.ENDED, Reason.OOM, 137),
    (_pod(_exited("OOMKilled", 0)), Phase.ENDED, Reason.OOM, 0),
    (_pod(_exited("StartError", 128, message="no such file")), Phase.ENDED, Reason.SETUP, None),
    (_pod(_exited("ContainerStatusUnknown", 137)), Phase.LOST, Reason.LOST, None),
    (_pod(_exited("Error", 137), "Failed", reason="DeadlineExceeded"), Phase.ENDED, "TIMEOUT", 137),
    (_pod(None, "Failed", reason="Evicted", message="low on memory"), Phase.LOST, "LOST", None),
    (
        _pod(None, "Failed", reason="Evicted", message="usage exceeds the total limit of x"),
        Phase.ENDED,
        Reason.BUDGET,
        None,
    ),
    (
        _pod(_exited("Error", 143), "Failed", **_disrupted("PreemptionByScheduler")),
        Phase.LOST,
        Reason.PREEMPTED,
        None,
    ),
    (
        _pod(_exited("Error", 143), "Failed", **_disrupted("DeletionByTaintManager")),
        Phase.LOST,
        Reason.LOST,
        None,
    ),
    (_pod(_exited("Completed", 0), **_disrupted("EvictionByEvictionAPI", 6)), Phase.ENDED, "", 0),
    (
        _pod(_exited("Completed", 0), **_disrupted("EvictionByEvictionAPI")),
        Phase.LOST,
        Reason.LOST,
        None,
    ),
    (_deleted(_pod(_exited("Completed", 0)), 6), Phase.ENDED, "", 0),
    (_deleted(_pod(_exited("Completed", 0)), 4), Phase.LOST, Reason.LOST, None),
    (_deleted(_pod(_exited("Error", 143)), 4), Phase.LOST, Reason.LOST, None),
    (_deleted(_pod(None, "Failed"), 4), Phase.RUNNING, "", None),
    (_pod(None, "Failed"), Phase.LOST, Reason.LOST, None),
    (_pod({"running": {"startedAt": "2026-01-01T00:00:00Z"}}), Phase.RUNNING, "", None),
    (_pod(None, "Pending"), Phase.RUNNING, "", None),
]


@pytest.mark.parametrize(("pod", "phase", "reason", "code"), _STATES)
def test_a_pod_is_one_state(
    pod: dict[str, Any], phase: Phase, reason: str, code: int | None
) -> None:
    """Every end of a pod is one phase with one reason, and survives being recorded."""
    status = judge(_JOB, [pod])
    assert (status.phase, status.reason, status.exit_code) == (phase, reason, code)
    if phase is not Phase.RUNNING:
        kept = {"temporal-fabric/end": json.dumps(as_record(status))}
        job = {**_JOB, "metadata": {**_JOB["metadata"], "annotations": kept}}
        assert recorded(job) == status


def test_a_pod_that_is_gone_is_lost() -> None:
    """A Job that is over, and whose pod nobody can see, is never taken for a success."""
    over = {"conditions": [{"type": "Complete", "status": "True", "reason": "CompletionsReached"}]}
    assert judge({**_JOB, "status": over}, []).phase is Phase.LOST


def test_what_a_pod_waits_for_is_told_verbatim() -> None:
    """The scheduler's words, and those about an image, are the message of the state."""
    row = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    row["message"] = "0/1 nodes are available: 1 Insufficient cpu."
    status = judge(_JOB, [_pod(None, "Pending", conditions=[row])])
    assert status.message == f"Unschedulable: {row['message']}"
    waits = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}
    status = judge(_JOB, [_pod(waits, "Pending")])
    assert status.message == "ImagePullBackOff: Back-off pulling image"


class _Log:
    """A log as the API gives it: whole seconds, a limit of bytes, and a rotation."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, bytes]] = []

    def add(self, second: int, part: int, content: bytes) -> None:
        self.lines.append((f"2026-01-01T00:00:{second:02}.{part:09}Z", content))

    def read(self, since: str | None, limit: int) -> bytes:
        wanted = [(at, line) for at, line in self.lines if since is None or at[:19] >= since[:19]]
        return b"".join(at.encode() + b" " + line for at, line in wanted)[:limit]


def test_a_log_is_followed_without_loss(tmp_path: Path) -> None:
    """Lines of one time, a crash before the note was kept, and long lines: each is there once."""
    log, path = _Log(), tmp_path / "stdout.log"
    whole = b""
    for number in range(400):
        line = b"%d \r" % number + b"x" * (200_000 if number % 97 == 0 else number) + b"\n"
        log.add(number // 100, 7 if number % 3 else number % 100, line)
    log.lines.sort(key=lambda row: row[0])
    complete = list(log.lines)
    for upto in (3, 100, 101, 250, 400):
        log.lines = complete[:upto]
        FollowedLog(path, log.read).advance()
        with path.open("ab") as file:
            file.write(b"half a li")  # a worker dies here
    FollowedLog(path, log.read).advance()
    whole = b"".join(line for _, line in complete)
    assert path.read_bytes() == whole


def test_a_rotated_log_says_so(tmp_path: Path) -> None:
    """What a node rotated away while nobody followed leaves a line, never a silent gap."""
    log, path = _Log(), tmp_path / "stdout.log"
    log.add(1, 0, b"first\n")
    FollowedLog(path, log.read).advance()
    log.lines.clear()
    log.add(9, 0, b"later\n")
    FollowedLog(path, log.read).advance()
    assert path.read_bytes() == b"first\n" + GAP + b"later\n"


def test_an_archive_brings_files_there_and_back(tmp_path: Path) -> None:
    """What was packed is unpacked: folders, empty files, long names, and programs as such."""
    source = tmp_path / "source"
    (source / "a" / ("long" * 40)).mkdir(parents=True)
    (source / "a" / ("long" * 40) / "file").write_bytes(b"x" * 1500)
    (source / "empty").touch()
    (source / "run").write_text("#!/bin/sh\n")
    (source / "run").chmod(0o755)
    sent = pack({"task": source, "one": source / "run"})
    data = b"".join(sent.chunks)
    assert len(data) == sent.size
    target = tmp_path / "target"
    target.mkdir()
    unpack(iter([data[:700], data[700:]]), target)
    assert (target / "task" / "a" / ("long" * 40) / "file").read_bytes() == b"x" * 1500
    assert (target / "task" / "empty").read_bytes() == b""
    assert (target / "one").stat().st_mode & 0o111


def _hostile() -> Iterator[tuple[str, tarfile.TarInfo]]:
    for name in ("../out", "/etc/x", "output/../../out"):
        yield (name, tarfile.TarInfo(name))
    link = tarfile.TarInfo("output/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    yield ("a link", link)


@pytest.mark.parametrize(("what", "entry"), list(_hostile()), ids=lambda value: str(value)[:12])
def test_nothing_leads_out_of_an_archive(what: str, entry: tarfile.TarInfo, tmp_path: Path) -> None:
    """A path that leads elsewhere is refused; through a link nothing is written."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(entry, io.BytesIO())
        inside = tarfile.TarInfo("output/link/file")
        if what == "a link":
            archive.addfile(inside, io.BytesIO())
    target = tmp_path / "target"
    target.mkdir()
    if what == "a link":
        unpack(iter([out.getvalue()]), target)
        assert (target / "output" / "link" / "file").is_file()
    else:
        with pytest.raises(ValueError, match="leads elsewhere"):
            unpack(iter([out.getvalue()]), target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["target"]


def test_an_archive_over_its_limit_is_refused(tmp_path: Path) -> None:
    """What is more than the request allows is not written to the worker's disk."""
    (tmp_path / "big").write_bytes(b"x" * 5000)
    sent = pack({"output/big": tmp_path / "big"})
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(TooLarge):
        unpack(sent.chunks, target, {"output": 4999})
    assert not (target / "output" / "big").exists()


def test_every_wrong_option_is_named() -> None:
    """All problems come at once, each with its code and its place."""
    wrong: dict[str, Any] = {
        "colour": "red",
        "context": 3,
        "namespace": "Not A Name",
        "image": "no image",
        "image_pull_policy": "Sometimes",
        "kubeconfig": "/nowhere/config",
        "user": 0,
        "autoscaled": "yes",
        "node_selector": {"zone": 3},
        "tolerations": [{"colour": "red"}],
        "image_pull_secrets": "one",
    }
    found = {
        problem.path.rpartition("options/")[2]: problem.code
        for problem in check_options(wrong, "k")
    }
    assert found == {
        "colour": "E_UNKNOWN_FIELD",
        "context": "E_TYPE",
        "namespace": "E_NAME",
        "image": "E_IMAGE",
        "image_pull_policy": "E_RANGE",
        "kubeconfig": "E_PATH",
        "user": "E_RANGE",
        "autoscaled": "E_TYPE",
        "node_selector/zone": "E_NAME",
        "tolerations/0": "E_TYPE",
        "image_pull_secrets": "E_TYPE",
    }
    assert check_options({"namespace": "lab", "user": 1000, "keep_s": 60}, "k") == []


def test_a_field_that_a_server_dropped_is_found() -> None:
    """A field that an older server does not know is named; a changed value is not its affair."""
    sent: dict[str, Any] = {
        "spec": {"a": 1, "rows": [{"b": "x", "c": True}], "empty": {}, "off": False}
    }
    assert dropped(sent, {"spec": {"a": 2, "rows": [{"b": "y", "c": True}]}}) == []
    assert dropped(sent, {"spec": {"rows": [{"b": "x"}]}}) == ["/spec/a", "/spec/rows/0/c"]


def test_names_are_what_kubernetes_takes() -> None:
    """A Job's name and labels are valid for every request id, and no two attempts share one."""
    ids = ["a", "a.", "a-", "x_y.z-", "0" * 63]
    names = [job_name("k@h", AttemptKey("t", name, epoch)) for name in ids for epoch in (1, 2)]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 63 and name.replace("-", "").isalnum() for name in names)
    assert label_value("x_y.z-") == "x_y.z"


@pytest.mark.parametrize(
    ("text", "number"),
    [("2", 2), ("1500m", 1.5), ("24556312Ki", 24556312 * 1024), ("3G", 3e9), ("nonsense", 0)],
)
def test_a_quantity_is_a_number(text: str, number: float) -> None:
    """Cores, bytes and devices of a node are read as numbers."""
    assert amount(text) == pytest.approx(number)
