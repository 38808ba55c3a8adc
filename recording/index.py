"""The index: what makes recordings findable, in one SQLite file.

What lives here: opening and closing, writing rows, finding runs, sessions and messages, rebuilding. What must not: how rows
come about from records, formats of other files.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from itertools import groupby, takewhile
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from uuid import UUID

from capd.recording.age import NoKeys
from capd.recording.durable import DIRECTORY_MODE, sync_directory
from capd.recording.errors import (
    AmbiguousSessionError,
    CorruptSegmentError,
    EncryptedError,
    IndexUnusableError,
    NothingRecordedError,
    UnknownSessionError,
    on_disk,
)
from capd.recording.identity import identities_from
from capd.recording.index_columns import (
    Cell,
    process_from,
    process_values,
    run_from,
    run_values,
    segment_values,
    session_from,
    session_values,
)
from capd.recording.index_messages import MessageTable
from capd.recording.index_schema import (
    PROCESSES,
    RUNS,
    SEGMENTS,
    SESSIONS,
    check_schema,
    connect_readonly,
    connect_writable,
    create_schema,
    sqlite_errors,
)
from capd.recording.index_search import SessionFilter, find_messages, session_conditions
from capd.recording.projection import Changes, Projection
from capd.recording.reading import LISTED_DEFAULT
from capd.recording.record import Kind, Record
from capd.recording.rows import Hit, MessageRow, ProcessRow, RunRow, SegmentRow, SessionRow
from capd.recording.segment import SegmentReader
from capd.recording.segment.cipher import Keys
from capd.recording.segment.footer import Footer
from capd.recording.segment.layout import SEALED_SUFFIX, sequence_of

WITHHELD: Final = "withheld"
_NO_KEYS: Final = NoKeys()
MATCHES_SHOWN: Final = 5
_SELECT_RUN: Final = RUNS.select.replace(" FROM ", ", (SELECT count(*) FROM sessions WHERE sessions.run = runs.run) FROM ", 1)
EXCHANGE_LOOKED_BACK: Final = 1_000
"""Messages before a given one among which the first of its exchange is looked for; looking at all would cost a scan."""


class Index:
    """The index of one state directory. One process may write it while others read.

    What is written is seen by others, and survives the death of the process, at `commit`. A power cut may take away the last
    commits, never more: they are caught up from the segments.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._messages: MessageTable | None = None
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

    @classmethod
    def open_whole(cls, path: Path, segments: Path, keys: Keys = _NO_KEYS) -> Index:
        """Open an index for writing, with everything that is sealed and nothing else; one that cannot be used is made anew.

        Raises:
            NewerVersionError: a later capd made it.
            StateDirectoryError: a file cannot be used.
        """
        try:
            index = cls.open(path)
            index.remove_unsealed()
            index.catch_up(segments, keys)
        except IndexUnusableError:
            cls.rebuild(path, segments, keys)
            index = cls.open(path)
        return index

    # Writing

    def apply(self, changes: Changes) -> None:
        """Write all rows of a projection's changes."""
        for run in changes.runs:
            self.upsert_run(run)
        for session in changes.sessions:
            self.upsert_session(session)
        self.upsert_messages(changes.messages)
        self.upsert_processes(changes.processes)

    def upsert_run(self, row: RunRow) -> None:
        """Write a run, over what was known of it."""
        with sqlite_errors(self.path):
            self._connection.execute(RUNS.upsert, run_values(row))

    def upsert_session(self, row: SessionRow) -> None:
        """Write a session, over what was known of it."""
        with sqlite_errors(self.path):
            self._connection.execute(SESSIONS.upsert, session_values(row))

    def upsert_messages(self, rows: Iterable[MessageRow]) -> None:
        """Write messages, over those with the same session and ordinal. Their sessions need not be there yet."""
        with sqlite_errors(self.path):
            table = self._message_table()
            rows = list(rows)
            for session, _ in groupby(rows, attrgetter("session")):
                if table.session_key(session) is None:
                    self.upsert_session(SessionRow(session=session))
            table.upsert(rows)

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

    def upsert_processes(self, rows: Iterable[ProcessRow]) -> None:
        """Write processes, over what was known of them."""
        with sqlite_errors(self.path):
            self._connection.executemany(PROCESSES.upsert, [process_values(row) for row in rows])

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # Reading

    def sessions(self, where: SessionFilter | None = None, *, limit: int | None = LISTED_DEFAULT) -> list[SessionRow]:
        """Give the sessions that pass a filter, latest start first; None for no limit."""
        conditions, values = session_conditions(where if where is not None else SessionFilter())
        sql = f"{SESSIONS.select} WHERE {conditions} ORDER BY started DESC, id DESC LIMIT ?"
        with sqlite_errors(self.path):
            return [session_from(row) for row in self._connection.execute(sql, [*values, -1 if limit is None else limit])]

    def session(self, text: str | UUID) -> SessionRow:
        """Give a session by its id or the start of it that only it has.

        Raises:
            UnknownSessionError: there is none.
            AmbiguousSessionError: there are several.
        """
        rows = self._by_prefix(SESSIONS.select, "session", str(text))
        if not rows:
            raise UnknownSessionError(str(text))
        if len(rows) > 1:
            raise AmbiguousSessionError(str(text), [str(session_from(row).session) for row in rows])
        return session_from(rows[0])

    def runs(self, *, limit: int | None = LISTED_DEFAULT) -> list[RunRow]:
        """Give the runs, latest start first; None for no limit."""
        with sqlite_errors(self.path):
            sql = f"{_SELECT_RUN} ORDER BY started DESC LIMIT ?"
            return [run_from(row) for row in self._connection.execute(sql, [-1 if limit is None else limit])]

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
            raise UnknownSessionError(str(text), "run")
        if len(rows) > 1:
            raise AmbiguousSessionError(str(text), [str(run_from(row).run) for row in rows[:MATCHES_SHOWN]], "run")
        return run_from(rows[0])

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
        sql = """SELECT DISTINCT sequence FROM sessions JOIN session_segments USING (session) WHERE state = 'open'"""
        with sqlite_errors(self.path):
            return {int(sequence) for (sequence,) in self._connection.execute(sql)}

    def withhold(self) -> None:
        """Note that messages of encrypted segments are here without what was said."""
        with sqlite_errors(self.path):
            self._connection.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, 1)", [WITHHELD])

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

    # From segments

    def catch_up(self, segments: Path, keys: Keys = _NO_KEYS, *, said: bool = False) -> list[Path]:
        """Take in the sealed segments that are newer than the index, as there are after a crash.

        Args:
            segments: where they are.
            keys: who opens encrypted ones; of those that stay closed only their numbers, sessions' ids and ends are taken.
            said: whether the text of encrypted ones is taken; never into an index that stays beside them.

        Returns:
            Those that are damaged: they were taken in as far as they can be read.
        """
        projection = Projection(load_session=self.find_session, load_run=self.find_run)
        last = self.last_segment()
        missing = [path for path in _sealed(segments) if (sequence_of(path) or 0) > last]
        return [path for path in missing if not self._take_in(path, projection, keys, said=said)]

    @classmethod
    def rebuild(cls, path: Path, segments: Path, keys: Keys = _NO_KEYS, *, said: bool = False) -> list[Path]:
        """Make an index anew from the sealed segments alone, and put it in the place of the old one.

        Args:
            path: the index.
            segments: where they are.
            keys: who opens encrypted ones.
            said: whether the text of encrypted ones is taken.

        Returns:
            Segments that are damaged: they were taken in as far as they can be read.

        Raises:
            StateDirectoryError: it cannot be written.
        """
        temporary = path.with_name(f".{path.name}.new")
        with on_disk("remove", temporary):
            _remove(temporary)
        with cls.open(temporary) as index:
            damaged = index.catch_up(segments, keys, said=said)
        with on_disk("replace", path):
            _remove(path)
            temporary.rename(path)
            sync_directory(path.parent)
        return damaged

    def _take_in(self, path: Path, projection: Projection, keys: Keys, *, said: bool) -> bool:
        """Take in one sealed segment; False when it is damaged."""
        whole = True
        try:
            reader = SegmentReader(path, keys=keys)
        except CorruptSegmentError:
            whole = False
            try:
                reader = SegmentReader(path, sealed=False, keys=keys)
            except CorruptSegmentError:
                return False
        with reader:
            projection.metadata_only = bool(reader.header.key_block) and not said
            if projection.metadata_only:
                self.withhold()
            try:
                for frame in reader.frames():
                    projection.receive(frame.records())
                    self.apply(projection.changes())
            except CorruptSegmentError:
                whole = False
            except EncryptedError:
                self.withhold()
                projection.receive(self._ends(reader.footer))
                self.apply(projection.changes())
            if reader.footer is not None:
                self.upsert_segment(SegmentRow.from_footer(reader.footer, reader.file_bytes))
        self.commit()
        return whole

    def _ends(self, footer: Footer | None) -> list[Record]:
        """Give what is said of the ends of known sessions in the footer of an encrypted segment, which is in the clear."""
        if footer is None:
            return []
        at_ns = footer.last_ns or footer.sealed_ns
        return [
            Record(Kind.CLOSE, session, at_ns, None, {"completeness": entry.completeness})
            for session, entry in footer.sessions.items()
            if entry.completeness is not None and self.find_session(session) is not None
        ]

    def _by_prefix(self, select: str, column: str, text: str) -> list[tuple[Cell, ...]]:
        """Give the first rows whose id starts with a text, with or without the dashes."""
        between = identities_from(text)
        if between is None:
            return []
        first, last = map(str, between)
        sql = f"{select} WHERE {column} BETWEEN ? AND ? ORDER BY {column} LIMIT ?"
        with sqlite_errors(self.path):
            return self._connection.execute(sql, [first, last, MATCHES_SHOWN]).fetchall()


def _make(path: Path) -> None:
    """Make an empty index in one step: who reads meanwhile meets none or a whole one."""
    unfinished = path.with_name(f".{path.name}.made")
    _remove(unfinished)
    with sqlite_errors(unfinished):
        connection = connect_writable(unfinished)
        try:
            create_schema(connection)
        finally:
            connection.close()
    _remove(path)  # the log of one that was taken away would be applied to this one
    unfinished.rename(path)


def _sealed(segments: Path) -> list[Path]:
    with on_disk("read", segments):
        try:
            return sorted(path for path in segments.iterdir() if path.suffix == SEALED_SUFFIX and sequence_of(path) is not None)
        except FileNotFoundError:
            return []


def _remove(path: Path) -> None:
    """Remove a database and what belongs to it; itself first, so that a crash leaves no index rather than half of one."""
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)
