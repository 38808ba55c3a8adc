"""PostgreSQL messages as bytes, built by hand from the protocol's documentation.

What lives here: builders. What must not: anything of the decoder, so that a mistake cannot hide in both.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

Cell = bytes | None


def message(code: str, body: bytes = b"") -> bytes:
    """A message with a type byte."""
    return code.encode() + struct.pack(">I", len(body) + 4) + body


def strings(*parts: str) -> bytes:
    """NUL-terminated strings."""
    return b"".join(part.encode() + b"\0" for part in parts)


def packet(code: int, body: bytes = b"") -> bytes:
    """A packet without a type byte."""
    return struct.pack(">II", len(body) + 8, code) + body


def cells(values: Sequence[Cell]) -> bytes:
    """A count, then length and bytes of each."""
    out = struct.pack(">H", len(values))
    for value in values:
        out += struct.pack(">i", -1) if value is None else struct.pack(">I", len(value)) + value
    return out


def codes(*formats: int) -> bytes:
    """Format codes."""
    return struct.pack(f">H{len(formats)}H", len(formats), *formats)


def startup(**parameters: str) -> bytes:
    """StartupMessage, protocol 3.0."""
    return packet(196608, strings(*(part for pair in parameters.items() for part in pair)) + b"\0")


SSL_REQUEST = packet(80877103)
GSSENC_REQUEST = packet(80877104)


def query(sql: str) -> bytes:
    """Query."""
    return message("Q", strings(sql))


def parse(name: str, sql: str, *types: int) -> bytes:
    """Parse."""
    return message("P", strings(name, sql) + struct.pack(f">H{len(types)}I", len(types), *types))


def bind(portal: str, statement: str, values: Sequence[Cell] = (), formats: bytes = b"\0\0", results: bytes = b"\0\0") -> bytes:
    """Bind."""
    return message("B", strings(portal, statement) + formats + cells(values) + results)


def describe(kind: str, name: str = "") -> bytes:
    """Describe a statement (S) or a portal (P)."""
    return message("D", kind.encode() + strings(name))


def execute(portal: str = "", rows: int = 0) -> bytes:
    """Execute."""
    return message("E", strings(portal) + struct.pack(">I", rows))


SYNC = message("S")
FLUSH = message("H")
TERMINATE = message("X")


def authentication(code: int, body: bytes = b"") -> bytes:
    """Authentication request."""
    return message("R", struct.pack(">I", code) + body)


def columns(*described: tuple[str, int], formats: Sequence[int] | None = None) -> bytes:
    """RowDescription from names and type ids."""
    body = struct.pack(">H", len(described))
    for index, (name, oid) in enumerate(described):
        body += strings(name) + struct.pack(">IHIhih", 0, 0, oid, -1, -1, formats[index] if formats else 0)
    return message("T", body)


def row(*values: Cell) -> bytes:
    """DataRow."""
    return message("D", cells(values))


def complete(tag: str) -> bytes:
    """CommandComplete."""
    return message("C", strings(tag))


def ready(status: str = "I") -> bytes:
    """ReadyForQuery."""
    return message("Z", status.encode())


def error(code: str = "42601", text: str = "no", kind: str = "E", severity: str = "ERROR") -> bytes:
    """ErrorResponse (E) or NoticeResponse (N)."""
    return message(kind, strings(f"S{severity}", f"V{severity}", f"C{code}", f"M{text}") + b"\0")


def setting(name: str, value: str) -> bytes:
    """ParameterStatus."""
    return message("S", strings(name, value))


PARSED = message("1")
BOUND = message("2")
CLOSED = message("3")
NO_DATA = message("n")
SUSPENDED = message("s")
EMPTY = message("I")
OPENING = startup(user="u", database="d")
OPENED = authentication(0) + ready()
