"""Checkpoints: every bit comes back, and whatever happens to the writer the old one stays."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from temporal_fabric.errors import CapsuleError
from temporal_fabric.flows.checkpoint import Checkpoint, Saver, read, write

if TYPE_CHECKING:
    from pathlib import Path

ARRAYS = {
    ".z['x']": np.array([[1.0, -0.0, np.nan], [np.inf, 5e-324, 1 / 3]]),
    ".z['y']": np.arange(5, dtype=np.float32),
    ".iteration": np.array(7, dtype=np.int32),
    ".active": np.array([True, False]),
    "empty": np.zeros((0, 3)),
    "spectrum": np.array([1 + 2j], dtype=np.complex64),
}


def made(dtype: str = "float64") -> Checkpoint:
    """Return a checkpoint with arrays of every kind."""
    return Checkpoint(dtype, {"iteration": 7, "phase": "GREEN", "text": "ä"}, ARRAYS)


def test_every_bit(tmp_path: Path) -> None:
    """Arrays come back with dtype, shape and bits, NaN and minus zero too, and plain data as is."""
    written = write(tmp_path / "one.ckpt", made())
    assert written.size == (tmp_path / "one.ckpt").stat().st_size
    found = read(tmp_path / "one.ckpt", sha256=written.sha256, dtype="float64")
    assert found.meta == made().meta
    assert found.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found.arrays[name].dtype == array.dtype
        assert found.arrays[name].shape == array.shape
        assert found.arrays[name].tobytes() == array.tobytes()
    assert found.state.keys() == {"x", "y"}


def test_order_of_memory(tmp_path: Path) -> None:
    """An array that is not contiguous comes back as the same array."""
    turned = np.arange(12.0).reshape(3, 4).T
    write(tmp_path / "one.ckpt", Checkpoint("float64", {}, {"a": turned}))
    np.testing.assert_array_equal(read(tmp_path / "one.ckpt").arrays["a"], turned)


def test_other_dtype(tmp_path: Path) -> None:
    """A checkpoint of another dtype is refused before anything of it is used."""
    write(tmp_path / "one.ckpt", made("float32"))
    with pytest.raises(CapsuleError, match="another dtype"):
        read(tmp_path / "one.ckpt", dtype="float64")


def test_other_version(tmp_path: Path) -> None:
    """A checkpoint of a later version is refused, and the sentence says what to do."""
    path = tmp_path / "one.ckpt"
    write(path, made())
    version = json.dumps({"schema_version": 1})[1:-1].encode()
    path.write_bytes(path.read_bytes().replace(version, version.replace(b"1", b"9"), 1))
    with pytest.raises(CapsuleError, match="found=9, known=1"):
        read(path)


@pytest.mark.parametrize("kept", [0, 7, 40, -1, -70])
def test_cut_off(tmp_path: Path, kept: int) -> None:
    """A file that was cut off is refused, wherever it was cut."""
    path = tmp_path / "one.ckpt"
    arrays = {"a": np.ones(100)}
    write(path, Checkpoint("float64", {}, arrays))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CapsuleError):
        read(path)


def test_one_flipped_bit(tmp_path: Path) -> None:
    """A single flipped bit is seen by the digest."""
    path = tmp_path / "one.ckpt"
    written = write(path, made())
    data = bytearray(path.read_bytes())
    data[-200] ^= 1
    path.write_bytes(data)
    with pytest.raises(CapsuleError, match="not what was written"):
        read(path, sha256=written.sha256)


def test_objects_are_refused(tmp_path: Path) -> None:
    """Nothing but numbers is written: a checkpoint never runs code when it is read."""
    with pytest.raises(ValueError, match="only numbers"):
        write(tmp_path / "x.ckpt", Checkpoint("float64", {}, {"a": np.array([object()])}))
    assert list(tmp_path.iterdir()) == []


WRITER = """
import sys
from pathlib import Path
import numpy as np
from temporal_fabric.flows.checkpoint import Checkpoint, write
path, first = Path(sys.argv[1]), int(sys.argv[2])
for number in range(first, first + 10_000):
    arrays = {"a": np.full(200_000, float(number)), "b": np.full(3, number)}
    write(path, Checkpoint("float64", {"number": number}, arrays))
    print(number, flush=True)
"""


def test_killed_writers(tmp_path: Path) -> None:
    """Killed at any instant, a writer leaves a whole checkpoint no older than the last it told."""
    path, first, rng = tmp_path / "one.ckpt", 1, random.Random(5)
    for _ in range(25):
        command = [sys.executable, "-c", WRITER, str(path), str(first)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            told = int(writer.stdout.readline())
            time.sleep(rng.uniform(0, 0.03))
            writer.send_signal(signal.SIGKILL)
            told = max([told, *(int(line) for line in writer.stdout if line.endswith("\n"))])
        found = read(path)
        number = found.meta["number"]
        assert number >= told
        assert (found.arrays["a"] == number).all()
        assert (found.arrays["b"] == number).all()
        first = number + 1


FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from temporal_fabric.flows.checkpoint import Checkpoint, write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write(Path(sys.argv[1]), Checkpoint("float64", {}, {"a": np.ones(200_000)}))
except OSError as exc:
    print(exc.errno)
"""


def test_no_room(tmp_path: Path) -> None:
    """Without room for a new checkpoint the old one stays, and nothing half is left."""
    path = tmp_path / "one.ckpt"
    written = write(path, made())
    command = [sys.executable, "-c", FULL, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip()
    read(path, sha256=written.sha256)
    assert [one.name for one in tmp_path.iterdir()] == ["one.ckpt"]


def test_saver_keeps_order_and_tells(tmp_path: Path) -> None:
    """Writes beside the run end in order; one that failed is raised to the run, once."""
    done: list[int] = []
    with Saver() as saver:
        for number in range(5):
            saver.submit(lambda number=number: done.append(number))  # type: ignore[misc]
        saver.wait()
        assert done == [0, 1, 2, 3, 4]
        missing = tmp_path / "no" / "folder.ckpt"
        saver.submit(lambda: void(write(missing, made())))
        with pytest.raises(FileNotFoundError):
            saver.wait()
        saver.wait()


def void(_value: object) -> None:
    """Drop a value."""
