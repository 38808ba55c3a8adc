"""What was said in the recordings of these tests.

What lives here: conversations. What must not: expectations.
"""

from __future__ import annotations

import gzip
import json
import struct

from hpack import Encoder

from tests.cli.recorded import REQUEST, RESPONSE, START_NS, Conversation
from tests.decoders import http2_bytes as h2
from tests.decoders import mysql_bytes as my
from tests.decoders import postgresql_bytes as pg
from tests.decoders import test_websocket as ws

ANSWER = {"id": 42, "name": "Ada", "balance": 12345678901234567890.10, "note": "\x1b]0;owned\x07 said the server", "tags": []}


def over_http() -> Conversation:
    """An HTTPS conversation: JSON both ways, an error, a chunked and packed answer, a picture."""
    said = Conversation(b"http")
    said.tls()
    body = b'{"model": "m-1", "messages": [{"role": "user", "content": "list customers"}], "n": 12345678901234567890.10}'
    said.say(
        REQUEST,
        b"POST /v1/chat HTTP/1.1\r\nHost: api.example.org\r\nAuthorization: Bearer sk-very-secret\r\nAccept: */*\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body,
    )
    packed = gzip.compress(json.dumps(ANSWER).encode(), mtime=0)
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (packed[:40], packed[40:])) + b"0\r\n\r\n"
    said.say(
        RESPONSE,
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"
        b"Set-Cookie: sid=abcdef; HttpOnly\r\n\r\n" + chunks,
        pause_ms=250,
    )
    said.say(REQUEST, b"GET /logo.png HTTP/1.1\r\nHost: api.example.org\r\n\r\n")
    picture = bytes(range(256))
    said.say(RESPONSE, b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 256\r\n\r\n" + picture)
    said.say(REQUEST, b"DELETE /v1/customers/42 HTTP/1.1\r\nHost: api.example.org\r\n\r\n")
    said.say(RESPONSE, b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 10\r\n\r\nnot yours\n")
    return said.close()


def over_http2() -> Conversation:
    """An HTTP/2 conversation: two streams at a time, JSON both ways, trailers, a reset, a call of gRPC, a promise."""
    said = Conversation(b"http2", started_ns=START_NS + 2_000_000_000)
    said.tls()
    client, server = Encoder(), Encoder()
    api = [(":scheme", "https"), (":authority", "api.example.org")]
    posted = [(":method", "POST"), *api, (":path", "/v1/chat?n=1"), ("authorization", "Bearer sk-very-secret")]
    head = h2.headers(1, h2.block(client, [*posted, ("content-type", "application/json")]))
    said.say(REQUEST, h2.OPENING + h2.frame(8, b"\0\0\xff\0") + head + h2.data(1, b'{"model": ', padding=4))
    said.say(RESPONSE, h2.settings(s3=100, s4=65_536) + h2.ACKED)
    second = h2.block(client, [(":method", "GET"), *api, (":path", "/logo.png"), ("cookie", "sid=abcdef")])
    said.say(REQUEST, h2.headers(3, second, end=True) + h2.data(1, b'"m-1"}', end=True))
    found = h2.block(server, [(":status", "200"), ("content-type", "application/json"), ("set-cookie", "sid=abcdef")])
    said.say(RESPONSE, h2.headers(1, found) + h2.data(1, b'{"id": 42, '), pause_ms=250)
    picture = h2.headers(3, h2.block(server, [(":status", "404"), ("content-type", "text/plain")]))
    said.say(RESPONSE, picture + h2.data(3, b"no logo\n", end=True) + h2.data(1, b'"name": "Ada"}'))
    said.say(RESPONSE, h2.headers(1, h2.block(server, [("x-checksum", "c0ffee")]), end=True))
    call = [(":method", "POST"), *api, (":path", "/shop.Orders/List"), ("content-type", "application/grpc")]
    said.say(REQUEST, h2.headers(5, h2.block(client, call)) + h2.data(5, h2.grpc(b"\x0a\x03ada"), end=True))
    listed = h2.headers(5, h2.block(server, [(":status", "200"), ("content-type", "application/grpc")]))
    said.say(RESPONSE, listed + h2.data(5, h2.grpc(b"\x0a\x05order") + h2.grpc(b"\x0a\x05other")))
    failed = h2.block(server, [("grpc-status", "8"), ("grpc-message", "too many")])
    said.say(RESPONSE, h2.headers(5, failed, end=True))
    said.say(REQUEST, h2.headers(7, h2.block(client, [*posted, ("content-type", "text/plain")])) + h2.data(7, b"never mi"))
    said.say(REQUEST, h2.reset(7) + h2.goaway(0))
    return said.close()


def over_websocket() -> Conversation:
    """A WebSocket conversation: its handshake, JSON both ways, scrambled and packed, a ping, binary, the end."""
    said = Conversation(b"websocket", started_ns=START_NS + 3_000_000_000)
    said.tls()
    said.say(
        REQUEST,
        b"GET /v1/realtime HTTP/1.1\r\nHost: api.example.org\r\nAuthorization: Bearer sk-very-secret\r\n"
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )
    said.say(
        RESPONSE,
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
    )
    said.say(REQUEST, ws.client(1, b'{"type": "session.update", "voice": "ada"}'))
    said.say(RESPONSE, ws.frame(1, ws.packed(b'{"type": "session.updated"}')[0], bits=4) + ws.frame(9, b"?"), pause_ms=40)
    said.say(REQUEST, ws.client(10, b"?") + ws.client(2, bytes(range(20))))
    said.say(RESPONSE, ws.frame(1, b"plain words", fin=False) + ws.frame(0, b" in two frames"))
    said.say(REQUEST, ws.client(8, b"\x03\xe8done"))
    return said.close()


def over_events() -> Conversation:
    """An answer in server-sent events, over HTTP/1.1 in chunks that cut them, and over HTTP/2."""
    said = Conversation(b"events", started_ns=START_NS + 4_000_000_000)
    said.say(REQUEST, b"GET /stream HTTP/1.1\r\nHost: api.example.org\r\n\r\n")
    events = (
        b': ping\n\nevent: delta\nid: 1\ndata: {"text": "Zo\xc3\xab"}\n\ndata: two\ndata: lines\n\ndata: [DONE]\n\ndata: cut'
    )
    chunks = [b"%x\r\n%b\r\n" % (len(events[at : at + 23]), events[at : at + 23]) for at in range(0, len(events), 23)]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
    said.say(RESPONSE, head + chunks[0])
    for chunk in chunks[1:]:
        said.say(RESPONSE, chunk, pause_ms=100)
    said.say(RESPONSE, b"0\r\n\r\n")
    return said.close()


def over_postgresql() -> Conversation:
    """A PostgreSQL conversation: simple and extended statements, NULL, an error, something lost."""
    said = Conversation(b"postgresql", port=5432, target="db.internal", started_ns=START_NS + 1_000_000_000)
    said.say(REQUEST, pg.startup(user="ann", database="shop"))
    said.say(RESPONSE, pg.authentication(0) + pg.setting("client_encoding", "UTF8") + pg.ready())
    said.say(REQUEST, pg.query("SELECT id, name, email\n  FROM customers\n ORDER BY id"))
    described = pg.columns(("id", 23), ("name", 25), ("email", 25))
    rows = (
        pg.row(b"1", b"Ada", b"ada@example.org")
        + pg.row(b"20", "Zoë 世界".encode(), None)
        + pg.row(b"3", b"NULL", b"\x1b[31mred")
    )
    said.say(RESPONSE, described + rows + pg.complete("SELECT 3") + pg.ready(), pause_ms=12)
    insert = pg.parse("s1", "INSERT INTO orders VALUES ($1, $2)", 23, 25) + pg.bind("", "s1", [b"7", None])
    said.say(REQUEST, insert + pg.execute() + pg.message("S"))
    said.say(RESPONSE, pg.message("1") + pg.message("2") + pg.complete("INSERT 0 1") + pg.ready("T"))
    said.say(REQUEST, pg.query("DROP TABLE customers"))
    said.say(RESPONSE, pg.error("42501", "must be owner of table customers") + pg.ready())
    said.lose(RESPONSE, 120331)
    said.say(REQUEST, pg.message("X"))
    return said.close("partial", ["ring full: 120331 bytes of the response"])


def over_mysql() -> Conversation:
    """A conversation with MariaDB: a query, several results, a prepared statement, an error, something lost."""
    said = Conversation(b"mysql", port=3306, target="db.internal", started_ns=START_NS + 3_000_000_000)
    said.say(RESPONSE, my.greeting())
    said.say(REQUEST, my.login(user="ann", database="shop"))
    said.say(RESPONSE, my.ok(2))
    said.say(REQUEST, my.query("SELECT id, name, email\n  FROM `customers`\n ORDER BY id"))
    columns = my.packet(1, b"\3") + my.column(2, "id", 3) + my.column(3, "name") + my.column(4, "email") + my.eof(5)
    rows = (
        my.row(6, b"1", b"Ada", b"ada@example.org")
        + my.row(7, b"20", "Zoë 世界".encode(), None)
        + my.row(8, b"3", b"NULL", b"\x1b[31mred")
    )
    said.say(RESPONSE, columns + rows + my.eof(9, my.MORE) + my.ok(10, 2), pause_ms=12)
    said.say(REQUEST, my.prepare("INSERT INTO orders VALUES (?, ?)"))
    parameters = my.column(2, "?", 253, "") + my.column(3, "?", 253, "") + my.eof(4)
    said.say(RESPONSE, my.prepared(1, 1, 0, 2) + parameters)
    said.say(REQUEST, my.execute(1, [(3, 0), (253, 0)], struct.pack("<i", 7), nulls=b"\2"))
    said.say(RESPONSE, my.ok(1, 1, 42, 3))
    said.say(REQUEST, my.query("DROP TABLE customers -- 'quietly'"))
    said.say(RESPONSE, my.err(1, 1142, "42000", "DROP command denied to user 'ann'"))
    said.say(REQUEST, my.query("LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE t"))
    said.say(RESPONSE, my.packet(1, b"\xfb/etc/passwd"))
    said.say(REQUEST, my.packet(2, b"root:x:0:0\n") + my.packet(3))
    said.say(RESPONSE, my.ok(4, 1))
    said.lose(RESPONSE, 120331)
    said.say(REQUEST, my.QUIT)
    return said.close("partial", ["ring full: 120331 bytes of the response"])


def over_terminal() -> Conversation:
    """A shell over a plain connection, with telnet's options, colours, cut characters, and what steers more than text."""
    said = Conversation(b"terminal", port=23, target="lab.example.org")
    said.say(RESPONSE, b"\xff\xfd\x18\xff\xfb\x01\r\n\x1b[1mlab\x1b[0m login: ")
    said.say(REQUEST, b"ann\r\n", pause_ms=1500)
    said.say(RESPONSE, b"\x1b]52;c;ZXZpbA==\x07\x1b[2J\x1b[Hwelcome Zo\xc3", pause_ms=20)
    said.say(RESPONSE, b"\xab\x1b[?1000h\x1b[6n\x1b[3")
    said.say(RESPONSE, b"1mred\x1b[0m\r\n\x9b2J\x1bP+q544e\x1b\\$ ")
    said.lose(RESPONSE, 9)
    said.say(REQUEST, b"exit\r\n")
    return said.close("partial", ["ring full: 9 bytes of the response"])
