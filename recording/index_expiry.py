"""Taking out of the index what was known only from segments that expired.

What lives here: which rows go with a segment, in small steps. What must not: which segments expire, when a step is made,
overwriting what is left of removed rows in the file (index_leftovers.py).

A segment's messages and processes go with it. A session stays as long as a segment of it is there or it is open, a run as long
as a segment or a session of it is; then they say what of them is gone (`expired_parts`). Of what is gone wholly nothing stays
but the record of deletion. A step is one transaction, and `deletions.next` says how far it came: whoever is killed goes on.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Final
from uuid import UUID

from capd.recording.deletions import Deletion
from capd.recording.index_messages import DELETE_WORDS
from capd.recording.index_schema import DELETIONS, sqlite_errors
from capd.recording.rows import STATE_OPEN

STEP_ROWS_MAX: Final = 500
"""Rows that go in one step: some ten milliseconds."""
SCRUB: Final = "scrub"
"""Name in `meta` of the note that removed rows are not yet overwritten everywhere in the file."""
_LEARN: Final = f"""
    INSERT OR IGNORE INTO deletions ({", ".join(DELETIONS.columns)})
    VALUES (?, ?, ?, ?, ?,
        (SELECT min(first) FROM segments WHERE host = ? AND sequence BETWEEN ? AND ? AND first > 0),
        (SELECT max(last) FROM segments WHERE host = ? AND sequence BETWEEN ? AND ? AND last > 0), ?)
"""  # noqa: S608 - our own names
_EXPIRED: Final = "SELECT 1 FROM deletions WHERE host = ? AND ? BETWEEN first AND last"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired:
    """What one record of deletion let go, as far as the index has worked it in.

    Attributes:
        id: its number in the order in which the index learned of them.
        host: whose segments.
        first, last: their numbers.
        written_ns: when it was signed.
        from_ns, until_ns: time of their earliest and latest record; None where the index did not know the segments.
    """

    id: int
    host: UUID
    first: int
    last: int
    written_ns: int
    from_ns: int | None
    until_ns: int | None


class IndexExpiry:
    """Works records of deletion into an index that is open for writing."""

    def __init__(self, path: Path, connection: sqlite3.Connection, changed: Callable[[], None]) -> None:
        """Take the index's connection; between calls nothing of it is held. `changed` is called when rows went."""
        self._path, self._connection, self._changed = path, connection, changed

    def knows(self, host: UUID, first: int, last: int) -> bool:
        """Tell whether it learned of the record of deletion of these segments."""
        with sqlite_errors(self._path):
            sql = "SELECT 1 FROM deletions WHERE host = ? AND first = ? AND last = ?"
            return self._connection.execute(sql, [str(host), first, last]).fetchone() is not None

    def learn(self, deletion: Deletion) -> None:
        """Take a record of deletion, whose signature was checked; its rows go with the steps that follow."""
        first, last, host = deletion.segments[0].sequence, deletion.segments[-1].sequence, str(deletion.host)
        policies = [[name, len(list(together))] for name, together in groupby(deletion.segments, attrgetter("policy"))]
        about = [host, first, last]
        with sqlite_errors(self._path):
            self._connection.execute(_LEARN, [*about, deletion.written_ns, json.dumps(policies), *about, *about, first])
            self._connection.commit()

    @property
    def waiting(self) -> int:
        """How many records there are whose rows have not all gone."""
        with sqlite_errors(self._path):
            return int(self._connection.execute("SELECT count(*) FROM deletions WHERE next <= last").fetchone()[0])

    def step(self, rows_max: int = STEP_ROWS_MAX) -> bool:
        """Take out about so many rows; False when there is nothing to take out."""
        with sqlite_errors(self._path):
            sql = "SELECT id, host, first, last, next, policies FROM deletions WHERE next <= last ORDER BY id LIMIT 1"
            found = self._connection.execute(sql).fetchone()
            if found is None:
                return False
            number, host, first, last, following, policies = found
            names = [name for name, count in json.loads(policies) for _ in range(count)]
            try:
                while rows_max > 0 and following <= last:
                    segment = _Segment(self._connection, host, following, names[following - first])
                    rows_max -= segment.take_out(rows_max)
                    following += segment.gone
                self._connection.execute("UPDATE deletions SET next = ? WHERE id = ?", [following, number])
                self._connection.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, 1)", [SCRUB])
                self._connection.commit()
            except BaseException:
                self._connection.rollback()
                raise
            finally:
                self._changed()
        return True


