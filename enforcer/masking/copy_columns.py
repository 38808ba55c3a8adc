"""Columns in COPY data: which of them a statement moves, and where their values are as the rows go by.

What lives here: reading the statement's column list and options, text and CSV. What must not: PostgreSQL's messages.

Only what the statement says counts: without a column list, or with a query, nobody on the wire knows which column is
where. Then, as with binary rows, everything is masked while there are rules for columns. A row may be cut anywhere: a
client does not care.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Final, cast

from capd.enforcer.masking.place import Place

_NAME: Final = r"(?:[\w$]+|\"(?:[^\"]|\"\")+\")"
_STATEMENT: Final = re.compile(
    rf"\A\s*copy\s+{_NAME}(?:\.{_NAME})?\s*(?:\((?P<columns>[^()]*)\))?\s*(?:from|to)\s+std(?:in|out)(?P<options>.*)\Z",
    re.IGNORECASE | re.DOTALL,
)
_DELIMITER: Final = re.compile(r"delimiters?\s+(?:as\s+)?e?'(?P<delimiter>\\?.)'", re.IGNORECASE | re.DOTALL)
_ODD: Final = re.compile(r"\b(?:quote|escape|binary)\b", re.IGNORECASE)
ALL: Final = "column of COPY data"


class CopyMask:
    """The rows of one COPY."""

    def __init__(self, statement: str, columns: Collection[str], *, binary: bool) -> None:
        """Begin.

        Args:
            statement: what started it.
            columns: names that are masked, in lower case.
            binary: whether the rows come in the binary format.
        """
        self._statement, self._binary = statement, binary
        self._masked: dict[int, str] | None = None
        self._index = 0
        self._quoted = False
        self._escaped = False
        read = _STATEMENT.match(statement)
        if read is None or read["columns"] is None or binary or _ODD.search(read["options"]):
            return
        names = [name.strip().strip('"').lower() for name in read["columns"].split(",")]
        self._masked = {index: name for index, name in enumerate(names) if name in columns}
        self._csv = re.search(r"\bcsv\b", read["options"], re.IGNORECASE) is not None
        given = _DELIMITER.search(read["options"])
        delimiter = given["delimiter"] if given else "," if self._csv else "\t"
        self._delimiter = "\t" if delimiter == "\\t" else delimiter
        mark = re.escape(self._delimiter.encode())
        # One alternative for each byte that means something; everything else passes in between.
        self._marks = re.compile(rb"\"|\n|" + mark) if self._csv else re.compile(rb"\\(?:.|\Z)|\n|" + mark, re.DOTALL)

    @property
    def masks(self) -> bool:
        """Whether anything of the rows is masked."""
        return self._masked is None or bool(self._masked)

    def feed(self, data: bytes, start: int) -> list[Place]:
        """Take the next piece of the rows, at an offset; give what is masked of it."""
        if self._masked is None:
            return [Place(start, start + len(data), "column", ALL)] if data else []
        places: list[Place] = []
        at = begin = 0
        if self._escaped:
            self._escaped, at = False, 1
        for mark in self._marks.finditer(data, at):
            found = mark[0]
            if found == b'"':
                self._quoted = not self._quoted
                continue
            if found[:1] == b"\\" and found[:1] != self._delimiter.encode():
                self._escaped = len(found) == 1
                continue
            if self._quoted:
                continue
            self._value(begin, mark.start(), start, places)
            begin = mark.end()
            self._index = 0 if found == b"\n" else self._index + 1
        self._value(begin, len(data), start, places)
        return places

    def save(self) -> list[object]:
        """Give its state as plain values."""
        return [self._statement, self._binary, self._masked is None, self._index, self._quoted, self._escaped]

    @classmethod
    def restored(cls, columns: Collection[str], saved: Sequence[object]) -> CopyMask:
        """Give one as it was saved."""
        statement, binary, lost, index, quoted, escaped = cast("tuple[str, bool, bool, int, bool, bool]", tuple(saved))
        copy = cls(statement, columns, binary=binary)
        if lost:
            copy._masked = None
        copy._index, copy._quoted, copy._escaped = index, quoted, escaped
        return copy

    def lose(self) -> None:
        """Bytes are missing: from here on nobody knows which column it is."""
        if self.masks:
            self._masked = None

    def _value(self, begin: int, end: int, start: int, places: list[Place]) -> None:
        name = (self._masked or {}).get(self._index)
        if name is not None and end > begin:
            places.append(Place(start + begin, start + end, "column", f"column {name}"))
