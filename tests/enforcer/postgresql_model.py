"""A server of PostgreSQL as far as its protocol goes: names, groups, errors, transactions; and what a client says, in bytes.

What lives here: the server's side of documentation 55.2 as a machine of values, which tells what it ran. What must not: SQL; a
statement's first word says what it does: `begin`, `commit`, `rollback`, `fail`, `copyin`, `copyout`, else it gives a row.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

STARTUP = b"\0\3\0\0user\0agent\0database\0shop\0\0"
SILENT = frozenset(["begin", "commit", "rollback", "copyin", "copyout", "copy", "fail", "set", "deallocate"])
OWN = b"capd_asks"
"""Name of what capd asks where it may not send a Query."""
COLUMN = b"\0\1a\0" + struct.pack(">IHIhiH", 16_384, 1, 25, -1, -1, 0)


def message(code: str, body: bytes = b"") -> bytes:
    """Give a message."""
    return code.encode() + struct.pack(">I", len(body) + 4) + body


def startup(body: bytes = STARTUP) -> bytes:
    """Give a packet without a type."""
    return struct.pack(">I", len(body) + 4) + body


def query(sql: str) -> bytes:
    """Give a Query."""
    return message("Q", sql.encode() + b"\0")


def parse(sql: str, name: str = "") -> bytes:
    """Give a Parse."""
    return message("P", f"{name}\0{sql}\0".encode() + b"\0\0")


def bind(statement: str = "", portal: str = "", value: str | None = None) -> bytes:
    """Give a Bind with one value, or none."""
    values = b"\0\0" if value is None else b"\0\1" + struct.pack(">I", len(value)) + value.encode()
    return message("B", f"{portal}\0{statement}\0".encode() + b"\0\0" + values + b"\0\0")


def describe(kind: str = "P", name: str = "") -> bytes:
    """Give a Describe."""
    return message("D", kind.encode() + name.encode() + b"\0")


def execute(portal: str = "", rows: int = 0) -> bytes:
    """Give an Execute."""
    return message("E", portal.encode() + b"\0" + struct.pack(">I", rows))


def close(kind: str, name: str) -> bytes:
    """Give a Close."""
    return message("C", kind.encode() + name.encode() + b"\0")


SYNC, FLUSH, TERMINATE = message("S"), message("H"), message("X")


def messages(data: bytes) -> list[tuple[str, bytes]]:
    """Take messages apart; what is not whole is an error."""
    found = []
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at + 1 : at + 5], "big")
        assert at + 1 + length <= len(data), data[at:]
        found.append((chr(data[at]), data[at + 5 : at + 1 + length]))
        at += 1 + length
    return found


def kinds(data: bytes) -> str:
    """Give the types of messages, with the state that each ReadyForQuery says."""
    return "".join(code + (body.decode() if code == "Z" else "") for code, body in messages(data))


def error_fields(body: bytes) -> dict[str, str]:
    """Read an ErrorResponse."""
    return {field[:1].decode(): field[1:].decode() for field in body.split(b"\0") if field}


def results(*values: list[str]) -> bytes:
    """Give results of one column each, as a Query with several statements has them."""
    said = b""
    for rows in values:
        said += message("T", COLUMN)
        said += b"".join(message("D", b"\0\1" + struct.pack(">I", len(row)) + row.encode()) for row in rows)
        said += message("C", b"SELECT\0")
    return said


@dataclass
class Server:
    """One session.

    Attributes:
        ran: text of every statement that was run, with the value that was bound.
        heard: text of every statement that came in any message.
        schemas, temporary, functions: what capd is told when it asks.
        asked: how often it did.
        copied: messages of data that came while it copied.
    """

    ran: list[tuple[str, str | None]] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    schemas: list[str] = field(default_factory=lambda: ["public"])
    temporary: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    asked: int = 0
    copied: int = 0
    status: str = "I"
    _statements: dict[str, str] = field(default_factory=dict)
    _portals: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    _done: set[str] = field(default_factory=set)
    _skipping: bool = False
    _copying: str = ""
    _data: bytes = b""
    _started: bool = False
    over: bool = False

    def hears(self, data: bytes) -> bytes:
        """Take bytes and give the answer, which comes at once whether or not a Flush asks for it."""
        self._data += data
        said = b""
        if not self._started:
            length = int.from_bytes(self._data[:4], "big")
            if len(self._data) < length or not length:
                return b""
            self._data, self._started = self._data[length:], True
            said += message("R", bytes(4)) + message("S", b"client_encoding\0UTF8\0")
            said += message("S", b"standard_conforming_strings\0on\0") + message("K", b"\0\0\0\7keys") + self._ready()
        while len(self._data) >= 5 and len(self._data) > (length := int.from_bytes(self._data[1:5], "big")):
            code, body = chr(self._data[0]), self._data[5 : length + 1]
            self._data = self._data[length + 1 :]
            said += self._take(code, body)
        return said

    def _take(self, code: str, body: bytes) -> bytes:
        assert not self.over
        if code == "X":
            self.over = True
            return b""
        if self._copying:
            return self._copy(code)
        if code == "S":
            self._skipping = False
            return self._ready()
        if self._skipping or code in "dcf":
            return b""
        takes: dict[str, Callable[[bytes], bytes]] = {
            "Q": self._query,
            "P": self._parse,
            "B": self._bind,
            "D": self._describe,
            "E": self._execute,
            "C": self._close,
            "H": lambda _: b"",
        }
        return takes[code](body)

    def _ready(self) -> bytes:
        if self.status == "I":
            self._portals.clear()
        return message("Z", self.status.encode())

    def _query(self, body: bytes) -> bytes:
        sql = body[:-1].decode()
        self._statements.pop("", None)
        if sql.startswith("/* capd */"):
            return b"".join(results(self._answers(one)) for one in sql.split("; ")) + self._ready()
        said = message("T", COLUMN) if self._gives_row(sql) and self.status != "E" else b""
        done = self._run(sql, None, simple=True)
        if self._copying:
            return done
        return (done if done[:1] == b"E" else said + done) + self._ready()

    def _answers(self, sql: str) -> list[str]:
        """Give the rows of a question of capd's."""
        assert self.status != "E"
        if "EXPLAIN" in sql:
            assert self.status == "I"
            plan = '[{"Plan": {"Node Type": "ModifyTable", "Plan Rows": 0, "Total Cost": 1, "Plans": [%s]}}]'
            return [plan % '{"Node Type": "Seq Scan", "Plan Rows": 40, "Total Cost": 12.3}']
        if "set_config" in sql:
            return ["on"]
        if "current_schemas" in sql:
            self.asked += 1
            return self.schemas
        return self.functions if "pg_proc" in sql else self.temporary

    @staticmethod
    def _gives_row(sql: str) -> bool:
        return sql.split(maxsplit=1)[0] not in (
            "begin",
            "commit",
            "rollback",
            "copyin",
            "copyout",
            "copy",
            "fail",
            "set",
            "deallocate",
        )

    def _parse(self, body: bytes) -> bytes:
        name, sql, _ = body.split(b"\0", 2)
        text = sql.decode()
        if not name:
            self._statements.pop("", None)
        if text == "capd_denied" or text.startswith("wrong"):
            self.heard += [text] if text != "capd_denied" else []
            return self._fails("42601")
        if name != OWN:
            self.heard.append(text)
        if name and name.decode() in self._statements:
            return self._fails("42P05")
        self._statements[name.decode()] = text
        return message("1")

    def _bind(self, body: bytes) -> bytes:
        portal, statement, rest = body.split(b"\0", 2)
        sql = self._statements.get(statement.decode())
        if sql is None:
            return self._fails("26000")
        value = rest[8 : 8 + int.from_bytes(rest[4:8], "big")].decode() if rest[2:4] == b"\0\1" else None
        if portal and portal.decode() in self._portals:
            return self._fails("42P03")
        self._portals[portal.decode()] = (sql, value)
        self._done.discard(portal.decode())
        return message("2")

    def _describe(self, body: bytes) -> bytes:
        kind, name = chr(body[0]), body[1:-1].decode()
        sql = self._statements.get(name) if kind == "S" else self._portals.get(name, (None,))[0]
        if sql is None:
            return self._fails("26000")
        said = message("t", b"\0\0") if kind == "S" else b""
        return said + (message("T", COLUMN) if self._gives_row(sql) else message("n"))

    def _execute(self, body: bytes) -> bytes:
        name = body.split(b"\0", 1)[0].decode()
        portal = self._portals.get(name)
        if portal is None:
            return self._fails("34000")
        if name in self._done:  # a portal runs once; one that was suspended goes on
            return self._fails("55000")
        self._done.add(name)
        if name == OWN.decode():
            return results(self._answers(portal[0]))[len(message("T", COLUMN)) :]
        return self._run(*portal, simple=False)

    def _close(self, body: bytes) -> bytes:
        (self._statements if body[:1] == b"S" else self._portals).pop(body[1:-1].decode(), None)
        return message("3")

    def _run(self, sql: str, value: str | None, *, simple: bool) -> bytes:
        word = sql.split(maxsplit=1)[0]
        if sql == "capd_denied":
            return self._fails("42601", simple=simple)
        self.heard.append(sql)
        if self.status == "E" and word not in ("rollback", "commit"):
            return self._fails("25P02", simple=simple)
        if word == "fail":
            return self._fails("22012", simple=simple)
        self.ran.append((sql, value))
        if word == "deallocate":
            self._statements.pop(sql.split()[1], None)
        if sql == "copy t from stdin":
            self._copying = "Q" if simple else "E"
            return message("G", b"\0\0\0")
        if sql == "copy t to stdout":
            return message("H", b"\0\0\0") + message("d", b"row") + message("c") + message("C", b"COPY\0")
        self.status = {"begin": "T", "commit": "I", "rollback": "I"}.get(word, self.status)
        row = message("D", b"\0\1\0\0\0\1x") if self._gives_row(sql) else b""
        return row + message("C", word.upper().encode() + b"\0")

    def _copy(self, code: str) -> bytes:
        if code in "dSH":
            self.copied += code == "d"
            return b""
        mode, self._copying = self._copying, ""
        if code == "c":
            return message("C", b"COPY\0") + (self._ready() if mode == "Q" else b"")
        assert code == "f", code
        return self._fails("57014", simple=mode == "Q") + (self._ready() if mode == "Q" else b"")

    def _fails(self, code: str, *, simple: bool = False) -> bytes:
        self._skipping = not simple
        self.status = "E" if self.status != "I" else "I"
        return message("E", f"SERROR\0C{code}\0Mno\0\0".encode())
