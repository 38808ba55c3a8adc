"""The index: what makes recordings findable, in one SQLite file.

What lives here: opening and closing, writing rows. What must not: how rows come about from records and from segments
(index_segments.py), questions (index_reading.py).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from itertools import groupby, takewhile
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from uuid import UUID

from capd.recording import index_carried
from capd.recording.durable import DIRECTORY_MODE
from capd.recording.errors import (
    NothingRecordedError,
    on_disk,
)
from capd.recording.index_columns import (
    process_values,
    run_values,
    segment_values,
    session_values,
)
from capd.recording.index_expiry import IndexExpiry
from capd.recording.index_leftovers import Leftovers
from capd.recording.index_messages import MessageTable
from capd.recording.index_reading import WITHHELD, IndexReading
from capd.recording.index_schema import (
    PROCESSES,
    RUNS,
    SEGMENTS,
    SESSIONS,
    check_schema,
    connect_readonly,
    connect_writable,
    create_schema,
    remove_database,
    sqlite_errors,
)
from capd.recording.rows import MessageRow, ProcessRow, RunRow, SegmentRow, SessionRow

if TYPE_CHECKING:
    from capd.recording.projection import Changes


class Index(IndexReading):
    """The index of one state directory. One process may write it while others read.

    What is written is seen by others, and survives the death of the process, at `commit`. A power cut may take away the last
    commits, never more: they are caught up from the segments.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._messages: MessageTable | None = None
        self._leftovers: Leftovers | None = None
        self._closed = False

    @classmethod
    def open(cls, path: Path, *, readonly: bool = False) -> Index:
        """Open an index; for writing it is made if it is missing.

        Raises:
            NothingRecordedError: it is missing, and is only to be read.
            NewerVersionError: a later capd made it.
            IndexUnusableError: it is damaged or no index.
            StateDirectoryError: the file cannot be used.
        """
        if readonly:
            with on_disk("read", path):
                if not path.exists():
                    raise NothingRecordedError(path)
            with sqlite_errors(path):
                connection = connect_readonly(path)
        else:
            with on_disk("prepare", path):
                path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
                if not path.exists():
                    _make(path)
            with sqlite_errors(path):
                connection = connect_writable(path)
        try:
            with sqlite_errors(path):
                if not readonly:
                    create_schema(connection)
                check_schema(path, connection)
        except BaseException:
            connection.close()
            raise
        return cls(path, connection)

    # Writing

    def apply(self, changes: Changes, sequence: int = 0) -> None:
        """Write all rows of a projection's changes, which come from the records of one segment; 0: nobody knows of which."""
        for run in changes.runs:
            self.upsert_run(run, sequence)
        for session in changes.sessions:
            self.upsert_session(session, sequence)
        self.upsert_messages(changes.messages, sequence)
        self.upsert_processes(changes.processes, sequence)

    def upsert_run(self, row: RunRow, sequence: int = 0) -> None:
        """Write a run, over what was known of it."""
        with sqlite_errors(self.path):
            self._connection.execute(RUNS.upsert, [*run_values(row), sequence])

    def upsert_session(self, row: SessionRow, sequence: int = 0) -> None:
        """Write a session, over what was known of it."""
        with sqlite_errors(self.path):
            self._connection.execute(SESSIONS.upsert, [*session_values(row), sequence])

    def upsert_messages(self, rows: Iterable[MessageRow], sequence: int = 0) -> None:
        """Write messages, over those with the same session and ordinal. Their sessions need not be there yet."""
        with sqlite_errors(self.path):
            table = self._message_table()
            rows = list(rows)
            for session, _ in groupby(rows, attrgetter("session")):
                if table.session_key(session) is None:
                    self.upsert_session(SessionRow(session=session), sequence)
            table.upsert(rows, sequence)

    def remove_messages(self, session: UUID, first: int) -> None:
        """Remove the messages of a session from an ordinal on, which are not in the recording."""
        with sqlite_errors(self.path):
            self._message_table().remove(session, first)

    def remove_unsealed(self) -> list[UUID]:
        """Remove the newest sessions as long as nothing sealed holds anything of them; give their ids.

        An index has rows of what is not sealed yet. Where that was lost, to a power cut, they tell of what nobody recorded.
        Sessions are in it in the order of their first records, so all before the newest that is in a segment are in segments.
        """
        find = """SELECT session, EXISTS (SELECT 1 FROM session_segments AS sealed WHERE sealed.session = sessions.session)
            FROM sessions ORDER BY id DESC"""
        with sqlite_errors(self.path):
            rows = takewhile(lambda row: not row[1], self._connection.execute(find))
            gone = [UUID(session) for session, _ in rows]
            for session in gone:
                self._message_table().remove(session, 0)
                self._connection.execute("DELETE FROM sessions WHERE session = ?", [str(session)])
        return gone

    def _message_table(self) -> MessageTable:
        if self._messages is None:
            self._messages = MessageTable(self._connection)
        return self._messages

    def upsert_processes(self, rows: Iterable[ProcessRow], sequence: int = 0) -> None:
        """Write processes, over what was known of them."""
        with sqlite_errors(self.path):
            self._connection.executemany(PROCESSES.upsert, [[*process_values(row), sequence, sequence] for row in rows])

    def upsert_segment(self, row: SegmentRow) -> None:
        """Write a sealed segment and which sessions it holds records of."""
        links = [(str(session), str(row.host), row.sequence) for session in row.sessions]
        with sqlite_errors(self.path):
            self._connection.execute(SEGMENTS.upsert, segment_values(row))
            self._connection.executemany("INSERT OR IGNORE INTO session_segments VALUES (?, ?, ?)", links)

    def commit(self) -> None:
        """Make what was written visible to others."""
        with sqlite_errors(self.path):
            self._connection.commit()

    def close(self) -> None:
        """Commit and close. May be called again."""
        if self._closed:
            return
        self._closed = True
        with sqlite_errors(self.path):
            if self._connection.in_transaction:
                self._connection.commit()
            self._connection.close()
        if self._leftovers is not None:
            self._leftovers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def withhold(self) -> None:
        """Note that messages of encrypted segments are here without what was said."""
        with sqlite_errors(self.path):
            self._connection.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, 1)", [WITHHELD])

    # Expiry

    @property
    def expiry(self) -> IndexExpiry:
        """What takes rows of expired segments out."""
        return IndexExpiry(self.path, self._connection, self._forget_sessions)

    @property
    def leftovers(self) -> Leftovers:
        """What overwrites the traces of rows that were taken out."""
        if self._leftovers is None:
            self._leftovers = Leftovers(self.path, self._connection)
        return self._leftovers

    def _forget_sessions(self) -> None:
        self._messages = None  # it remembers which sessions have rows

    def carry(self) -> None:
        """Write down what no segment tells any more, for an index that is made anew.

        Raises:
            StateDirectoryError: it cannot be written.
        """
        index_carried.save(self.path, self._connection)

    def carry_over(self, path: Path) -> None:
        """Take in what was written down beside another index, into this one, which is empty."""
        index_carried.load(path, self._connection)


def _make(path: Path) -> None:
    """Make an empty index in one step: who reads meanwhile meets none or a whole one."""
    unfinished = path.with_name(f".{path.name}.made")
    remove_database(unfinished)
    with sqlite_errors(unfinished):
        connection = connect_writable(unfinished)
        try:
            create_schema(connection)
        finally:
            connection.close()
    remove_database(path)  # the log of one that was taken away would be applied to this one
    unfinished.rename(path)
