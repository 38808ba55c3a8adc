"""A fleet's recordings, asked through the catalogue of a bucket: what a host's index answers, over all hosts.

What lives here: which files a question needs, and its answer as rows. What must not: how bytes come from a bucket, SQL texts,
presentation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from typing import Any, Final, TypeVar, cast
from uuid import UUID

import duckdb

from capd.recording.bucket import Bucket
from capd.recording.catalogue.filesystem import SCHEME, BucketFilesystem
from capd.recording.catalogue.layout import Part, day_of, day_prefix, newest, parse_key, table_prefix
from capd.recording.catalogue.questions import PROCESSES, RUNS_VIEW, SEARCHED, SESSIONS_VIEW, terms_of
from capd.recording.catalogue.schema import DECIDER, TABLES
from capd.recording.catalogue.snippet import snippet
from capd.recording.deletions import range_of
from capd.recording.errors import AmbiguousSessionError, CatalogueError, UnknownSessionError
from capd.recording.identity import identities_from, unix_ms_of
from capd.recording.index_columns import process_from, run_from, session_from
from capd.recording.index_reading import MATCHES_SHOWN
from capd.recording.index_schema import RUNS, SESSIONS
from capd.recording.index_search import SessionFilter, session_conditions
from capd.recording.reading import LISTED_DEFAULT
from capd.recording.record import Direction
from capd.recording.rows import ExpiredPart, Hit, ProcessRow, RunRow, SessionRow, parts_of

HOSTS_ASKED_MAX: Final = 100
"""Hosts that are asked for records of deletion and days, a few requests each, to tell why something is not there."""
HOSTS_AT_ONCE: Final = 16
DAYS_LISTED_MAX: Final = 62
"""A question over more days lists the whole table: one listing of everything is then less than one for each day."""
MEMORY_MAX: Final = "1GB"
"""DuckDB's share of a laptop; more goes to its temporary directory."""
_DAY: Final = timedelta(days=1)
_Row = TypeVar("_Row")
ADDED: Final = {"expired": "BIGINT[]", "decision": "VARCHAR"}
"""Columns that the files of an earlier capd lack, with their types."""


