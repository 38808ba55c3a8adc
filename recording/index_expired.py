"""What an index says of what expired.

What lives here: questions about records of deletion, and about what is gone of sessions and runs that are still here.
What must not: taking rows out (index_expiry.py).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from capd.recording.index_expiry import Expired
from capd.recording.rows import ExpiredPart, rfc3339

ASKED_AT_ONCE: Final = 500
"""Ids in one question; SQLite takes some thousand."""


def parts(connection: sqlite3.Connection, identities: Sequence[UUID]) -> dict[UUID, list[ExpiredPart]]:
    """Give what is gone of sessions and runs, in the order of the segments; whole ones are left out."""
    found: dict[UUID, list[ExpiredPart]] = {}
    if not identities or connection.execute("SELECT 1 FROM expired_parts LIMIT 1").fetchone() is None:
        return found
    for start in range(0, len(identities), ASKED_AT_ONCE):
        asked = [str(identity) for identity in identities[start : start + ASKED_AT_ONCE]]
        sql = f"""SELECT session, first, last, segments, policy FROM expired_parts
            WHERE session IN ({", ".join("?" * len(asked))}) ORDER BY session, first"""  # noqa: S608 - places for values
        for session, first, last, segments, policy in connection.execute(sql, asked):
            part = ExpiredPart(first=first, last=last, segments=segments, policy=policy)
            found.setdefault(UUID(session), []).append(part)
    return found


def let_go(connection: sqlite3.Connection) -> list[Expired]:
    """Give the records of deletion whose rows have all gone, in the order in which the index learned of them."""
    sql = """SELECT id, host, first, last, written, recorded_from, recorded_until FROM deletions
        WHERE next > last ORDER BY id"""
    return [
        Expired(id=number, host=UUID(host), first=first, last=last, written_ns=written, from_ns=earliest, until_ns=latest)
        for number, host, first, last, written, earliest, latest in connection.execute(sql)
    ]


def is_expired(connection: sqlite3.Connection, sequence: int) -> bool:
    """Tell whether a record of deletion names a segment."""
    sql = "SELECT 1 FROM deletions WHERE ? BETWEEN first AND last LIMIT 1"
    return connection.execute(sql, [sequence]).fetchone() is not None


def words(connection: sqlite3.Connection, from_ns: int | None = None) -> str:
    """Say for a person how much of what was recorded at a time or later has expired; empty when nothing has."""
    sql = """SELECT sum(last - first + 1), min(first), max(last), max(coalesce(recorded_until, written)) FROM deletions
        WHERE coalesce(recorded_until, written) >= ?"""
    count, first, last, until = connection.execute(sql, [from_ns or 0]).fetchone()
    if not count:
        return ""
    which = f"segment {first}" if first == last else f"{count} segments from {first} to {last}"
    return f"{which}, recorded until {rfc3339(until)}, expired by policy"
