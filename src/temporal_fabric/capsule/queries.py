"""SQL over sealed capsules: their telemetry, events and results as views in DuckDB."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temporal_fabric import durable
from temporal_fabric.errors import CapsuleError, StoreError
from temporal_fabric.store import local_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from temporal_fabric.capsule.reading import Capsule

_RESULT = {
    "tenant": "VARCHAR",
    "request_id": "VARCHAR",
    "epoch": "INTEGER",
    "state": "VARCHAR",
    "reason": "VARCHAR",
    "message": "VARCHAR",
    "backend": "VARCHAR",
    "exit_code": "INTEGER",
    "started_at": "TIMESTAMPTZ",
    "ended_at": "TIMESTAMPTZ",
    "folder": "VARCHAR",
}
_TABLES = ("telemetry", "events")


def query(capsules: Sequence[Capsule], sql: str) -> tuple[list[str], list[list[Any]]]:
    """Run one SELECT over capsules.

    Args:
        capsules: The capsules that the views show.
        sql: A query over the views ``telemetry``, ``events`` and ``results``, which share the
            columns ``tenant`` and ``request_id``.

    Returns:
        The names of the columns, and the rows; times are ISO 8601 in UTC.

    Raises:
        CapsuleError: it is not one SELECT, or DuckDB refuses it.
    """
    import duckdb  # noqa: PLC0415 - slow to load, and only this needs it

    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        try:
            statements = database.extract_statements(sql)
            if [found.type for found in statements] != [duckdb.StatementType.SELECT]:
                raise CapsuleError("capsules are only read: write one SELECT")
            with tempfile.TemporaryDirectory(prefix="fabric-query-") as aside:
                _views(database, capsules, Path(aside))
                answer = _answer(database.sql(statements[0]))
        except duckdb.Error as exc:
            raise CapsuleError(f"the query was refused: {exc}") from exc
    rows = [[_plain(value) for value in row.values()] for row in answer.to_pylist()]
    return list(answer.column_names), rows


def _answer(found: Any) -> Any:
    # DuckDB's rows of times would need a package of time zones; Arrow's do not.
    return found.to_arrow_table()


def _views(database: duckdb.DuckDBPyConnection, capsules: Sequence[Capsule], aside: Path) -> None:
    columns = ", ".join(f"{name} {kind}" for name, kind in _RESULT.items())
    database.execute(f"CREATE TABLE results ({columns})")
    places = ", ".join("?" for _ in _RESULT)
    for capsule in capsules:
        record = capsule.result | {"folder": capsule.where}
        values = [record.get(name) for name in _RESULT]
        database.execute(f"INSERT INTO results VALUES ({places})", values)  # noqa: S608 - no text of others
    for table in _TABLES:
        found = [
            (path, capsule)
            for number, capsule in enumerate(capsules)
            if (path := _table_file(capsule, table, aside / str(number))) is not None
        ]
        if not found:
            raise CapsuleError("none of these capsules has telemetry")
        database.execute(f"CREATE TABLE {table}_files (filename VARCHAR, folder VARCHAR)")
        for path, capsule in found:
            database.execute(
                f"INSERT INTO {table}_files VALUES (?, ?)",  # noqa: S608 - no text of others
                [path, capsule.where],
            )
        quoted = ", ".join("'" + path.replace("'", "''") + "'" for path, _ in found)
        database.execute(
            f"CREATE VIEW {table} AS "  # noqa: S608 - the paths are quoted, and are our own
            "SELECT r.tenant, r.request_id, t.* EXCLUDE (filename) "
            f"FROM read_parquet([{quoted}], filename = true, union_by_name = true) t "
            f"JOIN {table}_files f ON t.filename = f.filename JOIN results r ON r.folder = f.folder"
        )


def _table_file(capsule: Capsule, table: str, aside: Path) -> str | None:
    """Return a table's path on this machine, copied there where the capsule is elsewhere."""
    name = f"{table}.parquet"
    entry = next((entry for entry in capsule.manifest.files if entry.path == name), None)
    if entry is None:
        return None  # capsules of version 0.1.0 have no tables yet
    if local_path(capsule.uri) is not None:
        return str(capsule.folder / name)
    aside.mkdir(exist_ok=True)
    try:
        durable.write_hashed(capsule.objects.chunks(name), aside / name, entry.sha256)
    except StoreError as exc:
        raise CapsuleError(f"cannot read {name}: {exc}") from exc
    return str(aside / name)


def _plain(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no word for it
    return json.dumps(value, default=str) if isinstance(value, dict | list) else value