class Fleet:
    """Answers questions about every host whose catalogue is in a bucket. Use it from one thread."""

    def __init__(self, bucket: Bucket, *, clock: Callable[[], int] = time.time_ns) -> None:
        """Prepare to ask; nothing is read yet.

        Args:
            bucket: where the catalogue is.
            clock: wall time in ns since 1970 UTC: later days are not looked for.
        """
        self._bucket = bucket
        self._clock = clock
        self._sizes: dict[str, int] = {}
        self._searched: tuple[date, date] | None = None
        self._kinds: dict[str, dict[str, str]] = {}
        self._listed: dict[tuple[str, tuple[date, date] | None], list[Part]] = {}
        self._filesystem = BucketFilesystem(bucket.read, self._sizes)
        self.unreadable: list[str] = []
        """Keys of files that are none of a catalogue, or damaged: what they told is in no answer."""
        self._connection = duckdb.connect(
            config={
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "memory_limit": MEMORY_MAX,
                "enable_object_cache": "true",
            }
        )
        self._connection.register_filesystem(self._filesystem)

    @property
    def withholds(self) -> bool:
        """Whether the days of the last search have segments whose text is not in the catalogue, because they are encrypted."""
        self._prepare("segment_parts", "segments", self._searched)
        ((count,),) = self._ask("SELECT count(*) FROM segment_parts WHERE NOT readable", [])
        return bool(count)

    def sessions(self, where: SessionFilter | None = None, *, limit: int | None = LISTED_DEFAULT) -> list[SessionRow]:
        """Give the sessions that pass a filter, latest start first; None for no limit."""
        where = where or SessionFilter()
        self._prepare_sessions(self._days(where.from_ns, where.until_ns))
        return self._sessions(*session_conditions(where), limit)

    def session(self, text: str | UUID) -> SessionRow:
        """Give a session by its id or the start of it that only it has.

        Raises:
            UnknownSessionError: there is none.
            AmbiguousSessionError: there are several.
        """
        between = identities_from(str(text))
        if between is None:
            raise UnknownSessionError(str(text))
        self._prepare_sessions(self._days_from(between[0]))
        rows = self._sessions("session BETWEEN ? AND ?", [str(identity) for identity in between], MATCHES_SHOWN)
        if not rows:
            raise UnknownSessionError(str(text), expired=self.expired_words(), behind=self.behind_words())
        if len(rows) > 1:
            raise AmbiguousSessionError(str(text), [str(row.session) for row in rows])
        return rows[0]

    def find_session(self, session: UUID) -> SessionRow | None:
        """Give a session by its whole id; None when it is not there."""
        try:
            return self.session(session)
        except UnknownSessionError:
            return None

    def runs(self, *, limit: int | None = LISTED_DEFAULT) -> list[RunRow]:
        """Give the runs, latest start first; None for no limit."""
        return self._runs("TRUE", [], limit)

    def run(self, text: str | UUID) -> RunRow:
        """Give a run by its id, the start of it that only it has, or its name.

        Raises:
            UnknownSessionError: there is none.
            AmbiguousSessionError: there are several.
        """
        rows = self._runs("name = ?", [str(text)], MATCHES_SHOWN)
        between = identities_from(str(text))
        if not rows and between is not None:
            rows = self._runs("run BETWEEN ? AND ?", [str(identity) for identity in between], MATCHES_SHOWN)
        if not rows:
            raise UnknownSessionError(str(text), "run", expired=self.expired_words(), behind=self.behind_words())
        if len(rows) > 1:
            raise AmbiguousSessionError(str(text), [str(row.run) for row in rows], "run")
        return rows[0]

    def processes(self, run: UUID) -> list[ProcessRow]:
        """Give the processes of a run, in the order in which they were seen."""
        self._prepare("process_parts", "processes", self._days_from(run))
        return self._read(process_from, self._ask(PROCESSES, [str(run)]))

    def search(self, text: str, where: SessionFilter | None = None, *, limit: int = LISTED_DEFAULT) -> list[Hit]:
        """Give the messages that hold all words of a text, latest first; arguments as those of an index."""
        where = where or SessionFilter()
        terms = terms_of(text)
        if not terms:
            return []
        days = self._searched = self._days(where.from_ns, where.until_ns)
        self._prepare("message_parts", "messages", days)
        conditions = [f"regexp_matches({SEARCHED}, ?)"] * len(terms)
        values: list[object] = [term.pattern for term in terms]
        for condition, time_ns in (("time_ns >= ?", where.from_ns), ("time_ns < ?", where.until_ns)):
            if time_ns is not None:
                conditions.append(condition)
                values.append(time_ns)
        if where != SessionFilter(from_ns=where.from_ns, until_ns=where.until_ns):
            self._prepare_sessions(days)
            passing, more = session_conditions(where)
            conditions.append(f"session IN (SELECT session FROM sessions WHERE {passing})")  # noqa: S608 - as below
            values += more
        sql = f"""
            SELECT DISTINCT session, ordinal, time_ns, direction, protocol, type, exchange, concat_ws(' ', summary, text)
            FROM message_parts WHERE {" AND ".join(conditions)} ORDER BY time_ns DESC, ordinal DESC LIMIT ?
        """  # noqa: S608 - no text of a user's in it
        words = [word for term in terms for word in term.words]
        return self._read(lambda row: _hit(row, words), self._ask(sql, [*values, limit]))

    def expired_parts(self, identity: UUID) -> Sequence[ExpiredPart]:
        """Give what of a session or run is gone because its time was over."""
        for table, view, column in (("sessions", "session_parts", "session"), ("runs", "run_parts", "run")):
            self._prepare(view, table, self._days_from(identity))
            owned = "flatten(list(sequences))" if table == "sessions" else "NULL"
            sql = f"SELECT flatten(list(expired)), {owned} FROM {view} WHERE {column} = ?"  # noqa: S608 - our own names
            ((gone, there),) = self._ask(sql, [str(identity)])
            if gone:
                return parts_of(gone, there or ())
        return ()

    def expired_words(self, *, text: str = "", from_ns: int | None = None) -> str:  # noqa: ARG002 - records do not say of which time they are
        """Say for a person that something has expired; empty when nothing has. Arguments as those of an index."""
        numbers = [
            numbers
            for folder in self._hosts()
            for entry in self._bucket.list(f"{folder}/deletions/")
            if (numbers := range_of(entry.key.rpartition("/")[2])) is not None
        ]
        count = len({(first, last) for first, last in numbers})
        return f"segments expired by policy, as {count} records of deletion in the bucket say" if count else ""

    def behind_words(self) -> str:
        """Say for a person what may have been shipped and is not in the catalogue yet; empty where no host shipped anything."""
        hosts = self._hosts()
        if not hosts:
            return ""
        with ThreadPoolExecutor(HOSTS_AT_ONCE) as pool:
            lacking = [words for words in pool.map(self._lacks, hosts) if words]
        more = (
            f"; {lacking[0]}" + (f", and {len(lacking) - 1} more hosts are so" if len(lacking) > 1 else "") if lacking else ""
        )
        return f"what was shipped in the last minute or so may not be in the catalogue yet{more}"

    def _lacks(self, folder: str) -> str:
        """Say what the catalogue lacks of a host's newest day: all of it, where none is written there; else nothing."""
        days = [name for name in self._bucket.folders(f"{folder}/") if name.startswith("date=")]
        if not days or self._bucket.list(f"{table_prefix(DECIDER)}{days[-1]}/{folder}/"):
            return ""
        return f"of {folder} the catalogue has nothing of {days[-1].removeprefix('date=')}, when it shipped last"

    def _hosts(self) -> list[str]:
        """Give the folders of the hosts that are asked for what explains that something is not there."""
        return [folder for folder in self._bucket.folders() if folder.startswith("host=")][:HOSTS_ASKED_MAX]

    def exchange_start(self, session: UUID, ordinal: int) -> int | None:
        """Give the time in ns since 1970 at which the exchange of a message began; None when there is no such message."""
        self._prepare("message_parts", "messages", self._days_from(session))
        sql = """
            SELECT min(earlier.time_ns) FROM message_parts AS asked JOIN message_parts AS earlier USING (session)
            WHERE session = ? AND asked.ordinal = ? AND earlier.ordinal <= asked.ordinal
                AND (earlier.exchange = asked.exchange OR earlier.ordinal = asked.ordinal)
        """
        ((time_ns,),) = self._ask(sql, [str(session), ordinal])
        return cast("int | None", time_ns)

    def segments_of(self, identity: UUID) -> list[tuple[UUID, date, int]]:
        """Give host, day and number of the segments that hold records of a session or run, in their order."""
        self._prepare("segment_parts", "segments", self._days_from(identity))
        sql = """
            SELECT DISTINCT host, date, sequence FROM segment_parts
            WHERE list_contains(sessions, ?) ORDER BY host, sequence
        """
        return self._read(lambda row: (UUID(row[0]), row[1], row[2]), self._ask(sql, [str(identity)]))

    def close(self) -> None:
        """End the asking."""
        self._connection.close()

    def _sessions(self, conditions: str, values: Sequence[object], limit: int | None) -> list[SessionRow]:
        columns = ", ".join(f'"{column}"' for column in SESSIONS.columns)
        sql = f"SELECT {columns}, gone, there FROM sessions WHERE {conditions} ORDER BY started DESC, session"  # noqa: S608 - as above

        def row(found: tuple[Any, ...]) -> SessionRow:
            *cells, gone, there = found
            return replace(session_from(cells), expired=parts_of(gone or (), there or ()))

        return self._read(row, self._ask(*_limited(sql, values, limit)))

    def _runs(self, conditions: str, values: Sequence[object], limit: int | None) -> list[RunRow]:
        self._prepare("run_parts", "runs", None)
        self._prepare_sessions(None)
        self._connection.execute(RUNS_VIEW)
        columns = ", ".join(RUNS.columns)
        counts = "(SELECT count(DISTINCT session) FROM session_parts WHERE session_parts.run = runs.run)"
        sql = f"SELECT {columns}, {counts}, gone FROM runs WHERE {conditions} ORDER BY started DESC, run"  # noqa: S608 - as above

        def row(found: tuple[Any, ...]) -> RunRow:
            *cells, gone = found
            return replace(run_from(cells), expired=parts_of(gone or (), ()))

        return self._read(row, self._ask(*_limited(sql, values, limit)))

    def _ask(self, sql: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        with _blamed():
            return self._connection.execute(sql, list(values)).fetchall()

    @staticmethod
    def _read(one: Callable[[tuple[Any, ...]], _Row], rows: Iterable[tuple[Any, ...]]) -> list[_Row]:
        with _blamed():
            return [one(row) for row in rows]

    def _prepare_sessions(self, days: tuple[date, date] | None) -> None:
        self._prepare("session_parts", "sessions", days)
        self._connection.execute(SESSIONS_VIEW)

    def _prepare(self, view: str, table: str, days: tuple[date, date] | None) -> None:
        """Make a view of the files of a table that concern some days, both included; None for all."""
        parts = self._parts(table, days)
        if not parts:
            columns = ", ".join(f'NULL AS "{name}"' for name in (*TABLES[table].names, "host", "date"))
            self._connection.execute(f"CREATE OR REPLACE TEMP VIEW {view} AS SELECT {columns} WHERE FALSE")
            return
        self._filesystem.prefetch(part.key for part in parts)
        with _blamed():
            if not self._view(view, table, parts):
                self._listed[table, days] = whole = [part for part in parts if self._view(view, table, [part])]
                self.unreadable += sorted({part.key for part in parts} - {part.key for part in whole} - {*self.unreadable})
                self._prepare(view, table, days)

    def _view(self, view: str, table: str, parts: Sequence[Part]) -> bool:
        """Make a view of files; False: one of them is something else than a file of that table."""
        files = ", ".join(f"'{SCHEME}://{part.key}'" for part in parts)
        options = "union_by_name = true, hive_partitioning = true, hive_types = {'host': VARCHAR, 'date': DATE}"
        rows = f"SELECT * FROM read_parquet([{files}], {options})"  # noqa: S608 - keys that were parsed
        if later := [f"NULL::{kind} AS {name}" for name, kind in ADDED.items() if name in TABLES[table].names]:
            rows = f"SELECT {', '.join(later)} WHERE FALSE UNION ALL BY NAME {rows}"
        try:
            self._connection.execute(f"CREATE OR REPLACE TEMP VIEW {view} AS {rows}")
            found = {name: kind for name, kind, *_ in self._connection.execute(f"DESCRIBE {view}").fetchall()}
        except (duckdb.Error, OSError):
            return False
        return self._types(table).items() <= found.items()

    def _types(self, table: str) -> dict[str, str]:
        """Give the columns of a table with their types as DuckDB calls them."""
        if table not in self._kinds:
            empty = TABLES[table].empty_table()
            described = self._connection.from_arrow(empty)
            self._kinds[table] = dict(zip(described.columns, map(str, described.types), strict=True))
        return self._kinds[table]

    def _parts(self, table: str, days: tuple[date, date] | None) -> list[Part]:
        known = self._listed.get((table, days))
        if known is not None:
            return known
        if days is None or (days[1] - days[0]).days > DAYS_LISTED_MAX:
            listed = self._bucket.list(table_prefix(table))
        else:
            count = (days[1] - days[0]).days + 1
            listed = [found for day in range(count) for found in self._bucket.list(day_prefix(table, days[0] + day * _DAY))]
        parts = [part for entry in listed if (part := parse_key(entry.key, entry.size)) is not None]
        if days is not None:
            parts = [part for part in parts if days[0] <= part.day <= days[1]]
        self._sizes.update({part.key: part.size for part in parts})
        self._listed[table, days] = newest(parts)
        return self._listed[table, days]

    def _days(self, from_ns: int | None, until_ns: int | None) -> tuple[date, date] | None:
        """Give the days whose segments can hold records of a time range.

        A segment belongs to the day on which it was created: it may hold records of the day before and of the day after.
        """
        if from_ns is None:
            return None
        until = day_of(self._clock() if until_ns is None else until_ns)
        return day_of(from_ns) - _DAY, max(until, day_of(from_ns)) + _DAY

    def _days_from(self, identity: UUID) -> tuple[date, date] | None:
        """Give the days on which something with this id, or an id that begins so, can have been recorded."""
        try:
            from_ns = unix_ms_of(identity) * 1_000_000
            # Made when a clock was ahead: what was recorded after that was set right lies in earlier days.
            return None if day_of(from_ns) - _DAY > day_of(self._clock()) else self._days(from_ns, None)
        except (ValueError, OverflowError):
            return None


@contextmanager
def _blamed() -> Iterator[None]:
    """Say that it is the catalogue which is wrong, where what is in it cannot be.

    Raises:
        CatalogueError: it cannot.
    """
    try:
        yield
    except duckdb.Error as error:
        raise CatalogueError(str(error).partition("\n")[0]) from error
    except (ValueError, TypeError, KeyError) as error:  # an id that is none, text that is no JSON
        raise CatalogueError(f"something in it is not of its kind: {error}") from error


def _limited(sql: str, values: Sequence[object], limit: int | None) -> tuple[str, list[object]]:
    return (sql, list(values)) if limit is None else (f"{sql} LIMIT ?", [*values, limit])


def _hit(row: Sequence[Any], words: Sequence[str]) -> Hit:
    session, ordinal, time_ns, direction, protocol, kind, exchange, text = row
    piece, matches = snippet(text, words)
    return Hit(
        session=UUID(session),
        ordinal=ordinal,
        time_ns=time_ns,
        direction=None if direction is None else Direction[direction.upper()],
        protocol=protocol,
        type=kind,
        exchange=exchange,
        snippet=piece,
        matches=matches,
    )