class _Segment:
    """One segment whose rows go."""

    def __init__(self, connection: sqlite3.Connection, host: str, sequence: int, policy: str) -> None:
        self.gone = False
        """Whether nothing of it is left."""
        self._connection = connection
        self._host, self._sequence, self._policy = host, sequence, policy

    def take_out(self, rows_max: int) -> int:
        """Remove up to about so many rows, at least one; say how many it were, the segment's own counted."""
        removed = 0
        place = [self._host, self._sequence]
        sql = "SELECT session FROM session_segments WHERE host = ? AND sequence = ? LIMIT ?"
        for (member,) in self._connection.execute(sql, [*place, rows_max + 1]).fetchall():
            if removed >= rows_max:
                return removed
            removed += self._said(member, rows_max - removed)
            if removed < rows_max:
                removed += self._ran(member, rows_max - removed)
            if removed >= rows_max:
                return removed
            self._part(member)
            removed += 1
        self._connection.execute("DELETE FROM segments WHERE host = ? AND sequence = ?", place)
        self.gone = True
        return removed + 1

    def _said(self, session: str, rows_max: int) -> int:
        """Remove messages of a session, and their words."""
        row = self._connection.execute("SELECT id FROM sessions WHERE session = ?", [session]).fetchone()
        if row is None:
            return 0
        start = first_ordinal(self._connection, row[0], self._sequence)
        sql = "SELECT id, summary, text, sequence FROM messages WHERE session_id = ? AND ordinal >= ? ORDER BY ordinal LIMIT ?"
        found = self._connection.execute(sql, [row[0], start, rows_max]).fetchall()
        return _remove_messages(self._connection, [cells[:3] for cells in found if cells[3] == self._sequence])

    def _ran(self, run: str, rows_max: int) -> int:
        """Remove processes that ended, and in whose time the run has no other segment; one that is alive stays with its run."""
        sql = """DELETE FROM processes WHERE rowid IN (
            SELECT rowid FROM processes WHERE run = ?1 AND since <= ?3 AND sequence >= ?3 AND ended IS NOT NULL AND NOT EXISTS (
                SELECT 1 FROM session_segments AS there WHERE there.session = ?1 AND there.host = ?2
                AND there.sequence BETWEEN processes.since AND processes.sequence AND there.sequence <> ?3) LIMIT ?4)"""
        return self._connection.execute(sql, [run, self._host, self._sequence, rows_max]).rowcount

    def _part(self, member: str) -> None:
        """Note that a session or run has lost what this segment had of it, or forget it if that was the last."""
        place = [member, self._host, self._sequence]
        self._connection.execute("DELETE FROM session_segments WHERE session = ? AND host = ? AND sequence = ?", place)
        known = "SELECT 1 FROM sessions WHERE session = ? UNION ALL SELECT 1 FROM runs WHERE run = ?"
        if self._connection.execute(known, [member, member]).fetchone() is None:
            return  # the host itself, or what is known by its number alone
        self._extend(member)
        self._settle_session(member)
        self._settle_run(member)

    def _extend(self, member: str) -> None:
        """Put the segment to the part beside it, or make it a part of its own."""
        first = last = self._sequence
        count = 1
        about = [member, self._host, self._policy]
        ahead = "last < ? ORDER BY last DESC"
        behind = "first > ? ORDER BY first"
        for beside in (ahead, behind):
            sql = f"""SELECT first, last, segments FROM expired_parts
                WHERE session = ? AND host = ? AND policy = ? AND {beside} LIMIT 1"""  # noqa: S608 - one of the two above
            part = self._connection.execute(sql, [*about, self._sequence]).fetchone()
            if part is None or self._between(member, min(last, part[1]), max(first, part[0])):
                continue
            self._connection.execute(
                "DELETE FROM expired_parts WHERE session = ? AND host = ? AND policy = ? AND first = ?", [*about, part[0]]
            )
            first, last, count = min(first, part[0]), max(last, part[1]), count + part[2]
        self._connection.execute(
            "INSERT INTO expired_parts VALUES (?, ?, ?, ?, ?, ?)", [*about[:2], first, last, count, about[2]]
        )

    def _between(self, member: str, after: int, before: int) -> bool:
        """Tell whether a segment that is there lies between two that are gone."""
        sql = "SELECT 1 FROM session_segments WHERE session = ? AND host = ? AND sequence > ? AND sequence < ? LIMIT 1"
        return self._connection.execute(sql, [member, self._host, after, before]).fetchone() is not None

    def _settle_session(self, session: str) -> None:
        sql = "SELECT id, state, sequence, run FROM sessions WHERE session = ?"
        row = self._connection.execute(sql, [session]).fetchone()
        if row is None or row[1] == STATE_OPEN or self._kept(session, row[2]):
            return
        sql = "SELECT id, summary, text FROM messages WHERE session_id = ?"
        _remove_messages(self._connection, self._connection.execute(sql, [row[0]]).fetchall())
        self._connection.execute("DELETE FROM sessions WHERE id = ?", [row[0]])
        self._connection.execute("DELETE FROM expired_parts WHERE session = ?", [session])
        if row[3] is not None:
            self._settle_run(row[3])

    def _settle_run(self, run: str) -> None:
        row = self._connection.execute("SELECT sequence FROM runs WHERE run = ?", [run]).fetchone()
        if row is None or self._kept(run, row[0]):
            return
        if self._connection.execute("SELECT 1 FROM sessions WHERE run = ? LIMIT 1", [run]).fetchone() is not None:
            return
        self._connection.execute("DELETE FROM processes WHERE run = ?", [run])
        self._connection.execute("DELETE FROM runs WHERE run = ?", [run])
        self._connection.execute("DELETE FROM expired_parts WHERE session = ?", [run])

    def _kept(self, member: str, sequence: int) -> bool:
        """Tell whether a segment of a session or run is there, sealed or, the one that its last record is in, still open."""
        if (
            self._connection.execute("SELECT 1 FROM session_segments WHERE session = ? LIMIT 1", [member]).fetchone()
            is not None
        ):
            return True
        return bool(sequence) and self._connection.execute(_EXPIRED, [self._host, sequence]).fetchone() is None


def first_ordinal(connection: sqlite3.Connection, session: int, sequence: int) -> int:
    """Give the ordinal from which on a session's messages are of a segment or later ones.

    A session's messages are recorded in the order of their ordinals, so it is found by halving.
    """
    low, high = connection.execute("SELECT min(ordinal), max(ordinal) FROM messages WHERE session_id = ?", [session]).fetchone()
    if low is None:
        return 0
    high += 1
    sql = "SELECT ordinal, sequence FROM messages WHERE session_id = ? AND ordinal >= ? ORDER BY ordinal LIMIT 1"
    while low < high:
        middle = (low + high) // 2
        ordinal, found = connection.execute(sql, [session, middle]).fetchone()
        if found >= sequence:
            high = middle
        else:
            low = ordinal + 1
    return int(low)


def _remove_messages(connection: sqlite3.Connection, rows: Sequence[tuple[int, str, str]]) -> int:
    """Remove messages, given with their texts, and their words."""
    connection.executemany(DELETE_WORDS, rows)
    connection.executemany("DELETE FROM messages WHERE id = ?", [row[:1] for row in rows])
    return len(rows)
