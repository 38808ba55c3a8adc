"""Rows of a result of MySQL or MariaDB, with hidden values replaced. A message is built anew; nothing is changed in place.

What lives here: rows in text and in binary (MySQL Internals, "Text Resultset Row", "Binary Protocol Resultset Row").
What must not: what is hidden, packets and their numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from capd.enforcer.masking.rows.constants import TEXT as POSTGRESQL_TEXT
from capd.enforcer.masking.rows.field import BrokenMessageError, Field
from capd.enforcer.masking.rows.mysql_column import NULL_VALUE, MysqlColumn, read_length, write_length
from capd.enforcer.masking.rows.mysql_replacing import (
    DECIMAL,
    FIXED_BYTES,
    INTEGERS,
    JSON,
    NEWDECIMAL,
    TEXTS,
    TIMES,
    mysql_replacer,
)
from capd.enforcer.masking.rows.protection import Hidden
from capd.enforcer.masking.rows.replacing import Replacer
from capd.enforcer.masking.rows.seeking import Seeker

_BITMAP_OFFSET: Final = 2
"""The first two bits of the NULLs of a row mean nothing."""
_NUMBERS: Final = frozenset({*INTEGERS, DECIMAL, NEWDECIMAL})
_AS_TEXT: Final = Field(name=b"", table=0, column=0, type=POSTGRESQL_TEXT, modifier=-1, format=0)


class MysqlResultMask:
    """One result."""

    def __init__(
        self,
        columns: Sequence[MysqlColumn],
        hidden: Sequence[Hidden | None],
        key: bytes,
        seeker: Seeker | None = None,
        *,
        binary: bool,
    ) -> None:
        """Begin.

        Args:
            columns: as defined.
            hidden: for each how it is hidden, or None.
            key: for hashes.
            seeker: what else is looked for in values that are shown; None: nothing.
            binary: whether rows are those of a prepared statement.
        """
        self._columns = tuple(columns)
        self._rules = [one.rule if one is not None else "" for one in hidden]
        self._replacers: list[Replacer | None] = [
            None if one is None else mysql_replacer(one.replace, column, key, binary=binary)
            for column, one in zip(columns, hidden, strict=True)
        ]
        self._seeker = seeker
        self._binary = binary
        self._looks = False
        self.masked: Counter[str] = Counter()
        self.changes = seeker is not None or any(one is not None for one in self._replacers)
        """Whether any row can come out other than it came in."""

    def row(self, body: bytes) -> bytes:
        """Give a row as the client gets it.

        Raises:
            BrokenMessageError: it is none of this result.
        """
        if not self.changes:
            return body
        # What may be anywhere in a row is looked for once; whole numbers in binary have no digits.
        self._looks = self._seeker is not None and self._seeker.may_hold(body)
        return self._binary_row(body) if self._binary else self._text_row(body)

    def _text_row(self, body: bytes) -> bytes:
        parts: list[bytes] = []
        at = 0
        for index in range(len(self._columns)):
            if at < len(body) and body[at] == NULL_VALUE:
                parts.append(body[at : at + 1])
                at += 1
                continue
            size, begins = read_length(body, at)
            end = begins + size
            value = body[begins:end]
            shown = self._shown(index, value)
            if shown is value:
                parts.append(body[at:end])
            else:
                parts.append(bytes((NULL_VALUE,)) if shown is None else write_length(len(shown)) + shown)
            at = end
        if at != len(body):
            raise BrokenMessageError
        return b"".join(parts)

    def _binary_row(self, body: bytes) -> bytes:
        count = len(self._columns)
        at = 1 + (count + 7 + _BITMAP_OFFSET) // 8
        if len(body) < at or body[0]:
            raise BrokenMessageError
        nulls = bytearray(body[1:at])
        parts: list[bytes] = []
        for index, column in enumerate(self._columns):
            place, bit = divmod(index + _BITMAP_OFFSET, 8)
            if nulls[place] & (1 << bit):
                continue
            begins, end = self._extent(column.type, body, at)
            value = body[begins:end]
            shown = self._shown(index, value)
            if shown is value:
                parts.append(body[at:end])
            elif shown is None:
                nulls[place] |= 1 << bit
            else:
                parts.append(self._written(column.type, shown))
            at = end
        if at != len(body):
            raise BrokenMessageError
        return b"".join((b"\0", bytes(nulls), *parts))

    @staticmethod
    def _extent(type_: int, body: bytes, at: int) -> tuple[int, int]:
        """Give where a value in binary begins and ends."""
        fixed = FIXED_BYTES.get(type_)
        size, begins = (fixed, at) if fixed is not None else read_length(body, at)
        if begins + size > len(body):
            raise BrokenMessageError
        return begins, begins + size

    @staticmethod
    def _written(type_: int, value: bytes) -> bytes:
        fixed = FIXED_BYTES.get(type_)
        if fixed is not None:
            return value
        return write_length(len(value)) + value

    def _shown(self, index: int, value: bytes) -> bytes | None:
        replace = self._replacers[index]
        if replace is not None:
            self.masked[self._rules[index]] += 1
            return replace(value)
        column = self._columns[index]
        if self._seeker is None or not (self._looks or (self._binary and column.type in INTEGERS)):
            return value
        return self._sought(self._seeker, column, value)

    def _sought(self, seeker: Seeker, column: MysqlColumn, value: bytes) -> bytes | None:
        """Look for what is hidden by its form."""
        if column.type in TEXTS or column.type == JSON:
            return seeker.replaced(value, _AS_TEXT, self.masked)
        if column.type in TIMES or column.type not in _NUMBERS:
            return value
        form = INTEGERS.get(column.type) if self._binary else None
        text = value if form is None else b"%d" % form.unpack(value)[0]
        if seeker.text(text, self.masked) is text:
            return value
        return bytes(len(value)) if form is not None else b"0"
