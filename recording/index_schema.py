"""The index's tables, and opening its file.

What lives here: schema, version, connections, what SQLite's errors mean. What must not: rows, queries.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from capd.recording.durable import FILE_MODE, check_regular
from capd.recording.errors import IndexUnusableError, NewerVersionError, NotTextError, StateDirectoryError, state_error

VERSION: Final = 4
BUSY_MS: Final = 5_000
"""A writer waits this long for another (a rebuild, a backup) before it says that the index is busy."""
CACHE_KIB: Final = 16_384
WAL_PAGES_MAX: Final = 4_000
"""Pages in the write-ahead log before it is taken over: 16 MB, some seconds of full speed."""
SEQUENCE: Final = "sequence"
SINCE: Final = "since"
TOKENIZER: Final = "unicode61 remove_diacritics 2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table, and the statements that are made of its columns.

    Attributes:
        name: in the file.
        columns: names and types, in order.
        key: what makes a row unique, apart from its row number.
        own_number: whether rows have a number of their own, `id`.
        located: whether it is noted of rows which segment had the last record of them, in `sequence`; 0: not known.
        spanning: whether it is noted, too, which segment had the first record of them, in `since`.
        lasting: columns that stay when a later row does not know them.
        first: columns of which the lowest value counts.
    """

    name: str
    columns: dict[str, type]
    key: Sequence[str]
    own_number: bool = False
    located: bool = False
    spanning: bool = False
    lasting: frozenset[str] = frozenset()
    first: frozenset[str] = frozenset()

    @property
    def all_columns(self) -> dict[str, type]:
        """The columns, with what is noted besides a row's facts."""
        places = (SEQUENCE,) * self.located + (SINCE,) * self.spanning
        return {**self.columns, **dict.fromkeys(places, int)}

    @property
    def upsert(self) -> str:
        """Insert a row, or bring the row with its key up to date."""
        names = ", ".join(self.all_columns)
        places = ", ".join("?" * len(self.all_columns))
        rest = [column for column in self.columns if column not in self.key]
        change = ", ".join(f"{column} = {self._later(column)}" for column in rest)
        if self.located:
            change += f", {SEQUENCE} = max({SEQUENCE}, excluded.{SEQUENCE})"
        if self.spanning:
            change += f", {SINCE} = min({SINCE}, excluded.{SINCE})"
        insert = f"INSERT INTO {self.name} ({names}) VALUES ({places})"  # noqa: S608 - names are of this module
        return f"{insert} ON CONFLICT ({', '.join(self.key)}) DO UPDATE SET {change}"

    def _later(self, column: str) -> str:
        """Give the SQL of a column's value when the row is there already."""
        if column in self.lasting:
            return f"coalesce(excluded.{column}, {column})"
        return f"min({column}, excluded.{column})" if column in self.first else f"excluded.{column}"

    @property
    def select(self) -> str:
        """Read rows, all columns in order."""
        return f"SELECT {', '.join(self.columns)} FROM {self.name}"  # noqa: S608 - names are of this module


RUNS: Final = Table(
    name="runs",
    columns={
        "run": str,
        "name": str,
        "labels": str,
        "principal": str,
        "command": str,
        "cwd": str,
        "cgroup": str,
        "adopted": int,
        "host": str,
        "started": int,
        "ended": int,
        "lost": str,
    },
    key=("run",),
    located=True,
)
SESSIONS: Final = Table(
    name="sessions",
    columns={
        "session": str,
        "run": str,
        "run_name": str,
        "labels": str,
        "principal": str,
        "host": str,
        "protocol": str,
        "transport": str,
        "role": str,
        "target_host": str,
        "target_port": int,
        "target_name": str,
        "local_host": str,
        "local_port": int,
        "local_name": str,
        "pid": int,
        "process_start": int,
        "exe": str,
        "argv": str,
        "user": str,
        "started": int,
        "last": int,
        "ended": int,
        "state": str,
        "bytes_request": int,
        "bytes_response": int,
        "messages": int,
        "verdict": str,
        "reasons": str,
        "policy": str,
        "tie": str,
    },
    key=("session",),
    own_number=True,
    located=True,
)
MESSAGES: Final = Table(
    name="messages",
    columns={
        "session_id": int,
        "ordinal": int,
        "time": int,
        "direction": int,
        "protocol": str,
        "type": str,
        "exchange": int,
        "summary": str,
        "text": str,
    },
    key=("session_id", "ordinal"),
    own_number=True,
    located=True,
)
PROCESSES: Final = Table(
    name="processes",
    columns={
        "run": str,
        "pid": int,
        "start": int,
        "exe": str,
        "argv": str,
        "uid": int,
        "seen": int,
        "ended": int,
        "status": int,
    },
    key=("run", "pid", "start"),
    located=True,
    spanning=True,
    lasting=frozenset({"exe", "argv", "uid", "ended", "status"}),
    first=frozenset({"seen"}),
)
SEGMENTS: Final = Table(
    name="segments",
    columns={
        "host": str,
        "sequence": int,
        "first": int,
        "last": int,
        "file_bytes": int,
        "raw_bytes": int,
        "records": int,
        "recovered": int,
    },
    key=("host", "sequence"),
)
SESSION_SEGMENTS: Final = Table(
    name="session_segments",
    columns={"session": str, "host": str, "sequence": int},
    key=("session", "host", "sequence"),
)
DELETIONS: Final = Table(
    name="deletions",
    columns={
        "host": str,
        "first": int,
        "last": int,
        "written": int,
        "policies": str,
        "recorded_from": int,
        "recorded_until": int,
        "next": int,
    },
    key=("host", "first", "last"),
    own_number=True,
)
"""Records of deletion, which take the place of the rows of the segments that they name; `next`: the first whose rows may be
here still."""
EXPIRED_PARTS: Final = Table(
    name="expired_parts",
    columns={"session": str, "host": str, "first": int, "last": int, "segments": int, "policy": str},
    key=("session", "host", "policy", "first"),
)
"""What of a session or run that is still here went with expired segments."""
TABLES: Final = (RUNS, SESSIONS, MESSAGES, PROCESSES, SEGMENTS, SESSION_SEGMENTS, DELETIONS, EXPIRED_PARTS)
_CREATE_WORDS: Final = f"""
    CREATE VIRTUAL TABLE messages_fts
    USING fts5(summary, text, content=messages, content_rowid=id, columnsize=0, tokenize='{TOKENIZER}')
"""
"""Without sizes of columns, which only ranking asks for, writing takes a quarter less; a search gives the latest first."""


