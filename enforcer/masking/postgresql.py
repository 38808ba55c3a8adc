"""What is masked in PostgreSQL: message by message, as decoders/postgresql tells them.

What lives here: passwords and keys of the protocol, columns of rows and of COPY by name, what errors repeat. What must not:
parsing of the protocol; a message comes with its exact bytes.

A column is masked in rows, in text and binary. Where a statement compares it or sets it, in a literal or a parameter,
nobody can say on the wire which column a value belongs to: there, secrets and identifiers are recognised by their form,
and nothing else.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from typing import Final, cast

from capd.enforcer.masking import sql_secrets
from capd.enforcer.masking.copy_columns import CopyMask
from capd.enforcer.masking.in_messages import InMessages
from capd.enforcer.masking.place import FILLER_TEXT, Place
from capd.enforcer.masking.rules import Rules
from capd.enforcer.masking.scanner import Scanner
from capd.enforcer.masking.values import Value, Values, bytes_in, hidden

HEADER_BYTES: Final = 5
_LENGTHS: Final = struct.Struct(">I")
_COUNT: Final = struct.Struct(">H")
_VALUE: Final = struct.Struct(">i")
CREDENTIALS: Final = {
    "PasswordMessage": HEADER_BYTES,
    "SASLResponse": HEADER_BYTES,
    "GSSResponse": HEADER_BYTES,
    "AuthenticationMD5Password": 9,
    "AuthenticationGSSContinue": 9,
    "AuthenticationSASLContinue": 9,
    "AuthenticationSASLFinal": 9,
    "BackendKeyData": 9,
    "CancelRequest": 12,
}
"""Messages that authenticate, and where in them what does so begins. A SCRAM exchange holds no password, but enough to try
some."""
_MECHANISM: Final = re.compile(rb".{5}[A-Z0-9\-]{1,32}\x00", re.DOTALL)
STATEMENTS: Final = frozenset({"Query", "Parse"})
UNKNOWN_COLUMNS: Final = "column, names lost"
_FAILING_ROW_TEXT: Final = re.compile(r"(?i)(?:failing row contains|key) \(")
_FAILING_ROW: Final = re.compile(rb"(?i)(?:failing row contains|key) \(")


class PostgresqlMask:
    """Both directions of one connection."""

    dialect: Final = sql_secrets.POSTGRESQL
    quiet: Final = frozenset({"Bind", "Execute", "Describe", "Close"})
    errors: Final = frozenset({"ErrorResponse", "NoticeResponse"})

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._copy: CopyMask | None = None
        self._copied_in: InMessages | None = None
        """What a client copies to the server, which it cuts where it likes; a server sends rows."""
        self._statement = ""

    def watches(
        self,
        kind: str,
        fields: Mapping[str, object],  # noqa: ARG002  # part of the protocol
        parts: Sequence[tuple[int, bytes]],
        exchange: int | None,  # noqa: ARG002  # part of the protocol
    ) -> bool:
        """Say whether a message has to be judged though the prefilter finds nothing in it."""
        if self._rules.columns or kind in CREDENTIALS or kind in {"SASLInitialResponse", "StartupMessage"}:
            return True
        if kind == "CopyData" and self._copied_in is not None:
            return self._copied_in.open or not (parts and parts[-1][1].endswith(b"\n"))
        return kind in STATEMENTS | self.errors and any(sql_secrets.may_hold(raw) for _, raw in parts)

    def authenticates(self, kind: str) -> bool | None:
        """Say whether a message shows that the client was let in, or (False) that it has to prove itself; None: neither."""
        return True if kind in {"ReadyForQuery", "AuthenticationOk", *STATEMENTS} else None

    def hides(self, *, answers: bool) -> bool:
        """Say whether bytes that belong to no message are hidden; `answers`: of the server."""
        return bool(self._rules.columns) and answers

    def record(self, body: Mapping[str, Value], values: Values, *, touched: bool) -> None:  # part of the protocol
        """Nothing but rows, errors and texts is masked."""

    def message(
        self,
        kind: str,
        fields: Mapping[str, object],
        raw: bytes,
        start: int,
        *,
        whole: bool = True,
        exchange: int | None = None,  # noqa: ARG002  # part of the protocol
    ) -> list[Place]:
        """Judge a message.

        Args:
            kind: its type, or `rows`.
            fields: as decoded, or of the record.
            raw: its bytes, of several rows all; of one with a hole what is there.
            start: offset of the first of them.
            whole: whether they are all.
            exchange: not asked.
        """
        credential = CREDENTIALS.get(kind)
        if credential is not None:
            at = min(credential, len(raw))
            return [Place(start + at, start + len(raw), "credential", f"message {kind}")]
        if kind == "SASLInitialResponse":
            named = _MECHANISM.match(raw)
            at = named.end() if named else min(HEADER_BYTES, len(raw))
            return [Place(start + at, start + len(raw), "credential", f"message {kind}")]
        if kind in ("rows", "DataRow"):
            return self._rows(fields, raw, start, whole=whole)
        if kind == "CopyData":
            return self._copied(fields, raw, start, whole=whole)
        places = self._text(raw, start)
        if kind in STATEMENTS:
            self._statement = str(fields.get("sql") or "")
            places += _passwords(kind, raw, start, whole=whole)
        elif kind in ("CopyInResponse", "CopyOutResponse", "CopyBothResponse"):
            self._begin_copy(fields)
            self._copied_in = InMessages(self._rules) if kind == "CopyInResponse" else None
        elif kind in ("CopyDone", "CopyFail", "CommandComplete", "ReadyForQuery"):
            self._copy = self._copied_in = None
        elif kind in self.errors:
            places += _repeated(raw, start)
            rule = "column in an error"
            if self._rules.columns:
                places += self._report(raw, start) if whole else [Place(start, start + len(raw), "column", rule)]
        elif kind == "StartupMessage":
            places += self._parameters(raw, start)
        return places

    def save(self) -> list[object]:
        """Give its state as plain values."""
        copied_in = None if self._copied_in is None else self._copied_in.save()
        return [self._statement if self._rules.columns else "", None if self._copy is None else self._copy.save(), copied_in]

    def restore(self, saved: Sequence[object]) -> None:
        """Take the state of one that was saved."""
        statement, copy, copied_in = cast("tuple[str, Sequence[object] | None, Sequence[object] | None]", (*saved, None)[:3])
        self._statement = statement
        self._copied_in = None if copied_in is None else InMessages.restored(self._rules, copied_in)
        self._copy = None if copy is None else CopyMask.restored(self._rules.columns, copy)

    def masked_columns(self, columns: object) -> dict[int, str] | None:
        """Give the masked ones of a result by index; None when its columns are not known."""
        if not isinstance(columns, Sequence) or not columns:
            return None
        found: dict[int, str] = {}
        for index, column in enumerate(columns):
            name = str(column.get("name")).lower() if isinstance(column, Mapping) else ""
            if name in self._rules.columns:
                found[index] = f"column {name}"
        return found

    def shown(self, fields: Mapping[str, Value], values: Values) -> dict[str, Value]:
        """Give the fields of a record of rows with their cells masked by the same rules."""
        return shown_rows(fields, values, self.masked_columns(fields.get("columns")) if self._rules.columns else {})

    def report(self, value: Value) -> Value:
        """Give what an error says without the row or the key in it."""
        if isinstance(value, str):
            found = _FAILING_ROW_TEXT.search(value)
            return value if found is None else value[: found.end()] + FILLER_TEXT * (len(value) - found.end())
        return {name: self.report(item) for name, item in value.items()} if isinstance(value, Mapping) else value

    def _rows(self, fields: Mapping[str, object], raw: bytes, start: int, *, whole: bool) -> list[Place]:
        masked = self.masked_columns(fields.get("columns")) if self._rules.columns else {}
        if self._rules.columns and not whole:
            # A row that is not all there cannot be walked through.
            return (
                [Place(start, start + len(raw), "column", UNKNOWN_COLUMNS)]
                if masked is None or masked
                else self._text(raw, start)
            )
        if not whole:
            return self._text(raw, start)
        looks = self._rules.may_hold(raw)
        places: list[Place] = []
        for row_start, row_end in _each(raw):
            at = row_start + HEADER_BYTES
            for index, begin, end in _cells(raw, row_start, row_end):
                at = end
                rule = UNKNOWN_COLUMNS if masked is None else masked.get(index)
                if rule is not None:
                    places.append(Place(start + begin, start + end, "column", rule))
                elif looks:
                    places += self._text(raw[begin:end], start + begin)
            rest = raw[at:row_end]
            if len(rest) > _VALUE.size and (masked is None or masked):
                # What is left of a row whose values do not add up.
                places.append(Place(start + at, start + row_end, "column", UNKNOWN_COLUMNS))
            elif looks:
                places += self._text(rest, start + at)
        return places

    def _copied(self, fields: Mapping[str, object], raw: bytes, start: int, *, whole: bool) -> list[Place]:
        header = 0 if fields.get("offset") else HEADER_BYTES
        text = self._text if self._copied_in is None else self._copied_in.feed
        places = text(raw[header:], start + header)
        if self._rules.columns and self._copy is None:
            self._copy = CopyMask("", self._rules.columns, binary=True)
        if self._copy is not None and self._copy.masks:
            if not whole:
                self._copy.lose()
            places = [*self._copy.feed(raw[header:], start + header), *places]
        return places

    def _begin_copy(self, fields: Mapping[str, object]) -> None:
        if self._rules.columns:
            self._copy = CopyMask(self._statement, self._rules.columns, binary=fields.get("format") != "text")

    def _report(self, raw: bytes, start: int) -> list[Place]:
        """Errors repeat values: the detail of a broken constraint has those of the row, or of the key."""
        places: list[Place] = []
        at = HEADER_BYTES
        while at < len(raw) and raw[at]:
            end = raw.find(b"\0", at)
            end = len(raw) if end < 0 else end
            found = _FAILING_ROW.search(raw, at + 1, end)
            if found is not None:
                places.append(Place(start + found.end(), start + end, "column", "column in an error"))
            at = end + 1
        return places

    def _parameters(self, raw: bytes, start: int) -> list[Place]:
        places: list[Place] = []
        at = 8
        while at < len(raw) and raw[at]:
            name_end = raw.find(b"\0", at)
            end = raw.find(b"\0", name_end + 1) if name_end >= 0 else -1
            if end < 0:
                break
            name = raw[at:name_end].decode("latin-1")
            if self._rules.is_key(name):
                places.append(Place(start + name_end + 1, start + end, "credential", "key of the startup message"))
            at = end + 1
        return places

    def _text(self, data: bytes, start: int) -> list[Place]:
        return Scanner(self._rules, start).feed(data, final=True) if self._rules.may_hold(data) else []


def _passwords(kind: str, raw: bytes, start: int, *, whole: bool) -> list[Place]:
    """Give where the passwords of a statement are."""
    if not whole:  # nobody knows whether the header is there, which may have a quote in it
        both = (sql_secrets.places(raw[at:], start + at, sql_secrets.POSTGRESQL) for at in (0, HEADER_BYTES))
        return [place for one in both for place in one]
    at = HEADER_BYTES if kind == "Query" else raw.find(b"\0", HEADER_BYTES) + 1  # behind the name
    at = at if at > 0 else HEADER_BYTES
    end = raw.find(b"\0", at)
    return sql_secrets.places(raw[at : end if end >= 0 else len(raw)], start + at, sql_secrets.POSTGRESQL)


def _repeated(raw: bytes, start: int) -> list[Place]:
    """Give where the passwords of a statement are that an error repeats, in one of its fields or in parts of it."""
    places: list[Place] = []
    at = 0
    for field in raw.split(b"\0"):
        places += sql_secrets.places_in_error(field, start + at, sql_secrets.POSTGRESQL)
        places += sql_secrets.places_in_error(field[1:], start + at + 1, sql_secrets.POSTGRESQL)  # behind its type
        at += len(field) + 1
    return places


def _each(raw: bytes) -> list[tuple[int, int]]:
    """Give where the rows of a span begin and end; what stands between them is not touched."""
    rows: list[tuple[int, int]] = []
    at = 0
    while at + HEADER_BYTES <= len(raw):
        end = min(at + 1 + _LENGTHS.unpack_from(raw, at + 1)[0], len(raw))
        if end <= at + 1:
            break
        if raw[at] == ord("D"):
            rows.append((at, end))
        at = end
    return rows


def _cells(raw: bytes, start: int, end: int) -> list[tuple[int, int, int]]:
    """Give index, begin and end of the values of a row that are there; one that is cut off ends with the row."""
    cells: list[tuple[int, int, int]] = []
    at = start + HEADER_BYTES
    if at + _COUNT.size > end:
        return cells
    (count,) = _COUNT.unpack_from(raw, at)
    at += _COUNT.size
    for index in range(count):
        if at + _VALUE.size > end:
            break
        (length,) = _VALUE.unpack_from(raw, at)
        at += _VALUE.size
        if length > 0:
            cells.append((index, at, min(at + length, end)))
            at += length
    return cells


def shown_rows(fields: Mapping[str, Value], values: Values, masked: Mapping[int, str] | None) -> dict[str, Value]:
    """Give the fields of a record of rows with cells masked.

    Args:
        fields: of the record.
        values: masks what is recognised by its form.
        masked: which columns are hidden; None: all, because they are not known.
    """
    rows = fields.get("rows")
    shown: list[Value] = []
    for row in rows if isinstance(rows, Sequence) else ():
        cells = row if isinstance(row, Sequence) else ()
        shown.append(
            [_hidden(cell) if masked is None or index in masked else values.value(cell) for index, cell in enumerate(cells)]
        )
    return {**fields, "rows": shown}


def _hidden(cell: Value) -> Value:
    return cell if isinstance(cell, Mapping) and bytes_in(cell) is None else hidden(cell)
