"""PostgreSQL v3 on the wire: numbers, limits, and the cursor that reads a message's fields.

What lives here: what both directions need (protocol documentation, chapters "Message Formats" and "Message Flow"). What
must not: state.
"""

from __future__ import annotations

import struct
from typing import Final

HEADER: Final = struct.Struct(">BI")
"""Type byte and length; the length counts itself but not the type."""
HEADER_BYTES: Final = HEADER.size
LENGTH_BYTES: Final = 4
MESSAGE_BYTES_LIMIT: Final = 0x3FFF_FFFF
"""The server's own limit (MaxAllocSize): a longer length is not PostgreSQL."""

ROW_BYTES_MAX: Final = 1 << 20
"""A DataRow longer than this is decoded from its first part only; the rest is skipped by length, never held."""
STATEMENT_BYTES_MAX: Final = 16 << 20
"""Query, Parse, Bind and FunctionCall are held whole up to this, because a statement must be judged whole."""
CONTROL_BYTES_MAX: Final = 1 << 20
"""Every other message."""
COPY_PART_BYTES: Final = 1 << 20
"""A CopyData message longer than this is given in parts of this size."""
PREFIX_BYTES: Final = 65_536
"""How much of a message beyond its limit is decoded."""
STARTUP_BYTES_MAX: Final = 10_000
"""The server's own limit (MAX_STARTUP_PACKET_LENGTH)."""
STARTUP_BYTES_MIN: Final = 8

PROTOCOL_MAJOR: Final = 3
CANCEL_REQUEST: Final = 80_877_102
SSL_REQUEST: Final = 80_877_103
GSSENC_REQUEST: Final = 80_877_104

_INT16: Final = struct.Struct(">H")
_INT32: Final = struct.Struct(">i")

ENCODINGS: Final = {
    "UTF8": "utf-8",
    "SQL_ASCII": "utf-8",
    "LATIN1": "latin-1",
    "LATIN2": "iso8859-2",
    "LATIN5": "iso8859-9",
    "LATIN9": "iso8859-15",
    "WIN1250": "cp1250",
    "WIN1251": "cp1251",
    "WIN1252": "cp1252",
    "KOI8R": "koi8-r",
    "EUC_JP": "euc-jp",
    "EUC_KR": "euc-kr",
    "SJIS": "shift-jis",
    "BIG5": "big5",
    "GBK": "gbk",
    "GB18030": "gb18030",
}
"""`client_encoding` to codec. Others are read as UTF-8, and what is not UTF-8 is given as it is (see `values.cell`)."""


class MalformedError(Exception):
    """The inside of a message breaks the protocol while its length is sound.

    Never leaves this package: the message is given as incomplete and the next one is read.
    """


def text(raw: bytes, encoding: str) -> str:
    r"""Read text for a person; bytes that the encoding does not have are shown as `\\xff`."""
    return raw.decode(encoding, "backslashreplace")


class Fields:
    """A cursor over the fields of one message; every read beyond its end is `MalformedError`."""

    __slots__ = ("at", "body", "encoding")

    def __init__(self, body: bytes, encoding: str) -> None:
        self.body = body
        self.encoding = encoding
        self.at = 0

    def byte(self) -> int:
        """An unsigned byte."""
        at = self.at
        if at >= len(self.body):
            raise MalformedError("it ends early")
        self.at = at + 1
        return self.body[at]

    def int16(self) -> int:
        """A count or format code; the server reads counts as unsigned."""
        return int(_INT16.unpack(self.raw(_INT16.size))[0])

    def int32(self) -> int:
        """A signed number."""
        return int(_INT32.unpack(self.raw(_INT32.size))[0])

    def raw(self, length: int) -> bytes:
        """`length` bytes."""
        at = self.at
        end = at + length
        if length < 0 or end > len(self.body):
            raise MalformedError("it ends early")
        self.at = end
        return self.body[at:end]

    def string(self) -> str:
        """Text up to a NUL."""
        return text(self.raw_string(), self.encoding)

    def raw_string(self) -> bytes:
        """Bytes up to a NUL, which is passed over."""
        at = self.at
        end = self.body.find(b"\0", at)
        if end < 0:
            raise MalformedError("a string has no end")
        self.at = end + 1
        return self.body[at:end]

    def formats(self) -> bytes:
        """Format codes, one byte for each: 0 text, 1 binary."""
        count = self.int16()
        codes = self.raw(count * 2)
        if codes[::2].strip(b"\0") or codes[1::2].strip(b"\0\1"):
            raise MalformedError("a format code that is neither text nor binary")
        return codes[1::2]

    def rest(self) -> bytes:
        """All that is left."""
        at = self.at
        self.at = len(self.body)
        return self.body[at:]

    def end(self) -> None:
        """Nothing may be left."""
        if self.at != len(self.body):
            raise MalformedError(f"{len(self.body) - self.at} bytes too many")
