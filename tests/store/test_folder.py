"""What is particular to a store in a folder: the disk."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from temporal_fabric.errors import StoreError
from temporal_fabric.store import open_objects

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_store_says_so_and_keeps_nothing_half(tmp_path: Path) -> None:
    """ENOSPC is a StoreError, and no partial object is left behind."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], check=True)
    try:
        full = open_objects(disk.as_uri())
        with pytest.raises(StoreError, match="free space"):
            full.replace("big", b"x" * 1024 * 1024)

        assert list(disk.iterdir()) == []
        assert full.create("small", b"x")
    finally:
        subprocess.run(["umount", disk], check=True)
