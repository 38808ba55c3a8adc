"""MySQL: bytes in, events out."""

from __future__ import annotations

import struct

import pytest

from capd.decoders.message import Message
from capd.decoders.mysql import MysqlDecoder
from tests.decoders import mysql_bytes as my
from tests.decoders.feeding import REQUEST, RESPONSE, Arrival, all_ways, check_spans, feed, outline

HELLO: list[Arrival] = [(RESPONSE, my.greeting())]
OPEN: list[Arrival] = [*HELLO, (REQUEST, my.login()), (RESPONSE, my.ok(2))]
GREETED = "< Handshake 0 5.5.5-10.11.6-MariaDB, connection 7"
LOGGED_IN = "> HandshakeResponse 0 user=u database=d"
OPENED = [GREETED, LOGGED_IN, "< OK 0"]
ROWS = ["< ColumnDefinitions 1 a varchar", "< EOF 1", "< Row 1", "< EOF 1"]


def said(*turns: bytes, base: list[Arrival] = OPEN) -> list[Arrival]:
    """Client and server in turn, after the opening."""
    return [*base, *((REQUEST if index % 2 == 0 else RESPONSE, data) for index, data in enumerate(turns))]


def opened(capabilities: int) -> list[Arrival]:
    """An opening in which both can something more."""
    both = my.BASE | capabilities
    return [(RESPONSE, my.greeting(both)), (REQUEST, my.login(both)), (RESPONSE, my.ok(2))]


SWITCH = my.packet(2, b"\xfecaching_sha2_password\0" + my.SCRAMBLE + b"\0")
TRACKED = b"\0" + my.piece(
    b"\0"
    + my.piece(my.piece("character_set_client") + my.piece("latin1"))
    + b"\1"
    + my.piece(my.piece("other"))
    + b"\2"
    + my.piece(b"\x011")
)
ATTRIBUTES = b"\1\1\0\1\x08\0" + my.piece("n") + struct.pack("<q", 5)

G, L, K = len(my.greeting()), len(my.login()), len(my.ok(2))

