"""The rows of COPY ... TO STDOUT, with hidden values replaced, however they are cut into messages.

What lives here: the three formats (PostgreSQL documentation, COPY, "File Formats"). What must not: the
statement (copy_form.py).

A value that is shown goes on with the very bytes in which it came; one that is replaced is written anew.
"""

from __future__ import annotations

import re
import struct
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Final

from capd.enforcer.masking.rows.constants import TEXT as TEXT_TYPE
from capd.enforcer.masking.rows.copy_form import BINARY, CSV, CopyForm
from capd.enforcer.masking.rows.field import BrokenMessageError, Field
from capd.enforcer.masking.rows.protection import Hidden
from capd.enforcer.masking.rows.replacing import Style, replacer
from capd.enforcer.masking.rows.result import ResultMask
from capd.enforcer.masking.rows.seeking import Seeker

ROW_BYTES_MAX: Final = 1_073_741_824
"""PostgreSQL has no longer ones."""
_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0"
_HEAD: Final = struct.Struct(">II")
_COUNT: Final = struct.Struct(">h")
_LENGTH: Final = struct.Struct(">i")
_UNESCAPED: Final = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_ESCAPED: Final = {value: b"\\" + key for key, value in _UNESCAPED.items()} | {b"\\": b"\\\\"}
_ESCAPE: Final = re.compile(rb"\\(.)", re.DOTALL)
_TO_ESCAPE: Final = re.compile(rb"[\b\f\n\r\t\v\\]")
_UNKNOWN_TEXT: Final = Field(name=b"", table=0, column=0, type=TEXT_TYPE, modifier=-1, format=0)


class CopyMask(ABC):
    """One COPY."""

    def __init__(self) -> None:
        self._waiting = b""
        self.masked: Counter[str] = Counter()

    def feed(self, data: bytes) -> bytes:
        """Take the content of a CopyData message, and give what the agent gets of it; b"": nothing yet.

        Raises:
            BrokenMessageError: it is not what the statement says.
        """
        buffer = self._waiting + data if self._waiting else data
        given: list[bytes] = []
        at = 0
        while (end := self._row_end(buffer, at)) >= 0:
            given.append(self._row(buffer[at:end]))
            at = end
        self._waiting = buffer[at:]
        if len(self._waiting) > ROW_BYTES_MAX:
            raise BrokenMessageError
        return b"".join(given)

    def end(self) -> None:
        """Say that nothing more comes (CopyDone).

        Raises:
            BrokenMessageError: a row has no end.
        """
        if self._waiting:
            raise BrokenMessageError

    @abstractmethod
    def _row_end(self, buffer: bytes, at: int) -> int:
        """Give where the row that begins at a place ends; -1: that is not there yet."""

    @abstractmethod
    def _row(self, row: bytes) -> bytes:
        """Give a row with its hidden values replaced."""


def copy_mask(
    form: CopyForm, fields: Sequence[Field] | None, hidden: Sequence[Hidden | None] | None, style: Style, seeker: Seeker | None
) -> CopyMask:
    """Give what masks one COPY.

    Args:
        form: of its statement.
        fields: its columns, as the server described them; None: not known, and none is hidden.
        hidden: how, of each; None: none is.
        style: of the session.
        seeker: what else is looked for; None: nothing. In binary the fields have to be known for that.
    """
    if seeker is None and not any(hidden or ()):
        return _PlainCopy()
    if form.format == BINARY:
        return _BinaryCopy(fields, hidden, style, seeker)
    columns = _Columns(fields, hidden, style, seeker)
    return _CsvCopy(form, columns) if form.format == CSV else _TextCopy(form, columns)


class _PlainCopy(CopyMask):
    """Nothing is hidden: it goes on as it comes."""

    def feed(self, data: bytes) -> bytes:
        return data

    def _row_end(self, buffer: bytes, at: int) -> int:
        raise NotImplementedError

    def _row(self, row: bytes) -> bytes:
        raise NotImplementedError


