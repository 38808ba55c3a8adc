"""What is masked in MySQL and MariaDB: message by message, as decoders/mysql tells them.

What lives here: scrambles and proofs of the protocol, columns of rows by name, what errors repeat. What must not: parsing of
the protocol; a message comes with its exact bytes.

A column is masked in rows, in text and binary, by the name that the statement gives it and by the one that it has in its table.
Where a statement compares it or sets it, in a literal or a value, nobody can say on the wire which column it belongs to: there,
secrets and identifiers are recognised by their form, and passwords by what stands before them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, cast

from capd.decoders.mysql.values import INTEGERS, MOMENTS, TIMES
from capd.decoders.mysql.wire import HEADER_BYTES, NULL, PACKET_BYTES_MAX, Fields, MalformedError
from capd.enforcer.masking import sql_secrets
from capd.enforcer.masking.in_messages import InMessages
from capd.enforcer.masking.place import FILLER_TEXT, Place
from capd.enforcer.masking.postgresql import UNKNOWN_COLUMNS, shown_rows
from capd.enforcer.masking.rules import Rules
from capd.enforcer.masking.scanner import Scanner
from capd.enforcer.masking.values import Value, Values, bytes_in

STATEMENTS: Final = frozenset({"COM_QUERY", "COM_STMT_PREPARE"})
_LOGINS: Final = frozenset({"Handshake", "HandshakeResponse", "COM_CHANGE_USER"})
_PROOFS: Final = frozenset({"AuthResponse", "AuthSwitchResponse", "AuthMoreData"})
_NAMED: Final = frozenset({"AuthSwitchRequest", "AuthNextFactor"})
_COMPRESSION: Final = frozenset({"COMPRESS", "ZSTD"})
_SHORT_MORE_DATA_BYTES: Final = HEADER_BYTES + 2
"""Of caching_sha2_password: two bytes, which say how it went."""
_UNREAD: Final = frozenset({"Packet", "BinlogEvent", "LocalInfileData"})
"""Messages that may hold values of any column."""
_IN_MESSAGES: Final = {"LocalInfileData": HEADER_BYTES, "COM_STMT_SEND_LONG_DATA": HEADER_BYTES + 7}
"""Messages that have a part of a text, and where in them."""
_VALUES: Final = frozenset({"COM_STMT_EXECUTE", "COM_STMT_BULK_EXECUTE"})
_ERROR_WORDS: Final = HEADER_BYTES + 9
_QUOTED: Final = re.compile(rb"'.*'", re.DOTALL)
_QUOTED_TEXT: Final = re.compile(r"'.*'", re.DOTALL)
_REPEATS: Final = frozenset(
    {1062, 1022, 1169, 1216, 1217, 1292, 1366, 1367, 1411, 1426, 1525, 1526, 1586, 1859, 3140, 3903, 4078}
)
"""Errors that repeat a value: of a key that is there already, or that does not fit its column."""
_BINARY_NUMBERS: Final = {**INTEGERS, 4: 4, 5: 8, 6: 0}
_SIZED: Final = MOMENTS | TIMES
_BITMAP_OFFSET: Final = 2


class MysqlMask:
    """Both directions of one connection."""

    dialect: Final = sql_secrets.MYSQL
    quiet: Final = frozenset({"COM_STMT_EXECUTE", "COM_STMT_BULK_EXECUTE", "COM_STMT_FETCH"})
    errors: Final = frozenset({"ERR"})

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._offered = self._compressed = False
        self._sent: InMessages | None = None
        """What goes on in several messages of a client."""
        self._sent_as: list[object] = []

    def watches(
        self,
        kind: str,
        fields: Mapping[str, object],  # noqa: ARG002  # part of the protocol
        parts: Sequence[tuple[int, bytes]],
        exchange: int | None,  # noqa: ARG002  # part of the protocol
    ) -> bool:
        """Say whether a message has to be judged though the prefilter finds nothing in it."""
        if self._rules.columns or kind in _LOGINS or kind in _PROOFS or kind in _NAMED:
            return True
        return kind in _IN_MESSAGES or (kind in STATEMENTS | self.errors and any(sql_secrets.may_hold(raw) for _, raw in parts))

    def authenticates(self, kind: str) -> bool | None:
        """Say whether a message shows that the client was let in, or (False) that it has to prove itself; None: neither."""
        if kind in {"HandshakeResponse", "COM_CHANGE_USER"}:
            return False
        return True if kind in STATEMENTS or kind == "OK" else None

    def hides(self, *, answers: bool) -> bool:
        """Say whether bytes that belong to no message are hidden; `answers`: of the server."""
        return self._compressed or (bool(self._rules.columns) and answers)

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
        if kind in _LOGINS:
            return self._login(kind, fields, raw, start, whole=whole)
        if kind in _PROOFS or kind in _NAMED:
            return self._proof(kind, raw, start, whole=whole)
        if kind in ("rows", "Row"):
            return self._rows(fields, raw, start, whole=whole)
        if kind in _UNREAD and self._rules.columns:
            return [Place(start + min(HEADER_BYTES, len(raw)) * whole, start + len(raw), "column", UNKNOWN_COLUMNS)]
        if kind in _IN_MESSAGES:
            return self._sent_on(kind, fields, raw, start, whole=whole)
        at = _behind_state(raw) if kind == "ERR" and whole else 0
        places = self._text(raw[:at], start) + self._text(raw[at:], start + at)
        if kind in _VALUES:
            places += self._by_themselves(fields.get("parameters"), raw, start)
        if kind in STATEMENTS:
            places += _passwords(fields, raw, start, whole=whole)
        elif kind == "ERR":
            places += sql_secrets.places_in_error(raw[at:], start + at, sql_secrets.MYSQL)
            if self._rules.columns:
                places += self._report(fields, raw, start, whole=whole)
        return places

    def save(self) -> list[object]:
        """Give its state as plain values."""
        return [self._offered, self._compressed, self._sent_as, None if self._sent is None else self._sent.save()]

    def restore(self, saved: Sequence[object]) -> None:
        """Take the state of one that was saved."""
        offered, compressed, sent_as, sent = cast(
            "tuple[bool, bool, list[object], Sequence[object] | None]", (*saved, [], None)[:4]
        )
        self._offered, self._compressed, self._sent_as = offered, compressed, list(sent_as)
        self._sent = None if sent is None else InMessages.restored(self._rules, sent)

    def masked_columns(self, columns: object) -> dict[int, str] | None:
        """Give the masked ones of a result by index; None when its columns are not known."""
        if not isinstance(columns, Sequence) or not columns:
            return None
        found: dict[int, str] = {}
        for index, column in enumerate(columns):
            names = (str(column.get(key)).lower() for key in ("name", "column")) if isinstance(column, Mapping) else ()
            name = next((one for one in names if one in self._rules.columns), None)
            if name is not None:
                found[index] = f"column {name}"
        return found

    def shown(self, fields: Mapping[str, Value], values: Values) -> dict[str, Value]:
        """Give the fields of a record of rows with their cells masked by the same rules."""
        return shown_rows(fields, values, self.masked_columns(fields.get("columns")) if self._rules.columns else {})

    def report(self, value: Value) -> Value:
        """Give what an error says without the values in it."""
        if isinstance(value, str):
            return _QUOTED_TEXT.sub(lambda found: "'" + FILLER_TEXT * (len(found[0]) - 2) + "'", value)
        return {name: self.report(item) for name, item in value.items()} if isinstance(value, Mapping) else value

    def _login(self, kind: str, fields: Mapping[str, object], raw: bytes, start: int, *, whole: bool) -> list[Place]:
        names = fields.get("capabilities")
        able = isinstance(names, Sequence) and not _COMPRESSION.isdisjoint(str(one) for one in names)
        if kind == "Handshake":
            self._offered = able
        elif kind == "HandshakeResponse":
            self._compressed = able and self._offered
        rule = f"message {kind}"
        match fields.get("proof"):
            case [int(begin), int(end)] if whole and 0 <= begin <= end <= len(raw):
                return [Place(start + begin, start + end, "credential", rule), *self._text(raw, start)]
        return [Place(start + min(HEADER_BYTES, len(raw)) * whole, start + len(raw), "credential", rule)]

    @staticmethod
    def _proof(kind: str, raw: bytes, start: int, *, whole: bool) -> list[Place]:
        at = HEADER_BYTES if whole else 0
        if whole and kind in _NAMED:
            at = raw.find(b"\0", HEADER_BYTES + 1) + 1 or HEADER_BYTES + 1
        elif whole and kind == "AuthMoreData" and len(raw) == _SHORT_MORE_DATA_BYTES and raw[HEADER_BYTES] == 1:
            return []
        return [Place(start + min(at, len(raw)), start + len(raw), "credential", f"message {kind}")]

    def _rows(self, fields: Mapping[str, object], raw: bytes, start: int, *, whole: bool) -> list[Place]:
        columns = fields.get("columns")
        masked = self.masked_columns(columns) if self._rules.columns else {}
        if masked is None or (masked and not whole):
            # A row that is not all there cannot be walked through.
            spans = _each(raw) if whole else [(0, len(raw))]
            return [Place(start + begin, start + end, "column", UNKNOWN_COLUMNS) for begin, end in spans]
        looks = self._rules.may_hold(raw)
        if not looks and not masked:
            return []
        if not whole or not isinstance(columns, Sequence):
            return self._text(raw, start)
        places: list[Place] = []
        for begin, end in _each(raw):
            for index, at, to in _cells(raw[begin:end], columns):
                rule = UNKNOWN_COLUMNS if index is None else masked.get(index)
                if rule is not None and masked:
                    places.append(Place(start + begin + at, start + begin + to, "column", rule))
                elif looks:
                    places += self._text(raw[begin + at : begin + to], start + begin + at)
        return places

    def _report(self, fields: Mapping[str, object], raw: bytes, start: int, *, whole: bool) -> list[Place]:
        rule = "column in an error"
        if not whole:
            return [Place(start, start + len(raw), "column", rule)]
        if fields.get("code") not in _REPEATS:
            return []
        found = _QUOTED.search(raw, HEADER_BYTES)
        return [] if found is None else [Place(start + found.start() + 1, start + found.end() - 1, "column", rule)]

    def _sent_on(self, kind: str, fields: Mapping[str, object], raw: bytes, start: int, *, whole: bool) -> list[Place]:
        """Judge what goes on from message to message: a file, or one value of a statement."""
        told = [kind, fields.get("statement"), fields.get("parameter")]
        if self._sent is None or self._sent_as != told:
            self._sent, self._sent_as = InMessages(self._rules), told
        at = min(_IN_MESSAGES[kind], len(raw)) if whole else 0
        places = self._sent.feed(raw[at:], start + at)
        if fields.get("last"):
            self._sent = None
        return places

    def _by_themselves(self, values: object, raw: bytes, start: int) -> list[Place]:
        """Look at each value by itself: the byte of its length before it may look like a letter of it."""
        if not isinstance(values, Sequence) or not self._rules.may_hold(raw):
            return []
        places: list[Place] = []
        at = 0
        for value in values:
            data = value.encode("utf-8", "replace") if isinstance(value, str) else bytes_in(value) or b""
            found = raw.find(data, at) if data else -1
            if found >= 0:
                at = found + len(data)
                places += self._text(data, start + found)
        return places

    def _text(self, data: bytes, start: int) -> list[Place]:
        return Scanner(self._rules, start).feed(data, final=True) if self._rules.may_hold(data) else []


def _behind_state(raw: bytes) -> int:
    """Give where the words of an error begin: behind its code and state, whose last digit stands beside them."""
    return _ERROR_WORDS if raw[_ERROR_WORDS - 6 : _ERROR_WORDS - 5] == b"#" else 0


def _passwords(fields: Mapping[str, object], raw: bytes, start: int, *, whole: bool) -> list[Place]:
    """Give where the passwords of a statement are."""
    begins = {HEADER_BYTES + 1} if whole else {0, HEADER_BYTES + 1}
    sql = fields.get("sql")
    if fields.get("attributes") and isinstance(sql, str):
        begins.add(max(raw.find(sql.encode("utf-8", "replace")), 0))
    return [place for at in sorted(begins) for place in sql_secrets.places(raw[at:], start + at, sql_secrets.MYSQL)]


def _each(raw: bytes) -> Iterator[tuple[int, int]]:
    """Give where the payloads of the rows of a span begin and end."""
    at = 0
    while at + HEADER_BYTES <= len(raw):
        length = int.from_bytes(raw[at : at + 3], "little")
        begin = at + HEADER_BYTES
        # What goes on in another packet is not walked through: all that is left is one row.
        at = len(raw) if length == PACKET_BYTES_MAX else min(begin + length, len(raw))
        yield begin, at


def _cells(body: bytes, columns: Sequence[object]) -> Iterator[tuple[int | None, int, int]]:
    """Give index, begin and end of the values of a row; what cannot be walked through is one of no index, up to its end."""
    codes = [column.get("code") for column in columns if isinstance(column, Mapping)]
    first = columns[0] if columns else None
    binary = isinstance(first, Mapping) and first.get("format") == "binary"
    fields = Fields(body)
    try:
        if len(body) >= PACKET_BYTES_MAX:
            raise MalformedError("it goes on in another packet")
        nulls = _null_bits(fields, len(codes)) if binary else None
        for index, code in enumerate(codes):
            if nulls is not None and nulls[index]:
                continue
            begin, end = _cell(fields, code if binary else None)
            if end > begin:
                yield index, begin, end
        fields.end()
    except MalformedError:
        yield None, fields.at, len(body)


def _null_bits(fields: Fields, count: int) -> list[bool]:
    fields.raw(1)
    raw = fields.raw((count + 7 + _BITMAP_OFFSET) // 8)
    return [bool(raw[at // 8] >> (at % 8) & 1) for at in range(_BITMAP_OFFSET, count + _BITMAP_OFFSET)]


def _cell(fields: Fields, code: object) -> tuple[int, int]:
    """Pass over a value, and give where it is; `code`: its type, None in the text protocol."""
    before = fields.at
    try:
        if isinstance(code, int) and code in _BINARY_NUMBERS:
            length = _BINARY_NUMBERS[code]
        elif code in _SIZED:
            length = fields.byte()
        elif code is None and fields.left and fields.body[fields.at] == NULL:
            fields.raw(1)
            return fields.at, fields.at
        else:
            length = fields.counted()
        begin = fields.at
        fields.raw(length)
    except MalformedError:
        fields.at = before
        raise
    return begin, fields.at
