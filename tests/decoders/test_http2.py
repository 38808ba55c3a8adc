"""HTTP/2: bytes in, events out."""

from __future__ import annotations

import msgpack
import pytest
from hpack import Encoder

from capd.decoders.http2 import Http2Decoder
from capd.decoders.http2.frames import PADDED, PREFACE, Type
from capd.decoders.http2.header_block import BLOCK_BYTES_MAX, FIELDS_MAX, LIST_BYTES_MAX, TABLE_BYTES_MAX
from capd.decoders.http2.streams import STREAMS_MAX
from capd.decoders.message import Message
from tests.decoders import http2_bytes as h2
from tests.decoders.feeding import REQUEST, RESPONSE, Arrival, all_ways, byte_by_byte, check_spans, drain, feed, normal, outline
from tests.decoders.http2_bytes import ACKED, GET, OK, OPENING, POST, SETTINGS, data, frame, headers, literal

OPENED = ["> preface None PRI * HTTP/2.0", "> SETTINGS None SETTINGS"]
SET = "< SETTINGS None SETTINGS"
GRPC = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/p.S/M"),
    (":authority", "x"),
    ("content-type", "application/grpc"),
)


def talk(*said: bytes) -> list[Arrival]:
    """Client and server in turn, each after its opening."""
    first: list[Arrival] = [(REQUEST, OPENING), (RESPONSE, SETTINGS)]
    return first + [(REQUEST if index % 2 == 0 else RESPONSE, part) for index, part in enumerate(said) if part]


def blocks(*sections: h2.Headers, huffman: bool = True) -> list[bytes]:
    """Header blocks of one direction, which share a table."""
    encoder = Encoder()
    return [h2.block(encoder, section, huffman=huffman) for section in sections]