_INDEX_PRINCIPALS: Final = "CREATE INDEX idx_sessions_principal ON sessions (principal ->> '$.name')"
"""As the filter in index_search.py asks for it."""


def remove_database(path: Path) -> None:
    """Remove a database and what belongs to it; itself first, so that a crash leaves no index rather than half of one."""
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)


def create_schema(connection: sqlite3.Connection) -> None:
    """Make all tables, unless they are there."""
    # Only who writes needs it; importing it takes a third of the time that `capd sessions` may take.
    from sqlite_utils import Database  # noqa: PLC0415 - see above

    database = Database(connection, recursive_triggers=False)
    if "meta" in database.table_names():
        return
    for table in TABLES:
        if table.own_number:
            database.table(table.name).create({"id": int, **table.all_columns}, pk="id")
            database.table(table.name).create_index(table.key, unique=True)
        else:
            database.table(table.name).create(table.all_columns, pk=table.key[0] if len(table.key) == 1 else tuple(table.key))
    database.table(SESSIONS.name).create_index(["started"])
    database.table(SESSIONS.name).create_index(["run"])
    database.table(RUNS.name).create_index(["name"])
    database.table(PROCESSES.name).create_index(["run", SINCE])
    database.table(SESSION_SEGMENTS.name).create_index(["host", "sequence"])
    database.execute(_INDEX_PRINCIPALS)
    database.execute(_CREATE_WORDS)
    # The version comes last: a file without it is one whose making was cut off.
    database.table("meta").create({"name": str, "value": int}, pk="name")
    database.table("meta").insert({"name": "version", "value": VERSION})
    connection.commit()


def check_schema(path: Path, connection: sqlite3.Connection) -> None:
    """Check that the file is an index of a version that this capd knows.

    Raises:
        NewerVersionError: a later capd made it.
        IndexUnusableError: it is something else.
    """
    try:
        row = connection.execute("SELECT value FROM meta WHERE name = 'version'").fetchone()
    except sqlite3.OperationalError as error:
        if "no such" in str(error):
            raise IndexUnusableError(path, "it is no index of capd") from error
        raise
    if row is None or not isinstance(row[0], int):
        raise IndexUnusableError(path, "it says no version")
    if row[0] > VERSION:
        raise NewerVersionError(path, row[0], VERSION)
    if row[0] < VERSION:
        raise IndexUnusableError(path, f"an earlier capd made it: version {row[0]}")


def connect_writable(path: Path) -> sqlite3.Connection:
    """Open a file for writing, making it if it is missing; readers are never held up."""
    with suppress(FileExistsError):
        # SQLite gives its other files the mode of this one.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
    connection = sqlite3.connect(path, timeout=BUSY_MS / 1000)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA secure_delete = ON")  # what is removed is overwritten with zeros
    connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES_MAX}")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    return connection


def connect_readonly(path: Path) -> sqlite3.Connection:
    """Open a file for reading, as any user who may read it, whether a writer is alive or not."""
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm", f"{path.name}-journal"):
        with suppress(FileNotFoundError):
            check_regular(path.with_name(name))
    place = f"file:{quote(str(path.absolute()))}"
    connection = sqlite3.connect(f"{place}?mode=ro", uri=True, timeout=BUSY_MS / 1000)
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        log = path.with_name(f"{path.name}-wal")
        if log.exists() and log.stat().st_size:
            raise
        # The last writer closed it and took the log away; a reader who may not write here cannot make the log anew.
        connection = sqlite3.connect(f"{place}?mode=ro&immutable=1", uri=True)
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


_ERRNO: Final = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_BUSY: errno.EBUSY,
    sqlite3.SQLITE_LOCKED: errno.EBUSY,
    sqlite3.SQLITE_IOERR: errno.EIO,
}
_PRIMARY_CODE: Final = 0xFF


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Say what an error of SQLite means for a person.

    Raises:
        StorageFullError: no room.
        StateDirectoryError: the file cannot be used.
        IndexUnusableError: it is damaged.
        NotTextError: a value cannot be written as UTF-8, as bytes of a command line that are none.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE
        if code == sqlite3.SQLITE_CANTOPEN:
            raise _cannot_open(path) from error
        if code in _ERRNO:
            number = _ERRNO[code]
            raise state_error("use", path, OSError(number, f"{os.strerror(number)} ({error})")) from error
        raise IndexUnusableError(path, str(error)) from error
    except UnicodeEncodeError as error:
        raise NotTextError(str(error.object)) from error
    except ValueError as error:  # what SQLite quotes of a damaged file need be no UTF-8, an id in it no id
        raise IndexUnusableError(path, f"it is damaged: {error}") from error
    except OSError as error:
        raise state_error("use", path, error) from error


def _cannot_open(path: Path) -> StateDirectoryError:
    """SQLite does not tell why it cannot open a file: ask the kernel."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return state_error("open", path, error)
    return state_error("open", path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
