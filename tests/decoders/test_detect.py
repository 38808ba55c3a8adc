"""Which protocol the first bytes speak."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.decoders.detect import LOOKED_AT_BYTES, UNKNOWN, candidates, detect
from capd.decoders.http2.frames import PREFACE
from capd.decoders.registry import decodable, decoder_for
from tests.decoders import postgresql_bytes as pg

HELLO = bytes.fromhex("160301020001")
MONGODB = struct.pack("<iiii", 300, 1, 0, 2013)
SETTINGS = b"\0\0\x06\4\0\0\0\0\0\0\3\0\0\0\x80"
MYSQL = b"\x4a\0\0\0\x0a8.0.36\0"

CASES: dict[str, tuple[bytes, bytes, str]] = {
    "HTTP request": (b"GET / HTTP/1.1\r\n", b"", "http1"),
    "HTTP request after an empty line": (b"\r\nPOST /x HTTP/1.0\r\n", b"", "http1"),
    "HTTP extension method": (b"VERSION-CONTROL /x HTTP/1.1\r\n", b"", "http1"),
    "HTTP answer": (b"", b"HTTP/1.1 200 OK", "http1"),
    "HTTP/2": (PREFACE, b"", "http2"),
    "HTTP/2, the server first": (PREFACE, b"\0\0\x06\4\0\0\0\0\0\0\3\0\0\0\x80", "http2"),
    "HTTP/2 from later on": (b"\0\0\2\0\0\0\0\0\x05hi\0\0\4\x08\0\0\0\0\0", b"", "http2"),
    "TLS": (HELLO, b"", "tls"),
    "PostgreSQL": (pg.OPENING, b"", "postgresql"),
    "PostgreSQL, encryption": (pg.SSL_REQUEST, b"S", "postgresql"),
    "PostgreSQL, GSS": (pg.GSSENC_REQUEST, b"", "postgresql"),
    "PostgreSQL, cancel": (pg.packet(80877102, b"\0" * 8), b"", "postgresql"),
    "SSH client": (b"SSH-2.0-x\r\n", b"", "ssh"),
    "SSH server": (b"", b"SSH-2.0-x\r\n", "ssh"),
    "SMTP": (b"", b"220 mail.example ESMTP\r\n", "smtp"),
    "MySQL": (b"", MYSQL, "mysql"),
    "MySQL, refused": (b"", b"\x17\0\0\0\xff\x10\x04Too many connections", "mysql"),
    "Redis": (b"*1\r\n$4\r\nPING\r\n", b"", "redis"),
    "Redis, inline": (b"SET k 'a b'\r\n", b"+OK\r\n", "redis"),
    "Redis, inline, refused": (b"get k\n", b"-NOAUTH Authentication required.\r\n", "redis"),
    "Redis, inline password": (b"AUTH pw\r\n", b"+OK\r\n", "redis"),
    "Redis, inline wrong password": (b"AUTH u pw\r\n", b"-WRONGPASS invalid username-password pair\r\n", "redis"),
    "HTTP to a Redis server": (b"POST / HTTP/1.1\r\nHost: x\r\n", b"-ERR unknown command\r\n", "http1"),
    "memcached": (b"get k\r\n", b"VALUE k 0 1\r\nx\r\nEND\r\n", UNKNOWN),
    "POP3": (b"AUTH PLAIN\r\n", b"+OK POP3 ready\r\n", UNKNOWN),
    "NATS": (b"PING\r\n", b"PONG\r\n", UNKNOWN),
    "IRC": (b"PING x\r\n", b":irc.example PONG x\r\n", UNKNOWN),
    "MongoDB": (MONGODB, b"", "mongodb"),
    "nothing known": (b"\x01\x02\x03\x04", b"", UNKNOWN),
    "FTP": (b"", b"220 files here\r\n", UNKNOWN),
    "a word that is no method": (b"hello world\r\n", b"", UNKNOWN),
    "HTTP/0.9": (b"GET /\r\n", b"<html>", UNKNOWN),
    "TLS that is no ClientHello": (b"\x16\x03\x03\x00\x10\x02" + b"\0" * 10, b"", UNKNOWN),
}


@pytest.mark.parametrize("name", CASES)
def test_detect(name: str) -> None:
    """Bytes name the protocol, without a port and with one that lies."""
    request, response, expected = CASES[name]
    assert expected == detect(request, response, None, ended=False)
    assert expected == detect(request, response, 5432, ended=False)
    assert expected == detect(request, response, 80, ended=True)


@pytest.mark.parametrize("name", CASES)
def test_detect_early(name: str) -> None:
    """Fewer bytes give the same answer or none yet, never another one."""
    request, response, expected = CASES[name]
    prefixes = [(request[:end], b"") for end in range(len(request))] or [(b"", response[:end]) for end in range(len(response))]
    assert {detect(*prefix, None, ended=False) for prefix in prefixes} <= {None, expected}
    assert detect(b"", b"", None, ended=False) is None


@pytest.mark.parametrize(("request_prefix", "response_prefix"), [(b"", SETTINGS[:4]), (b"", SETTINGS), (PREFACE[:3], SETTINGS)])
def test_a_server_of_http2_may_speak_first(request_prefix: bytes, response_prefix: bytes) -> None:
    """SETTINGS of a server leave it open what it is, until the client has said the preface."""
    assert detect(request_prefix, response_prefix, None, ended=False) is None
    assert "http2" == detect(PREFACE, response_prefix, None, ended=False)


@pytest.mark.parametrize(
    ("request_prefix", "response_prefix", "port", "expected"),
    [
        (b"", b"", 5432, UNKNOWN),
        (b"", PREFACE, None, UNKNOWN),
        (b"GE", b"", 80, "http1"),
        (b"GE", b"", 9999, UNKNOWN),
        (b"GE", b"", None, UNKNOWN),
        (b"GE", b"", 5432, UNKNOWN),
        (b"\0\0", b"", 5432, "postgresql"),
    ],
)
def test_detect_at_the_end(request_prefix: bytes, response_prefix: bytes, port: int | None, expected: str) -> None:
    """When no more bytes come, the port decides between what is still possible, and nothing else."""
    assert expected == detect(request_prefix, response_prefix, port, ended=True)


def test_detect_is_bounded() -> None:
    """A target that does not end keeps nobody waiting for ever."""
    assert detect(b"GET /" + b"a" * (LOOKED_AT_BYTES - 6), b"", None, ended=False) is None
    assert UNKNOWN == detect(b"GET /" + b"a" * LOOKED_AT_BYTES, b"", None, ended=False)
    assert "http1" == detect(b"GET /" + b"a" * LOOKED_AT_BYTES, b"", 80, ended=False)


@given(st.binary(max_size=64), st.binary(max_size=64), st.none() | st.integers(0, 65535), st.booleans())
def test_detect_any_bytes(request: bytes, response: bytes, port: int | None, ended: bool) -> None:
    """Any bytes get an answer, and a final one when no more come."""
    named = detect(request, response, port, ended=ended)
    assert named is not None or not ended


def test_registry() -> None:
    """Every protocol that can be decoded gets a decoder of its own each time, every other none."""
    assert {"http1", "http2", "mysql", "postgresql", "redis", "websocket"} == decodable()
    for name in decodable():
        first, second = decoder_for(name), decoder_for(name)
        assert first is not None
        assert first is not second
    assert decoder_for("ssh") is None
    assert decoder_for(UNKNOWN) is None


@pytest.mark.parametrize(
    ("said", "expected"),
    [(b"", True), (b"GE", True), (b"GET / HTTP/1.1\r\n", True), (b"\xff\xfe\xfd", False), (b"SSH-2.0-x\r\n", False)],
)
def test_candidates(said: bytes, expected: bool) -> None:
    """A protocol is a candidate as long as the bytes could be its begin."""
    assert expected is ("http1" in candidates(said, b""))