GET_1, GET_2, POST_3 = blocks(GET, GET, POST)
OK_1, OK_2, HINTS, OK_4 = blocks(OK, OK, ((":status", "103"), ("link", "</s>")), OK)
ASKED = ["> request 1 GET /a HTTP/2", "> end 1"]
PADDING = len(OPENING) + 9 + len(GET_1) + 9 + 5
PROMISE = b"\0\0\0\2" + literal(*GET)
CONVERSATIONS: dict[str, tuple[list[Arrival], list[str]]] = {
    "request and answer": (
        talk(headers(1, GET_1, end=True), headers(1, OK_1) + data(1, b"hi", end=True)),
        [*OPENED, SET, *ASKED, "< response 1 200", "< body 1 hi", "< end 1"],
    ),
    "two streams at a time": (
        talk(
            headers(1, GET_1, end=True) + headers(3, GET_2, end=True),
            headers(3, OK_1) + data(3, b"th") + headers(1, OK_2) + data(1, b"on") + data(3, b"ree", end=True),
            b"",
            data(1, b"e", end=True),
        ),
        [
            *[*OPENED, SET, *ASKED, "> request 3 GET /a HTTP/2", "> end 3"],
            *["< response 3 200", "< body 3 th", "< response 1 200", "< body 1 on", "< body 3 ree", "< end 3"],
            *["< body 1 e", "< end 1"],
        ],
    ),
    "body of a request, padded, and an empty frame at its end": (
        talk(headers(1, GET_1) + data(1, b"ab", padding=3) + data(1, b"", padding=0) + data(1, b"") + data(1, b"", end=True)),
        [*OPENED, SET, "> request 1 GET /a HTTP/2", "> body 1 ab", "> body 1", "> body 1", "> body 1", "> end 1"],
    ),
    "padded and with a priority": (
        talk(frame(Type.HEADERS, b"\2" + bytes(5) + GET_1 + bytes(2), 0x1 | 0x4 | 0x8 | 0x20, 1)),
        [*OPENED, SET, *ASKED],
    ),
    "a header block in parts": (
        talk(headers(1, GET_1, end=True, cut=3), headers(1, OK_1, end=True, cut=1)),
        [*OPENED, SET, *ASKED, "< response 1 200", "< end 1"],
    ),
    "interim answers and trailers": (
        talk(
            headers(1, GET_1, end=True),
            headers(1, OK_1[:0] + literal((":status", "100"))) + headers(1, literal(*OK)) + data(1, b"x"),
            b"",
            headers(1, literal(("x-checksum", "1")), end=True),
        ),
        [*OPENED, SET, *ASKED, "< response 1 100", "< response 1 200", "< body 1 x", "< end 1"],
    ),
    "what concerns the connection": (
        talk(
            frame(Type.PING, b"12345678") + frame(Type.WINDOW_UPDATE, b"\0\0\0\5") + frame(Type.PRIORITY, bytes(5), 0, 1),
            ACKED + frame(Type.PING, b"12345678", 1) + frame(0xC, b"abc", 0, 0) + h2.goaway(1, 11, b"slow down"),
        ),
        [
            *[*OPENED, SET, "> PING None PING", "> WINDOW_UPDATE None WINDOW_UPDATE", "> PRIORITY 1 PRIORITY"],
            *["< SETTINGS None SETTINGS ACK", "< PING None PING ACK", "< extension None frame of the unknown type 0xc"],
            "< GOAWAY None GOAWAY ENHANCE_YOUR_CALM",
        ],
    ),
    "a reset answer and a reset request": (
        talk(
            headers(1, GET_1, end=True) + headers(3, POST_3),
            headers(1, OK_1) + data(1, b"x") + h2.reset(1, 2) + h2.reset(3),
            h2.reset(3),
        ),
        [
            *[*OPENED, SET, *ASKED, "> request 3 POST /b?q=1 HTTP/2", "< response 1 200", "< body 1 x"],
            *[
                "< end 1 (reset: INTERNAL_ERROR)",
                "< RST_STREAM 1 RST_STREAM INTERNAL_ERROR",
                "< RST_STREAM 3 RST_STREAM CANCEL",
            ],
            "> RST_STREAM 3 RST_STREAM CANCEL",
        ],
    ),
    "a promise": (
        talk(headers(1, GET_1, end=True), frame(Type.PUSH_PROMISE, PROMISE, 4, 1) + headers(2, OK_1, end=True)),
        [*OPENED, SET, *ASKED, "< PUSH_PROMISE 1 PUSH_PROMISE GET /a HTTP/2", "< response 2 200", "< end 2"],
    ),
    "gRPC": (
        talk(
            headers(1, literal(*GRPC)) + data(1, h2.grpc(b"abc")[:4]) + data(1, h2.grpc(b"abc")[4:] + h2.grpc(b""), end=True),
            headers(1, literal((":status", "200"), ("content-type", "application/grpc+proto")))
            + data(1, h2.grpc(b"zz", compressed=True)),
            b"",
            headers(1, literal(("grpc-status", "5"), ("grpc-message", "no such")), end=True),
        ),
        [
            *[*OPENED, SET, "> request 1 POST /p.S/M HTTP/2", "> body 1 \0\0\0\0", "> body 1 \3", "> body 1 abc"],
            *["> grpc 1 /p.S/M message 0: 3 bytes", "> body 1 \0\0\0\0\0", "> grpc 1 /p.S/M message 1: 0 bytes", "> end 1"],
            *["< response 1 200", "< body 1 \1\0\0\0\2", "< body 1 zz", "< grpc 1 /p.S/M message 0: 2 bytes"],
            "< end 1 grpc-status 5",
        ],
    ),
    "a call that fails at once": (
        talk(headers(1, literal(*GRPC), end=True), headers(1, literal((":status", "200"), ("grpc-status", "7")), end=True)),
        [*OPENED, SET, "> request 1 POST /p.S/M HTTP/2", "> end 1", "< response 1 200 grpc-status 7", "< end 1"],
    ),
    "a body of another length than was said": (
        talk(headers(1, literal(*GET, ("content-length", "3"))) + data(1, b"four", end=True)),
        [
            *[*OPENED, SET, "> request 1 GET /a HTTP/2", "> body 1 four"],
            "> end 1 (a body of 4 bytes, content-length said 3)",
        ],
    ),
    "a large frame of an unknown type": (
        talk(frame(0x40, bytes(16_385)) + frame(Type.PING, bytes(8))),
        [*OPENED, SET, "> ~ 33..16427: frame of the unknown type 0x40", "> PING None PING"],
    ),
    "padding that says something": (
        talk(headers(1, GET_1) + frame(Type.DATA, b"\5ab\0\0p\0w", 0x1 | PADDED, 1) + frame(Type.PING, bytes(8))),
        [
            *[*OPENED, SET, "> request 1 GET /a HTTP/2", "> body 1 ab", "> body 1"],
            *[f"> ~ {PADDING}..{PADDING + 3}: padding that is not zero", "> end 1", "> PING None PING"],
        ],
    ),
    "everything is cut off": (
        [
            *talk(headers(1, GET_1) + data(1, b"x"), headers(1, OK_1) + frame(Type.DATA, b"abc", 0, 1)[:10]),
            *[(REQUEST, frame(Type.HEADERS, b"abc", 4, 3)[:11]), (RESPONSE, b""), (REQUEST, b"")],
        ],
        [
            *[*OPENED, SET, "> request 1 GET /a HTTP/2", "> body 1 x", "< response 1 200", "< body 1 a"],
            "< end 1 (the direction ended before the end of the stream)",
            "> headers 3 (the direction ended inside the frame)",
            "> end 1 (the direction ended before the end of the stream)",
            "> end 3 (the direction ended before the end of the stream)",
        ],
    ),
}


