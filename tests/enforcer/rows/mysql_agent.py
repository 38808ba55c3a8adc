"""An agent whose statements go through masking to a real MariaDB: what a proxy would do, without one.

What lives here: judging, asking, running, and giving what the agent gets, in text and prepared. What must not: cases.

pymysql signs in; packets are read and written as they are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pymysql
from pymysql.constants import COMMAND

from capd.enforcer.masking.rows.judgement import Refused, Stale
from capd.enforcer.masking.rows.known import Masks, hides_columns, may_define
from capd.enforcer.masking.rows.mysql_catalogue import MysqlCatalogue, names_of
from capd.enforcer.masking.rows.mysql_column import MysqlColumn, read_column, read_length
from capd.enforcer.masking.rows.mysql_judgement import MysqlJudged, judge_mysql
from capd.enforcer.masking.rows.mysql_protection import mysql_protection
from capd.enforcer.masking.rows.mysql_replacing import FIXED_BYTES
from capd.enforcer.masking.rows.mysql_report import hidden_error
from capd.enforcer.masking.rows.mysql_row import MysqlResultMask
from capd.enforcer.masking.rows.seeking import Seeker
from capd.enforcer.obligations.answer import rules_of
from capd.enforcer.sql.lexeme import Dialect
from capd.enforcer.sql.message import Reader
from capd.enforcer.sql.session import new_session
from tests.servers.mariadb import MariaDb

KEY = b"a key of this host, and no other"
NOTHING, END, ERROR = 0x00, 0xFE, 0xFF
NULL = 0xFB


@dataclass
class Got:
    """What the agent gets.

    Attributes:
        refused: why it gets nothing; None: it is not refused.
        columns: of the result.
        rows, raw: values as bytes, as the agent and as the server has them.
        hidden: which columns are.
        said: errors, as bytes.
        failed: the server refused it.
    """

    refused: str | None = None
    columns: tuple[MysqlColumn, ...] = ()
    rows: list[tuple[bytes | None, ...]] = field(default_factory=list)
    raw: list[tuple[bytes | None, ...]] = field(default_factory=list)
    hidden: tuple[bool, ...] = ()
    said: list[bytes] = field(default_factory=list)
    failed: bool = False

    @property
    def everything(self) -> list[bytes]:
        """All bytes that reach the agent."""
        return [value for row in self.rows for value in row if value is not None] + self.said


class MysqlAgent:
    """One connection through masking."""

    def __init__(self, connection: Any, database: str, masks: Masks) -> None:  # noqa: ANN401 - pymysql has no names for it
        self.connection = connection
        self.masks = masks
        self.known = MysqlCatalogue()
        self.reader = Reader()
        self.time = 0.0
        self.session = new_session(Dialect.MYSQL).told_schemas((database,))
        self.seeker = Seeker([(rule, rules_of(mask)) for rule, mask in masks])

    def run(self, text: str, *, prepared: bool = False) -> Got:
        """Send a statement as an agent would."""
        said = text.encode()
        sql = self.reader.read(said, self.session)
        names = names_of(sql.resources or ()) or frozenset()
        while hides_columns(self.masks) and (question := self.known.question(names, self.time)) is not None:
            self.known.answered(self.ask(question))
        judged = judge_mysql(sql, said, self.session, mysql_protection(self.known.relations, sorted(names), self.masks))
        if isinstance(judged, Refused):
            return Got(refused=judged.reason)
        got = self._ran(judged, said, prepared=prepared)
        if may_define(sql):
            self.known.forget()
        for done in sql.statements:
            self.session = self.session.after(done, succeeded=not got.failed)
        return got

    def ask(self, text: str) -> list[tuple[bytes | None, ...]] | None:
        """Ask the server something; None: it answers with an error."""
        columns, rows = self._exchange(COMMAND.COM_QUERY, text.encode())
        return None if isinstance(columns, bytes) else [text_values(row, len(columns)) for row in rows]

    def _ran(self, judged: MysqlJudged, said: bytes, *, prepared: bool) -> Got:
        if prepared:
            columns, rows = self._prepared(said)
        else:
            columns, rows = self._exchange(COMMAND.COM_QUERY, said)
        if isinstance(columns, bytes):
            return Got(failed=True, said=[hidden_error(columns) if judged.touches or judged.changes else columns])
        settled = judged.settle(columns)
        if not isinstance(settled, tuple):
            return Got(refused="stale" if isinstance(settled, Stale) else settled.reason)
        mask = MysqlResultMask(columns, settled, KEY, self.seeker or None, binary=prepared)
        values = binary_values if prepared else lambda row, among: text_values(row, len(among))
        return Got(
            columns=columns,
            rows=[values(mask.row(row), columns) for row in rows],
            raw=[values(row, columns) for row in rows],
            hidden=tuple(one is not None for one in settled),
        )

    def _packet(self) -> bytes:
        found = b""
        while True:
            head = self.connection._read_bytes(4)
            size = int.from_bytes(head[:3], "little")
            self.connection._next_seq_id = (head[3] + 1) % 256
            found += bytes(self.connection._read_bytes(size))
            if size < 0xFFFFFF:
                return found

    def _exchange(self, command: int, said: bytes) -> tuple[tuple[MysqlColumn, ...] | bytes, list[bytes]]:
        """Give columns and rows, or the content of an error."""
        self.connection._execute_command(command, said)
        return self._result()

    def _result(self) -> tuple[tuple[MysqlColumn, ...] | bytes, list[bytes]]:
        first = self._packet()
        if first[0] == ERROR:
            return first, []
        if first[0] == NOTHING:
            return (), []
        columns = tuple(read_column(self._packet()) for _ in range(first[0]))
        self._packet()
        rows: list[bytes] = []
        while not _is_end(row := self._packet()):
            if row[0] == ERROR:
                return row, []
            rows.append(row)
        return columns, rows

    def _prepared(self, said: bytes) -> tuple[tuple[MysqlColumn, ...] | bytes, list[bytes]]:
        self.connection._execute_command(COMMAND.COM_STMT_PREPARE, said)
        first = self._packet()
        if first[0] == ERROR:
            return first, []
        number, columns, parameters = struct.unpack_from("<IHH", first, 1)
        for count in (parameters, columns):
            for _ in range(count + 1 if count else 0):
                self._packet()
        found = self._exchange(COMMAND.COM_STMT_EXECUTE, struct.pack("<IBI", number, 0, 1))
        self.connection._execute_command(COMMAND.COM_STMT_CLOSE, struct.pack("<I", number))
        return found


def _is_end(body: bytes) -> bool:
    return body[0] == END and len(body) < 9


def text_values(row: bytes, count: int) -> tuple[bytes | None, ...]:
    """Read a row in text."""
    at = 0
    found: list[bytes | None] = []
    for _ in range(count):
        if row[at] == NULL:
            found.append(None)
            at += 1
            continue
        size, at = read_length(row, at)
        found.append(row[at : at + size])
        at += size
    assert at == len(row)
    return tuple(found)


def binary_values(row: bytes, columns: tuple[MysqlColumn, ...]) -> tuple[bytes | None, ...]:
    """Read a row of a prepared statement; values as they stand in it."""
    at = 1 + (len(columns) + 9) // 8
    nulls = row[1:at]
    found: list[bytes | None] = []
    for index, column in enumerate(columns):
        if nulls[(index + 2) // 8] & (1 << (index + 2) % 8):
            found.append(None)
            continue
        size = FIXED_BYTES.get(column.type)
        if size is None:
            size, at = read_length(row, at)
        found.append(row[at : at + size])
        at += size
    assert at == len(row)
    return tuple(found)


def connected(server: MariaDb, database: str) -> Any:  # noqa: ANN401 - pymysql has no names for it
    """Connect to a server as its administrator."""
    return pymysql.connect(unix_socket=str(server.socket), user="root", database=database, autocommit=True)


def fill(server: MariaDb, database: str, schema: str, content: Iterable[tuple[str, tuple[object, ...]]]) -> None:
    """Make a database of a server, and what is in it."""
    with connected(server, "mysql") as admin, admin.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {database} CHARACTER SET utf8mb4")
    with connected(server, database) as connection, connection.cursor() as cursor:
        for text in schema.split(";\n"):
            cursor.execute(text)
        for text, parameters in content:
            cursor.execute(text, parameters)
