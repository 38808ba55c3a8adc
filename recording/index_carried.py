"""What an index knows of sessions and runs whose beginning expired, kept beside it: no segment tells it any more.

What lives here: the file, written and read. What must not: which rows expire.

Without it an index that is made anew from segments would know of such a session neither whom it was with nor whom it acted for,
and what is kept how long is decided by that.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from capd.recording.durable import replace_content
from capd.recording.errors import on_disk
from capd.recording.index_schema import DELETIONS, EXPIRED_PARTS, PROCESSES, RUNS, SESSIONS, Table, sqlite_errors

NAME: Final = "carried.json"
VERSION: Final = 1
_OF_PARTS: Final = "IN (SELECT session FROM expired_parts)"
_LATEST: Final = "(SELECT max(recorded_until) FROM deletions)"
_ROWS: Final[Sequence[tuple[Table, str]]] = (
    (RUNS, f"run {_OF_PARTS}"),
    (SESSIONS, f"session {_OF_PARTS}"),
    (PROCESSES, f"run {_OF_PARTS} AND seen <= {_LATEST}"),
    (EXPIRED_PARTS, "TRUE"),
    (DELETIONS, "TRUE"),
)


def save(path: Path, connection: sqlite3.Connection) -> None:
    """Write the file that belongs to an index: a function of its rows.

    Raises:
        StateDirectoryError: it cannot be written.
    """
    found = {}
    with sqlite_errors(path):
        for table, rows in _ROWS:
            sql = f"SELECT {', '.join(table.all_columns)} FROM {table.name} WHERE {rows} ORDER BY rowid"  # noqa: S608 - our own names
            found[table.name] = connection.execute(sql).fetchall()
    with on_disk("write", path.with_name(NAME)):
        replace_content(path.with_name(NAME), json.dumps({"version": VERSION, **found}).encode() + b"\n")


def load(path: Path, connection: sqlite3.Connection) -> None:
    """Fill an empty index with what the file beside it has; one that is damaged or none is as good as none."""
    try:
        found = json.loads(path.with_name(NAME).read_bytes())
        rows = (
            [(table, [tuple(cells) for cells in found[table.name]]) for table, _ in _ROWS]
            if found["version"] == VERSION
            else []
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return
    try:
        for table, cells in rows:
            connection.executemany(table.upsert, cells)
        # What the segments still have of them, as when somebody brought some back, is taken out again.
        connection.execute("UPDATE deletions SET next = first")
        connection.commit()
    except sqlite3.Error:
        connection.rollback()
