"""Rows of a result, with hidden values replaced. A message is built anew; nothing is changed in place.

What lives here: DataRow (PostgreSQL documentation, section 55.7). What must not: what is hidden, how a value is replaced.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from typing import Final

from capd.enforcer.masking.rows.constants import INTEGERS
from capd.enforcer.masking.rows.field import BrokenMessageError, Field
from capd.enforcer.masking.rows.protection import Hidden
from capd.enforcer.masking.rows.replacing import BINARY, Replacer, Style, replacer
from capd.enforcer.masking.rows.seeking import Seeker

_COUNT: Final = struct.Struct(">H")
_LENGTH: Final = struct.Struct(">i")
_NULL: Final = b"\xff\xff\xff\xff"


class ResultMask:
    """One result: of a statement, or of a portal until it is closed."""

    def __init__(
        self, fields: Sequence[Field], hidden: Sequence[Hidden | None], style: Style, seeker: Seeker | None = None
    ) -> None:
        """Begin.

        Args:
            fields: as described, with the formats that the client asked for (Bind).
            hidden: for each, as `Judged.settle` said.
            style: of the session.
            seeker: what else is looked for in values that are shown; None: nothing.
        """
        self._count = len(fields)
        self._replacers: list[Replacer | None] = []
        self._rules = [one.rule if one is not None else "" for one in hidden]
        for field, one in zip(fields, hidden, strict=True):
            self._replacers.append(None if one is None else replacer(one.replace, field, style))
        self._seeker = seeker
        self._looked = [seeker is not None and one is None for one in hidden]
        whole = [field.format == BINARY and field.type in INTEGERS for field in fields]
        self._counted = [looked and number for looked, number in zip(self._looked, whole, strict=True)]
        """Whole numbers in binary have no digits: they are looked into whatever stands in a row."""
        self._fields = tuple(fields)
        busy = [index for index, one in enumerate(self._replacers) if one is not None]
        self._seeks_only = seeker is not None and not busy and not any(self._counted)
        self._last = self._count if seeker is not None else busy[-1] + 1 if busy else 0
        self.masked: Counter[str] = Counter()

    @property
    def changes(self) -> bool:
        """Whether any row can come out other than it came in."""
        return self._last > 0

    def row(self, body: bytes) -> bytes:
        """Give the body of a DataRow as the client gets it.

        Raises:
            BrokenMessageError: it is none, or has another number of columns than the result.
        """
        if len(body) < _COUNT.size or _COUNT.unpack_from(body)[0] != self._count:
            raise BrokenMessageError
        if not self._last or (self._seeks_only and self._seeker is not None and not self._seeker.may_hold(body)):
            return body
        return self._rebuilt(body)

    def _rebuilt(self, body: bytes) -> bytes:
        parts: list[bytes] = []
        at, kept = _COUNT.size, 0
        unpack = _LENGTH.unpack_from
        size = len(body)
        replacers = self._replacers
        looked = self._looked if self._seeker is not None and self._seeker.may_hold(body) else self._counted
        for index in range(self._last):
            if at + 4 > size:
                raise BrokenMessageError
            length: int = unpack(body, at)[0]
            end = at + 4 + max(length, 0)
            if end > size:
                raise BrokenMessageError
            replace = replacers[index]
            if length >= 0:
                if replace is not None:
                    value = replace(body[at + 4 : end])
                    self.masked[self._rules[index]] += 1
                    parts.append(body[kept:at])
                    parts.append(_NULL if value is None else _LENGTH.pack(len(value)) + value)
                    kept = end
                elif looked[index]:
                    shown = body[at + 4 : end]
                    found = self._seek(shown, index)
                    if found is not shown:
                        parts.append(body[kept:at])
                        parts.append(_NULL if found is None else _LENGTH.pack(len(found)) + found)
                        kept = end
            at = end
        parts.append(body[kept:])
        return b"".join(parts)

    def _seek(self, value: bytes, index: int) -> bytes | None:
        assert self._seeker is not None
        return self._seeker.replaced(value, self._fields[index], self.masked)
