"""HTTP/2 with bytes missing: what is said of it, and where decoding goes on."""

from __future__ import annotations

import pytest

from capd.decoders.http2 import Http2Decoder
from capd.decoders.http2.frames import Type
from capd.decoders.message import Gap
from tests.decoders import http2_bytes as h2
from tests.decoders.feeding import REQUEST, RESPONSE, Arrival, all_ways, check_spans, outline
from tests.decoders.http2_bytes import OK, OPENING, SETTINGS, data, frame, headers, literal
from tests.decoders.test_http2 import ASKED, GET_1, GET_2, OK_1, OK_2, OPENED, SET

LOST = Gap(length=4, reason="ring full")
UNKNOWN = Gap(length=None, reason="ring full")


def server(*parts: bytes | Gap) -> list[Arrival]:
    """What a server says, and what of it is lost."""
    return [(RESPONSE, part) for part in parts]


OPEN: list[Arrival] = [(REQUEST, OPENING), (RESPONSE, SETTINGS), (REQUEST, headers(1, GET_1, end=True))]
BEFORE = [*OPENED, SET, *ASKED]
NOT_DECODED = "header block not decoded: 4 bytes lost: ring full"
MAYBE = "bytes were lost that may have been of this stream"
TEN = frame(Type.DATA, b"0123456789", 0, 1)
PING = frame(Type.PING, bytes(8))