def known(name: str) -> bool:
    """Whether a conversation is short enough to be cut everywhere."""
    return sum(len(part) for _, part in CONVERSATIONS[name][0] if isinstance(part, bytes)) < 2_000


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversation(name: str) -> None:
    """A conversation gives these messages, however it is cut, and each byte is in one of them."""
    arrivals, expected = CONVERSATIONS[name]
    seen = all_ways(Http2Decoder, arrivals) if known(name) else feed(Http2Decoder(), arrivals)
    assert expected == outline(seen)
    check_spans(arrivals, seen, ended=False)


def test_fields() -> None:
    """A head tells what was sent, in order, with what HTTP/2 has beside HTTP/1; a body where its bytes are."""
    seen = feed(Http2Decoder(), talk(headers(1, POST_3[:0] + literal(*POST)) + data(1, b"ab", padding=1)))
    request, body = [event for event in seen if isinstance(event, Message) and event.exchange == 1][:2]
    expected = {
        "stream": 1, "method": "POST", "target": "/b?q=1", "version": "2", "scheme": "https", "host": "x.example",
        "headers": [list(pair) for pair in POST], "framing": "frames", "length": None,
    }  # fmt: skip
    assert expected == request.fields
    assert (body.content, body.content_start) == (b"ab", body.start + 10)


MALFORMED = {
    "no path": ((":method", "GET"), (":scheme", "http")),
    "twice": (*GET, (":path", "/b")),
    "behind": (("a", "b"), *GET),
    "upper case": (*GET, ("Cookie", "a")),
    "of HTTP/1": (*GET, ("transfer-encoding", "chunked")),
    "unknown": (*GET, (":x", "y")),
    "NUL": (*GET, ("a", "\0")),
    "line": (*GET, ("a", "b\r\nc: d")),
    "space": (*GET, ("a", " b")),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name: str) -> None:
    """A head that breaks the rules is told as it was sent, and that it does; the connection goes on."""
    seen = feed(Http2Decoder(), talk(headers(1, literal(*MALFORMED[name]), end=True) + headers(3, GET_1, end=True)))
    (first, second) = [event for event in seen if isinstance(event, Message) and event.type == "request"]
    assert [list(pair) for pair in MALFORMED[name]] == first.fields["headers"]
    assert first.fields["malformed"]
    assert "malformed" not in second.fields


