"""What PostgreSQL messages carry: values, columns, errors; and what they never carry: secrets."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import pytest

from capd.decoders.message import JsonValue, Message
from capd.decoders.postgresql import PostgresqlDecoder
from capd.decoders.postgresql.catalogue import KEPT_BYTES_MAX, STATEMENTS_MAX, Catalogue
from capd.decoders.postgresql.values import row_prefix, type_name
from tests.decoders import postgresql_bytes as pg
from tests.decoders.feeding import REQUEST, RESPONSE, Arrival, feed

OPEN: list[Arrival] = [(REQUEST, pg.OPENING), (RESPONSE, pg.OPENED)]
BINARY = {"binary": "31"}


def said(*turns: bytes) -> list[Arrival]:
    """Client and server in turn, after the startup."""
    return [*OPEN, *((REQUEST if index % 2 == 0 else RESPONSE, data) for index, data in enumerate(turns))]


def fields_of(arrivals: list[Arrival], kind: str) -> list[Mapping[str, JsonValue]]:
    """The fields of all messages of a type."""
    return [event.fields for event in feed(PostgresqlDecoder(), arrivals) if isinstance(event, Message) and event.type == kind]


def rows_of(arrivals: list[Arrival]) -> list[JsonValue]:
    """The values of all rows."""
    return [fields["values"] for fields in fields_of(arrivals, "DataRow")]


@pytest.mark.parametrize(
    ("value", "encoding", "expected"),
    [
        (b"1", "UTF8", "1"),
        (b"", "UTF8", ""),
        (None, "UTF8", None),
        ("é漢".encode(), "UTF8", "é漢"),
        (b"\xe9", "UTF8", {"binary": "e9"}),
        (b"\xe9", "LATIN1", "é"),
        (b"\x80", "WIN1252", "€"),
        (b"\xe9", "MULE_INTERNAL", {"binary": "e9"}),
        (b"a\0b", "UTF8", "a\0b"),
    ],
)
def test_text_value(value: bytes | None, encoding: str, expected: JsonValue) -> None:
    """Text is read in the client's encoding; what is not text there is given as bytes, NULL as None."""
    answer = pg.setting("client_encoding", encoding) + pg.columns(("a", 25), ("b", 25)) + pg.row(value, b"x")
    assert [[expected, "x"]] == rows_of(said(pg.query("q"), answer))


@pytest.mark.parametrize(
    ("formats", "expected"),
    [
        ((), ["1", "1"]),
        ((0,), ["1", "1"]),
        ((1,), [BINARY, BINARY]),
        ((0, 1), ["1", BINARY]),
        ((1, 0), [BINARY, "1"]),
    ],
)
def test_result_formats(formats: tuple[int, ...], expected: list[JsonValue]) -> None:
    """Rows are read by the format codes of the Bind that asked for them."""
    asked = pg.parse("", "q") + pg.bind("", "", results=pg.codes(*formats)) + pg.execute() + pg.SYNC
    assert [expected] == rows_of(said(asked, pg.PARSED + pg.BOUND + pg.row(b"1", b"1") + pg.complete("SELECT 1") + pg.ready()))


def test_formats_of_a_binary_cursor() -> None:
    """Rows of a simple query are read by the format codes of its RowDescription."""
    answer = pg.columns(("a", 23), ("b", 25), formats=[1, 0]) + pg.row(b"1", b"1") + pg.complete("FETCH 1")
    assert [[BINARY, "1"]] == rows_of(said(pg.query("fetch"), answer))


@pytest.mark.parametrize(
    ("formats", "expected"),
    [(pg.codes(), ["1", None]), (pg.codes(1), [BINARY, None]), (pg.codes(0, 1), ["1", None]), (pg.codes(1, 0), [BINARY, None])],
)
def test_parameters(formats: bytes, expected: list[JsonValue]) -> None:
    """Parameters of a Bind are given by their format codes."""
    (fields,) = fields_of(said(pg.bind("p", "s", [b"1", None], formats)), "Bind")
    assert ("p", "s", expected) == (fields["portal"], fields["statement"], fields["parameters"])


