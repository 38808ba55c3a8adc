"""Conversations made at random, with a secret whole in one of their values, and with bytes that are none of a text.

What lives here: making them, message by message, so that a secret is never cut by what a message is. What must not: what is
expected.

Values are of any length, since a byte of a length may look like a letter; half of them are no text.
"""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections.abc import Callable, Mapping
from typing import Final

from hpack import Encoder

from tests.assembly.world import REQUEST, RESPONSE
from tests.decoders import http2_bytes as h2
from tests.decoders import mysql_bytes as my
from tests.decoders import postgresql_bytes as pg
from tests.decoders import redis_bytes as rd
from tests.decoders.test_websocket import client, frame
from tests.enforcer.sockets import HANDSHAKE, SWITCHED

SECRET: Final = b"sk-ant-api09-" + b"Qz7_" * 7
Talk = list[tuple[int, bytes]]


class Maker:
    """Makes conversations by chance."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def value(self) -> bytes:
        """Give a value, mostly with the secret in it, half of them no text."""
        chance = self.chance
        if chance.random() < 0.15:
            return chance.choice([b"plain", chance.randbytes(300), b"", b"\xff"])
        if chance.random() < 0.4:
            return chance.randbytes(chance.randrange(60)) + b"\0" + SECRET + chance.choice([b"", b"\0" + chance.randbytes(40)])
        return self.text().encode()

    def text(self) -> str:
        """Give a text with the secret in it."""
        chance = self.chance
        before = chance.choice(["", " ", "note: ", "é ", "x " * chance.randrange(200)])
        return before + SECRET.decode() + chance.choice(["", " ", "!", " end" * chance.randrange(200)])

    def cut(self, data: bytes) -> list[bytes]:
        """Cut bytes into pieces of one size."""
        size = self.chance.choice([3, 7, 50, 9_000])
        return [data[at : at + size] for at in range(0, len(data), size)]

    # -- protocols -------------------------------------------------------------------------------------------------------------

    def http1(self) -> Talk:
        """Give requests and answers, or what runs behind a switch of protocols."""
        chance, line = self.chance, self.text().encode()
        if chance.random() < 0.2:
            switch: Talk = [(REQUEST, b"CONNECT a:25 HTTP/1.1\r\nHost: a:25\r\n\r\n"), (RESPONSE, b"HTTP/1.1 200 OK\r\n\r\n")]
            return switch + [(chance.randrange(2), self.text().encode() + b"\r\n") for _ in range(5)]
        asked = b"POST /?q=%b HTTP/1.1\r\nHost: a.test\r\nX-A: %b\r\n" % (SECRET, line)
        return [(REQUEST, asked + self._body()), (RESPONSE, b"HTTP/1.1 200 OK\r\nX-B: %b\r\n" % line + self._body())] * 2

    def _body(self) -> bytes:
        """Give a body of any kind, framing and coding, behind the fields that say so."""
        chance = self.chance
        said = {"user": {"ssn": self.text()}, "a": [self.text(), {"x": self.text()}]}
        body = chance.choice([json.dumps(said, ensure_ascii=False).encode(), self.value() + b" " + self.value()])
        coding = chance.choice([b"", b"gzip", b"deflate"])
        if coding:
            body = gzip.compress(body) if coding == b"gzip" else zlib.compress(body)
        head = b"Content-Encoding: %b\r\n" % coding if coding else b""
        head += chance.choice([b"Content-Type: application/json\r\n", b""])
        if chance.random() < 0.5:
            return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in self.cut(body))
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nX-T: %b\r\n\r\n" % SECRET

    def http2(self) -> Talk:
        """Give streams with bodies in frames, trailers, and words at the end."""
        chance, said, heard = self.chance, Encoder(), Encoder()
        talk: Talk = [(REQUEST, h2.OPENING), (RESPONSE, h2.SETTINGS)]
        for number in range(1, chance.choice([3, 7]), 2):
            fields = [*h2.POST, ("x-a", self.text())]
            asked = h2.headers(number, h2.block(said, fields, huffman=chance.random() < 0.5), cut=chance.choice([0, 9]))
            parts = b"".join(h2.data(number, part, padding=chance.choice([None, 3])) for part in self.cut(self.value()))
            talk.append((REQUEST, asked + parts + h2.data(number, b"", end=True)))
            answered = h2.headers(number, h2.block(heard, [*h2.OK, ("x-b", self.text())]))
            parts = b"".join(h2.data(number, part) for part in self.cut(self.value()))
            trailers = h2.headers(number, h2.block(heard, [("x-t", SECRET.decode())]), end=True)
            talk.append((RESPONSE, answered + parts + trailers))
        return [*talk, (RESPONSE, h2.goaway(5, 0, self.value()))]

    def websocket(self) -> Talk:
        """Give messages, whole and in parts with another between."""
        talk: Talk = [(REQUEST, HANDSHAKE), (RESPONSE, SWITCHED)]
        for _ in range(self.chance.randrange(1, 6)):
            direction, value = self.chance.randrange(2), self.value()
            one = (client, frame)[direction]
            at = self.chance.randint(0, len(value))
            parts = one(1, value[:at], fin=False) + one(9, SECRET) + one(0, value[at:])
            talk.append((direction, self.chance.choice([one(2, value), parts])))
        return talk

    def redis(self) -> Talk:
        """Give commands with any arguments, and answers of any shape."""
        names = ["SET", "GET", "HSET", "EVAL", "LPUSH", "CONFIG", "AUTH"]
        words = [b"session:7", b"user:7:password", b"password", b"k", b"requirepass"]
        talk: Talk = []
        for _ in range(self.chance.randrange(1, 8)):
            given = [self.chance.choice([self.value(), *words]) for _ in range(self.chance.randrange(5))]
            talk += [(REQUEST, rd.command(self.chance.choice(names), *given)), (RESPONSE, self._answer(3))]
        return talk

    def _answer(self, depth: int) -> bytes:
        chance = self.chance
        if depth and chance.random() < 0.4:
            named = [rd.string(chance.choice([b"password", b"token", b"name"])), self._answer(depth - 1)]
            inside = [self._answer(depth - 1) for _ in range(2 * chance.randrange(3))]
            return rd.array(*named, *inside, code=chance.choice([b"*", b"%"]))
        line = self.text().encode()
        return chance.choice([rd.string(self.value()), b"+%b\r\n" % line, b"-ERR %b\r\n" % line, rd.NIL])

    def mysql(self) -> Talk:
        """Give statements, prepared ones with values, files and long values in parts, errors."""
        talk: Talk = [(RESPONSE, my.greeting()), (REQUEST, my.login()), (RESPONSE, my.ok(2))]
        for _ in range(self.chance.randrange(1, 6)):
            talk += self.chance.choice([self._mysql_query, self._mysql_prepared, self._mysql_parts])()
        return talk

    def _mysql_query(self) -> Talk:
        error = my.err(1, self.chance.choice([1064, 1062]), message=self.text())
        answer = self.chance.choice([my.result(self.value(), None, self.text().encode()), error])
        return [(REQUEST, my.query(f"select '{self.text()}'")), (RESPONSE, answer)]

    def _mysql_prepared(self) -> Talk:
        values = my.piece(self.value()) + my.piece(self.value())
        answered = my.prepared(1, 5, 1, 2) + my.column(2, "?") + my.column(3, "?") + my.eof(4) + my.column(5, "a") + my.eof(6)
        rows = my.packet(1, b"\1") + my.column(2, "a", collation=self.chance.choice([45, 63])) + my.eof(3)
        return [
            (REQUEST, my.prepare(f"select '{self.text()}', ?, ?")),
            (RESPONSE, answered),
            (REQUEST, my.execute(5, [(253, 0), (252, 0)], values)),
            (RESPONSE, rows + my.binary_row(4, my.piece(self.value())) + my.eof(5)),
        ]

    def _mysql_parts(self) -> Talk:
        text = "\n".join(self.text() for _ in range(4)).encode()
        if self.chance.random() < 0.5:
            answered = my.prepared(1, 6, 0, 1) + my.column(2, "?") + my.eof(3)
            parts = b"".join(my.command(0x18, b"\6\0\0\0\0\0" + part) for part in self.cut(text))
            return [(REQUEST, my.prepare("select ?")), (RESPONSE, answered), (REQUEST, parts)]
        numbered = list(enumerate([*self.cut(text), b""], start=2))
        sent = b"".join(my.packet(number, part) for number, part in numbered)
        return [
            (REQUEST, my.query("load data local infile 'f' into table t")),
            (RESPONSE, my.packet(1, b"\xfbf")),
            (REQUEST, sent),
            (RESPONSE, my.ok(numbered[-1][0] + 1)),
        ]

    def postgresql(self) -> Talk:
        """Give statements, prepared ones with values, COPY both ways, errors, notices, functions."""
        talk: Talk = [(REQUEST, pg.startup(user="u", database="d", application_name=self.text())), (RESPONSE, pg.OPENED)]
        for _ in range(self.chance.randrange(1, 6)):
            talk += self.chance.choice([self._query, self._prepared, self._copy, self._aside])()
        return talk

    def _rows(self) -> bytes:
        formats = self.chance.choice([None, [1, 1], [0, 1]])
        rows = b"".join(pg.row(self.value(), self.chance.choice([None, self.value()])) for _ in range(3))
        return pg.columns(("a", 25), ("b", 17), formats=formats) + rows

    def _query(self) -> Talk:
        end = self.chance.choice([pg.complete("SELECT 3"), pg.error(text=self.text())])
        return [(REQUEST, pg.query(f"select '{self.text()}'")), (RESPONSE, self._rows() + end + pg.ready())]

    def _prepared(self) -> Talk:
        formats = self.chance.choice([b"\0\0", b"\0\1\0\1"])
        asked = pg.parse("s", f"select '{self.text()}'") + pg.bind("p", "s", [self.value(), self.value()], formats)
        asked += pg.describe("P", "p") + pg.execute("p") + pg.SYNC
        return [(REQUEST, asked), (RESPONSE, pg.PARSED + pg.BOUND + self._rows() + pg.complete("SELECT 3") + pg.ready())]

    def _copy(self) -> Talk:
        lines = b"".join(b"1\t" + self.text().encode() + b"\n" for _ in range(5))
        end = pg.complete("COPY 5") + pg.ready()
        if self.chance.random() < 0.5:
            sent = b"".join(pg.message("d", part) for part in self.cut(lines)) + pg.message("c")
            begun = pg.message("G", b"\0\0\2\0\0\0\0")
            return [(REQUEST, pg.query("copy t (a,b) from stdin")), (RESPONSE, begun), (REQUEST, sent), (RESPONSE, end)]
        rows = b"".join(pg.message("d", line) for line in lines.splitlines(keepends=True)) + pg.message("c")
        return [(REQUEST, pg.query("copy t (a,b) to stdout")), (RESPONSE, pg.message("H", b"\0\0\2\0\0\0\0") + rows + end)]

    def _aside(self) -> Talk:
        told = pg.error(text=self.text(), kind="N", severity="NOTICE") + pg.setting("application_name", self.text())
        return [(RESPONSE, told + pg.message("A", b"\0\0\0\1" + pg.strings("channel", self.text())))]


TALKS: Final[Mapping[str, tuple[Callable[[Maker], Talk], int]]] = {
    "http1": (Maker.http1, 80),
    "http2": (Maker.http2, 8443),
    "websocket": (Maker.websocket, 80),
    "redis": (Maker.redis, 6379),
    "mysql": (Maker.mysql, 3306),
    "postgresql": (Maker.postgresql, 5432),
}
"""Protocols, how their conversations are made, at which port."""
