"""An agent whose statements go through masking to a real PostgreSQL: what a proxy would do, without one.

What lives here: judging, asking, running, and giving what the agent gets, in every way of the protocol. What must not: cases.

libpq runs the statements; rows are put into the form of the wire before they are masked, and read from it behind.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import psycopg
from psycopg.pq import DiagnosticField, ExecStatus, Format
from psycopg.pq.abc import PGresult

from capd.enforcer.masking.rows.catalogue import Catalogue
from capd.enforcer.masking.rows.copy_form import CopyForm
from capd.enforcer.masking.rows.copy_stream import copy_mask
from capd.enforcer.masking.rows.field import Field
from capd.enforcer.masking.rows.judgement import Judged, Refused, Stale, judge
from capd.enforcer.masking.rows.known import Known, Masks, hides_columns, may_define
from capd.enforcer.masking.rows.protection import Hidden, protection
from capd.enforcer.masking.rows.replacing import Style
from capd.enforcer.masking.rows.report import hidden_report
from capd.enforcer.masking.rows.result import ResultMask
from capd.enforcer.masking.rows.seeking import Seeker
from capd.enforcer.obligations.answer import rules_of
from capd.enforcer.sql.lexeme import Dialect
from capd.enforcer.sql.message import Message, Reader
from capd.enforcer.sql.session import Session, new_session

NUMBERS = count(1)
KEY = b"a key of this host, and no other"
TELLS = {
    b"S": DiagnosticField.SEVERITY,
    b"C": DiagnosticField.SQLSTATE,
    b"M": DiagnosticField.MESSAGE_PRIMARY,
    b"D": DiagnosticField.MESSAGE_DETAIL,
    b"H": DiagnosticField.MESSAGE_HINT,
    b"q": DiagnosticField.INTERNAL_QUERY,
    b"W": DiagnosticField.CONTEXT,
    b"c": DiagnosticField.COLUMN_NAME,
    b"t": DiagnosticField.TABLE_NAME,
}
FUNCTIONS = "SELECT proname::text FROM pg_proc WHERE pronamespace <> 'pg_catalog'::regnamespace"


@dataclass
class Got:
    """What the agent gets.

    Attributes:
        refused: why it gets nothing; None: it is not refused.
        fields: columns of the result.
        rows: values as bytes.
        raw: the same as the server gave them.
        said: errors, notices and COPY data, as bytes.
        failed: the server refused it.
    """

    refused: str | None = None
    fields: tuple[Field, ...] = ()
    rows: list[tuple[bytes | None, ...]] = field(default_factory=list)
    raw: list[tuple[bytes | None, ...]] = field(default_factory=list)
    hidden: tuple[bool, ...] = ()
    said: list[bytes] = field(default_factory=list)
    failed: bool = False

    @property
    def everything(self) -> list[bytes]:
        """All bytes that reach the agent."""
        return [value for row in self.rows for value in row if value is not None] + self.said


class Agent:
    """One connection through masking."""

    def __init__(self, connection: psycopg.Connection[tuple[object, ...]], masks: Masks) -> None:
        self.pgconn = connection.pgconn
        self.masks = masks
        self.known = Known()
        self.reader = Reader()
        self.time = 0.0
        self.session = self._session()
        self.seeker = Seeker([(rule, rules_of(mask)) for rule, mask in masks])
        self.cursors: set[str] = set()
        self.notices: list[bytes] = []
        self.form: CopyForm | None = None
        self.pgconn.notice_handler = lambda result: self.notices.append(report_body(result))

    def run(self, text: str, *, extended: bool = False, binary: bool = False, parameters: Sequence[bytes] = ()) -> Got:
        """Send a statement as an agent would; `binary` and parameters are of the extended protocol."""
        said = text.encode()
        sql = self.reader.read(said, self.session)
        judged = self._judged(sql, said)
        self.notices.clear()
        if isinstance(judged, Refused):
            return Got(refused=judged.reason)
        name = f"agent{next(NUMBERS)}".encode()
        self.copied: tuple[tuple[Field, ...], tuple[Hidden | None, ...]] | None = None
        got = self._described(judged, name, extended=extended, text=said)
        if got is None:
            got = self._ran(judged, said, name, extended=extended, binary=binary, parameters=parameters)
        if may_define(sql):
            self.known.forget()
        if not got.failed:
            for done in sql.statements:
                self.session = self.session.after(done, succeeded=True)
            if judged.declares:
                self.cursors.add(judged.declares)
        return got

    def _session(self) -> Session:
        told = self._ask("SELECT unnest(current_schemas(false))")
        session = new_session(Dialect.POSTGRESQL).told_schemas(tuple(str(row[0], "utf-8") for row in told if row[0]))
        return session.told_functions(str(row[0], "utf-8") for row in self._ask(FUNCTIONS) if row[0])

    def _ask(self, question: str) -> list[tuple[bytes | None, ...]]:
        result = self.pgconn.exec_(question.encode())
        assert result.status == ExecStatus.TUPLES_OK, result.error_message
        return rows_of(result)

    def _judged(self, sql: Message, said: bytes) -> Judged | Refused:
        if not hides_columns(self.masks):
            nothing = protection(Catalogue(stamp=""), self.masks)
            return judge(sql, said, self.session, nothing, cursors=frozenset(self.cursors), seeks=bool(self.seeker))
        while (question := self.known.question(self.masks, self.time)) is not None:
            self.known.answered(self._ask(question), self.time)
        return judge(
            sql, said, self.session, self.known.protection(self.masks), cursors=frozenset(self.cursors), seeks=bool(self.seeker)
        )

    def _described(self, judged: Judged, name: bytes, *, extended: bool, text: bytes) -> Got | None:
        """Have the server describe it first; give what the agent gets if that is all."""
        if judged.describe is None and not extended:
            return None
        asked = text if extended and judged.describe is None else (judged.describe or "").encode()
        result = self.pgconn.prepare(name, asked)
        if result.status == ExecStatus.FATAL_ERROR:
            return Got(failed=True, said=[report_body(result)])
        if judged.describe is None:
            return None
        described = self.pgconn.describe_prepared(name)
        settled = judged.settle(fields_of(described))
        if not isinstance(settled, tuple):
            return Got(refused=settled.reason if isinstance(settled, Refused) else "stale")
        if judged.copies is not None:
            binary = int(judged.copies.format == "binary")
            self.copied = (tuple(replace(one, format=binary) for one in fields_of(described)), settled)
            if extended:
                self.pgconn.prepare(name + b"c", text)
        return None

    def _ran(
        self,
        judged: Judged,
        said: bytes,
        name: bytes,
        *,
        extended: bool,
        binary: bool,
        parameters: Sequence[bytes],
    ) -> Got:
        if extended:
            if judged.copies is not None and judged.describe is not None:
                name += b"c"
            if judged.declares:
                name = f"declare{next(NUMBERS)}".encode()
                self.pgconn.prepare(name, said)
            result = self.pgconn.exec_prepared(name, parameters, result_format=Format.BINARY if binary else Format.TEXT)
        else:
            result = self.pgconn.exec_(said)
        if result.status == ExecStatus.COPY_OUT:
            return self._copied(judged, result)
        if result.status == ExecStatus.FATAL_ERROR:
            body = report_body(result)
            if judged.touches or judged.changes:
                body = hidden_report(body, details_only=not judged.touches)
            return Got(failed=True, said=[body, *self._noticed(judged)])
        fields = fields_of(result)
        settled = judged.settle(fields)
        if isinstance(settled, Stale):
            return Got(refused="stale")
        if isinstance(settled, Refused):
            return Got(refused=settled.reason)
        mask = ResultMask(fields, settled, Style(key=KEY), self.seeker or None)
        raw = rows_of(result)
        rows = [unpacked(mask.row(packed(row))) for row in raw]
        hidden = tuple(one is not None for one in settled)
        return Got(fields=fields, rows=rows, raw=raw, hidden=hidden, said=self._noticed(judged))

    def _noticed(self, judged: Judged) -> list[bytes]:
        return [hidden_report(one) if judged.touches else one for one in self.notices]

    def _copied(self, judged: Judged, result: PGresult) -> Got:
        assert result.status == ExecStatus.COPY_OUT
        got = Got()
        fields, hidden = self.copied or (None, None)
        mask = None
        self.form = judged.copies
        if judged.copies is not None:
            mask = copy_mask(judged.copies, fields, hidden, Style(key=KEY), self.seeker or None)
        else:
            assert not judged.touches
        while True:
            length, data = self.pgconn.get_copy_data(0)
            if length < 0:
                break
            got.raw.append((bytes(data),))
            got.said.append(bytes(data) if mask is None else mask.feed(bytes(data)))
        if mask is not None:
            mask.end()
        while self.pgconn.get_result() is not None:
            pass
        return got


def fields_of(result: PGresult) -> tuple[Field, ...]:
    """Give the columns of a result as RowDescription tells them."""
    return tuple(
        Field(
            name=result.fname(index) or b"",
            table=result.ftable(index),
            column=result.ftablecol(index),
            type=result.ftype(index),
            modifier=result.fmod(index),
            format=result.fformat(index),
        )
        for index in range(result.nfields)
    )


def rows_of(result: PGresult) -> list[tuple[bytes | None, ...]]:
    """Give the values of a result."""
    columns = range(result.nfields)
    return [tuple(result.get_value(row, column) for column in columns) for row in range(result.ntuples)]


def packed(row: Sequence[bytes | None]) -> bytes:
    """Give the body of a DataRow."""
    parts = [struct.pack(">H", len(row))]
    parts += [struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value for value in row]
    return b"".join(parts)


def unpacked(body: bytes) -> tuple[bytes | None, ...]:
    """Read the body of a DataRow to its end."""
    (number,) = struct.unpack_from(">H", body)
    at = 2
    found: list[bytes | None] = []
    for _ in range(number):
        (length,) = struct.unpack_from(">i", body, at)
        at += 4
        found.append(None if length < 0 else body[at : at + length])
        at += max(length, 0)
    assert at == len(body)
    return tuple(found)


def report_body(result: PGresult) -> bytes:
    """Give the body of an error or notice."""
    found = [(kind, result.error_field(number)) for kind, number in TELLS.items()]
    return b"".join(kind + value + b"\0" for kind, value in found if value is not None) + b"\0"
