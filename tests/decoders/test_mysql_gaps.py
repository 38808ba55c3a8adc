"""MySQL with bytes missing, and with messages too long to hold."""

from __future__ import annotations

import struct

import pytest

from capd.decoders.message import Gap, Message
from capd.decoders.mysql import MysqlDecoder
from capd.decoders.mysql.answers import DUE_MAX
from capd.decoders.mysql.wire import PACKET_BYTES_MAX, PREFIX_BYTES, ROW_BYTES_MAX
from tests.decoders import mysql_bytes as my
from tests.decoders.feeding import REQUEST, RESPONSE, Arrival, all_ways, check_spans, feed, outline
from tests.decoders.test_mysql import GREETED, HELLO, LOGGED_IN, OPEN, OPENED

LOST = Gap(length=4, reason="ring full")
UNKNOWN = Gap(length=None, reason="ring full")
BEHIND = "no packet boundary known after 4 bytes lost: ring full"
BEHIND_UNKNOWN = "no packet boundary known after bytes lost: ring full"
WHY = "4 bytes lost: ring full"
SELECT = my.query("select 1")
LONGER = my.query("select 1 from t")
ASKED = "> COM_QUERY 1 select 1"
COLUMNS = my.packet(1, b"\1") + my.column(2, "a") + my.eof(3)
DEFINED = ["< ColumnDefinitions 1 a varchar", "< EOF 1"]
ROWS = COLUMNS + my.row(4, b"abcdefgh") + my.row(5, b"second") + my.eof(6)
IN_ROW = len(COLUMNS) + 4 + 3
G, L, K = len(my.greeting()), len(my.login()), len(my.ok(2))
AT = G + K

MIDDLE: list[Arrival] = [(REQUEST, UNKNOWN), (RESPONSE, UNKNOWN), (REQUEST, b"abc"), (RESPONSE, b"defg")]