CASES: dict[str, tuple[list[Arrival], list[str]]] = {
    "inside DATA": (
        [*OPEN, (RESPONSE, headers(1, OK_1) + TEN[:11]), (RESPONSE, LOST), (RESPONSE, TEN[15:] + headers(3, OK_2, end=True))],
        [
            *[*BEFORE, "< response 1 200", "< body 1 01", "< body 1 6789", "< response 3 200", "< end 3"],
        ],
    ),
    "the beginning of DATA": (
        [*OPEN, (RESPONSE, headers(1, OK_1) + TEN[:9]), (RESPONSE, LOST), (RESPONSE, TEN[13:] + data(1, b"", end=True))],
        [*BEFORE, "< response 1 200", "< body 1", "< body 1 456789", "< end 1 (4 bytes lost: ring full)"],
    ),
    "of the padding only": (
        [
            *OPEN,
            (RESPONSE, headers(1, OK_1) + data(1, b"ab", end=True, padding=6)[:-5]),
            *server(LOST, bytes(1) + PING),
        ],
        [*BEFORE, "< response 1 200", "< body 1 ab", "< body 1", "< body 1", "< end 1", "< PING None PING"],
    ),
    "inside a header block": (
        [
            *OPEN,
            *server(headers(1, OK_1)[:11], LOST, headers(1, OK_1)[15:] + data(1, b"x", end=True)),
            (RESPONSE, headers(3, OK_2, end=True)),
        ],
        [
            *[*BEFORE, "< headers 1 (4 bytes lost: ring full)"],
            "< ~ 24..28: the rest of a frame of which 4 bytes lost: ring full",
            *["< body 1 x", "< end 1", f"< headers 3 ({NOT_DECODED})", "< end 3"],
        ],
    ),
    "inside the first part of a header block": (
        [
            *OPEN,
            *server(headers(1, OK_1, cut=8)[:11], LOST, headers(1, OK_1, cut=8)[15:] + PING),
        ],
        [
            *[*BEFORE, "< headers 1 (4 bytes lost: ring full)"],
            "< ~ 24..26: the rest of a frame of which 4 bytes lost: ring full",
            "< ~ 26..37: the rest of a header block of which bytes were lost",
            "< PING None PING",
        ],
    ),
    "a block that empties the table": (
        [
            *OPEN,
            *server(headers(1, OK_1)[:11], LOST, headers(1, OK_1)[15:] + headers(3, OK_2)),
            (RESPONSE, headers(5, b"\x20\x3f\xe1\x1f" + literal(*OK), end=True) + headers(7, literal(*OK), end=True)),
        ],
        [
            *[*BEFORE, "< headers 1 (4 bytes lost: ring full)"],
            "< ~ 24..28: the rest of a frame of which 4 bytes lost: ring full",
            *[f"< headers 3 ({NOT_DECODED})", "< response 5 200", "< end 5", "< response 7 200", "< end 7"],
        ],
    ),
    "over the end of a frame": (
        [
            *OPEN,
            *server(headers(1, OK_1) + TEN[:-2], LOST, b"zz" + TEN + data(1, b"x", end=True) + PING),
            (RESPONSE, headers(3, OK_2, end=True)),
        ],
        [
            *[*BEFORE, "< response 1 200", "< body 1 01234567"],
            "< ~ 49..51: no frame boundary known after 4 bytes lost: ring full",
            *["< body 1 0123456789", "< body 1 x", f"< end 1 (4 bytes lost: ring full; {MAYBE})", "< PING None PING"],
            *[f"< headers 3 ({NOT_DECODED})", "< end 3"],
        ],
    ),
    "whole frames": (
        [*OPEN, (REQUEST, LOST), (REQUEST, headers(3, GET_2, end=True) + PING)],
        [*BEFORE, f"> headers 3 ({NOT_DECODED})", "> end 3", "> PING None PING"],
    ),
    "nobody knows how much": (
        [*OPEN, (REQUEST, UNKNOWN), (REQUEST, b"\0\0\1" + PING + PING)],
        [
            *BEFORE,
            f"> ~ {33 + 9 + len(GET_1)}..{36 + 9 + len(GET_1)}: no frame boundary known after bytes lost: ring full",
            *["> PING None PING", "> PING None PING"],
        ],
    ),
    "from the beginning on": (
        [
            (REQUEST, UNKNOWN),
            (RESPONSE, UNKNOWN),
            (REQUEST, PING + data(1, b"abc")),
            (RESPONSE, data(1, b"def", end=True) + PING),
        ],
        [
            *["> PING None PING", "> body 1 abc", "< body 1 def"],
            *["< end 1 (its beginning was not seen)", "< PING None PING"],
        ],
    ),
    "what looked like a frame": (
        [*OPEN, (REQUEST, UNKNOWN), (REQUEST, PING + PING[:-4] + b"\0\0\0" + PING + PING + PING + PING + PING)],
        [
            *[*BEFORE, "> PING None PING", "> PING None PING"],
            "> ~ 91..107: no frame boundary known after bytes lost: ring full",
            *["> PING None PING"] * 4,
        ],
    ),
    "inside another frame": (
        [*OPEN, (REQUEST, PING[:11]), (REQUEST, LOST), (REQUEST, PING[15:] + headers(3, GET_2, end=True))],
        [
            *[*BEFORE, "> PING None (4 bytes lost: ring full)"],
            f"> ~ {33 + 9 + len(GET_1) + 15}..{33 + 9 + len(GET_1) + 17}: the rest of a frame of which 4 bytes lost: ring full",
            *["> request 3 GET /a HTTP/2", "> end 3"],
        ],
    ),
    "inside a message of gRPC": (
        [
            *OPEN,
            (RESPONSE, headers(1, literal((":status", "200"), ("content-type", "application/grpc")))),
            (RESPONSE, data(1, h2.grpc(b"abcdefgh") + h2.grpc(b"z"))[: 9 + 7]),
            *server(LOST, data(1, h2.grpc(b"abcdefgh") + h2.grpc(b"z"))[9 + 11 :]),
        ],
        [
            *[*BEFORE, "< response 1 200", "< body 1 \0\0\0\0\x08", "< body 1 ab", "< body 1 gh"],
            *["< grpc 1 /a message 0: 8 bytes (bytes of it were lost)", "< body 1 \0\0\0\0\1", "< body 1 z"],
            "< grpc 1 /a message 1: 1 bytes",
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_gap(name: str) -> None:
    """A gap costs what it hit and no more, is said, and positions count it."""
    arrivals, expected = CASES[name]
    seen = all_ways(Http2Decoder, arrivals)
    assert expected == outline(seen)
    check_spans(arrivals, seen, ended=False)
