"""Messages of PostgreSQL as capd sends them itself.

What lives here: building them (documentation 55.7). What must not: when they are sent.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Final

from capd.decoders.postgresql.wire import CANCEL_REQUEST, HEADER, SSL_REQUEST

_INT32: Final = struct.Struct(">i")
_LENGTH_AND_CODE: Final = struct.Struct(">II")

SSL: Final = _LENGTH_AND_CODE.pack(8, SSL_REQUEST)
YES, NO = b"S", b"N"
"""One byte that answers a request for encryption."""
SYNC: Final = b"S\0\0\0\4"
FLUSH: Final = b"H\0\0\0\4"
TERMINATE: Final = b"X\0\0\0\4"
IDLE, IN_TRANSACTION, FAILED = b"I", b"T", b"E"
"""What ReadyForQuery says of the transaction."""
_READY: Final = {status: b"Z\0\0\0\5" + status for status in (IDLE, IN_TRANSACTION, FAILED)}
OK: Final = _INT32.pack(0)
ASK_PASSWORD: Final = _INT32.pack(3)

DENIED: Final = "42501"
"""insufficient_privilege (documentation, appendix A)."""
NOT_SUPPORTED: Final = "0A000"
PROTOCOL_VIOLATION: Final = "08P01"
CANNOT_CONNECT: Final = "08001"
NO_AUTHORIZATION: Final = "28000"
LIMIT: Final = "54000"
CANCELLED: Final = "57014"
NO_STATEMENT: Final = "26000"
NO_PORTAL: Final = "34000"
TOO_LONG: Final = "42622"
"""name_too_long"""
ERROR, FATAL = "ERROR", "FATAL"


def frame(code: bytes, body: bytes) -> bytes:
    """Give a message with its type and length."""
    return HEADER.pack(code[0], len(body) + 4) + body


def ready(status: bytes) -> bytes:
    """Give a ReadyForQuery."""
    return _READY[status]


def error(code: str, message: str, *, severity: str = ERROR, detail: str = "", encoding: str = "utf-8") -> bytes:
    """Give an ErrorResponse.

    Args:
        code: SQLSTATE.
        message: for a person.
        severity: ERROR, or FATAL where the connection ends.
        detail: more of it.
        encoding: of the client, as far as capd knows it.
    """
    return frame(b"E", _fields((severity, code, message, detail), encoding))


def notice(message: str, *, detail: str = "", encoding: str = "utf-8") -> bytes:
    """Give a NoticeResponse, which may come at any time."""
    return frame(b"N", _fields(("NOTICE", "00000", message, detail), encoding))


def _fields(told: tuple[str, str, str, str], encoding: str) -> bytes:
    fields = zip("SVCMD", (told[0], *told), strict=True)
    return b"".join(name.encode() + text(value, encoding) + b"\0" for name, value in fields if value) + b"\0"


def text(value: str, encoding: str) -> bytes:
    """Give text as a client reads it; beyond ASCII only where its encoding is known."""
    plain = value.replace("\0", "")
    return plain.encode("utf-8", "replace") if encoding == "utf-8" else plain.encode("ascii", "backslashreplace")


def startup(minor: int, parameters: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Give a StartupMessage of protocol 3."""
    body = b"".join(name + b"\0" + value + b"\0" for name, value in parameters) + b"\0"
    return _LENGTH_AND_CODE.pack(len(body) + 8, 3 << 16 | minor) + body


def negotiate(minor: int, unknown: Iterable[bytes]) -> bytes:
    """Give a NegotiateProtocolVersion: the newest version, and the options that are not known."""
    names = list(unknown)
    body = _LENGTH_AND_CODE.pack(3 << 16 | minor, len(names)) + b"".join(name + b"\0" for name in names)
    return frame(b"v", body)


def cancel(process: bytes, secret: bytes) -> bytes:
    """Give a CancelRequest."""
    return _LENGTH_AND_CODE.pack(8 + len(process) + len(secret), CANCEL_REQUEST) + process + secret


def query(sql: str) -> bytes:
    """Give a Query."""
    return frame(b"Q", sql.encode() + b"\0")


def named_queries(name: str, statements: Iterable[bytes]) -> bytes:
    """Give statements in the extended protocol, each in its turn under a name, up to a Sync: their rows are text."""
    named = name.encode() + b"\0"
    found = []
    for one in statements:
        found += [frame(b"P", named + one + b"\0\0\0"), frame(b"B", named + named + bytes(6)), frame(b"D", b"P" + named)]
        found += [frame(b"E", named + bytes(4)), frame(b"C", b"P" + named), frame(b"C", b"S" + named)]
    return b"".join(found) + SYNC


def parse(name: str, sql: str) -> bytes:
    """Give a Parse without types of parameters."""
    return frame(b"P", name.encode() + b"\0" + sql.encode() + b"\0\0\0")


def facts_text(facts: Mapping[str, str]) -> str:
    """Give facts for machines and people in one line, as the detail of an error."""
    return ", ".join(f"{name}={value}" for name, value in facts.items() if value)
