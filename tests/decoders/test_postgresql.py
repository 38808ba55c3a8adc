"""PostgreSQL: bytes in, events out."""

from __future__ import annotations

import struct

import pytest

from capd.decoders.message import Message
from capd.decoders.postgresql import PostgresqlDecoder
from tests.decoders import postgresql_bytes as pg
from tests.decoders.feeding import REQUEST, RESPONSE, Arrival, all_ways, check_spans, feed, outline

OPEN: list[Arrival] = [(REQUEST, pg.OPENING), (RESPONSE, pg.OPENED)]
OPENED = ["> StartupMessage 0 user=u database=d", "< AuthenticationOk 0", "< ReadyForQuery 0 idle"]


def said(*turns: bytes) -> list[Arrival]:
    """Client and server in turn, after the startup."""
    return [*OPEN, *((REQUEST if index % 2 == 0 else RESPONSE, data) for index, data in enumerate(turns))]


CONVERSATIONS: dict[str, tuple[list[Arrival], list[str]]] = {
    "encryption": (
        [
            *[(REQUEST, pg.GSSENC_REQUEST), (RESPONSE, b"N"), (REQUEST, pg.SSL_REQUEST), (RESPONSE, b"S")],
            *OPEN,
        ],
        ["> GSSENCRequest 0", "< GSSENCResponse 0 refused", "> SSLRequest 0", "< SSLResponse 0 accepted", *OPENED],
    ),
    "encryption refused by an error": (
        [(REQUEST, pg.SSL_REQUEST), (RESPONSE, pg.error("0A000", "unsupported", severity="FATAL"))],
        ["> SSLRequest 0", "< ErrorResponse None FATAL 0A000: unsupported"],
    ),
    "cancel": ([(REQUEST, pg.packet(80877102, struct.pack(">II", 7, 99)))], ["> CancelRequest 0 cancel process 7"]),
    "protocol negotiation": (
        [(REQUEST, pg.OPENING), (RESPONSE, pg.message("v", struct.pack(">II", 0, 1) + b"_pq_.x\0") + pg.OPENED)],
        [OPENED[0], "< NegotiateProtocolVersion 0 protocol 3.0", *OPENED[1:]],
    ),
    "settings and key": (
        [
            *[(REQUEST, pg.OPENING), (RESPONSE, pg.authentication(0) + pg.setting("TimeZone", "UTC"))],
            (RESPONSE, pg.message("K", struct.pack(">II", 7, 99)) + pg.ready()),
        ],
        [*OPENED[:2], "< ParameterStatus 0 TimeZone=UTC", "< BackendKeyData 0 process 7", OPENED[2]],
    ),
    "simple query": (
        said(pg.query("select 1"), pg.columns(("a", 23)) + pg.row(b"1") + pg.complete("SELECT 1") + pg.ready()),
        [
            *[*OPENED, "> Query 1 select 1", "< RowDescription 1 a int4", "< DataRow 1", "< CommandComplete 1 SELECT 1"],
            "< ReadyForQuery 1 idle",
        ],
    ),
    "several statements in a query": (
        said(
            pg.query("select 1;;begin"),
            pg.columns(("a", 23)) + pg.complete("SELECT 0") + pg.EMPTY + pg.complete("BEGIN") + pg.ready("T"),
        ),
        [
            *[*OPENED, "> Query 1 select 1;;begin", "< RowDescription 1 a int4", "< CommandComplete 1 SELECT 0"],
            *["< EmptyQueryResponse 1", "< CommandComplete 1 BEGIN", "< ReadyForQuery 1 in transaction"],
        ],
    ),
    "error and notice": (
        said(pg.query("x"), pg.error("01000", "careful", "N", "WARNING") + pg.error() + pg.ready("E"), pg.query("y")),
        [
            *[*OPENED, "> Query 1 x", "< NoticeResponse 1 WARNING 01000: careful", "< ErrorResponse 1 ERROR 42601: no"],
            *["< ReadyForQuery 1 failed transaction", "> Query 2 y"],
        ],
    ),
    "out of turn": (
        said(
            b"", pg.message("A", struct.pack(">I", 7) + b"ch\0hello\0") + pg.setting("a", "b") + pg.error("57P01", "shutdown")
        ),
        [
            *OPENED,
            "< NotificationResponse None ch: hello",
            "< ParameterStatus None a=b",
            "< ErrorResponse None ERROR 57P01: shutdown",
        ],
    ),
    "extended query": (
        said(
            pg.parse("", "select $1", 23) + pg.bind("", "", [b"5"]) + pg.describe("P") + pg.execute() + pg.SYNC,
            pg.PARSED + pg.BOUND + pg.columns(("a", 23)) + pg.row(b"5") + pg.complete("SELECT 1") + pg.ready(),
        ),
        [
            *[*OPENED, "> Parse 1 select $1", "> Bind 1 select $1", "> Describe 1 portal", "> Execute 1 select $1", "> Sync 1"],
            *[
                "< ParseComplete 1",
                "< BindComplete 1",
                "< RowDescription 1 a int4",
                "< DataRow 1",
                "< CommandComplete 1 SELECT 1",
            ],
            "< ReadyForQuery 1 idle",
        ],
    ),
    "prepared, then executed twice": (
        said(
            pg.parse("s", "q") + pg.describe("S", "s") + pg.SYNC,
            pg.PARSED + pg.message("t", b"\0\1\0\0\0\x17") + pg.NO_DATA + pg.ready(),
            pg.bind("", "s") + pg.execute() + pg.bind("", "s") + pg.execute() + pg.message("C", b"Ss\0") + pg.SYNC,
            pg.BOUND + pg.complete("A") + pg.BOUND + pg.complete("B") + pg.CLOSED + pg.ready(),
        ),
        [
            *[*OPENED, "> Parse 1 q", "> Describe 1 statement s", "> Sync 1"],
            *["< ParseComplete 1", "< ParameterDescription 1 int4", "< NoData 1", "< ReadyForQuery 1 idle"],
            *["> Bind 2 q", "> Execute 2 q", "> Bind 3 q", "> Execute 3 q", "> Close 3 statement s", "> Sync 3"],
            *["< BindComplete 2", "< CommandComplete 2 A", "< BindComplete 3", "< CommandComplete 3 B", "< CloseComplete 3"],
            "< ReadyForQuery 3 idle",
        ],
    ),
    "pipeline with an error": (
        said(
            pg.parse("", "a")
            + pg.bind("", "")
            + pg.execute()
            + pg.parse("", "b")
            + pg.bind("", "")
            + pg.execute()
            + pg.SYNC
            + pg.parse("", "c")
            + pg.SYNC,
            pg.PARSED + pg.error() + pg.ready() + pg.PARSED + pg.ready(),
        ),
        [
            *[*OPENED, "> Parse 1 a", "> Bind 1 a", "> Execute 1 a", "> Parse 2 b", "> Bind 2 b", "> Execute 2 b", "> Sync 2"],
            *["> Parse 3 c", "> Sync 3", "< ParseComplete 1", "< ErrorResponse 1 ERROR 42601: no", "< ReadyForQuery 2 idle"],
            *["< ParseComplete 3", "< ReadyForQuery 3 idle"],
        ],
    ),
    "error before the Sync": (
        said(pg.parse("", "a") + pg.FLUSH, pg.error(), pg.parse("", "b") + pg.SYNC, pg.ready(), pg.query("c"), pg.ready()),
        [
            *[*OPENED, "> Parse 1 a", "> Flush 1", "< ErrorResponse 1 ERROR 42601: no", "> Parse 2 b", "> Sync 2"],
            *["< ReadyForQuery 2 idle", "> Query 3 c", "< ReadyForQuery 3 idle"],
        ],
    ),
    "statement that is discarded after an error": (
        said(
            pg.parse("", "a") + pg.FLUSH,
            pg.error(),
            pg.query("b") + pg.SYNC,
            pg.ready(),
            pg.query("c"),
            pg.EMPTY + pg.ready(),
        ),
        [
            *[*OPENED, "> Parse 1 a", "> Flush 1", "< ErrorResponse 1 ERROR 42601: no", "> Query 2 b", "> Sync 2"],
            *["< ReadyForQuery 2 idle", "> Query 3 c", "< EmptyQueryResponse 3", "< ReadyForQuery 3 idle"],
        ],
    ),
    "portal in parts": (
        said(
            pg.parse("", "a") + pg.bind("p", "") + pg.execute("p", 1) + pg.FLUSH,
            pg.PARSED + pg.BOUND + pg.row(b"1") + pg.SUSPENDED,
            pg.execute("p", 1) + pg.SYNC,
            pg.row(b"2") + pg.complete("SELECT 1") + pg.ready(),
        ),
        [
            *[*OPENED, "> Parse 1 a", "> Bind 1 a", "> Execute 1 a", "> Flush 1"],
            *["< ParseComplete 1", "< BindComplete 1", "< DataRow 1", "< PortalSuspended 1", "> Execute 1 a", "> Sync 1"],
            *["< DataRow 1", "< CommandComplete 1 SELECT 1", "< ReadyForQuery 1 idle"],
        ],
    ),
    "COPY out": (
        said(
            pg.query("copy t to stdout"),
            pg.message("H", b"\0" + pg.codes(0))
            + pg.message("d", b"1\n")
            + pg.message("c")
            + pg.complete("COPY 1")
            + pg.ready(),
        ),
        [
            *[*OPENED, "> Query 1 copy t to stdout", "< CopyOutResponse 1 text", "< CopyData 1 1\n".rstrip(), "< CopyDone 1"],
            *["< CommandComplete 1 COPY 1", "< ReadyForQuery 1 idle"],
        ],
    ),
    "COPY in": (
        said(
            pg.query("copy t from stdin"),
            pg.message("G", b"\1" + pg.codes(1)),
            pg.message("d", b"12") + pg.message("c"),
            pg.complete("COPY 1") + pg.ready(),
        ),
        [
            *[*OPENED, "> Query 1 copy t from stdin", "< CopyInResponse 1 binary", "> CopyData 1 12", "> CopyDone 1"],
            *["< CommandComplete 1 COPY 1", "< ReadyForQuery 1 idle"],
        ],
    ),
    "COPY in, extended": (
        said(
            pg.parse("", "copy") + pg.bind("", "") + pg.execute() + pg.SYNC,
            pg.PARSED + pg.BOUND + pg.message("G", b"\0" + pg.codes(0)),
            pg.message("d", b"1") + pg.message("c") + pg.SYNC,
            pg.complete("COPY 1") + pg.ready(),
            pg.query("next"),
            pg.ready(),
        ),
        [
            *[*OPENED, "> Parse 1 copy", "> Bind 1 copy", "> Execute 1 copy", "> Sync 1"],
            *["< ParseComplete 1", "< BindComplete 1", "< CopyInResponse 1 text", "> CopyData 1 1", "> CopyDone 1", "> Sync 1"],
            *["< CommandComplete 1 COPY 1", "< ReadyForQuery 1 idle", "> Query 2 next", "< ReadyForQuery 2 idle"],
        ],
    ),
    "COPY failed by the client": (
        said(pg.query("copy"), pg.message("G", b"\0" + pg.codes()), pg.message("f", b"why\0"), pg.error() + pg.ready()),
        [
            *[*OPENED, "> Query 1 copy", "< CopyInResponse 1 text", "> CopyFail 1 why", "< ErrorResponse 1 ERROR 42601: no"],
            "< ReadyForQuery 1 idle",
        ],
    ),
    "replication": (
        said(pg.query("START_REPLICATION"), pg.message("W", b"\0" + pg.codes()) + pg.message("d", b"w"), pg.message("d", b"r")),
        [*OPENED, "> Query 1 START_REPLICATION", "< CopyBothResponse 1 text", "< CopyData 1 w", "> CopyData 1 r"],
    ),
    "function call": (
        said(
            pg.message("F", struct.pack(">I", 42) + pg.codes(0) + pg.cells([b"x"]) + b"\0\0"),
            pg.message("V", struct.pack(">I", 1) + b"y") + pg.ready(),
        ),
        [*OPENED, "> FunctionCall 1 function 42", "< FunctionCallResponse 1", "< ReadyForQuery 1 idle"],
    ),
    "end": (said(pg.TERMINATE, b""), [*OPENED, "> Terminate None"]),
    "cut by the end": (
        [*said(pg.query("select 1")[:-3]), (REQUEST, b"")],
        [*OPENED, "> Query 1 select (the direction ended inside it)"],
    ),
    "header cut by the end": (
        [*said(pg.query("select 1")[:3]), (REQUEST, b"")],
        [*OPENED, "> ~ 27..30: cut off: the direction ended inside a message"],
    ),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversation(name: str) -> None:
    """A conversation gives its messages, however its bytes are cut."""
    arrivals, expected = CONVERSATIONS[name]
    seen = all_ways(PostgresqlDecoder, arrivals)
    assert expected == outline(seen)
    check_spans(arrivals, seen)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_trailing_data(name: str) -> None:
    """What follows a conversation in the same bytes changes nothing of it."""
    arrivals, expected = CONVERSATIONS[name]
    direction, last = arrivals[-1]
    if last:
        assert isinstance(last, bytes)
        seen = feed(PostgresqlDecoder(), [*arrivals[:-1], (direction, last + b"\x00")])
        assert expected == outline(seen)[: len(expected)]


BROKEN: dict[str, tuple[list[Arrival], str]] = {
    "TLS": ([(REQUEST, b"\x16\x03\x01")], "> ! 0: a TLS record where a startup packet must be"),
    "HTTP": ([(REQUEST, b"GET / HTTP/1.1")], "> ! 0: something else where a startup packet must be"),
    "short startup": ([(REQUEST, struct.pack(">II", 7, 196608))], "> ! 0: startup packet with a length of 7"),
    "long startup": ([(REQUEST, struct.pack(">II", 10_001, 196608))], "> ! 0: startup packet with a length of 10001"),
    "protocol 2": ([(REQUEST, pg.packet(0x20000, b"x" * 10))], "> ! 0: startup packet: protocol version 2.0"),
    "startup without end": ([(REQUEST, pg.packet(196608, b"user\0u\0"))], "> ! 0: startup packet: a string has no end"),
    "bytes in an encryption request": (
        [(REQUEST, pg.packet(80877103, b"x"))],
        "> ! 0: startup packet: bytes behind an encryption request",
    ),
    "answer to an encryption request": (
        [(REQUEST, pg.SSL_REQUEST), (RESPONSE, b"X")],
        "< ! 0: neither yes nor no to an encryption request",
    ),
    "unknown client message": (said(b"y\0\0\0\4"), "> ! 27: unknown message type 'y'"),
    "unknown server message": (said(b"", b"\x16\3"), "< ! 15: unknown message type 0x16"),
    "length below itself": (said(b"Q\0\0\0\3"), "> ! 27: Query with a length of 3"),
    "length above the limit": (said(b"Q\x40\0\0\0"), "> ! 27: Query with a length of 1073741824"),
    "Sync with an inside": (said(pg.message("S", b"x")), "> ! 27: Sync with a length of 5"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_framing(name: str) -> None:
    """Where the next message begins is unknown after broken framing: an error with its place, and the rest is skipped."""
    arrivals, expected = BROKEN[name]
    seen = all_ways(PostgresqlDecoder, arrivals)
    lines = outline(seen)
    assert expected in lines
    assert all(line[2] == "~" for line in lines[lines.index(expected) + 1 :])
    check_spans(arrivals, seen)


MALFORMED = {
    "no NUL": (pg.message("Q", b"select"), "a string has no end"),
    "text behind the NUL": (pg.message("Q", b"a\0b"), "1 bytes too many"),
    "Parse without types": (pg.message("P", b"\0a\0\0\1"), "it ends early"),
    "Bind with a wrong count": (pg.message("B", b"\0\0\0\0\0\2\0\0\0\1x\0\0"), "it ends early"),
    "Bind with a negative length": (pg.message("B", b"\0\0\0\0\0\1\xff\xff\xff\xfe\0\0"), "it ends early"),
    "Bind with a format of 2": (pg.message("B", b"\0\0\0\1\0\2\0\0\0\0"), "a format code that is neither text nor binary"),
    "Describe of nothing": (pg.message("D", b"X\0"), "neither a statement nor a portal"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_inside(name: str) -> None:
    """A message whose inside does not add up is given as incomplete, and the next one is read."""
    data, reason = MALFORMED[name]
    arrivals = said(data + pg.query("next"))
    seen = all_ways(PostgresqlDecoder, arrivals)
    bad, following = seen[-2:]
    assert isinstance(bad, Message)
    assert isinstance(following, Message)
    assert f"malformed: {reason}" == bad.incomplete
    assert ("Query", "next") == (following.type, following.summary)


MALFORMED_ANSWERS = {
    "row that ends early": (pg.message("D", b"\0\2\0\0\0\1x"), "it ends early"),
    "row with bytes too many": (pg.message("D", b"\0\1\0\0\0\1xy"), "lengths of its values do not add up"),
    "row with a value beyond its end": (pg.message("D", b"\0\1\0\0\0\x09xy"), "lengths of its values do not add up"),
    "row with a negative length": (pg.message("D", b"\0\1\x80\0\0\0"), "a negative length"),
    "columns that end early": (pg.message("T", b"\0\1a\0\0\0"), "it ends early"),
    "column with a format of 2": (pg.columns(("a", 23), formats=[2]), "a format code that is neither text nor binary"),
    "error without end": (pg.message("E", b"SERROR\0"), "it ends early"),
    "unknown status": (pg.ready("X"), "an unknown transaction status"),
}


@pytest.mark.parametrize("name", MALFORMED_ANSWERS)
def test_malformed_answer(name: str) -> None:
    """The same for the server's messages."""
    data, reason = MALFORMED_ANSWERS[name]
    seen = all_ways(PostgresqlDecoder, said(pg.query("q"), data + pg.ready()))
    bad, following = seen[-2:]
    assert isinstance(bad, Message)
    assert isinstance(following, Message)
    assert f"malformed: {reason}" == bad.incomplete
    assert "ReadyForQuery" == following.type
