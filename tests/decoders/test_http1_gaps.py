"""HTTP/1 with bytes missing: what is said of it, and where decoding goes on."""

from __future__ import annotations

import pytest

from capd.decoders.http1 import Http1Decoder
from capd.decoders.message import Gap
from tests.decoders.feeding import REQUEST, RESPONSE, Arrival, all_ways, check_spans, outline

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
LOST = Gap(length=4, reason="ring full")
UNKNOWN = Gap(length=None, reason="ring full")
ASKED = ["> request 0 GET / HTTP/1.1", "> end 0"]
SECOND = ["> request 1 GET / HTTP/1.1", "> end 1"]
LENGTH_8 = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

CASES: dict[str, tuple[list[Arrival], list[str]]] = {
    "inside a body": (
        [(REQUEST, GET), (RESPONSE, LENGTH_8 + b"ab"), (RESPONSE, LOST), (RESPONSE, b"cd"), (REQUEST, GET), (RESPONSE, OK)],
        [
            *[*ASKED, "< response 0 200 OK", "< body 0 ab", "< body 0 cd", "< end 0 (4 bytes lost: ring full)", *SECOND],
            *["< response 1 200 OK", "< body 1 hi", "< end 1"],
        ],
    ),
    "up to the end of a body": (
        [(REQUEST, GET), (RESPONSE, LENGTH_8 + b"abcd"), (RESPONSE, LOST), (RESPONSE, OK)],
        [
            *[*ASKED, "< response 0 200 OK", "< body 0 abcd", "< end 0 (4 bytes lost: ring full)"],
            *["< response None 200 OK", "< body None hi", "< end None"],
        ],
    ),
    "over the end of a body": (
        [(REQUEST, GET + GET), (RESPONSE, LENGTH_8 + b"abcde"), (RESPONSE, LOST), (RESPONSE, b"P/1.1 404 \r\n\r\n" + OK)],
        [
            *[*ASKED, *SECOND, "< response 0 200 OK", "< body 0 abcde", "< end 0 (4 bytes lost: ring full)"],
            "< ~ 47..61: no message boundary known after 4 bytes lost: ring full",
            *["< response 1 200 OK", "< body 1 hi", "< end 1"],
        ],
    ),
    "of unknown length inside a body": (
        [(REQUEST, GET), (RESPONSE, LENGTH_8 + b"ab"), (RESPONSE, UNKNOWN), (RESPONSE, b"cd" + OK)],
        [
            *[*ASKED, "< response 0 200 OK", "< body 0 ab", "< end 0 (bytes lost: ring full)"],
            "< ~ 40..42: no message boundary known after bytes lost: ring full",
            *["< response None 200 OK", "< body None hi", "< end None"],
        ],
    ),
    "inside a chunk": (
        [(REQUEST, GET), (RESPONSE, CHUNKED + b"8\r\nab"), (RESPONSE, LOST), (RESPONSE, b"cd\r\n0\r\n\r\n")],
        [*ASKED, "< response 0 200 OK", "< body 0 ab", "< body 0 cd", "< end 0 (4 bytes lost: ring full)"],
    ),
    "at the begin of a chunk": (
        [(REQUEST, GET), (RESPONSE, CHUNKED + b"4\r\n"), (RESPONSE, LOST), (RESPONSE, b"\r\n0\r\n\r\n")],
        [*ASKED, "< response 0 200 OK", "< body 0", "< end 0 (4 bytes lost: ring full)"],
    ),
    "over the end of a chunk": (
        [(REQUEST, GET), (RESPONSE, CHUNKED + b"2\r\nab\r"), (RESPONSE, LOST), (RESPONSE, b"cd\r\n0\r\n\r\n" + OK)],
        [
            *[*ASKED, "< response 0 200 OK", "< body 0 ab", "< end 0 (4 bytes lost: ring full)"],
            "< ~ 57..66: no message boundary known after 4 bytes lost: ring full",
            *["< response None 200 OK", "< body None hi", "< end None"],
        ],
    ),
    "inside a body until close": (
        [(REQUEST, GET), (RESPONSE, b"HTTP/1.1 200 OK\r\n\r\nab"), (RESPONSE, UNKNOWN), (RESPONSE, b"cd"), (RESPONSE, b"")],
        [*ASKED, "< response 0 200 OK", "< body 0 ab", "< body 0 cd", "< end 0 (bytes lost: ring full)"],
    ),
    "inside a head": (
        [(REQUEST, b"GET /x HTTP/1.1\r\nHo"), (REQUEST, LOST), (REQUEST, b"h\r\n\r\n" + GET), (RESPONSE, OK + OK)],
        [
            "> request 0 GET /x HTTP/1.1 (4 bytes lost: ring full)",
            "> ~ 23..28: no message boundary known after 4 bytes lost: ring full",
            *SECOND,
            *["< response 0 200 OK", "< body 0 hi", "< end 0", "< response 1 200 OK", "< body 1 hi", "< end 1"],
        ],
    ),
    "answers lost": (
        [(REQUEST, GET), (RESPONSE, UNKNOWN), (REQUEST, GET), (RESPONSE, OK)],
        [*ASKED, *SECOND, "< response 1 200 OK", "< body 1 hi", "< end 1"],
    ),
    "start in the middle": (
        [(REQUEST, UNKNOWN), (RESPONSE, UNKNOWN), (REQUEST, b"dy of a POST" + GET), (RESPONSE, b"rest</html>" + OK)],
        [
            "> ~ 0..12: no message boundary known after bytes lost: ring full",
            *ASKED,
            "< ~ 0..11: no message boundary known after bytes lost: ring full",
            *["< response 0 200 OK", "< body 0 hi", "< end 0"],
        ],
    ),
    "a head that is none": (
        [(RESPONSE, UNKNOWN), (RESPONSE, b"see HTTP/1.1 200 in the text\r\nof this page\r\nHTTP/1.1 200 OK\r\n" + OK)],
        [
            "< ~ 0..61: no message boundary known after bytes lost: ring full",
            *["< response None 200 OK", "< body None hi", "< end None"],
        ],
    ),
    "nothing to find": (
        [(REQUEST, UNKNOWN), (REQUEST, b"x" * 50), (REQUEST, b"")],
        ["> ~ 0..50: no message boundary known after bytes lost: ring full"],
    ),
    "two gaps": (
        [(REQUEST, UNKNOWN), (REQUEST, b"xyz"), (REQUEST, LOST), (REQUEST, GET)],
        ["> ~ 0..3: no message boundary known after bytes lost: ring full", *ASKED],
    ),
    "no bytes": ([(REQUEST, b"GET / HT"), (REQUEST, Gap(length=0, reason="none")), (REQUEST, b"TP/1.1\r\n\r\n")], ASKED),
    "in a tunnel": (
        [
            (REQUEST, b"CONNECT h:1 HTTP/1.1\r\n\r\n"),
            (RESPONSE, b"HTTP/1.1 200 OK\r\n\r\nab"),
            (RESPONSE, LOST),
            (RESPONSE, b"cd"),
        ],
        [
            *["> request 0 CONNECT h:1 HTTP/1.1", "> end 0", "< response 0 200 OK"],
            *["< tunnel 0 ab", "< tunnel 0 cd (before this: 4 bytes lost: ring full)"],
        ],
    ),
    "answer to an upgrade lost": (
        [
            (REQUEST, b"GET / HTTP/1.1\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
            (RESPONSE, UNKNOWN),
            (REQUEST, b"\x81\x82frames" + GET),
        ],
        [
            "> request 0 GET / HTTP/1.1",
            "> end 0",
            "> ~ 51..59: no message boundary known after the answer to an upgrade was not seen",
            *SECOND,
        ],
    ),
    "answer to CONNECT lost": (
        [(REQUEST, b"CONNECT h:1 HTTP/1.1\r\n\r\n"), (RESPONSE, UNKNOWN), (REQUEST, b"abc")],
        ["> request 0 CONNECT h:1 HTTP/1.1", "> end 0", "> tunnel 0 abc"],
    ),
    "while bytes wait for CONNECT": (
        [(REQUEST, b"CONNECT h:1 HTTP/1.1\r\n\r\nab"), (REQUEST, LOST), (REQUEST, b"cd")],
        [
            "> request 0 CONNECT h:1 HTTP/1.1",
            "> end 0",
            "> tunnel 0 ab",
            "> tunnel 0 cd (before this: 4 bytes lost: ring full)",
        ],
    ),
    "switched after its end": (
        [(REQUEST, UNKNOWN), (REQUEST, b"ab"), (REQUEST, b""), (REQUEST, b"cd"), (RESPONSE, b"HTTP/1.1 101 Go\r\n\r\n")],
        [
            "> ~ 0..2: no message boundary known after bytes lost: ring full",
            "> ~ 2..4: bytes after the end of the direction",
            "< response None 101 Go",
        ],
    ),
    "after an error": (
        [(REQUEST, b"nonsense\r\n"), (REQUEST, LOST), (REQUEST, b"ab")],
        [
            "> ! 0: not a request line",
            "> ~ 0..10: after a protocol error: not a request line",
            "> ~ 14..16: after a protocol error: not a request line",
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_gap(name: str) -> None:
    """A gap costs what it hit and no more, is said, and positions count it."""
    arrivals, expected = CASES[name]
    seen = all_ways(Http1Decoder, arrivals)
    assert expected == outline(seen)
    check_spans(arrivals, seen, ended=False)