class _Columns:
    """What becomes of the values of each column, in text."""

    def __init__(
        self, fields: Sequence[Field] | None, hidden: Sequence[Hidden | None] | None, style: Style, seeker: Seeker | None
    ) -> None:
        self._fields = fields
        self._hidden = tuple(hidden or ())
        self._seeker = seeker
        self._replacers = [
            None if one is None else replacer(one.replace, field, style)
            for field, one in zip(fields or (), self._hidden, strict=False)
        ]
        self._places = tuple(index for index, one in enumerate(self._hidden) if one is not None)

    def busy(self, row: bytes, count: int) -> Sequence[int]:
        """Give the columns of a row that have to be looked at.

        Raises:
            BrokenMessageError: it has not as many as the statement.
        """
        if self._hidden and count != len(self._hidden):
            raise BrokenMessageError
        if self._seeker is not None and self._seeker.may_hold(row):
            return range(count)
        return self._places

    def shown(self, index: int, value: bytes, masked: Counter[str]) -> tuple[bool, bytes | None]:
        """Give whether a value is replaced, and by what; None: NULL."""
        hidden = self._hidden[index] if self._hidden else None
        if hidden is not None:
            masked[hidden.rule] += 1
            replace = self._replacers[index]
            return True, None if replace is None else replace(value)
        if self._seeker is None:
            return False, value
        field = _UNKNOWN_TEXT if self._fields is None else self._fields[index]
        found = self._seeker.replaced(value, field, masked)
        return found is not value, found


class _TextCopy(CopyMask):
    """Lines; a backslash before each sign that means something."""

    def __init__(self, form: CopyForm, columns: _Columns) -> None:
        super().__init__()
        self._columns = columns
        self._delimiter = form.delimiter.encode("ascii")
        self._null = form.null.encode("utf-8")
        self._header = form.header
        mark = re.escape(self._delimiter)
        self._value = re.compile(rb"(?:[^\\" + mark + rb"]|\\.)*", re.DOTALL)

    def _row_end(self, buffer: bytes, at: int) -> int:
        return buffer.find(b"\n", at) + 1 or -1

    def _row(self, row: bytes) -> bytes:
        if self._header:
            self._header = False
            return row
        values = self._split(row[:-1])
        for index in self._columns.busy(row, len(values)):
            values[index] = self._shown(index, values[index])
        return self._delimiter.join(values) + b"\n"

    def _split(self, line: bytes) -> list[bytes]:
        if b"\\" not in line:
            return line.split(self._delimiter)
        found: list[bytes] = []
        at = 0
        while True:
            match = self._value.match(line, at)
            end = at if match is None else match.end()
            found.append(line[at:end])
            if end == len(line):
                return found
            if line[end : end + 1] != self._delimiter:
                raise BrokenMessageError
            at = end + 1

    def _shown(self, index: int, value: bytes) -> bytes:
        if value == self._null:
            return value
        plain = _ESCAPE.sub(lambda one: _UNESCAPED.get(one[1], one[1]), value) if b"\\" in value else value
        replaced, shown = self._columns.shown(index, plain, self.masked)
        if not replaced:
            return value
        return self._null if shown is None else self._escaped(shown)

    def _escaped(self, value: bytes) -> bytes:
        escaped = _TO_ESCAPE.sub(lambda one: _ESCAPED[one[0]], value)
        # A tab between values is among those already.
        return escaped if self._delimiter == b"\t" else escaped.replace(self._delimiter, b"\\" + self._delimiter)


