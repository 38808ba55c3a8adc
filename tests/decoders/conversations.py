"""Valid conversations of all protocols, for tests that cut and spoil them.

What lives here: the gathering, and ways to spoil bytes. What must not: expectations.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Final

from capd.decoders.http1 import Http1Decoder
from capd.decoders.http2 import Http2Decoder
from capd.decoders.message import Decoder, Gap
from capd.decoders.mysql import MysqlDecoder
from capd.decoders.postgresql import PostgresqlDecoder
from capd.decoders.redis import RedisDecoder
from capd.decoders.websocket import WebsocketDecoder
from tests.decoders import http2_bytes as h2
from tests.decoders import mysql_bytes as my
from tests.decoders import postgresql_bytes as pg
from tests.decoders import redis_bytes as rd
from tests.decoders import (
    test_http1,
    test_http1_gaps,
    test_http2,
    test_http2_gaps,
    test_mysql,
    test_mysql_gaps,
    test_postgresql,
    test_postgresql_gaps,
    test_redis,
    test_redis_gaps,
    test_websocket,
)
from tests.decoders.feeding import REQUEST, RESPONSE, Arrival
from tests.odd_bytes import odd_bytes

DECODERS: Final[Mapping[str, Callable[[], Decoder]]] = {
    "http1": Http1Decoder,
    "http2": Http2Decoder,
    "mysql": MysqlDecoder,
    "postgresql": PostgresqlDecoder,
    "redis": RedisDecoder,
    "websocket": lambda: WebsocketDecoder(test_websocket.PACKS),
}
VALID: Final[Mapping[str, list[list[Arrival]]]] = {
    "http1": [arrivals for arrivals, _ in (*test_http1.CONVERSATIONS.values(), *test_http1_gaps.CASES.values())],
    "http2": [
        *[arrivals for name, (arrivals, _) in test_http2.CONVERSATIONS.items() if test_http2.known(name)],
        *[arrivals for arrivals, _ in test_http2_gaps.CASES.values()],
    ],
    "websocket": [arrivals for _, arrivals, _ in test_websocket.CASES.values()],
    "redis": [arrivals for arrivals, _ in (*test_redis.CONVERSATIONS.values(), *test_redis_gaps.CASES.values())],
    "mysql": [arrivals for arrivals, _ in (*test_mysql.CONVERSATIONS.values(), *test_mysql_gaps.CASES.values())],
    "postgresql": [arrivals for arrivals, _ in (*test_postgresql.CONVERSATIONS.values(), *test_postgresql_gaps.CASES.values())],
}
TOKENS: Final[Mapping[str, list[bytes]]] = {
    "websocket": [
        *[test_websocket.client(1, b"hi"), test_websocket.frame(1, b"hi"), test_websocket.frame(0), test_websocket.client(8)],
        *[test_websocket.frame(1, test_websocket.FIRST, bits=4), test_websocket.client(0, b"x", fin=False)],
        *[test_websocket.frame(1, b"x", fin=False), test_websocket.frame(9), test_websocket.client(9, b"?"), bytes(8)],
        *[b"\x81\xfe\0\3", b"\x81\x7f\0\0\0\0", b"\xc1\5", b"\0", b"\x80", b"\xff", test_websocket.SECOND],
    ],
    "http1": [
        *[
            b"\r\n",
            b"\n",
            b"\r",
            b"\0",
            b" ",
            b"\t",
            b":",
            b"0\r\n\r\n",
            b"ffffffffffffffff\r\n",
            b"HTTP/1.1 200 ",
            b"HTTP/1.0",
        ],
        *[b"GET / HTTP/1.1\r\n", b"CONNECT a:1 HTTP/1.1\r\n\r\n", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"],
        *[
            b"Upgrade: x\r\nConnection: upgrade\r\n",
            b"HTTP/1.1 101 X\r\n\r\n",
            b"HTTP/1.1 100 C\r\n\r\n",
            b"3;a=b\r\n",
            b"\x80",
        ],
    ],
    "http2": [
        *[
            h2.SETTINGS,
            h2.ACKED,
            h2.OPENING,
            h2.data(1, b"x"),
            h2.data(1, b"", end=True),
            h2.reset(1),
            h2.goaway(1),
        ],
        *[h2.data(1, b"x", padding=2), h2.frame(9, b"\x82", 4, 1), h2.frame(1, b"\x82", 0, 1), h2.frame(6, bytes(8))],
        *[
            h2.headers(1, test_http2.GET_1),
            h2.headers(3, test_http2.OK_1, end=True),
            h2.headers(1, b"\x20" + h2.literal(*h2.OK)),
        ],
        *[
            h2.headers(1, h2.literal(*test_http2.GRPC)),
            h2.data(1, h2.grpc(b"ab")),
            h2.frame(0x50, b"abc"),
            h2.frame(8, bytes(4)),
        ],
        *[b"\0\0\0", b"\0\0\5\0\1\0\0\0\1", b"\0\0", b"\xff\xff\xff", b"\x40", b"\x80", b"\x20", b"\xbe"],
        h2.frame(5, b"\0\0\0\2" + h2.literal(*h2.GET), 4, 1),
    ],
    "redis": [
        *[
            rd.PING,
            rd.PONG,
            rd.OK,
            rd.QUEUED,
            rd.NIL,
            b"*3\r\n",
            b"$3\r\n",
            b"*1\r\n",
            b"%1\r\n",
            b"|1\r\n",
            b">2\r\n",
            b"\r\n",
        ],
        *[rd.command("MULTI"), rd.command("EXEC"), rd.command("HELLO", "3"), rd.HELLO_3, rd.HELLO_2, rd.command("AUTH", "pw")],
        *[
            rd.command("SUBSCRIBE", "a"),
            rd.confirmed(b"subscribe", b"a", 1),
            rd.published(b"a", b"m"),
            rd.published(b"a", b"m", b">"),
        ],
        *[rd.command("UNSUBSCRIBE"), rd.command("CLIENT", "REPLY", "OFF"), rd.command("CLIENT", "REPLY", "SKIP"), b"GET k\n"],
        *[
            rd.command("MONITOR"),
            rd.command("SYNC"),
            rd.command("RESET"),
            b"+RESET\r\n",
            b":1\r\n",
            b"-ERR x\r\n",
            b"$9\r\n",
            b"*-1\r\n",
        ],
    ],
    "mysql": [
        *[b"\0\0\0\0", b"\1\0\0\1\1", b"\xff\xff\xff\0", b"\5\0\0\1\xfe", b"\0", b"\xfe", b"\xff", b"\xfb", b"\1\0\0"],
        *[my.ok(1), my.eof(1), my.end(2), my.err(1), my.row(4, b"x", None), my.column(2, "a"), my.PING, my.QUIT, my.query("q")],
        *[my.prepare("p"), my.prepared(1, 5, 1, 1), my.execute(5, [(3, 0)], bytes(4)), my.execute(5, None), my.greeting()],
        *[my.login(), my.change_user(), my.ssl_request(), my.packet(1, b"\xfbf"), my.packet(2, b"data"), my.packet(3)],
        *[
            my.result(b"x"),
            my.command(0x1C, bytes(8)),
            my.command(0x19, bytes(4)),
            my.packet(1, b"\xfc\0\1"),
            test_mysql.SWITCH,
        ],
        *[my.ok(1, status=0x4002, rest=test_mysql.TRACKED), my.binary_row(4, bytes(4)), my.command(0xFA, b"\5" + bytes(9))],
    ],
    "postgresql": [
        *[b"\0\0\0\4", b"\0\0\0\5I", b"\xff\xff\xff\xff", b"\0", b"\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0\x10\0\1"],
        *[pg.ready(), pg.row(b"1", None), pg.columns(("a", 23)), pg.complete("X 1"), pg.error(), pg.SYNC, pg.query("q")],
        *[pg.parse("s", "q"), pg.bind("", "s", [b"1"]), pg.execute(), pg.describe("S", "s"), pg.message("d", b"x" * 9)],
        *[
            pg.message("G", b"\0\0\0"),
            pg.message("p", b"pw\0"),
            pg.authentication(10, b"SCRAM-SHA-256\0\0"),
            pg.SSL_REQUEST,
            b"N",
        ],
        *[pg.setting("client_encoding", "SJIS"), pg.message("H", b"\0\0\0"), pg.message("c"), pg.TERMINATE, pg.OPENING],
    ],
}


def spoil(protocol: str, chance: random.Random) -> list[Arrival]:
    """A valid conversation, or two joined, with up to eight things wrong."""
    arrivals = list(chance.choice(VALID[protocol]))
    if chance.random() < 0.3:
        arrivals += chance.choice(VALID[protocol])
    for _ in range(chance.randint(0, 8)):
        arrivals = _SPOIL[chance.randrange(len(_SPOIL))](arrivals, protocol, chance)
    return arrivals


def noise(protocol: str, chance: random.Random) -> list[Arrival]:
    """Random bytes, tokens and gaps."""
    arrivals: list[Arrival] = []
    for _ in range(chance.randint(1, 12)):
        direction = REQUEST if chance.random() < 0.5 else RESPONSE
        arrivals.append((direction, _piece(protocol, chance)))
    return arrivals


def _piece(protocol: str, chance: random.Random) -> bytes | Gap:
    kind = chance.random()
    if kind < 0.15:
        return Gap(length=chance.choice([None, 0, 1, 5, 1000]), reason="x")
    if kind < 0.7:
        return b"".join(chance.choices(TOKENS[protocol], k=chance.randint(1, 6)))
    return odd_bytes(chance)


def _edit(arrivals: list[Arrival], chance: random.Random, change: Callable[[bytes], bytes]) -> list[Arrival]:
    at = chance.randrange(len(arrivals))
    direction, data = arrivals[at]
    if isinstance(data, Gap):
        return arrivals
    return [*arrivals[:at], (direction, change(data)), *arrivals[at + 1 :]]


def _flip(arrivals: list[Arrival], _: str, chance: random.Random) -> list[Arrival]:
    def change(data: bytes) -> bytes:
        if not data:
            return data
        at = chance.randrange(len(data))
        return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]

    return _edit(arrivals, chance, change)


def _delete(arrivals: list[Arrival], _: str, chance: random.Random) -> list[Arrival]:
    def change(data: bytes) -> bytes:
        begin, end = sorted(chance.randint(0, len(data)) for _ in range(2))
        return data[:begin] + data[end:]

    return _edit(arrivals, chance, change)


def _insert(arrivals: list[Arrival], protocol: str, chance: random.Random) -> list[Arrival]:
    def change(data: bytes) -> bytes:
        at = chance.randint(0, len(data))
        return data[:at] + chance.choice(TOKENS[protocol]) + data[at:]

    return _edit(arrivals, chance, change)


def _repeat(arrivals: list[Arrival], _: str, chance: random.Random) -> list[Arrival]:
    at = chance.randrange(len(arrivals))
    return [*arrivals[:at], *[arrivals[at]] * chance.randint(1, 3), *arrivals[at + 1 :]]


def _drop(arrivals: list[Arrival], _: str, chance: random.Random) -> list[Arrival]:
    at = chance.randrange(len(arrivals))
    return arrivals if len(arrivals) == 1 else arrivals[:at] + arrivals[at + 1 :]


def _swap_direction(arrivals: list[Arrival], _: str, chance: random.Random) -> list[Arrival]:
    at = chance.randrange(len(arrivals))
    direction, data = arrivals[at]
    return [*arrivals[:at], (RESPONSE if direction is REQUEST else REQUEST, data), *arrivals[at + 1 :]]


def _break(arrivals: list[Arrival], protocol: str, chance: random.Random) -> list[Arrival]:
    """A gap, an end, or anything else, somewhere between, or in the middle of an arrival."""
    at = chance.randrange(len(arrivals))
    direction, data = arrivals[at]
    piece = b"" if chance.random() < 0.2 else _piece(protocol, chance)
    if isinstance(data, Gap):
        return [*arrivals[:at], (direction, piece), *arrivals[at:]]
    cut = chance.randint(0, len(data))
    return [*arrivals[:at], (direction, data[:cut]), (direction, piece), (direction, data[cut:]), *arrivals[at + 1 :]]


_SPOIL: Final = (_flip, _flip, _delete, _insert, _insert, _repeat, _drop, _swap_direction, _break, _break)
