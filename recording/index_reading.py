"""Asking the index: runs, sessions, messages, processes, segments, and what of them expired.

What lives here: the questions that a person or a role has. What must not: writing, opening and closing.
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar
from uuid import UUID

from capd.recording import index_expired
from capd.recording.errors import AmbiguousSessionError, UnknownSessionError
from capd.recording.identity import identities_from, unix_ms_of
from capd.recording.index_columns import INTEGER_MAX, Cell, process_from, run_from, session_from
from capd.recording.index_expiry import Expired
from capd.recording.index_schema import PROCESSES, RUNS, SESSIONS, sqlite_errors
from capd.recording.index_search import SessionFilter, find_messages, session_conditions
from capd.recording.reading import LISTED_DEFAULT
from capd.recording.rows import ExpiredPart, Hit, ProcessRow, RunRow, SegmentRow, SessionRow

WITHHELD: Final = "withheld"
MATCHES_SHOWN: Final = 5
_SELECT_RUN: Final = RUNS.select.replace(" FROM ", ", (SELECT count(*) FROM sessions WHERE sessions.run = runs.run) FROM ", 1)
EXCHANGE_LOOKED_BACK: Final = 1_000
"""Messages before a given one among which the first of its exchange is looked for; looking at all would cost a scan."""
_Row = TypeVar("_Row", SessionRow, RunRow)


class IndexReading:
    """What an index that is open can be asked."""

    path: Path
    _connection: sqlite3.Connection

    def sessions(self, where: SessionFilter | None = None, *, limit: int | None = LISTED_DEFAULT) -> list[SessionRow]:
        """Give the sessions that pass a filter, latest start first; None for no limit."""
        conditions, values = session_conditions(where if where is not None else SessionFilter())
        sql = f"{SESSIONS.select} WHERE {conditions} ORDER BY started DESC, id DESC LIMIT ?"
        with sqlite_errors(self.path):
            found = self._connection.execute(sql, [*values, -1 if limit is None else limit]).fetchall()
        return self._with_parts([session_from(row) for row in found])

    def session(self, text: str | UUID) -> SessionRow:
        """Give a session by its id or the start of it that only it has.

        Raises:
            UnknownSessionError: there is none.
            AmbiguousSessionError: there are several.
        """
        rows = self._by_prefix(SESSIONS.select, "session", str(text))
        if not rows:
            expired = self.expired_words(text=str(text)) if identities_from(str(text)) else ""
            raise UnknownSessionError(str(text), expired=expired)
        if len(rows) > 1:
            raise AmbiguousSessionError(str(text), [str(session_from(row).session) for row in rows])
        return self._with_parts([session_from(rows[0])])[0]

    def runs(self, *, limit: int | None = LISTED_DEFAULT) -> list[RunRow]:
        """Give the runs, latest start first; None for no limit."""
        with sqlite_errors(self.path):
            sql = f"{_SELECT_RUN} ORDER BY started DESC LIMIT ?"
            found = self._connection.execute(sql, [-1 if limit is None else limit]).fetchall()
        return self._with_parts([run_from(row) for row in found])

    def run(self, text: str | UUID) -> RunRow:
        """Give a run by its id, the start of it that only it has, or its name.

        Raises:
            UnknownSessionError: there is none.
            AmbiguousSessionError: there are several.
        """
        with sqlite_errors(self.path):
            rows = self._connection.execute(f"{_SELECT_RUN} WHERE name = ?", [str(text)]).fetchall()
        rows = rows or self._by_prefix(_SELECT_RUN, "run", str(text))
        if not rows:
            raise UnknownSessionError(str(text), "run", expired=self.expired_words(text=str(text)))
        if len(rows) > 1:
            raise AmbiguousSessionError(str(text), [str(run_from(row).run) for row in rows[:MATCHES_SHOWN]], "run")
        return self._with_parts([run_from(rows[0])])[0]

    def processes(self, run: UUID) -> list[ProcessRow]:
        """Give the processes of a run, in the order in which they were seen."""
        with sqlite_errors(self.path):
            sql = f"{PROCESSES.select} WHERE run = ? ORDER BY seen, pid"
            return [process_from(row) for row in self._connection.execute(sql, [str(run)])]

    def search(self, text: str, where: SessionFilter | None = None, *, limit: int = LISTED_DEFAULT) -> list[Hit]:
        """Give the messages that hold all words of a text, latest first.

        Args:
            text: words; in double quotes they must follow each other; a word that ends with `*` is the start of one.
            where: only messages of the sessions that pass it.
            limit: how many at most.
        """
        with sqlite_errors(self.path):
            return find_messages(self._connection, text, where if where is not None else SessionFilter(), limit)

    def find_session(self, session: UUID) -> SessionRow | None:
        """Give a session by its whole id; None when it is not there."""
        with sqlite_errors(self.path):
            row = self._connection.execute(f"{SESSIONS.select} WHERE session = ?", [str(session)]).fetchone()
        return None if row is None else session_from(row)

    def find_run(self, run: UUID) -> RunRow | None:
        """Give a run by its whole id; None when it is not there."""
        with sqlite_errors(self.path):
            row = self._connection.execute(f"{_SELECT_RUN} WHERE run = ?", [str(run)]).fetchone()
        return None if row is None else run_from(row)

    def segments_of(self, session: UUID) -> list[int]:
        """Give the numbers of the sealed segments that hold records of a session or run, ascending."""
        with sqlite_errors(self.path):
            sql = "SELECT sequence FROM session_segments WHERE session = ? ORDER BY sequence"
            return [sequence for (sequence,) in self._connection.execute(sql, [str(session)])]

    def find_segment(self, host: UUID, sequence: int) -> SegmentRow | None:
        """Give a sealed segment, and whose records it holds; None when it is not there."""
        with sqlite_errors(self.path):
            key = [str(host), sequence]
            sql = "SELECT first, last, file_bytes, raw_bytes, records, recovered FROM segments WHERE host = ? AND sequence = ?"
            row = self._connection.execute(sql, key).fetchone()
            if row is None:
                return None
            sql = "SELECT session FROM session_segments WHERE host = ? AND sequence = ?"
            sessions = [UUID(text) for (text,) in self._connection.execute(sql, key)]
        first, last, file_bytes, raw_bytes, records, recovered = row
        return SegmentRow(
            sequence=sequence,
            host=host,
            first_ns=first,
            last_ns=last,
            file_bytes=file_bytes,
            raw_bytes=raw_bytes,
            records=records,
            recovered=bool(recovered),
            sessions=sessions,
        )

    def times_of(self, host: UUID, first: int, last: int) -> tuple[int, int] | None:
        """Give the time of the earliest and the latest record of a range of segments; None when none is here."""
        sql = "SELECT min(nullif(first, 0)), max(last) FROM segments WHERE host = ? AND sequence BETWEEN ? AND ?"
        with sqlite_errors(self.path):
            earliest, latest = self._connection.execute(sql, [str(host), first, last]).fetchone()
        return None if earliest is None else (int(earliest), int(latest))

    def exchange_start(self, session: UUID, ordinal: int) -> int | None:
        """Give the time in ns since 1970 at which the exchange of a message began; None when there is no such message."""
        sql = """
            SELECT min(earlier.time) FROM messages AS asked
            JOIN messages AS earlier ON earlier.session_id = asked.session_id
                AND earlier.ordinal BETWEEN asked.ordinal - ? AND asked.ordinal
                AND (earlier.exchange = asked.exchange OR earlier.ordinal = asked.ordinal)
            WHERE asked.session_id = (SELECT id FROM sessions WHERE session = ?) AND asked.ordinal = ?
        """
        with sqlite_errors(self.path):
            row = self._connection.execute(sql, [EXCHANGE_LOOKED_BACK, str(session), ordinal]).fetchone()
        return None if row is None or row[0] is None else int(row[0])

    def segments_of_open(self) -> set[int]:
        """Give the numbers of the sealed segments that hold records of sessions that are not closed."""
        sql = """SELECT DISTINCT session_segments.sequence FROM sessions JOIN session_segments USING (session)
            WHERE state = 'open'"""
        with sqlite_errors(self.path):
            return {int(sequence) for (sequence,) in self._connection.execute(sql)}

    def expired_parts(self, identity: UUID) -> list[ExpiredPart]:
        """Give what of a session or run is gone because its time was over."""
        with sqlite_errors(self.path):
            return index_expired.parts(self._connection, [identity]).get(identity, [])

    def expired_words(self, *, text: str = "", from_ns: int | None = None) -> str:
        """Say for a person what has expired; empty when nothing has.

        Args:
            text: an id, or the beginning of one, that is not here: empty also when it was given later than what has expired.
            from_ns: only what was recorded at this time or later.
        """
        between = identities_from(text)
        if between is not None:
            from_ns = min(unix_ms_of(between[0]) * 1_000_000, INTEGER_MAX)
        with sqlite_errors(self.path):
            return index_expired.words(self._connection, from_ns)

    @staticmethod
    def behind_words() -> str:
        """Say for a person what is not in here yet: nothing, rows are there from the first record of a session on."""
        return ""

    def is_expired(self, sequence: int) -> bool:
        """Tell whether a segment of this host expired."""
        with sqlite_errors(self.path):
            return index_expired.is_expired(self._connection, sequence)

    def let_go(self) -> list[Expired]:
        """Give the records of deletion whose rows have all gone, in the order in which the index learned of them."""
        with sqlite_errors(self.path):
            return index_expired.let_go(self._connection)

    @property
    def withholds(self) -> bool:
        """Whether there is less to be searched here than was recorded, because it is encrypted."""
        with sqlite_errors(self.path):
            row = self._connection.execute("SELECT value FROM meta WHERE name = ?", [WITHHELD]).fetchone()
        return row is not None

    def last_segment(self) -> int:
        """Give the number of the newest sealed segment that is in the index; 0 when there is none."""
        with sqlite_errors(self.path):
            (sequence,) = self._connection.execute("SELECT coalesce(max(sequence), 0) FROM segments").fetchone()
        return int(sequence)

    def counts(self) -> dict[str, int]:
        """Give the number of rows of each kind."""
        with sqlite_errors(self.path):
            tables = ("runs", "sessions", "messages", "segments")
            count = "SELECT count(*) FROM {}".format  # of names that are written here
            return {table: int(self._connection.execute(count(table)).fetchone()[0]) for table in tables}

    def _with_parts(self, rows: list[_Row]) -> list[_Row]:
        """Add to each row what of it is gone."""
        with sqlite_errors(self.path):
            parts = index_expired.parts(self._connection, [_identity_of(row) for row in rows])
        return [replace(row, expired=tuple(parts.get(_identity_of(row), ()))) for row in rows] if parts else rows

    def _by_prefix(self, select: str, column: str, text: str) -> list[tuple[Cell, ...]]:
        """Give the first rows whose id starts with a text, with or without the dashes."""
        between = identities_from(text)
        if between is None:
            return []
        first, last = map(str, between)
        sql = f"{select} WHERE {column} BETWEEN ? AND ? ORDER BY {column} LIMIT ?"
        with sqlite_errors(self.path):
            return self._connection.execute(sql, [first, last, MATCHES_SHOWN]).fetchall()


def _identity_of(row: SessionRow | RunRow) -> UUID:
    return row.session if isinstance(row, SessionRow) else row.run