def test_columns_of_a_prepared_statement() -> None:
    """Rows carry their columns also when those were described long before, for another use of a name, or in a pipeline."""
    first = pg.parse("s", "q1") + pg.describe("S", "s") + pg.SYNC
    described = pg.PARSED + pg.message("t", b"\0\0") + pg.columns(("a", 23)) + pg.ready()
    use = pg.bind("", "s") + pg.execute()
    # The name is used again while the rows of its first meaning are still due.
    pipeline = use + pg.message("C", b"Ss\0") + pg.parse("s", "q2") + pg.describe("S", "s") + use + pg.SYNC
    answers = pg.BOUND + pg.row(b"1") + pg.complete("A") + pg.CLOSED
    answers += (
        pg.PARSED + pg.message("t", b"\0\0") + pg.columns(("b", 25)) + pg.BOUND + pg.row(b"2") + pg.complete("B") + pg.ready()
    )
    rows = fields_of(said(first, described, pipeline, answers), "DataRow")
    assert [[{"name": "a", "type": "int4"}], [{"name": "b", "type": "text"}]] == [row["columns"] for row in rows]


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (pg.describe("S", "s") + pg.bind("", "s", results=pg.codes(1)) + pg.execute(), pg.columns(("a", 23)) + pg.BOUND),
        (pg.describe("P", "p") + pg.execute("p"), pg.columns(("a", 23), formats=[1])),
    ],
)
def test_prepared_before_the_capture(asked: bytes, answer: bytes) -> None:
    """A statement or portal whose begin was not seen is understood from its description."""
    arrivals = said(asked + pg.SYNC, answer + pg.row(b"1") + pg.complete("SELECT 1") + pg.ready())
    assert [{"values": [BINARY], "columns": [{"name": "a", "type": "int4"}]}] == fields_of(arrivals, "DataRow")


def test_columns_end_with_their_command() -> None:
    """A row that nobody described has no columns."""
    answer = pg.columns(("a", 23)) + pg.complete("SELECT 0") + pg.row(b"1")
    assert [None] == [row["columns"] for row in fields_of(said(pg.query("q"), answer), "DataRow")]


def test_row_description() -> None:
    """A RowDescription gives everything known of its columns."""
    (fields,) = fields_of(said(pg.query("q"), pg.columns(("a", 23), ("b", 99999), formats=[0, 1])), "RowDescription")
    unknown = {"table": 0, "attribute": 0, "size": -1, "modifier": -1}
    expected = [
        {"name": "a", "type": "int4", "oid": 23, **unknown, "format": "text"},
        {"name": "b", "type": "oid 99999", "oid": 99999, **unknown, "format": "binary"},
    ]
    assert expected == fields["columns"]


def test_error_fields() -> None:
    """An error gives all its fields by name, unknown ones by letter."""
    body = pg.strings("SERROR", "C42P01", "Mno table", "Dd", "Hh", "P15", "st", "tx", "z?") + b"\0"
    (fields,) = fields_of(said(pg.query("q"), pg.message("E", body)), "ErrorResponse")
    expected = {
        "severity": "ERROR", "code": "42P01", "message": "no table", "detail": "d", "hint": "h", "position": "15",
        "schema": "t", "table": "x", "z": "?",
    }  # fmt: skip
    assert expected == fields


SECRET = b"hunter2-s3cr3t"


