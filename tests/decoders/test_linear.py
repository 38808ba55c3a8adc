"""Time grows with the number of bytes, not with its square, for the shapes that make parsers slow."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from capd.decoders.message import Direction, Gap
from tests.decoders import http2_bytes as h2
from tests.decoders import mysql_bytes as my
from tests.decoders import postgresql_bytes as pg
from tests.decoders import redis_bytes as rd
from tests.decoders import test_websocket as ws
from tests.decoders.conversations import DECODERS
from tests.decoders.feeding import REQUEST, RESPONSE, Arrival, drain

SMALL = 24_576
FACTOR = 4
RATIO_MAX = 2.5 * FACTOR
"""Quadratic time would be FACTOR squared; the rest is room for a busy machine."""
FAST_SECONDS = 0.01
"""Below this a ratio is noise, and nothing is slow."""
TRIES = 5
WHOLE = 1 << 30
OPEN: list[Arrival] = [(REQUEST, pg.OPENING), (RESPONSE, pg.OPENED)]
ASKED: list[Arrival] = [(REQUEST, b"GET / HTTP/1.1\r\n\r\n")]
CHUNKED: list[Arrival] = [*ASKED, (RESPONSE, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")]
COPYING: list[Arrival] = [*OPEN, (REQUEST, pg.query("copy")), (RESPONSE, pg.message("H", b"\0\0\0"))]
NO_REQUEST: list[Arrival] = [(REQUEST, Gap(length=None, reason="x"))]
NO_ANSWER: list[Arrival] = [(RESPONSE, Gap(length=None, reason="x"))]
LINES = b"HTTP/1.1 200 OK\r\n"


@dataclass(frozen=True, slots=True)
class Shape:
    """Bytes of a size for a direction, cut into steps, after what came before."""

    before: list[Arrival]
    direction: Direction
    make: Callable[[int], bytes]
    step: int = WHOLE


def again(piece: bytes) -> Callable[[int], bytes]:
    """A piece again and again."""
    return lambda size: piece * (size // len(piece))


HTTP = {
    "body": Shape([*ASKED, (RESPONSE, LINES + b"\r\n")], RESPONSE, again(b"x"), 1),
    "tiny chunks": Shape(CHUNKED, RESPONSE, again(b"1\r\nx\r\n")),
    "tiny chunks by byte": Shape(CHUNKED, RESPONSE, again(b"1\r\nx\r\n"), 1),
    "pipelined requests": Shape([], REQUEST, again(b"GET / HTTP/1.1\r\n\r\n")),
    "pipelined requests by byte": Shape([], REQUEST, again(b"GET / HTTP/1.1\r\n\r\n"), 1),
    "endless line": Shape([], REQUEST, again(b"x"), 1),
    "white space in a field": Shape([], REQUEST, lambda size: b"GET / HTTP/1.1\r\na:b" + b" " * (size // 2) + b"\x00\r\n"),
    "many fields": Shape([], RESPONSE, again(LINES + b"a:b\r\n" * 900 + b"Content-Length: 0\r\n\r\n"), 1),
    "lost among methods": Shape(NO_REQUEST, REQUEST, again(b"GET ")),
    "lost among versions": Shape(NO_REQUEST, REQUEST, again(b" HTTP/1.1\r\n")),
    "lost among versions by byte": Shape(NO_REQUEST, REQUEST, again(b" HTTP/1.1\r\n"), 1),
    "lost in a word": Shape(NO_REQUEST, REQUEST, again(b"x"), 1),
    "lost among statuses": Shape(NO_ANSWER, RESPONSE, again(b"HTTP/1.1 200 ")),
    "lost among statuses by byte": Shape(NO_ANSWER, RESPONSE, again(b"HTTP/1.1 200 "), 1),
    "lost among false heads": Shape(NO_ANSWER, RESPONSE, again(LINES + b"a:b\r\n" * 500 + b"?\r\n")),
    "lost among statuses in fields": Shape(NO_ANSWER, RESPONSE, again(LINES + b"a: HTTP/1.1 200 \r\n" * 99)),
}
H2_OPEN: list[Arrival] = [(REQUEST, h2.OPENING), (RESPONSE, h2.SETTINGS), (REQUEST, h2.headers(1, h2.literal(*h2.GET)))]
GRPC_OPEN: list[Arrival] = [*H2_OPEN, (RESPONSE, h2.headers(1, h2.literal(*h2.OK[:1], ("content-type", "application/grpc"))))]
HTTP2 = {
    "tiny DATA": Shape(H2_OPEN, REQUEST, again(h2.data(1, b"x"))),
    "tiny DATA by byte": Shape(H2_OPEN, REQUEST, again(h2.data(1, b"x")), 1),
    "padding": Shape(H2_OPEN, REQUEST, again(h2.data(1, b"x", padding=200)), 1),
    "one DATA": Shape(H2_OPEN, REQUEST, lambda size: h2.data(1, b"x" * size), 1),
    "a header block by byte": Shape(
        H2_OPEN, REQUEST, lambda size: h2.frame(1, b"\x40\1a\x7f\x80\x80\4" + b"x" * size, 4, 3), 1
    ),
    "empty parts of a header block": Shape(
        [*H2_OPEN, (REQUEST, h2.frame(1, b"", 0, 3))], REQUEST, again(h2.frame(9, b"", 0, 3)), 9
    ),
    "many fields": Shape(H2_OPEN, REQUEST, again(h2.headers(3, h2.literal(*h2.GET) + b"\x40\1a\1b" * 900, cut=2_000))),
    "new streams": Shape(H2_OPEN, REQUEST, again(h2.headers(3, h2.literal(*h2.GET), end=True) + h2.reset(3))),
    "pings": Shape(H2_OPEN, RESPONSE, again(h2.frame(6, bytes(8)))),
    "tiny messages of gRPC": Shape(GRPC_OPEN, RESPONSE, lambda size: h2.data(1, h2.grpc(b"") * (size // 5))),
    "lost among zeros": Shape(NO_REQUEST, REQUEST, again(b"\0"), 1),
    "lost among frames": Shape(NO_REQUEST, REQUEST, again(b"\0\0\x40\0\0\0\0\0\1")),
    "lost among frames by byte": Shape(NO_REQUEST, REQUEST, again(b"\0\x40\0\0\0\0\0\0\1"), 1),
    "lost among false frames": Shape(NO_REQUEST, REQUEST, again(h2.frame(6, bytes(8)) * 2 + b"\0\0\x07\6\0\0\0\0\0")),
}
WEBSOCKET = {
    "one message by byte": Shape([], REQUEST, lambda size: ws.client(1, b"x" * size), 1),
    "tiny messages": Shape([], REQUEST, again(ws.client(1, b"x"))),
    "tiny messages by byte": Shape([], REQUEST, again(ws.client(1, b"x")), 1),
    "tiny frames": Shape([(REQUEST, ws.client(1, b"", fin=False))], REQUEST, again(ws.client(0, b"x", fin=False)), 7),
    "empty frames": Shape([(RESPONSE, ws.frame(1, b"", fin=False))], RESPONSE, again(ws.frame(0, b"", fin=False))),
    "packed": Shape([], RESPONSE, again(ws.frame(1, ws.packed(b"hello" * 9)[0], bits=4))),
}
MYSQL_OPEN: list[Arrival] = [(RESPONSE, my.greeting()), (REQUEST, my.login()), (RESPONSE, my.ok(2))]
MYSQL_ASKED: list[Arrival] = [
    *MYSQL_OPEN,
    (REQUEST, my.query("q")),
    (RESPONSE, my.packet(1, b"\1") + my.column(2, "a") + my.eof(3)),
]
MYSQL = {
    "rows": Shape(MYSQL_ASKED, RESPONSE, again(my.row(4, b"1"))),
    "rows by byte": Shape(MYSQL_ASKED, RESPONSE, again(my.row(4, b"1")), 1),
    "one row by byte": Shape(MYSQL_ASKED, RESPONSE, lambda size: my.row(4, b"x" * size), 1),
    "one statement by byte": Shape(MYSQL_OPEN, REQUEST, lambda size: my.query("x" * size), 1),
    "commands": Shape(MYSQL_OPEN, REQUEST, again(my.PING)),
    "statements": Shape(MYSQL_OPEN, REQUEST, again(my.prepare("select 1"))),
    "definitions": Shape(
        [*MYSQL_OPEN, (REQUEST, my.query("q")), (RESPONSE, my.packet(1, b"\xfc\0\x0f"))], RESPONSE, again(my.column(2, "a")), 7
    ),
    "lost": Shape([*MYSQL_OPEN, *NO_ANSWER], RESPONSE, again(b"\1\0\0\1\0"), 1),
    "unasked": Shape(MYSQL_OPEN, RESPONSE, again(my.packet(1, b"x")), 1),
}
POSTGRESQL = {
    "rows": Shape(OPEN, RESPONSE, again(pg.row(b"1", None))),
    "rows by byte": Shape(OPEN, RESPONSE, again(pg.row(b"1", None)), 1),
    "one row": Shape(OPEN, RESPONSE, lambda size: pg.row(b"x" * size), 1),
    "one row in small pieces": Shape(OPEN, RESPONSE, lambda size: pg.row(b"x" * (8 * size)), 16),
    "one row that is skipped": Shape(OPEN, RESPONSE, lambda size: pg.row(b"x" * (size + 1_500_000)), 64),
    "empty columns": Shape(OPEN, RESPONSE, lambda size: pg.row(*[b""] * (size // 4))),
    "one CopyData": Shape(COPYING, RESPONSE, lambda size: pg.message("d", b"x" * size), 1),
    "fields of an error": Shape(OPEN, RESPONSE, lambda size: pg.message("E", b"Mx\0" * (size // 3) + b"\0")),
    "nothing answered": Shape(OPEN, REQUEST, again(pg.parse("s", "q") + pg.bind("", "s") + pg.execute())),
    "lost among rows": Shape(NO_ANSWER, RESPONSE, again(b"D\0\0\x20\0\1\0")),
    "lost among rows of nothing": Shape(NO_ANSWER, RESPONSE, again(b"D\0\0\x1f\xff\1\0" + b"\0" * 100)),
    "lost among rows by byte": Shape(NO_ANSWER, RESPONSE, again(b"D\0\0\x08\0\0\x20\0\0\0\0"), 1),
    "lost among errors": Shape(NO_ANSWER, RESPONSE, again(b"E\0\0\x1f\xffSERROR\0")),
    "lost among statements": Shape(NO_REQUEST, REQUEST, again(b"Q\0\0\x1f\xff")),
    "lost among zeros": Shape(NO_REQUEST, REQUEST, again(b"\0"), 1),
}
PIPELINING: list[Arrival] = [(REQUEST, rd.PING), (REQUEST, rd.PING), (RESPONSE, rd.PONG), (REQUEST, rd.PING), *NO_REQUEST]
REDIS = {
    "commands": Shape([], REQUEST, again(rd.command("SET", "k", "v"))),
    "commands by byte": Shape([], REQUEST, again(rd.command("SET", "k", "v")), 1),
    "one argument": Shape([], REQUEST, lambda size: rd.command("SET", "k", b"x" * size), 1),
    "one argument that is passed over": Shape([], REQUEST, lambda size: rd.command("SET", b"x" * (size + (17 << 20))), 4096),
    "tiny arguments": Shape([], REQUEST, lambda size: rd.command("DEL", *["k"] * (size // 7)), 7),
    "an inline command": Shape([], REQUEST, again(b"x "), 1),
    "empty lines": Shape([], REQUEST, again(b"\r\n"), 1),
    "commands without answers": Shape([], REQUEST, again(rd.command("SUBSCRIBE", "a") + rd.PING)),
    "answers": Shape([], RESPONSE, again(b":1\r\n"), 1),
    "one string": Shape([], RESPONSE, lambda size: rd.string(b"x" * size), 1),
    "one string that is passed over": Shape([], RESPONSE, lambda size: rd.string(b"x" * (size + 1_500_000)), 64),
    "an array": Shape([], RESPONSE, lambda size: rd.array(*[b":1\r\n"] * (size // 4)), 4),
    "depth": Shape([], RESPONSE, again(b"*1\r\n" * 6_000 + b":1\r\n")),
    "an endless error": Shape([], RESPONSE, again(b"-"), 1),
    "messages": Shape([(REQUEST, rd.command("SUBSCRIBE", "a")), (RESPONSE, rd.confirmed(b"subscribe", b"a", 1))], RESPONSE,
                      again(rd.published(b"a", b"m"))),
    "lost": Shape(NO_REQUEST, REQUEST, again(rd.PING), 1),
    "lost among commands": Shape(PIPELINING, REQUEST, again(b"*1\r\n$4\r\nPING")),
    "lost among commands by byte": Shape(PIPELINING, REQUEST, again(b"*64\r\n$4\r\nPING\r\n"), 1),
    "lost among arguments": Shape(PIPELINING, REQUEST, again(b"*64\r\n$4\r\nPING\r\n" + b"$0\r\n\r\n" * 62)),
}  # fmt: skip
SHAPES = {
    **{("redis", name): shape for name, shape in REDIS.items()},
    **{("http1", name): shape for name, shape in HTTP.items()},
    **{("http2", name): shape for name, shape in HTTP2.items()},
    **{("websocket", name): shape for name, shape in WEBSOCKET.items()},
    **{("mysql", name): shape for name, shape in MYSQL.items()},
    **{("postgresql", name): shape for name, shape in POSTGRESQL.items()},
}


def seconds(protocol: str, shape: Shape, size: int) -> float:
    """CPU time to decode a shape of a size."""
    decoder = DECODERS[protocol]()
    for direction, data in shape.before:
        decoder.receive(direction, data)
    drain(decoder)
    data = shape.make(size)
    parts = [data[begin : begin + shape.step] for begin in range(0, len(data), shape.step)]
    begin = time.process_time()
    for part in parts:
        decoder.receive(shape.direction, part)
        drain(decoder)
    return time.process_time() - begin


@pytest.mark.parametrize(("protocol", "name"), SHAPES)
def test_growth(protocol: str, name: str) -> None:
    """Four times the bytes take about four times as long."""
    shape = SHAPES[protocol, name]
    small = large = float("inf")
    for _ in range(TRIES):
        small = min(small, seconds(protocol, shape, SMALL))
        large = min(large, seconds(protocol, shape, SMALL * FACTOR))
        if large <= max(small * RATIO_MAX, FAST_SECONDS):
            return
    assert large <= small * RATIO_MAX, f"{small:.4f} s became {large:.4f} s"
