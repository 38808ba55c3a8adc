"""TLS without keys: records, and the ClientHello."""

from __future__ import annotations

import ssl
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.decoders.message import Direction, ProtocolError
from capd.decoders.tls import ClientHello, ContentType, Record, RecordWalk, client_hello, is_client_hello
from capd.decoders.tls.records import RECORD_BYTES_MAX


def hello(name: str | None, *alpn: str, lowest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2) -> bytes:
    """What OpenSSL sends first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.minimum_version = lowest
    if alpn:
        context.set_alpn_protocols(list(alpn))
    outgoing = ssl.MemoryBIO()
    connection = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


def with_extension(said: bytes, kind: int, content: bytes) -> bytes:
    """A ClientHello of one record, with one more extension."""
    at = 5 + 4 + 2 + 32
    at += 1 + said[at]
    at += 2 + int.from_bytes(said[at : at + 2], "big")
    at += 1 + said[at]
    added = struct.pack(">HH", kind, len(content)) + content
    extensions = said[at + 2 :] + added
    body = said[9:at] + struct.pack(">H", len(extensions)) + extensions
    return record(b"\x01" + len(body).to_bytes(3, "big") + body)


def record(content: bytes, kind: int = ContentType.HANDSHAKE) -> bytes:
    """A record."""
    return struct.pack(">BHH", kind, 0x0303, len(content)) + content


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (hello("api.example.com"), ClientHello(server_name="api.example.com", versions=("TLS 1.3", "TLS 1.2"))),
        (hello(None, "h2", "http/1.1"), ClientHello(alpn=("h2", "http/1.1"), versions=("TLS 1.3", "TLS 1.2"))),
        (
            hello("xn--bcher-kva.example", lowest=ssl.TLSVersion.TLSv1_3),
            ClientHello(server_name="xn--bcher-kva.example", versions=("TLS 1.3",)),
        ),
    ],
)
def test_client_hello(data: bytes, expected: ClientHello) -> None:
    """What OpenSSL offers is read; every shorter prefix asks for more."""
    assert expected == client_hello(data)
    assert expected == client_hello(data + b"more")
    assert {None} == {client_hello(data[:end]) for end in range(len(data))}
    assert is_client_hello(data[:6])


def test_encrypted_client_hello() -> None:
    """An Encrypted Client Hello is told of; the name is then the public one."""
    said = with_extension(hello("public.example.com"), 0xFE0D, b"\0\1\2\3")
    assert ClientHello(server_name="public.example.com", versions=("TLS 1.3", "TLS 1.2"), encrypted=True) == client_hello(said)


def test_client_hello_in_pieces() -> None:
    """A ClientHello cut over many small records is read the same."""
    data = hello("api.example.com")
    pieces = b"".join(record(data[begin : min(begin + 7, len(data))]) for begin in range(5, len(data), 7))
    assert client_hello(data) == client_hello(pieces)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", "not a ClientHello"),
        (record(b"\x02\0\0\0"), "not a ClientHello"),
        (record(b"\x01\xff\xff\xff"), "ClientHello too long"),
        (record(b"\x01\0\0\x04\x03\x03ab"), "a length in the ClientHello goes beyond its field"),
        (record(b"\x01\0\0\x04") + record(b"ab", ContentType.ALERT), "not a handshake record"),
    ],
)
def test_bad_client_hello(data: bytes, reason: str) -> None:
    """What is no ClientHello is a protocol error."""
    with pytest.raises(ProtocolError, match=reason):
        client_hello(data)


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 255))
def test_any_client_hello(noise: bytes, at: int, byte: int) -> None:
    """Spoiled bytes give a ClientHello, ask for more, or are a protocol error."""
    data = bytearray(SPOILED)
    data[at % len(data)] = byte
    for spoiled in (bytes(data), bytes(data[:at]) + noise, record(b"\x01" + noise)):
        try:
            assert isinstance(client_hello(spoiled), ClientHello | None)
        except ProtocolError:
            continue


SPOILED = hello("api.example.com", "h2")


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        (b"", None),
        (b"\x16", None),
        (b"\x16\x03", None),
        (b"\x16\x03\x01\x02\x00", None),
        (b"\x16\x03\x01\x02\x00\x01", True),
        (b"\x16\x03\x01\x02\x00\x02", False),
        (b"\x16\x03\x09", False),
        (b"\x17", False),
        (b"\x16\x02", False),
        (b"\x16\x03\x01\xff\xff\x01", False),
        (b"\x16\x03\x01\x00\x00\x01", False),
    ],
)
def test_is_client_hello(prefix: bytes, expected: bool | None) -> None:
    """Six bytes tell; fewer say no as soon as they can."""
    assert expected is is_client_hello(prefix)


WALKED = record(b"a" * 10) + record(b"", ContentType.ALERT) + record(b"b" * RECORD_BYTES_MAX, ContentType.APPLICATION_DATA)
RECORDS = [
    Record(start=100, end=115, content_type=ContentType.HANDSHAKE, version=(3, 3)),
    Record(start=115, end=120, content_type=ContentType.ALERT, version=(3, 3)),
    Record(start=120, end=125 + RECORD_BYTES_MAX, content_type=ContentType.APPLICATION_DATA, version=(3, 3)),
]


@given(st.lists(st.integers(0, len(WALKED)), max_size=8))
def test_walk(cuts: list[int]) -> None:
    """Records are found at their places, however the bytes are cut."""
    walk = RecordWalk(Direction.REQUEST, position=100)
    edges = [0, *sorted(cuts), len(WALKED)]
    found = [item for begin, end in pairwise(edges) for item in walk.feed(WALKED[begin:end])]
    assert RECORDS == found
    assert walk.at_boundary
    assert 100 + len(WALKED) == walk.position


@pytest.mark.parametrize(
    "data", [b"GET /", b"\x16\x02\x01\0\0", b"\x16\x03\x05\0\0", b"\x19\x03\x01\0\0", b"\x16\x03\x01\x48\x01"]
)
def test_walk_off_the_road(data: bytes) -> None:
    """What is no record is a protocol error at the place where a record should begin."""
    walk = RecordWalk(Direction.RESPONSE)
    walk.feed(record(b"abc"))
    assert walk.at_boundary
    with pytest.raises(ProtocolError) as caught:
        walk.feed(data)
    assert (Direction.RESPONSE, 8) == (caught.value.direction, caught.value.offset)
