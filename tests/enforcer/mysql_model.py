"""A model of a server of MySQL: it answers packets as the protocol has it, and keeps what it was told.

What lives here: the server's side. What must not: anything of the proxy; a real server is in test_mysql_clients.py.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from capd.enforcer.masking.rows.mysql_catalogue import FORM_QUESTION
from tests.decoders import mysql_bytes as my

INQUIRY = "/* capd */"
CURSOR_ROWS = 2


@dataclass
class Server:
    """One connection.

    Attributes:
        capabilities: that it offers.
        ran: statements that it ran, with the values of an execution.
        heard: every statement that it heard of, in whatever message.
        own: what capd asked of relations.
        asked: how often it was asked how it reads.
        mode, charset, schema: what it says then.
        own_error: with which SHOW COLUMNS fails; 0: it does not.
        over: whether the client said that it goes.
    """

    capabilities: int = my.BASE | my.TRACK | my.NO_EOF | my.COMPRESS | my.QUERY_ATTRIBUTES | 1 << 7 | my.MULTI << 0 | 1 << 16
    ran: list[tuple[str, bytes]] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    commands: list[int] = field(default_factory=list)
    asked: int = 0
    own: list[str] = field(default_factory=list)
    mode: bytes = b"STRICT_TRANS_TABLES"
    charset: bytes = b"utf8mb4"
    schema: bytes | None = b"shop"
    own_error: int = 0
    over: bool = False
    login: bytes = b""
    _data: bytearray = field(default_factory=bytearray)
    _prepared: dict[int, str] = field(default_factory=dict)
    _long: bytes = b""
    _wanted: int = 0

    def greets(self) -> bytes:
        """Say the first word."""
        return my.greeting(self.capabilities)

    def hears(self, data: bytes) -> bytes:
        """Take bytes and give the answer."""
        self._data += data
        said = b""
        while len(self._data) >= 4 and len(self._data) >= 4 + int.from_bytes(self._data[:3], "little"):
            length = int.from_bytes(self._data[:3], "little")
            sequence, body = self._data[3], bytes(self._data[4 : 4 + length])
            del self._data[: 4 + length]
            said += self._packet(sequence, body)
        return said

    def _packet(self, sequence: int, body: bytes) -> bytes:
        if not self.login:
            self.login = body
            self._wanted = int.from_bytes(body[:4], "little")
            return my.ok(sequence + 1)
        assert sequence == 0, body
        assert not self.over
        self.commands.append(body[0])
        answer = {
            0x03: self._query,
            0x16: self._prepare,
            0x17: self._execute,
            0x18: self._long_data,
            0x19: self._close,
            0x1C: self._fetch,
            0x04: lambda _: my.column(1, "a") + self._end(2),
            0x09: lambda _: my.packet(1, b"Uptime: 5"),
            0x01: self._quit,
        }.get(body[0], lambda _: my.ok(1))
        return answer(body)

    @property
    def _no_eof(self) -> bool:
        return bool(self._wanted & my.NO_EOF)

    def _end(self, sequence: int, status: int = 2) -> bytes:
        return my.end(sequence, status) if self._no_eof else my.eof(sequence, status)

    def _result(self, *rows: bytes, columns: int = 1, first: int = 1, status: int = 2) -> bytes:
        said = my.packet(first, bytes([columns])) + b"".join(my.column(first + 1 + at, "a") for at in range(columns))
        at = first + 1 + columns
        if not self._no_eof:
            said, at = said + my.eof(at), at + 1
        for row in rows:
            said, at = said + my.packet(at, row), at + 1
        return said + self._end(at, status)

    def _query(self, body: bytes) -> bytes:
        sql = body[1:].decode("utf-8", "replace")
        if INQUIRY in sql:
            self.asked += 1
            cells = [self.mode, self.charset, None if self.schema is None else self.schema.hex().encode()]
            row = b"".join(b"\xfb" if cell is None else my.piece(cell) for cell in cells)
            return self._result(row, columns=3)
        if sql == FORM_QUESTION:
            return self._result(my.piece("utf8mb4") + my.piece("18446744073709551615"), columns=2)
        if sql.startswith("SHOW COLUMNS FROM `shop`") and self.own_error:
            return my.err(1, self.own_error)
        if sql.startswith("SHOW COLUMNS FROM `shop`"):
            self.own.append(sql)
            rows = [b"".join(my.piece(cell) for cell in (name, b"varchar(9)", b"YES", b"", b"", b"")) for name in (b"a", b"b")]
            return self._result(*rows, columns=6)
        if sql.startswith("SELECT view_definition"):
            self.own.append(sql)
            return self._result()
        self.heard.append(sql)
        statements = [one.strip() for one in sql.split(";") if one.strip()]
        said, sequence = b"", 1
        for number, statement in enumerate(statements):
            status = 2 | (my.MORE if number + 1 < len(statements) else 0)
            if statement.startswith("fail"):
                return said + my.err(sequence)
            self.ran.append((statement, b""))
            if statement.startswith("select"):
                part = self._result(my.piece("x"), my.piece("y"), first=sequence, status=status)
                sequence += 6 - self._no_eof
            else:
                part, sequence = my.ok(sequence, 1, status=status), sequence + 1
            said += part
        return said

    def _prepare(self, body: bytes) -> bytes:
        sql = body[1:].decode("utf-8", "replace")
        self.heard.append(sql)
        if sql.startswith("fail"):
            return my.err(1)
        number = len(self._prepared) + 1
        self._prepared[number] = sql
        said, at = my.prepared(1, number, 1, sql.count("?")), 2
        for count in (sql.count("?"), 1):
            for _ in range(count):
                said, at = said + my.column(at, "?"), at + 1
            if count and not self._no_eof:
                said, at = said + my.eof(at), at + 1
        return said

    def _execute(self, body: bytes) -> bytes:
        number, flags = struct.unpack_from("<IB", body, 1)
        sql, long, self._long = self._prepared[number], self._long, b""
        self.ran.append((sql, body[10:] + long))
        if not flags:
            return self._result(b"\0\0\1x")
        if self._no_eof:
            return my.packet(1, b"\1") + my.column(2, "a") + my.end(3, my.CURSOR)
        return my.packet(1, b"\1") + my.column(2, "a") + my.eof(3, my.CURSOR)

    def _fetch(self, _body: bytes) -> bytes:
        return my.packet(1, b"\0\0\1x") + my.packet(2, b"\0\0\1y") + self._end(3, my.CURSOR | 0x80)

    def _long_data(self, body: bytes) -> bytes:
        self._long += body[7:]
        return b""

    def _close(self, body: bytes) -> bytes:
        self._prepared.pop(int.from_bytes(body[1:5], "little"), None)
        return b""

    def _quit(self, _body: bytes) -> bytes:
        self.over = True
        return b""


def outline(data: bytes) -> str:
    """Packets as letters: o OK, e ERR, f EOF, . any other; with the sequence before the first of a run."""
    said, at, expected = "", 0, None
    while at < len(data):
        length, sequence = int.from_bytes(data[at : at + 3], "little"), data[at + 3]
        body = data[at + 4 : at + 4 + length]
        assert len(body) == length, "a packet is not whole"
        letter = {0x00: "o", 0xFF: "e", 0xFE: "f"}.get(body[0] if body else 1, ".")
        said += ("" if sequence == expected else str(sequence)) + letter
        expected = (sequence + 1) % 256
        at += 4 + length
    return said