class _CsvCopy(CopyMask):
    """Lines; values in quotes may have any signs in them."""

    def __init__(self, form: CopyForm, columns: _Columns) -> None:
        super().__init__()
        self._columns = columns
        self._delimiter = form.delimiter.encode("ascii")
        self._quote, self._escape = form.quote.encode("ascii"), form.escape.encode("ascii")
        self._null = form.null.encode("utf-8")
        self._header = form.header
        quote, escape = re.escape(self._quote), re.escape(self._escape)
        # Without going back (`*+`): what is not whole yet must not be read in another way.
        inside = rb"(?:" + quote + quote + rb"|[^" + quote + rb"])*+"
        if self._quote != self._escape:
            both = rb"[" + quote + escape + rb"]"
            inside = rb"(?:" + escape + both + rb"|[^" + quote + escape + rb"]|" + escape + rb"(?!" + both + rb"))*+"
        self._quoted = re.compile(quote + rb"(" + inside + rb")" + quote, re.DOTALL)
        self._plain = re.compile(rb"[^" + quote + re.escape(self._delimiter) + rb"\n]*")
        self._to_escape = re.compile(b"[" + re.escape(self._quote + self._escape) + b"]")
        self._unescape = re.compile(escape + rb"([" + quote + escape + rb"])")

    def _row_end(self, buffer: bytes, at: int) -> int:
        line = buffer.find(b"\n", at)
        if line >= 0 and buffer.find(self._quote, at, line) < 0:
            return line + 1
        while True:
            quoted = self._quoted.match(buffer, at)
            if quoted is not None:
                at = quoted.end()
            elif buffer[at : at + 1] == self._quote:
                return -1
            plain = self._plain.match(buffer, at)
            at = at if plain is None else plain.end()
            if at >= len(buffer):
                return -1
            at += 1
            if buffer[at - 1 : at] == b"\n":
                return at
            if buffer[at - 1 : at] != self._delimiter:
                raise BrokenMessageError

    def _row(self, row: bytes) -> bytes:
        if self._header:
            self._header = False
            return row
        values, insides = self._split(row)
        for index in self._columns.busy(row, len(values)):
            values[index] = self._value(index, values[index], insides.get(index))
        return self._delimiter.join(values) + b"\n"

    def _split(self, row: bytes) -> tuple[list[bytes], dict[int, bytes]]:
        """Give the values of a row as they are written, and of those in quotes what is inside."""
        if self._quote not in row:
            return row[:-1].split(self._delimiter), {}
        values: list[bytes] = []
        insides: dict[int, bytes] = {}
        at = 0
        while True:
            quoted = self._quoted.match(row, at)
            plain = None if quoted is not None else self._plain.match(row, at)
            end = quoted.end() if quoted is not None else at if plain is None else plain.end()
            if quoted is not None:
                insides[len(values)] = quoted[1]
            values.append(row[at:end])
            if row[end : end + 1] != self._delimiter:
                break
            at = end + 1
        if row[end:] != b"\n":
            raise BrokenMessageError
        return values, insides

    def _value(self, index: int, written: bytes, inside: bytes | None) -> bytes:
        if inside is None and written == self._null:
            return written
        plain = written if inside is None else self._unescape.sub(lambda one: one[1], inside)
        replaced, shown = self._columns.shown(index, plain, self.masked)
        if not replaced:
            return written
        if shown is None:
            return self._null
        return self._quote + self._to_escape.sub(lambda one: self._escape + one[0], shown) + self._quote


class _BinaryCopy(CopyMask):
    """A head, then rows as DataRow has them, then a count of -1."""

    def __init__(
        self, fields: Sequence[Field] | None, hidden: Sequence[Hidden | None] | None, style: Style, seeker: Seeker | None
    ) -> None:
        super().__init__()
        self._result = None
        if fields is not None:
            self._result = ResultMask(fields, hidden or [None] * len(fields), style, seeker)
            self.masked = self._result.masked
        elif hidden is not None or seeker is not None:
            raise BrokenMessageError
        self._begun = False
        self._over = False

    def _row_end(self, buffer: bytes, at: int) -> int:
        if not self._begun:
            return self._head_end(buffer, at)
        if at + _COUNT.size > len(buffer) or self._over:
            return -1
        (count,) = _COUNT.unpack_from(buffer, at)
        at += _COUNT.size
        for _ in range(count):
            if at + _LENGTH.size > len(buffer):
                return -1
            at += _LENGTH.size + max(_LENGTH.unpack_from(buffer, at)[0], 0)
        return at if at <= len(buffer) else -1

    @staticmethod
    def _head_end(buffer: bytes, at: int) -> int:
        size = len(_SIGNATURE) + _HEAD.size
        if len(buffer) - at < size:
            return -1
        flags, more = _HEAD.unpack_from(buffer, at + len(_SIGNATURE))
        if not buffer.startswith(_SIGNATURE, at) or flags:
            raise BrokenMessageError
        return at + size + more if len(buffer) >= at + size + more else -1

    def _row(self, row: bytes) -> bytes:
        if not self._begun:
            self._begun = True
            return row
        if _COUNT.unpack_from(row)[0] == -1:
            self._over = True
            return row
        return row if self._result is None else self._result.row(row)