CONVERSATIONS: dict[str, tuple[list[Arrival], list[str]]] = {
    "opening": (OPEN, OPENED),
    "opening with attributes": (
        [*HELLO, (REQUEST, my.login(my.BASE | my.ATTRS, attributes=my.piece(my.piece("_os") + my.piece("Linux"))))],
        OPENED[:2],
    ),
    "encryption": (
        [*HELLO, (REQUEST, my.ssl_request()), (REQUEST, my.login(sequence=2)), (RESPONSE, my.ok(3))],
        [GREETED, "> SSLRequest 0", LOGGED_IN, "< OK 0"],
    ),
    "TLS that nobody opened": (
        [*HELLO, (REQUEST, my.ssl_request()), (REQUEST, b"\x16\x03\x01\x02\0\1"), (RESPONSE, b"\x16\x03\x03\0\x7a\2")],
        [
            *[GREETED, "> SSLRequest 0", "> ! 36: a TLS record where a packet must be"],
            *[
                "> ~ 36..42: after a protocol error: a TLS record where a packet must be",
                f"< ! {G}: a TLS record where a packet must be",
            ],
            f"< ~ {G}..{G + 6}: after a protocol error: a TLS record where a packet must be",
        ],
    ),
    "refused at once": (
        [(RESPONSE, my.packet(0, b"\xff\x10\x04Too many connections"))],
        ["< ERR 0 1040: Too many connections"],
    ),
    "wrong password": (
        [*OPEN[:2], (RESPONSE, my.err(2, 1045, "28000", "Access denied"))],
        [*OPENED[:2], "< ERR 0 1045 (28000): Access denied"],
    ),
    "another way to authenticate": (
        [
            *[*OPEN[:2], (RESPONSE, SWITCH), (REQUEST, my.packet(3, my.SECRET)), (RESPONSE, my.packet(4, b"\x01\x04"))],
            *[(REQUEST, my.packet(5, b"\2")), (RESPONSE, my.packet(6, b"\1-----BEGIN")), (REQUEST, my.packet(7, my.SECRET))],
            *[(RESPONSE, my.ok(8)), (REQUEST, my.PING)],
        ],
        [
            *[*OPENED[:2], "< AuthSwitchRequest 0 caching_sha2_password", "> AuthSwitchResponse 0"],
            *["< AuthMoreData 0 the password itself is wanted", "> AuthResponse 0", "< AuthMoreData 0", "> AuthResponse 0"],
            *["< OK 0", "> COM_PING 1"],
        ],
    ),
    "query": (said(my.query("select a"), my.result(b"x")), [*OPENED, "> COM_QUERY 1 select a", *ROWS]),
    "query without EOF": (
        said(my.query("q"), my.packet(1, b"\1") + my.column(2, "a") + my.row(3, None) + my.end(4), base=opened(my.NO_EOF)),
        [*OPENED, "> COM_QUERY 1 q", "< ColumnDefinitions 1 a varchar", "< Row 1", "< OK 1"],
    ),
    "several results": (
        said(
            my.query("q"), my.result(b"x", status=my.MORE) + my.ok(6, 2, 9, my.MORE, warnings=1) + my.err(7), my.PING, my.ok(1)
        ),
        [
            *[*OPENED, "> COM_QUERY 1 q", *ROWS, "< OK 1 2 rows affected, insert id 9, 1 warning", "< ERR 1 1064 (42000): no"],
            *["> COM_PING 2", "< OK 2"],
        ],
    ),
    "error between rows": (
        said(my.query("q"), my.packet(1, b"\1") + my.column(2, "a") + my.eof(3) + my.row(4, b"x") + my.err(5), my.PING),
        [*OPENED, "> COM_QUERY 1 q", *ROWS[:3], "< ERR 1 1064 (42000): no", "> COM_PING 2"],
    ),
    "error among columns": (
        said(my.query("q"), my.packet(1, b"\2") + my.column(2, "a") + my.err(3), my.PING),
        [
            *[*OPENED, "> COM_QUERY 1 q", "< ColumnDefinitions 1 a varchar (an error took their place)"],
            *["< ERR 1 1064 (42000): no", "> COM_PING 2"],
        ],
    ),
    "what changed in the session": (
        said(my.query("q"), my.ok(1, status=0x4002, rest=TRACKED), my.query("q"), base=opened(my.TRACK)),
        [*OPENED, "> COM_QUERY 1 q", "< OK 1 character_set_client=latin1, schema other", "> COM_QUERY 2 q"],
    ),
    "text for a person": (
        said(my.query("q"), my.ok(1, rest=my.piece("Records: 2"))),
        [*OPENED, "> COM_QUERY 1 q", "< OK 1 Records: 2"],
    ),
    "progress": (
        said(my.query("q"), my.packet(1, b"\xff\xff\xff\1\1\2\x10\x27\0" + my.piece("copying")) + my.ok(2), my.PING),
        [*OPENED, "> COM_QUERY 1 q", "< Progress 1 copying: 10.0 % of stage 1 of 2", "< OK 1", "> COM_PING 2"],
    ),
    "attributes of a query": (
        said(
            my.command(3, ATTRIBUTES + b"select 1"), my.ok(1), my.command(3, b"\0\1select 2"), base=opened(my.QUERY_ATTRIBUTES)
        ),
        [*OPENED, "> COM_QUERY 1 select 1", "< OK 1", "> COM_QUERY 2 select 2"],
    ),
    "prepared, executed twice, fetched": (
        said(
            my.prepare("select ?"),
            my.prepared(1, 5, 1, 1) + my.column(2, "?", 6, "") + my.eof(3) + my.column(4, "a", 3) + my.eof(5),
            my.execute(5, [(3, 0)], struct.pack("<i", -7)),
            my.packet(1, b"\1") + my.column(2, "a", 3) + my.eof(3) + my.binary_row(4, struct.pack("<i", -7)) + my.eof(5),
            my.execute(5, None, struct.pack("<i", 8), flags=1),
            my.packet(1, b"\1") + my.column(2, "a", 3) + my.eof(3, my.CURSOR),
            my.command(0x1C, struct.pack("<II", 5, 2)),
            my.binary_row(1, struct.pack("<i", 8)) + my.eof(2, my.CURSOR | 0x80),
            my.command(0x1A, struct.pack("<I", 5)),
            my.ok(1),
            my.command(0x19, struct.pack("<I", 5)) + my.PING,
            my.ok(1),
        ),
        [
            *[
                *OPENED,
                "> COM_STMT_PREPARE 1 select ?",
                "< COM_STMT_PREPARE_OK 1 statement 5",
                "< ParameterDefinitions 1 ? null",
            ],
            *["< EOF 1", "< ColumnDefinitions 1 a int", "< EOF 1", "> COM_STMT_EXECUTE 2 select ?"],
            *["< ColumnDefinitions 2 a int", "< EOF 2", "< Row 2", "< EOF 2", "> COM_STMT_EXECUTE 3 select ?"],
            *["< ColumnDefinitions 3 a int", "< EOF 3", "> COM_STMT_FETCH 4 select ?", "< Row 4", "< EOF 4"],
            *["> COM_STMT_RESET 5 statement 5", "< OK 5", "> COM_STMT_CLOSE 6 statement 5", "> COM_PING 7", "< OK 7"],
        ],
    ),
    "prepared without EOF": (
        said(
            my.prepare("x"),
            my.prepared(1, 5, 1, 1) + my.column(2, "?", 6, "") + my.column(3, "a", 3),
            my.prepare("y"),
            my.prepared(1, 6, 0, 0),
            base=opened(my.NO_EOF),
        ),
        [
            *[*OPENED, "> COM_STMT_PREPARE 1 x", "< COM_STMT_PREPARE_OK 1 statement 5", "< ParameterDefinitions 1 ? null"],
            *["< ColumnDefinitions 1 a int", "> COM_STMT_PREPARE 2 y", "< COM_STMT_PREPARE_OK 2 statement 6"],
        ],
    ),
    "prepared and executed at once": (
        said(
            my.prepare("select 1") + my.execute(0xFFFFFFFF, ()),
            my.prepared(1, 1, 1, 0)
            + my.column(2, "a", 3)
            + my.eof(3)
            + my.packet(1, b"\1")
            + my.column(2, "a", 3)
            + my.eof(3)
            + my.binary_row(4, struct.pack("<i", 1))
            + my.eof(5),
        ),
        [
            *[*OPENED, "> COM_STMT_PREPARE 1 select 1", "> COM_STMT_EXECUTE 2 select 1"],
            *["< COM_STMT_PREPARE_OK 1 statement 1", "< ColumnDefinitions 1 a int", "< EOF 1"],
            *["< ColumnDefinitions 2 a int", "< EOF 2", "< Row 2", "< EOF 2"],
        ],
    ),
    "columns that are not told again": (
        said(
            my.prepare("select 1"),
            my.prepared(1, 1, 1, 0) + my.column(2, "a", 3),
            my.execute(1, ()),
            my.packet(1, b"\1\0") + my.binary_row(2, struct.pack("<i", 1)) + my.end(3),
            base=[
                (RESPONSE, my.greeting((my.BASE | my.NO_EOF | my.CACHE_METADATA) & ~1)),
                (REQUEST, my.login((my.BASE | my.NO_EOF | my.CACHE_METADATA) & ~1)),
                (RESPONSE, my.ok(2)),
            ],
        ),
        [
            *[*OPENED, "> COM_STMT_PREPARE 1 select 1", "< COM_STMT_PREPARE_OK 1 statement 1", "< ColumnDefinitions 1 a int"],
            *["> COM_STMT_EXECUTE 2 select 1", "< ColumnCount 2 1 columns", "< Row 2", "< OK 2"],
        ],
    ),
    "long data": (
        said(
            my.prepare("insert ?"),
            my.prepared(1, 5, 0, 1) + my.column(2, "?", 6, "") + my.eof(3),
            my.command(0x18, struct.pack("<IH", 5, 0) + b"part") + my.execute(5, [(252, 0)]),
            my.ok(1, 1),
        ),
        [
            *[
                *OPENED,
                "> COM_STMT_PREPARE 1 insert ?",
                "< COM_STMT_PREPARE_OK 1 statement 5",
                "< ParameterDefinitions 1 ? null",
            ],
            *["< EOF 1", "> COM_STMT_SEND_LONG_DATA 2 part", "> COM_STMT_EXECUTE 3 insert ?", "< OK 3 1 row affected"],
        ],
    ),
    "many at once": (
        said(
            my.prepare("insert ?"),
            my.prepared(1, 5, 0, 1) + my.column(2, "?", 6, "") + my.eof(3),
            my.command(0xFA, struct.pack("<IH", 5, 128) + b"\3\0\0" + struct.pack("<i", 1) + b"\1"),
            my.ok(1, 2),
        ),
        [
            *[
                *OPENED,
                "> COM_STMT_PREPARE 1 insert ?",
                "< COM_STMT_PREPARE_OK 1 statement 5",
                "< ParameterDefinitions 1 ? null",
            ],
            *["< EOF 1", "> COM_STMT_BULK_EXECUTE 2 insert ?", "< OK 2 2 rows affected"],
        ],
    ),
    "a file of the client": (
        said(
            my.query("load data"),
            my.packet(1, b"\xfb/etc/passwd"),
            my.packet(2, b"1\tone\n") + my.packet(3, b"2\ttwo\n") + my.packet(4),
            my.ok(5, 2),
            my.PING,
        ),
        [
            *[*OPENED, "> COM_QUERY 1 load data", "< LocalInfileRequest 1 /etc/passwd", "> LocalInfileData 1 1\tone"],
            *["> LocalInfileData 1 2\ttwo", "> LocalInfileData 1", "< OK 1 2 rows affected", "> COM_PING 2"],
        ],
    ),
    "another user": (
        said(my.change_user(), my.packet(1, b"\xfex\0" + my.SCRAMBLE), my.packet(2, my.SECRET), my.ok(3), my.PING, my.ok(1)),
        [
            *[*OPENED, "> COM_CHANGE_USER 1 user=v database=e", "< AuthSwitchRequest 1 x", "> AuthSwitchResponse 1", "< OK 1"],
            *["> COM_PING 2", "< OK 2"],
        ],
    ),
    "commands": (
        said(
            my.command(2, b"other"),
            my.ok(1),
            my.command(9),
            my.packet(1, b"Uptime: 5"),
            my.command(4, b"t\0%"),
            my.column(1, "a") + my.eof(2),
            my.command(0x1B, b"\0\0"),
            my.eof(1),
            my.command(0x0C, b"\7\0\0\0"),
            my.err(1, 1094, "HY000", "Unknown thread"),
            my.command(0x1F),
            my.ok(1),
            my.command(0x2A, b"?"),
            my.err(1, 1047, "08S01", "Unknown command"),
            my.QUIT,
        ),
        [
            *[*OPENED, "> COM_INIT_DB 1 other", "< OK 1", "> COM_STATISTICS 2", "< Statistics 2 Uptime: 5"],
            *[
                "> COM_FIELD_LIST 3 t %",
                "< ColumnDefinition 3 a varchar",
                "< EOF 3",
                "> COM_SET_OPTION 4 several statements on",
            ],
            *["< EOF 4", "> COM_PROCESS_KILL 5 thread 7", "< ERR 5 1094 (HY000): Unknown thread", "> COM_RESET_CONNECTION 6"],
            *["< OK 6", "> command 0x2a 7", "< ERR 7 1047 (08S01): Unknown command", "> COM_QUIT 8"],
        ],
    ),
    "replication": (
        said(
            my.command(0x12, b"\4\0\0\0\0\0\1\0\0\0bin.1"),
            my.packet(1, b"\0event") + my.packet(2, b"\0event") + my.eof(3),
            my.PING,
        ),
        [
            *[*OPENED, "> COM_BINLOG_DUMP 1 replication, which is not decoded"],
            *["< BinlogEvent 1 (replication, which is not decoded)"] * 2,
            *["< EOF 1", "> COM_PING 2"],
        ],
    ),
    "compressed": (
        said(b"\1\0\0\0\0\0\0x", b"\1\0\0\0\0\0\0y", base=opened(my.COMPRESS)),
        [
            *[*OPENED, f"> ! {L}: the compressed protocol begins here, which is not decoded"],
            f"> ~ {L}..{L + 8}: after a protocol error: the compressed protocol begins here, which is not decoded",
            f"< ! {G + K}: the compressed protocol begins here, which is not decoded",
            f"< ~ {G + K}..{G + K + 8}: after a protocol error: the compressed protocol begins here, which is not decoded",
        ],
    ),
    "unasked": (
        [*OPEN, (RESPONSE, my.err(0, 1927, "70100", "Connection was killed")), (RESPONSE, my.packet(1, b"?"))],
        [*OPENED, "< ERR None 1927 (70100): Connection was killed", "< Packet None (nothing that was seen asked for it)"],
    ),
    "out of sequence": (
        said(my.query("q"), my.ok(3), my.packet(2, b"\x0e")),
        [
            *[*OPENED, "> COM_QUERY 1 q", "< OK 1 (malformed: sequence 3 where 1 is due)"],
            "> COM_PING 2 (malformed: sequence 2 where a command must begin)",
        ],
    ),
    "malformed insides": (
        said(
            my.command(0x17, b"\1"),
            my.packet(1, b"\0"),
            my.query("q"),
            my.packet(1, b"\1") + my.packet(2, b"bad") + my.eof(3) + my.row(4, b"x") + my.eof(5),
            my.query("r"),
            my.packet(1, b"\1") + my.column(2, "a") + my.eof(3) + my.packet(4, b"\5x") + my.eof(5),
            my.packet(0),
        ),
        [
            *[*OPENED, "> COM_STMT_EXECUTE 1 (malformed: it ends early)", "< OK 1 (malformed: it ends early)"],
            *["> COM_QUERY 2 q", "< ColumnDefinitions 2 (malformed: it ends early)", "< EOF 2"],
            *["< Row 2 (the definitions of its columns were not seen)", "< EOF 2"],
            *["> COM_QUERY 3 r", "< ColumnDefinitions 3 a varchar", "< EOF 3", "< Row 3 (malformed: it ends early)", "< EOF 3"],
            "> command 4 (malformed: it is empty)",
        ],
    ),
    "not MySQL": (
        [(RESPONSE, my.packet(0, b"\x09old\0"))],
        [
            "< ! 0: not a greeting of MySQL: not of version 10",
            "< ~ 0..9: after a protocol error: not a greeting of MySQL: not of version 10",
        ],
    ),
    "before MySQL 4.1": (
        [*HELLO, (REQUEST, my.packet(1, b"\5\0\0\0\x10user\0proof"))],
        [
            *[GREETED, "> ! 0: not a HandshakeResponse: the protocol before MySQL 4.1"],
            "> ~ 0..19: after a protocol error: not a HandshakeResponse: the protocol before MySQL 4.1",
        ],
    ),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversation(name: str) -> None:
    """Messages are those of the documentation, however the bytes arrive."""
    arrivals, expected = CONVERSATIONS[name]
    seen = all_ways(MysqlDecoder, arrivals)
    assert expected == outline(seen)
    check_spans(arrivals, seen, ended=False)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_no_secrets(name: str) -> None:
    """Scrambles and proofs are in no field, no summary and no content."""
    arrivals, _ = CONVERSATIONS[name]
    messages = [event for event in feed(MysqlDecoder(), arrivals) if isinstance(event, Message)]
    for secret in (my.SCRAMBLE, my.SCRAMBLE[:8], my.SCRAMBLE[8:], my.SECRET, b"proof\x02"):
        assert [] == [one for one in messages if secret.decode("latin-1") in repr(one) or secret in one.content]


def test_places_of_proofs() -> None:
    """What authenticates is told by its place in the message, so that it can be masked."""
    arrivals = said(my.change_user())
    found: dict[str, bytes] = {}
    raw = {
        direction: b"".join(data for of, data in arrivals if of is direction and isinstance(data, bytes))
        for direction in (REQUEST, RESPONSE)
    }
    for event in feed(MysqlDecoder(), arrivals):
        assert isinstance(event, Message)
        place = event.fields.get("proof")
        if isinstance(place, list):
            start, end = (event.start + at for at in place if isinstance(at, int))
            found[event.type] = raw[event.direction][start:end]
    proof = bytes([len(my.SECRET)]) + my.SECRET
    assert {"HandshakeResponse": proof, "COM_CHANGE_USER": proof} == {
        kind: found[kind] for kind in found if kind != "Handshake"
    }
    assert found["Handshake"].startswith(my.SCRAMBLE[:8])
    assert found["Handshake"].endswith(my.SCRAMBLE[8:] + b"\0")
