"""MySQL on the wire: numbers, limits, capabilities, and the cursor that reads a packet's fields.

What lives here: what both directions need (MySQL "Client/Server Protocol", MariaDB "Client/Server Protocol"). What must not:
state.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import Final

HEADER_BYTES: Final = 4
"""Three bytes of length, one of sequence."""
PACKET_BYTES_MAX: Final = 0xFF_FFFF
"""A packet of exactly this length is followed by another one of the same message."""

STATEMENT_BYTES_MAX: Final = PACKET_BYTES_MAX - 1
"""Statements, their values and data for LOAD DATA are held whole as long as they fit into one packet."""
ROW_BYTES_MAX: Final = 1 << 20
"""A row longer than this is decoded from its first part only; the rest is skipped by length, never held."""
CONTROL_BYTES_MAX: Final = 1 << 20
"""Every other message."""
PREFIX_BYTES: Final = 65_536
"""How much of a message beyond its limit is decoded."""
COLUMNS_MAX: Final = 4_096
"""The server's own limit (MAX_FIELDS)."""
PARAMETERS_MAX: Final = 65_535
"""The server's own limit: the count has two bytes."""

OK: Final = 0x00
LOCAL_INFILE: Final = 0xFB
EOF: Final = 0xFE
ERR: Final = 0xFF
EOF_BYTES: Final = 5
PROGRESS: Final = 0xFFFF
"""MariaDB: an ERR with this number tells how far a statement is."""
NULL: Final = 0xFB
"""In a text row, where the length of a value would be."""


class Capability(IntFlag):
    """What client and server can do; only what changes the bytes has a name here."""

    LONG_PASSWORD = 1
    """MariaDB: "CLIENT_MYSQL"; without it the extended capabilities are there."""
    CONNECT_WITH_DB = 1 << 3
    COMPRESS = 1 << 5
    LOCAL_FILES = 1 << 7
    PROTOCOL_41 = 1 << 9
    SSL = 1 << 11
    SECURE_CONNECTION = 1 << 15
    MULTI_STATEMENTS = 1 << 16
    MULTI_RESULTS = 1 << 17
    PS_MULTI_RESULTS = 1 << 18
    PLUGIN_AUTH = 1 << 19
    CONNECT_ATTRS = 1 << 20
    PLUGIN_AUTH_LENENC = 1 << 21
    SESSION_TRACK = 1 << 23
    DEPRECATE_EOF = 1 << 24
    OPTIONAL_METADATA = 1 << 25
    ZSTD = 1 << 26
    QUERY_ATTRIBUTES = 1 << 27
    PROGRESS = 1 << 32
    BULK_OPERATIONS = 1 << 34
    EXTENDED_METADATA = 1 << 35
    CACHE_METADATA = 1 << 36
    BULK_UNIT_RESULTS = 1 << 37


TLS: Final = (b"\x14\x03", b"\x15\x03", b"\x16\x03", b"\x17\x03")
"""What a record of TLS begins with."""
EXTENDED_SHIFT: Final = 32
"""MariaDB's extended capabilities stand here, above the others."""


class Status(IntFlag):
    """What OK and EOF say of the session."""

    IN_TRANSACTION = 1
    AUTOCOMMIT = 2
    MORE_RESULTS = 8
    CURSOR_EXISTS = 0x40
    LAST_ROW_SENT = 0x80
    NO_BACKSLASH_ESCAPES = 0x200
    SESSION_STATE_CHANGED = 0x4000


class Command(IntEnum):
    """The first byte of what a client asks."""

    SLEEP = 0x00
    QUIT = 0x01
    INIT_DB = 0x02
    QUERY = 0x03
    FIELD_LIST = 0x04
    CREATE_DB = 0x05
    DROP_DB = 0x06
    REFRESH = 0x07
    SHUTDOWN = 0x08
    STATISTICS = 0x09
    PROCESS_INFO = 0x0A
    CONNECT = 0x0B
    PROCESS_KILL = 0x0C
    DEBUG = 0x0D
    PING = 0x0E
    TIME = 0x0F
    DELAYED_INSERT = 0x10
    CHANGE_USER = 0x11
    BINLOG_DUMP = 0x12
    TABLE_DUMP = 0x13
    CONNECT_OUT = 0x14
    REGISTER_SLAVE = 0x15
    STMT_PREPARE = 0x16
    STMT_EXECUTE = 0x17
    STMT_SEND_LONG_DATA = 0x18
    STMT_CLOSE = 0x19
    STMT_RESET = 0x1A
    SET_OPTION = 0x1B
    STMT_FETCH = 0x1C
    DAEMON = 0x1D
    BINLOG_DUMP_GTID = 0x1E
    RESET_CONNECTION = 0x1F
    CLONE = 0x20
    SUBSCRIBE_GROUP_REPLICATION_STREAM = 0x21
    STMT_BULK_EXECUTE = 0xFA


class MalformedError(Exception):
    """The inside of a packet breaks the protocol while its length is sound.

    Never leaves this package: the message is given as incomplete and the next one is read.
    """


def text(raw: bytes, encoding: str) -> str:
    r"""Read text for a person; bytes that the encoding does not have are shown as `\\xff`."""
    return raw.decode(encoding, "backslashreplace")


_DOUBLE: Final = struct.Struct("<d")
_FLOAT: Final = struct.Struct("<f")
_LENGTHS: Final = {0xFC: 2, 0xFD: 3, 0xFE: 8}


class Fields:
    """A cursor over the fields of one packet; every read beyond its end is `MalformedError`."""

    __slots__ = ("at", "body", "encoding")

    def __init__(self, body: bytes, encoding: str = "utf-8") -> None:
        self.body = body
        self.encoding = encoding
        self.at = 0

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return len(self.body) - self.at

    def raw(self, length: int) -> bytes:
        """`length` bytes."""
        at = self.at
        end = at + length
        if end > len(self.body):
            raise MalformedError("it ends early")
        self.at = end
        return self.body[at:end]

    def byte(self) -> int:
        """An unsigned byte."""
        return self.raw(1)[0]

    def number(self, length: int, *, signed: bool = False) -> int:
        """A number of so many bytes, the lowest first."""
        return int.from_bytes(self.raw(length), "little", signed=signed)

    def single(self) -> float:
        """A float of four bytes."""
        return float(_FLOAT.unpack(self.raw(4))[0])

    def double(self) -> float:
        """A float of eight bytes."""
        return float(_DOUBLE.unpack(self.raw(8))[0])

    def length(self) -> int | None:
        """A length-encoded number; None: NULL."""
        first = self.byte()
        if first < NULL:
            return first
        if first == NULL:
            return None
        size = _LENGTHS.get(first)
        if size is None:
            raise MalformedError("0xff where a length must be")
        return self.number(size)

    def counted(self) -> int:
        """A length-encoded number that cannot be NULL."""
        found = self.length()
        if found is None:
            raise MalformedError("NULL where a number must be")
        return found

    def piece(self) -> bytes:
        """Bytes behind their length."""
        return self.raw(self.counted())

    def string(self) -> str:
        """Text behind its length."""
        return text(self.piece(), self.encoding)

    def until_nul(self) -> bytes:
        """Bytes up to a NUL, which is passed over."""
        at = self.at
        end = self.body.find(b"\0", at)
        if end < 0:
            raise MalformedError("a string has no end")
        self.at = end + 1
        return self.body[at:end]

    def rest(self) -> bytes:
        """All that is left."""
        at = self.at
        self.at = len(self.body)
        return self.body[at:]

    def end(self) -> None:
        """Nothing may be left."""
        if self.left:
            raise MalformedError(f"{self.left} bytes too many")