BEGIN = len(OPENING)
ERRORS: dict[str, tuple[bytes, int, str]] = {
    "no preface": (b"GET / HTTP/1.1\r\n\r\n", 0, "not the connection preface"),
    "no SETTINGS": (PREFACE + frame(Type.PING, bytes(8)), 24, "the first frame is no SETTINGS frame"),
    "an ACK first": (PREFACE + ACKED, 24, "the first frame is no SETTINGS frame"),
    "DATA of no stream": (OPENING + data(0, b"x"), BEGIN, "DATA frame on stream 0"),
    "SETTINGS of a stream": (OPENING + frame(Type.SETTINGS, stream=1), BEGIN, "SETTINGS frame on stream 1"),
    "odd SETTINGS": (OPENING + frame(Type.SETTINGS, bytes(7)), BEGIN, "SETTINGS frame of 7 bytes"),
    "an ACK with settings": (OPENING + frame(Type.SETTINGS, bytes(6), 1), BEGIN, "SETTINGS frame of 6 bytes"),
    "a short PING": (OPENING + frame(Type.PING, bytes(7)), BEGIN, "PING frame of 7 bytes"),
    "a short GOAWAY": (OPENING + frame(Type.GOAWAY, bytes(7)), BEGIN, "GOAWAY frame of 7 bytes"),
    "a long SETTINGS": (OPENING + frame(Type.SETTINGS, bytes(16_386)), BEGIN, "SETTINGS frame of 16386 bytes"),
    "all padding": (OPENING + frame(Type.DATA, b"\1", PADDED, 1), BEGIN + 9, "padding longer than its frame"),
    "no padding length": (OPENING + frame(Type.DATA, b"", PADDED, 1), BEGIN, "padding longer than its frame"),
    "padding in a block": (OPENING + frame(Type.HEADERS, b"\1", PADDED | 4, 1), BEGIN, "padding longer than its frame"),
    "no block": (OPENING + frame(Type.CONTINUATION, b"", 4, 1), BEGIN, "CONTINUATION frame without a header block"),
    "an interrupted block": (
        OPENING + frame(Type.HEADERS, GET_1, 0, 1) + ACKED,
        BEGIN + 9 + len(GET_1),
        "header block interrupted",
    ),
    "a block of another stream": (
        OPENING + frame(Type.HEADERS, GET_1, 0, 1) + frame(Type.CONTINUATION, b"", 4, 3),
        BEGIN + 9 + len(GET_1),
        "header block interrupted",
    ),
    "a promise of a client": (OPENING + frame(Type.PUSH_PROMISE, PROMISE, 4, 1), BEGIN, "PUSH_PROMISE frame from a client"),
    "no such entry": (OPENING + headers(1, b"\xff\x7f"), BEGIN, "Invalid table index 254"),
    "entry 0": (OPENING + headers(1, b"\x80"), BEGIN, "Invalid table index 0"),
    "a cut field": (OPENING + headers(1, b"\0\5abc"), BEGIN, "header block ends inside a field"),
    "a cut integer": (OPENING + headers(1, b"\xff"), BEGIN, "header block ends inside a field"),
    "an endless integer": (OPENING + headers(1, b"\xff" + b"\x80" * 9), BEGIN, "integer of too many bytes"),
    "no Huffman code": (OPENING + headers(1, b"\0\x81\xff\0"), BEGIN, "Incomplete Huffman string"),
    "a late table size": (
        OPENING + headers(1, b"\x82\x20"),
        BEGIN,
        "size of the header table changed in the middle of a block",
    ),
    "a large table": (OPENING + headers(1, b"\x3f\xe2\xff\x0f"), BEGIN, f"header table of {TABLE_BYTES_MAX + 1} bytes"),
    "many fields": (
        OPENING + headers(1, b"\x82" * (FIELDS_MAX + 1)),
        BEGIN,
        f"header list of more than {LIST_BYTES_MAX} bytes or {FIELDS_MAX} fields",
    ),
    "a bomb": (
        OPENING + headers(1, b"\x40\1a" + b"\x7f\xd1\x1e" + b"x" * 4_048 + b"\xbe" * 300),
        BEGIN,
        f"header list of more than {LIST_BYTES_MAX} bytes or {FIELDS_MAX} fields",
    ),
    "a long block": (
        OPENING + frame(Type.HEADERS, bytes(BLOCK_BYTES_MAX), 4, 1),
        BEGIN,
        f"header block of more than {BLOCK_BYTES_MAX} bytes",
    ),
    "a flood": (
        OPENING + frame(Type.HEADERS, GET_1, 0, 1) + frame(Type.CONTINUATION, b"", 0, 1) * 40_000,
        BEGIN + (BLOCK_BYTES_MAX - len(GET_1) - 9) // 9 * 9 + 9 + len(GET_1),
        f"header block of more than {BLOCK_BYTES_MAX} bytes",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error(name: str) -> None:
    """What breaks the protocol, or a limit, is an error with its place, and the rest is skipped."""
    said, offset, reason = ERRORS[name]
    arrivals: list[Arrival] = [(REQUEST, said)]
    seen = all_ways(Http2Decoder, arrivals) if len(said) < 1_000 else feed(Http2Decoder(), arrivals)
    at, error = next((number, line) for number, line in enumerate(outline(seen)) if line.startswith("> !"))
    assert f"> ! {offset}: {reason}" == error
    assert all(line.startswith("> ~") for line in outline(seen)[at + 1 :])
    check_spans(arrivals, seen)


def test_a_server_opens_with_settings() -> None:
    """A server's first frame is SETTINGS too."""
    seen = feed(Http2Decoder(), [(RESPONSE, frame(Type.PING, bytes(8)))])
    assert "< ! 0: the first frame is no SETTINGS frame" == outline(seen)[0]


def test_streams_are_bounded() -> None:
    """However many streams a client opens and never ends, no more are remembered than so many, and all are told."""
    count = STREAMS_MAX + 50
    decoder = Http2Decoder()
    seen = feed(decoder, talk(b"".join(headers(2 * at + 1, literal(*GET)) for at in range(count))))
    assert count == sum(isinstance(event, Message) and event.type == "request" for event in seen)
    assert STREAMS_MAX == len(decoder.save()[0][1])  # type: ignore[index]


@pytest.mark.parametrize("name", [name for name in CONVERSATIONS if known(name)])
def test_saved_and_restored_anywhere(name: str) -> None:
    """A decoder that is saved and restored behind every byte gives what one gives that goes on."""
    arrivals = CONVERSATIONS[name][0]
    decoder, seen = Http2Decoder(), []
    for direction, part in byte_by_byte(arrivals):
        decoder.receive(direction, part)
        seen += drain(decoder)
        saved = msgpack.unpackb(msgpack.packb(decoder.save()), use_list=False)
        decoder = Http2Decoder()
        decoder.restore(saved)
    assert normal(feed(Http2Decoder(), arrivals)) == normal(seen)