CASES: dict[str, tuple[list[Arrival], list[str]]] = {
    "inside a row": (
        [*OPEN, (REQUEST, SELECT), (RESPONSE, ROWS[:IN_ROW]), (RESPONSE, LOST), (RESPONSE, ROWS[IN_ROW + 4 :])],
        [*OPENED, ASKED, *DEFINED, f"< Row 1 ({WHY})", "< Row 1", "< EOF 1"],
    ),
    "over the end of a row": (
        [
            *[*OPEN, (REQUEST, SELECT), (RESPONSE, ROWS[: IN_ROW + 4]), (RESPONSE, LOST), (RESPONSE, ROWS[IN_ROW + 8 :])],
            *[(REQUEST, my.PING), (RESPONSE, my.ok(1))],
        ],
        [
            *[*OPENED, ASKED, *DEFINED, f"< Row 1 ({WHY})", "> COM_PING 2"],
            *[f"< ~ {AT + IN_ROW + 8}..{AT + len(ROWS)}: {BEHIND}", "< OK 2"],
        ],
    ),
    "among definitions": (
        [*OPEN, (REQUEST, SELECT), (RESPONSE, ROWS[:12]), (RESPONSE, LOST), (RESPONSE, ROWS[16:])],
        [
            *[*OPENED, ASKED, f"< ColumnDefinitions 1 ({WHY})", "< EOF 1"],
            *["< Row 1 (the definitions of its columns were not seen)"] * 2,
            "< EOF 1",
        ],
    ),
    "of unknown length among definitions": (
        [*OPEN, (REQUEST, SELECT), (RESPONSE, ROWS[:12]), (RESPONSE, UNKNOWN), (REQUEST, my.PING), (RESPONSE, my.ok(1))],
        [*OPENED, ASKED, "< ColumnDefinitions 1 (bytes lost: ring full)", "> COM_PING 2", "< OK 2"],
    ),
    "the kind of an answer": (
        [*OPEN, (REQUEST, SELECT), (RESPONSE, my.ok(1)[:4]), (RESPONSE, LOST), (RESPONSE, my.ok(1)[8:]), (REQUEST, my.PING)],
        [*OPENED, ASKED, f"< Packet 1 ({WHY})", "> COM_PING 2"],
    ),
    "inside a statement": (
        [*OPEN, (REQUEST, LONGER[:9]), (REQUEST, LOST), (REQUEST, LONGER[13:]), (RESPONSE, my.ok(1)), (REQUEST, SELECT)],
        [*OPENED, f"> COM_QUERY 1 sele ({WHY})", "< OK 1", "> COM_QUERY 2 select 1"],
    ),
    "over the end of a statement": (
        [
            *[*OPEN, (REQUEST, SELECT[:-2]), (REQUEST, LOST), (REQUEST, b"tail"), (RESPONSE, my.ok(1))],
            *[(REQUEST, SELECT), (RESPONSE, my.ok(1))],
        ],
        [
            *[*OPENED, f"> COM_QUERY 1 select ({WHY})", "< OK 1"],
            *[f"> ~ {L + len(SELECT) + 2}..{L + len(SELECT) + 6}: {BEHIND}", "> COM_QUERY 2 select 1", "< OK 2"],
        ],
    ),
    "a proof": (
        [
            *HELLO,
            (REQUEST, my.login()[:50]),
            (REQUEST, LOST),
            (REQUEST, my.login()[54:]),
            (RESPONSE, my.ok(2)),
            (REQUEST, SELECT),
        ],
        [GREETED, f"> HandshakeResponse 0 ({WHY})", "< OK 0", ASKED],
    ),
    "the greeting": (
        [(RESPONSE, UNKNOWN), (REQUEST, my.login()), (RESPONSE, my.ok(2)), (REQUEST, SELECT), (RESPONSE, my.result(b"x"))],
        [LOGGED_IN, "< OK 0", ASKED, *DEFINED, "< Row 1", "< EOF 1"],
    ),
    "start in the middle": (
        [
            *[*MIDDLE, (REQUEST, SELECT)],
            *[(RESPONSE, my.result(b"x")), (REQUEST, my.prepare("p")), (RESPONSE, my.prepared(1, 1, 1, 0) + my.column(2, "a"))],
            *[(REQUEST, my.PING), (RESPONSE, my.ok(1))],
        ],
        [
            *[f"> ~ 0..3: {BEHIND_UNKNOWN}", "> COM_QUERY 1 select 1", f"< ~ 0..4: {BEHIND_UNKNOWN}", *DEFINED, "< Row 1"],
            *["< EOF 1", "> COM_STMT_PREPARE 2 p", "< COM_STMT_PREPARE_OK 2 statement 1", "< ColumnDefinitions 2 a varchar"],
            *["> COM_PING 3", "< OK 3"],
        ],
    ),
    "what does not fit is no boundary": (
        [*OPEN, (REQUEST, UNKNOWN), (RESPONSE, UNKNOWN), (REQUEST, my.packet(3, b"\x0e") + SELECT), (REQUEST, b"")],
        [*OPENED, f"> ~ {L}..{L + 5 + len(SELECT)}: {BEHIND_UNKNOWN}"],
    ),
    "a file of the client": (
        [
            *[
                *OPEN,
                (REQUEST, SELECT),
                (RESPONSE, my.packet(1, b"\xfbf")),
                (REQUEST, my.packet(2, b"abcdefgh")[:6]),
                (REQUEST, LOST),
            ],
            *[(REQUEST, b"gh" + my.packet(3)), (RESPONSE, my.ok(4)), (REQUEST, my.PING)],
        ],
        [
            *[*OPENED, ASKED, "< LocalInfileRequest 1 f", f"> LocalInfileData 1 ab ({WHY})", "> LocalInfileData 1", "< OK 1"],
            "> COM_PING 2",
        ],
    ),
    "a statement prepared unseen": (
        [
            *[*OPEN, (REQUEST, my.execute(9, [(3, 0)], struct.pack("<i", 1)))],
            *[(RESPONSE, my.packet(1, b"\1") + my.column(2, "a", 3) + my.eof(3) + my.binary_row(4, bytes(4)) + my.eof(5))],
        ],
        [
            *[*OPENED, "> COM_STMT_EXECUTE 1 (the statement was prepared unseen: its values cannot be told apart)"],
            *["< ColumnDefinitions 1 a int", "< EOF 1", "< Row 1", "< EOF 1"],
        ],
    ),
    "the end inside a row": (
        [*OPEN, (REQUEST, SELECT), (RESPONSE, ROWS[:IN_ROW]), (RESPONSE, b"")],
        [*OPENED, ASKED, *DEFINED, "< Row 1 (the direction ended inside it)"],
    ),
    "the end inside a header": (
        [*OPEN, (REQUEST, SELECT[:3]), (REQUEST, b""), (RESPONSE, b"")],
        [*OPENED, f"> ~ {L}..{L + 3}: cut off: the direction ended inside a packet"],
    ),
    "no bytes": (
        [*OPEN, (REQUEST, SELECT[:7]), (REQUEST, Gap(length=0, reason="none")), (REQUEST, SELECT[7:])],
        [*OPENED, ASKED],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_gap(name: str) -> None:
    """A gap costs what it hit, and at most the rest of that answer, is said, and positions count it."""
    arrivals, expected = CASES[name]
    seen = all_ways(MysqlDecoder, arrivals)
    assert expected == outline(seen)
    check_spans(arrivals, seen, ended=False)


def long_row(length: int) -> bytes:
    """A row of one long value."""
    return my.packet(4, b"\xfd" + struct.pack("<I", length)[:3] + b"x" * length)


def test_long_row() -> None:
    """A row that is too long to hold shows that it was there, and the next one is read."""
    length = ROW_BYTES_MAX + 1
    arrivals: list[Arrival] = [*OPEN, (REQUEST, SELECT), (RESPONSE, COLUMNS + long_row(length) + my.row(5, b"y") + my.eof(6))]
    *_, cut, short, _ = feed(MysqlDecoder(), arrivals)
    assert isinstance(cut, Message)
    assert isinstance(short, Message)
    assert [{"omitted": length}] == cut.fields["values"]
    assert cut.incomplete == f"{length + 4:,} bytes long; only the first {PREFIX_BYTES:,} are decoded"
    assert ["y"] == short.fields["values"]


@pytest.mark.parametrize("cut", [1, 4_096, PACKET_BYTES_MAX + 2])
def test_statement_of_several_packets(cut: int) -> None:
    """A statement of several packets shows its beginning, and its answer is paired with it."""
    statement = b"\x03select '" + b"x" * PACKET_BYTES_MAX + b"'"
    raw = my.packet(0, statement[:PACKET_BYTES_MAX]) + my.packet(1, statement[PACKET_BYTES_MAX:])
    whole: list[Arrival] = [*OPEN, (REQUEST, raw[:cut]), (REQUEST, raw[cut:]), (RESPONSE, my.ok(2)), (REQUEST, my.PING)]
    seen = feed(MysqlDecoder(), whole)
    check_spans(whole, seen, ended=False)
    long, answer, ping = seen[len(OPENED) :]
    assert isinstance(long, Message)
    assert long.summary == "select '" + "x" * (PREFIX_BYTES - 9)
    assert long.incomplete == f"16,777,215 or more bytes long; only the first {PREFIX_BYTES:,} are decoded"
    assert ["< OK 1", "> COM_PING 2"] == [line.partition(" (")[0] for line in outline([answer, ping])]


def test_too_many_commands() -> None:
    """A client that asks without end before it reads is not followed, and that is said."""
    arrivals: list[Arrival] = [*OPEN, (REQUEST, my.PING * (DUE_MAX + 2))]
    seen = feed(MysqlDecoder(), arrivals)
    check_spans(arrivals, seen, ended=False)
    assert f"> ! {L + 5 * DUE_MAX}: more commands before an answer than are followed" in outline(seen)