@pytest.mark.parametrize(
    ("challenge", "answer", "kind"),
    [
        (pg.authentication(3), pg.message("p", SECRET + b"\0"), "PasswordMessage"),
        (pg.authentication(5, SECRET[:4]), pg.message("p", b"md5" + SECRET + b"\0"), "PasswordMessage"),
        (
            pg.authentication(10, b"SCRAM-SHA-256\0\0"),
            pg.message("p", b"SCRAM-SHA-256\0" + struct.pack(">I", len(SECRET)) + SECRET),
            "SASLInitialResponse",
        ),
        (pg.authentication(10, b"SCRAM-SHA-256\0\0"), pg.message("p", SECRET + b"\0\0\0\0\0"), "SASLInitialResponse"),
        (pg.authentication(11, SECRET), pg.message("p", SECRET), "SASLResponse"),
        (pg.authentication(12, SECRET), pg.message("p", SECRET), "PasswordMessage"),
        (pg.authentication(7), pg.message("p", SECRET), "GSSResponse"),
        (pg.authentication(8, SECRET), pg.message("p", SECRET), "GSSResponse"),
        (b"", pg.message("p", SECRET * 100_000), "PasswordMessage"),
    ],
)
def test_secrets(challenge: bytes, answer: bytes, kind: str) -> None:
    """No password and no SASL or GSS payload is in any message."""
    arrivals: list[Arrival] = [(REQUEST, pg.OPENING), (RESPONSE, challenge or pg.authentication(0)), (REQUEST, answer)]
    messages = [event for event in feed(PostgresqlDecoder(), arrivals) if isinstance(event, Message)]
    assert kind == messages[-1].type
    assert all(SECRET.decode() not in repr(message) for message in messages)
    assert all(SECRET[:4].decode() not in repr(message) for message in messages)


def test_mechanism() -> None:
    """The name of a known SASL mechanism is given."""
    opening: list[Arrival] = [(REQUEST, pg.OPENING), (RESPONSE, pg.authentication(10, b"SCRAM-SHA-256\0\0"))]
    arrivals = [*opening, (REQUEST, pg.message("p", b"SCRAM-SHA-256\0\0\0\0\0"))]
    assert [{"mechanism": "SCRAM-SHA-256"}] == fields_of(arrivals, "SASLInitialResponse")
    assert [{"code": 10, "mechanisms": ["SCRAM-SHA-256"]}] == fields_of(arrivals, "AuthenticationSASL")


def test_cancel_keys() -> None:
    """The key that cancels a session is in no message, on neither side."""
    key = 0x5EC2E7
    arrivals: list[Arrival] = [(REQUEST, pg.OPENING), (RESPONSE, pg.message("K", struct.pack(">II", 7, key)))]
    cancel: list[Arrival] = [(REQUEST, pg.packet(80877102, struct.pack(">II", 7, key)))]
    assert [{"process": 7}] == fields_of(arrivals, "BackendKeyData")
    assert [{"process": 7}] == fields_of(cancel, "CancelRequest")


def test_startup_parameters() -> None:
    """The startup gives user, database and all other parameters."""
    (fields,) = fields_of(OPEN, "StartupMessage")
    assert {"protocol": "3.0", "parameters": {"user": "u", "database": "d"}} == fields


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        (b"", []),
        (b"\0", []),
        (b"\0\2\0\0\0\1a\0\0", ["a"]),
        (b"\0\2\0\0\0\1a\0\0\1\0bcd", ["a", {"omitted": 256}]),
        (b"\0\2\xff\xff\xff\xff\xff\xff\xff\xfe", [None]),
    ],
)
def test_row_prefix(prefix: bytes, expected: list[JsonValue]) -> None:
    """The first part of a row gives its whole values and the length of the one that is cut."""
    assert expected == row_prefix(prefix, b"", "utf-8")


def test_type_names() -> None:
    """Types that are the same everywhere have names, others their number."""
    assert ["int4", "timestamptz", "oid 16999"] == [type_name(oid) for oid in (23, 1184, 16999)]


def test_catalogue_is_bounded() -> None:
    """However many statements are prepared, and however long they are, what is remembered stays within its limits."""
    catalogue = Catalogue()
    statements = [catalogue.parse(f"s{index}", "x" * 100_000) for index in range(3 * STATEMENTS_MAX)]
    remembered = [statement for statement in statements if statement.sql is not None]
    assert 0 < 4 * 100_000 * len(remembered) <= KEPT_BYTES_MAX
    assert statements[-1] is catalogue.statement(f"s{3 * STATEMENTS_MAX - 1}")
    assert statements[0] is not catalogue.statement("s0")
