"""The folder a server lives in: its owner lock, its log, its database file."""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from temporal_fabric.devserver.info import read_server_info, start_time_of
from temporal_fabric.devserver.shim import read_holder, write_holder
from temporal_fabric.errors import DevServerError

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

DB_FILE = "temporal.db"
LOCK_FILE = "server.lock"

_DB_PARTS = ("", "-wal", "-shm")
_DYING_S = 5.0
_LOOK_S = 0.02
_LOG_BYTES = 10 * 1024 * 1024
_LOG_COPIES = 3


@contextmanager
def owned(home: Path) -> Generator[int]:
    """Own a home while a server is started; gives the lock's file descriptor.

    The server process inherits the descriptor, and with it the lock: it is free again
    when the last of starter and server is gone, however they went.

    Raises:
        DevServerError: another server owns the home, or is being started in it.
    """
    if sys.platform == "win32":
        raise DevServerError(
            "the embedded server runs on Linux and macOS only; "
            "set TEMPORAL_ADDRESS to a Temporal server that already runs"
        )
    lock = os.open(home / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _acquire(lock, home)
        write_holder(lock)
        yield lock
    finally:
        os.close(lock)


def _acquire(lock: int, home: Path) -> None:
    deadline = time.monotonic() + _DYING_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = read_holder(lock)
            dying = holder is None or start_time_of(holder) is None
            # A killed server keeps its files until the last of its threads is gone.
            if not dying or time.monotonic() > deadline:
                raise _refused(home, holder) from None
            time.sleep(_LOOK_S)
        else:
            return


def open_log(home: Path) -> Path:
    """Return the server's log, moved aside first when it has grown large."""
    folder = home / "logs"
    folder.mkdir(exist_ok=True)
    log = folder / "server.log"
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        for number in range(_LOG_COPIES - 1, 0, -1):
            older = folder / f"server.log.{number}"
            if older.exists():
                older.replace(folder / f"server.log.{number + 1}")
        log.replace(folder / "server.log.1")
    log.touch()
    return log


def set_aside_partial_database(home: Path) -> None:
    """Move a database away whose creation was cut short: it would never open again.

    Its last step is the default namespace, so a file without one holds no work. It is
    kept under another name all the same. Call it as the owner of the home.
    """
    database = home / DB_FILE
    if not database.exists() or _is_complete(database):
        return
    stamp = time.strftime("%Y%m%dT%H%M%S")
    for part in _DB_PARTS:
        old = home / f"{DB_FILE}{part}"
        if old.exists():
            old.replace(home / f"{DB_FILE}.partial-{stamp}{part}")


def _is_complete(database: Path) -> bool:
    with closing(sqlite3.connect(database)) as connection:
        try:
            return connection.execute("SELECT 1 FROM namespaces LIMIT 1").fetchone() is not None
        except sqlite3.OperationalError as exc:
            return "no such table" not in str(exc)
        except sqlite3.DatabaseError:
            # Not a database at all: a person's file, about which the server will complain.
            return True


def _refused(home: Path, holder: int | None) -> DevServerError:
    info = read_server_info(home)
    pid = info.pid if info is not None else holder or "unknown"
    address = info.address if info is not None else "not yet known, it is starting"
    return DevServerError(
        f"another embedded server owns this home [home={home}, pid={pid}, address={address}]; "
        f"use it, stop it with `kill {pid}`, or set FABRIC_HOME to another folder"
    )
