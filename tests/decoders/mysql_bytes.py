"""MySQL packets as bytes, built by hand from the protocol's documentation.

What lives here: builders. What must not: anything of the decoder, so that a mistake cannot hide in both.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

Cell = bytes | None
LONG_PASSWORD, WITH_DB, COMPRESS, PROTOCOL_41, SSL, SECURE = 1, 1 << 3, 1 << 5, 1 << 9, 1 << 11, 1 << 15
MULTI, PLUGIN, ATTRS, LENENC, TRACK, NO_EOF = 1 << 17, 1 << 19, 1 << 20, 1 << 21, 1 << 23, 1 << 24
QUERY_ATTRIBUTES = 1 << 27
CACHE_METADATA = 1 << 36
EXTENDED_METADATA = 1 << 35
BASE = LONG_PASSWORD | PROTOCOL_41 | SECURE | PLUGIN | WITH_DB | MULTI
SCRAMBLE = b"12345678abcdefghijkl"
SECRET = b"\x01proof\x02proof\x03proof\x04x"
MORE, CURSOR = 8, 0x40


def packet(sequence: int, body: bytes = b"") -> bytes:
    """A packet."""
    return struct.pack("<I", len(body))[:3] + bytes([sequence % 256]) + body


def lenenc(number: int) -> bytes:
    """A length-encoded number."""
    if number < 251:
        return bytes([number])
    return b"\xfc" + struct.pack("<H", number) if number < 1 << 16 else b"\xfd" + struct.pack("<I", number)[:3]


def piece(data: bytes | str) -> bytes:
    """Bytes behind their length."""
    raw = data.encode() if isinstance(data, str) else data
    return lenenc(len(raw)) + raw


def greeting(capabilities: int = BASE, version: str = "5.5.5-10.11.6-MariaDB", plugin: str = "mysql_native_password") -> bytes:
    """Handshake version 10."""
    body = b"\x0a" + version.encode() + b"\0" + struct.pack("<I", 7) + SCRAMBLE[:8] + b"\0"
    body += struct.pack("<HBHHB", capabilities & 0xFFFF, 45, 2, capabilities >> 16 & 0xFFFF, 21) + bytes(6)
    body += struct.pack("<I", capabilities >> 32) + SCRAMBLE[8:] + b"\0" + plugin.encode() + b"\0"
    return packet(0, body)


def _client(capabilities: int) -> bytes:
    return struct.pack("<IIB", capabilities & 0xFFFFFFFF, 1 << 24, 45) + bytes(19) + struct.pack("<I", capabilities >> 32)


def ssl_request(capabilities: int = BASE) -> bytes:
    """SSLRequest."""
    return packet(1, _client(capabilities | SSL))


def login(capabilities: int = BASE, user: str = "u", database: str = "d", sequence: int = 1, attributes: bytes = b"") -> bytes:
    """HandshakeResponse41."""
    body = _client(capabilities) + user.encode() + b"\0" + bytes([len(SECRET)]) + SECRET
    body += (database.encode() + b"\0" if capabilities & WITH_DB else b"") + b"mysql_native_password\0" + attributes
    return packet(sequence, body)


def change_user(user: str = "v", database: str = "e") -> bytes:
    """COM_CHANGE_USER."""
    body = b"\x11" + user.encode() + b"\0" + bytes([len(SECRET)]) + SECRET + database.encode() + b"\0"
    return packet(0, body + struct.pack("<H", 45) + b"mysql_native_password\0")


def ok(sequence: int, affected: int = 0, insert_id: int = 0, status: int = 2, *, warnings: int = 0, rest: bytes = b"") -> bytes:
    """OK."""
    body = b"\0" + lenenc(affected) + lenenc(insert_id) + struct.pack("<HH", status, warnings) + rest
    return packet(sequence, body)


def end(sequence: int, status: int = 2) -> bytes:
    """OK in the place of an EOF."""
    return packet(sequence, b"\xfe\0\0" + struct.pack("<HH", status, 0))


def eof(sequence: int, status: int = 2, warnings: int = 0) -> bytes:
    """EOF."""
    return packet(sequence, b"\xfe" + struct.pack("<HH", warnings, status))


def err(sequence: int, code: int = 1064, state: str = "42000", message: str = "no") -> bytes:
    """ERR."""
    return packet(sequence, b"\xff" + struct.pack("<H", code) + b"#" + state.encode() + message.encode())


def query(sql: str) -> bytes:
    """COM_QUERY."""
    return packet(0, b"\x03" + sql.encode())


def prepare(sql: str) -> bytes:
    """COM_STMT_PREPARE."""
    return packet(0, b"\x16" + sql.encode())


def command(number: int, body: bytes = b"") -> bytes:
    """Any other command."""
    return packet(0, bytes([number]) + body)


def execute(
    statement: int, types: Sequence[tuple[int, int]] | None, values: bytes = b"", nulls: bytes = b"\0", flags: int = 0
) -> bytes:
    """COM_STMT_EXECUTE; without types they are those of the execution before, `()` for none."""
    body = struct.pack("<IBI", statement, flags, 1)
    if types != ():
        body += nulls + (b"\0" if types is None else b"\1" + b"".join(bytes(pair) for pair in types)) + values
    return command(0x17, body)


def column(sequence: int, name: str, code: int = 253, origin: str = "t", *, flags: int = 0, collation: int = 45) -> bytes:
    """ColumnDefinition41, of a column of the same name in `shop`."""
    original = name if origin else ""
    body = piece("def") + piece("shop" if origin else "") + piece(origin) + piece(origin) + piece(name) + piece(original)
    return packet(sequence, body + b"\x0c" + struct.pack("<HIBHB", collation, 80, code, flags, 0) + b"\0\0")


def row(sequence: int, *values: Cell) -> bytes:
    """A row of the text protocol."""
    return packet(sequence, b"".join(b"\xfb" if value is None else piece(value) for value in values))


def binary_row(sequence: int, values: bytes, nulls: bytes = b"\0") -> bytes:
    """A row of the binary protocol."""
    return packet(sequence, b"\0" + nulls + values)


def prepared(sequence: int, statement: int, columns: int, parameters: int) -> bytes:
    """COM_STMT_PREPARE_OK."""
    return packet(sequence, b"\0" + struct.pack("<IHHBH", statement, columns, parameters, 0, 0))


def result(*values: Cell, first: int = 1, status: int = 2) -> bytes:
    """A result of one column, `a`, in the text protocol."""
    body = packet(first, b"\1") + column(first + 1, "a") + eof(first + 2)
    for index, value in enumerate(values):
        body += row(first + 3 + index, value)
    return body + eof(first + 3 + len(values), status)


OPENED = greeting(), login(), ok(2)
PING = command(0x0E)
QUIT = command(0x01)
