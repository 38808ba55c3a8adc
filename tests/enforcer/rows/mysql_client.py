"""An agent that speaks to MySQL or MariaDB through the proxy, and keeps every packet that it has of it.

What lives here: every way of the protocol in which rows come. What must not: statements, what is expected.

pymysql signs in; packets are read and written as they are.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pymysql
from pymysql.constants import COMMAND

WAYS = ("text", "prepared", "cursor")
NOTHING, FILE, END, ERROR = 0x00, 0xFB, 0xFE, 0xFF
END_BYTES_MAX = 9
MORE_RESULTS, CURSOR_EXISTS, LAST_ROW_SENT = 0x08, 0x40, 0x80
READ_ONLY_CURSOR = 1
FETCHED_ROWS = 3
SECONDS = 60


@dataclass
class Heard:
    """What a client has of one statement.

    Attributes:
        said: every packet.
        failed: whether one of them is an error.
    """

    said: list[bytes] = field(default_factory=list)
    failed: bool = False


class MysqlClient:
    """A connection through the proxy."""

    def __init__(self, words: Mapping[str, Any]) -> None:
        self.connection: Any = pymysql.connect(**words, charset="utf8mb4", autocommit=True, read_timeout=SECONDS)
        self.heard = Heard()

    def run(self, text: str, way: str) -> Heard:
        """Run a statement in one of WAYS, within a transaction that is taken back."""
        self._query("BEGIN")
        self.heard = heard = Heard()
        if way == "text":
            self._query(text)
        else:
            self._prepared(text.encode(), cursor=way == "cursor")
        self.heard = Heard()
        for after in ("ROLLBACK", "UNLOCK TABLES", "SELECT 'in step'"):
            self._query(after)
        assert b"\x07in step" in self.heard.said, (text, way, self.heard)
        return heard

    def close(self) -> None:
        """End it."""
        self.connection.close()

    def _packet(self) -> bytes:
        found = b""
        while True:
            head = self.connection._read_bytes(4)
            size = int.from_bytes(head[:3], "little")
            self.connection._next_seq_id = (head[3] + 1) % 256
            found += bytes(self.connection._read_bytes(size))
            if size < 0xFFFFFF:
                self.heard.said.append(found)
                self.heard.failed |= found[:1] == bytes([ERROR])
                return found

    def _query(self, text: str) -> None:
        self.connection._execute_command(COMMAND.COM_QUERY, text.encode())
        while self._result() & MORE_RESULTS:
            pass

    def _prepared(self, said: bytes, *, cursor: bool) -> None:
        command = self.connection._execute_command
        command(COMMAND.COM_STMT_PREPARE, said)
        first = self._packet()
        if first[0] == ERROR:
            return
        number, columns, parameters = struct.unpack_from("<IHH", first, 1)
        for count in (parameters, columns):
            for _ in range(count + 1 if count else 0):
                self._packet()
        command(COMMAND.COM_STMT_EXECUTE, struct.pack("<IBI", number, READ_ONLY_CURSOR if cursor else 0, 1))
        status = self._result()
        while status & MORE_RESULTS:
            status = self._result()
        while status & CURSOR_EXISTS and not status & LAST_ROW_SENT:
            command(COMMAND.COM_STMT_FETCH, struct.pack("<II", number, FETCHED_ROWS))
            status = self._rows()
        command(COMMAND.COM_STMT_CLOSE, struct.pack("<I", number))

    def _result(self) -> int:
        """Read a result; give the status behind it, 0 behind an error."""
        first = self._packet()
        if first[0] == ERROR:
            return 0
        assert first[0] != FILE, "the proxy lets nobody ask for a file"
        if first[0] == NOTHING:
            return _status_of_ok(first)
        for _ in range(first[0]):
            self._packet()
        behind = self._packet()
        if behind[0] == ERROR:  # MySQL 9 says one there where a cursor cannot be opened
            return 0
        (status,) = struct.unpack_from("<H", behind, 3)
        return status if status & CURSOR_EXISTS else self._rows()

    def _rows(self) -> int:
        while True:
            row = self._packet()
            if row[0] == ERROR:
                return 0
            if row[0] == END and len(row) < END_BYTES_MAX:
                return int(struct.unpack_from("<H", row, 3)[0])


def _status_of_ok(body: bytes) -> int:
    at = 1
    for _ in range(2):  # changed rows, and the last number that was made: of as many bytes as their first says
        at += {0xFC: 3, 0xFD: 4, 0xFE: 9}.get(body[at], 1)
    return int(struct.unpack_from("<H", body, at)[0])
