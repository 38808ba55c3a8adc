"""HTTP/1: bytes in, events out."""

from __future__ import annotations

import pytest

from capd.decoders.http1 import Http1Decoder
from capd.decoders.http1.grammar import CHUNK_LINE_BYTES_MAX, FIELDS_MAX, HEAD_BYTES_MAX
from capd.decoders.http1.side import HELD_BYTES_MAX
from capd.decoders.message import Gap, Message
from tests.decoders.feeding import REQUEST, RESPONSE, Arrival, all_ways, check_spans, drain, feed, outline

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
ASKED = ["> request 0 GET / HTTP/1.1", "> end 0"]
ANSWERED = ["< response 0 200 OK", "< body 0 hi", "< end 0"]


def conversation(*said: bytes | Gap) -> list[Arrival]:
    """Client and server in turn."""
    return [(REQUEST if index % 2 == 0 else RESPONSE, data) for index, data in enumerate(said)]


CONVERSATIONS: dict[str, tuple[list[Arrival], list[str]]] = {
    "request and answer": (conversation(GET, OK), [*ASKED, *ANSWERED]),
    "body of a request": (
        conversation(b"POST /x HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"),
        ["> request 0 POST /x HTTP/1.1", "> body 0 hello", "> end 0"],
    ),
    "repeated length": (
        conversation(b"POST /x HTTP/1.1\r\nContent-Length: 2, 2\r\nContent-Length: 2\r\n\r\nhi"),
        ["> request 0 POST /x HTTP/1.1", "> body 0 hi", "> end 0"],
    ),
    "keep-alive": (
        conversation(GET, OK, GET, OK),
        [*ASKED, *ANSWERED, "> request 1 GET / HTTP/1.1", "> end 1", "< response 1 200 OK", "< body 1 hi", "< end 1"],
    ),
    "pipelining": (
        conversation(GET + GET, OK + OK),
        [*ASKED, "> request 1 GET / HTTP/1.1", "> end 1", *ANSWERED, "< response 1 200 OK", "< body 1 hi", "< end 1"],
    ),
    "chunked": (
        conversation(GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nhi\r\n3;a=b\r\nyou\r\n0\r\nX: y\r\n\r\n"),
        [*ASKED, "< response 0 200 OK", "< body 0 hi", "< body 0 you", "< end 0"],
    ),
    "chunk size with a space": (
        conversation(GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\nhi\r\n0\r\n\r\n"),
        [*ASKED, "< response 0 200 OK", "< body 0 hi", "< end 0"],
    ),
    "until close": (
        [*conversation(GET, b"HTTP/1.0 200 OK\r\n\r\nhi"), (RESPONSE, b"")],
        [*ASKED, "< response 0 200 OK", "< body 0 hi", "< end 0"],
    ),
    "interim answers": (
        conversation(GET, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK),
        [*ASKED, "< response 0 100 Continue", "< response 0 103 Early Hints", *ANSWERED],
    ),
    "HEAD": (
        conversation(b"HEAD / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", GET, OK),
        [
            *["> request 0 HEAD / HTTP/1.1", "> end 0", "< response 0 200 OK", "< end 0"],
            *["> request 1 GET / HTTP/1.1", "> end 1", "< response 1 200 OK", "< body 1 hi", "< end 1"],
        ],
    ),
    "no content": (
        conversation(GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\nHTTP/1.1 204\r\n\r\n"),
        [*ASKED, "< response 0 304 Not Modified", "< end 0", "< response None 204", "< end None"],
    ),
    "empty line before a request": (
        conversation(b"\r\n" + GET + b"\r\n" + GET),
        [*ASKED, "> request 1 GET / HTTP/1.1", "> end 1"],
    ),
    "empty line at the end": ([(REQUEST, GET + b"\r\n"), (REQUEST, b"")], [*ASKED, "> ~ 27..29: empty line"]),
    "CONNECT": (
        conversation(
            b"CONNECT h:443 HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 Connected\r\nContent-Length: 9\r\n\r\nserver", b"client"
        ),
        [
            "> request 0 CONNECT h:443 HTTP/1.1",
            "> end 0",
            "< response 0 200 Connected",
            "< tunnel 0 server",
            "> tunnel 0 client",
        ],
    ),
    "CONNECT refused": (
        conversation(b"CONNECT h:443 HTTP/1.1\r\n\r\n" + GET, b"HTTP/1.1 407 Who\r\nContent-Length: 2\r\n\r\nno" + OK),
        [
            *["> request 0 CONNECT h:443 HTTP/1.1", "> end 0", "< response 0 407 Who"],
            *["> request 1 GET / HTTP/1.1", "> end 1", "< body 0 no", "< end 0"],
            *["< response 1 200 OK", "< body 1 hi", "< end 1"],
        ],
    ),
    "CONNECT, client speaks early": (
        conversation(b"CONNECT h:1 HTTP/1.1\r\n\r\n\x16\x03", b"HTTP/1.1 200 OK\r\n\r\n\x16", b"\x01"),
        [
            "> request 0 CONNECT h:1 HTTP/1.1",
            "> end 0",
            "< response 0 200 OK",
            "> tunnel 0 \x16\x03",
            "< tunnel 0 \x16",
            "> tunnel 0 \x01",
        ],
    ),
    "CONNECT without an answer": (
        [(REQUEST, b"CONNECT h:1 HTTP/1.1\r\n\r\nxyz"), (REQUEST, b"")],
        ["> request 0 CONNECT h:1 HTTP/1.1", "> end 0", "> tunnel 0 xyz"],
    ),
    "WebSocket": (
        conversation(
            b"GET /c HTTP/1.1\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x01a",
            b"\x81\x81....b",
        ),
        [
            "> request 0 GET /c HTTP/1.1",
            "> end 0",
            "< response 0 101 Switching Protocols",
            "< tunnel 0 \x81\x01a",
            "> tunnel 0 \x81\x81....b",
        ],
    ),
    "upgrade refused": (
        conversation(b"GET /c HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n" + GET, OK + OK),
        [
            *["> request 0 GET /c HTTP/1.1", "> end 0", "< response 0 200 OK", "> request 1 GET / HTTP/1.1", "> end 1"],
            *["< body 0 hi", "< end 0", "< response 1 200 OK", "< body 1 hi", "< end 1"],
        ],
    ),
    "upgrade while the body is on its way": (
        [
            (REQUEST, b"POST /c HTTP/1.1\r\nUpgrade: x\r\nConnection: upgrade\r\nContent-Length: 4\r\n\r\nab"),
            (RESPONSE, b"HTTP/1.1 101 Go\r\nUpgrade: x\r\n\r\n"),
            (REQUEST, b"cdraw"),
        ],
        ["> request 0 POST /c HTTP/1.1", "> body 0 ab", "< response 0 101 Go", "> body 0 cd", "> end 0", "> tunnel 0 raw"],
    ),
    "answer without a request": (conversation(b"", OK), ["< response None 200 OK", "< body None hi", "< end None"]),
    "head cut by the end": (
        [(REQUEST, b"GET / HTTP/1.1\r\nHost: h\r\nAcc"), (REQUEST, b"")],
        ["> request 0 GET / HTTP/1.1 (the direction ended inside the head)"],
    ),
    "start line cut by the end": ([(REQUEST, b"GET /"), (REQUEST, b"")], ["> request 0 (the direction ended inside the head)"]),
    "body cut by the end": (
        [*conversation(GET, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi"), (RESPONSE, b"")],
        [*ASKED, "< response 0 200 OK", "< body 0 hi", "< end 0 (the direction ended 7 bytes before the end of the body)"],
    ),
    "chunked body cut by the end": (
        [*conversation(GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r"), (RESPONSE, b"")],
        [*ASKED, "< response 0 200 OK", "< body 0 hi", "< end 0 (the direction ended inside the chunked body)"],
    ),
    "bytes after the end": (
        [(REQUEST, GET), (REQUEST, b""), (REQUEST, b"x")],
        [*ASKED, "> ~ 27..28: bytes after the end of the direction"],
    ),
    "target above ASCII": (conversation(b"GET /\xc3\xa9 HTTP/1.1\r\n\r\n"), ["> request 0 GET /\xc3\xa9 HTTP/1.1", "> end 0"]),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversation(name: str) -> None:
    """A conversation gives its messages, however its bytes are cut."""
    arrivals, expected = CONVERSATIONS[name]
    seen = all_ways(Http1Decoder, arrivals)
    assert expected == outline(seen)
    check_spans(arrivals, seen)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_trailing_data(name: str) -> None:
    """What follows a conversation in the same bytes changes nothing of it."""
    arrivals, expected = CONVERSATIONS[name]
    direction, last = arrivals[-1]
    if not isinstance(last, bytes) or not last or "tunnel" in expected[-1] or "~" in expected[-1]:
        return
    seen = feed(Http1Decoder(), [*arrivals[:-1], (direction, last + b"\x00")])
    assert expected == outline(seen)[: len(expected)]


BAD_REQUESTS = {
    "bare LF": (b"GET / HTTP/1.1\nHost: h\n\n", 14, "bare LF"),
    "bare LF after a field": (b"GET / HTTP/1.1\r\nHost: h\n\r\n", 23, "bare LF"),
    "LF alone": (b"\nGET / HTTP/1.1\r\n\r\n", 0, "bare LF"),
    "bare CR in the start line": (b"GET /\rx HTTP/1.1\r\n\r\n", 5, "bare CR"),
    "bare CR in a field": (b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", 20, "bare CR"),
    "NUL in a field": (b"GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", 20, "NUL"),
    "escape in a field": (b"GET / HTTP/1.1\r\nA: \x1b[2J\r\n\r\n", 19, "control character 0x1b"),
    "folded field": (b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 22, "folded field line (obs-fold)"),
    "white space before the fields": (b"GET / HTTP/1.1\r\n A: b\r\n\r\n", 16, "folded field line (obs-fold)"),
    "white space before the colon": (b"GET / HTTP/1.1\r\nHost : h\r\n\r\n", 16, "white space between field name and colon"),
    "no colon": (b"GET / HTTP/1.1\r\nHost\r\n\r\n", 16, "not a field line"),
    "no name": (b"GET / HTTP/1.1\r\n: h\r\n\r\n", 16, "not a field line"),
    "two spaces": (b"GET  / HTTP/1.1\r\n\r\n", 0, "not a request line"),
    "space in the target": (b"GET /a b HTTP/1.1\r\n\r\n", 0, "not a request line"),
    "space at the end": (b"GET / HTTP/1.1 \r\n\r\n", 0, "not a request line"),
    "HTTP/0.9": (b"GET /\r\n", 0, "not a request line"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0, "not a request line"),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\n\r\n", 0, "not a request line"),
    "lower case version": (b"GET / http/1.1\r\n\r\n", 0, "not a request line"),
    "two empty lines": (b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", 2, "not a request line"),
    "two lengths": (
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        0,
        "conflicting Content-Length values",
    ),
    "listed lengths": (b"POST / HTTP/1.1\r\nContent-Length: 1, 2\r\n\r\nx", 0, "conflicting Content-Length values"),
    "signed length": (b"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\nx", 0, "Content-Length is not a number"),
    "negative length": (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\nx", 0, "Content-Length is not a number"),
    "hexadecimal length": (b"POST / HTTP/1.1\r\nContent-Length: 0x1\r\n\r\nx", 0, "Content-Length is not a number"),
    "empty length": (b"POST / HTTP/1.1\r\nContent-Length:\r\n\r\nx", 0, "Content-Length is not a number"),
    "superscript length": (b"POST / HTTP/1.1\r\nContent-Length: \xb2\r\n\r\nx", 0, "Content-Length is not a number"),
    "huge length": (b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 19 + b"\r\n\r\nx", 0, "Content-Length is not a number"),
    "length and chunked": (
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        0,
        "both Transfer-Encoding and Content-Length",
    ),
    "two codings": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        0,
        "more than one Transfer-Encoding field",
    ),
    "other coding": (b"POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n", 0, "Transfer-Encoding other than chunked"),
    "listed coding": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        0,
        "Transfer-Encoding other than chunked",
    ),
    "hidden coding": (b"POST / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", 36, "control character 0x0b"),
    "coding in 1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, "Transfer-Encoding in HTTP/1.0"),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 0, "more than one Host field"),
    "long head": (b"GET /" + b"a" * HEAD_BYTES_MAX, HEAD_BYTES_MAX, "head too long"),
    "many fields": (
        b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * (FIELDS_MAX + 1),
        16 + 5 * FIELDS_MAX,
        f"more than {FIELDS_MAX} fields",
    ),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_bad_request(name: str) -> None:
    """A request that two readers could read differently is an error with its place, and the rest is skipped."""
    data, offset, reason = BAD_REQUESTS[name]
    arrivals: list[Arrival] = [(REQUEST, data)]
    seen = all_ways(Http1Decoder, arrivals) if len(data) < 1000 else feed(Http1Decoder(), arrivals)
    lines = outline(seen)
    assert f"> ! {offset}: {reason}" == lines[0]
    assert all(line.startswith("> ~") for line in lines[1:])
    check_spans(arrivals, seen)


CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
BAD_CHUNKS = {
    "no size": (b"\r\n", 0, "not a chunk size"),
    "not hexadecimal": (b"g\r\n", 0, "not a chunk size"),
    "prefixed size": (b"0x1\r\na\r\n", 0, "not a chunk size"),
    "signed size": (b"-1\r\n", 0, "not a chunk size"),
    "size with a space": (b"1 \r\na\r\n", 0, "not a chunk size"),
    "space before the size": (b" 1\r\na\r\n", 0, "not a chunk size"),
    "size with an underscore": (b"1_0\r\n", 0, "not a chunk size"),
    "bare LF": (b"1\na\r\n", 1, "bare LF"),
    "bare CR in an extension": (b"1;a\rb\r\na\r\n", 3, "bare CR"),
    "too many digits": (b"0" * 17 + b"\r\n", 0, "chunk size of more than 16 digits"),
    "longer than its size": (b"1\r\nab\r\n", 4, "chunk longer than its size"),
    "content ends with LF": (b"1\r\na\n0\r\n\r\n", 4, "chunk longer than its size"),
    "bad trailer": (b"0\r\nA : b\r\n\r\n", 3, "white space between field name and colon"),
    "long size line": (b"1;" + b"a" * CHUNK_LINE_BYTES_MAX, CHUNK_LINE_BYTES_MAX, "chunk size line too long"),
    "many extensions": ((b"1;" + b"a" * 4000 + b"\r\na\r\n") * 5, 4 * 4007, "too many chunk extensions"),
}


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_bad_chunk(name: str) -> None:
    """Chunk framing that breaks the grammar is an error with its place."""
    data, offset, reason = BAD_CHUNKS[name]
    arrivals: list[Arrival] = [(REQUEST, CHUNKED + data)]
    seen = all_ways(Http1Decoder, arrivals) if len(data) < 1000 else feed(Http1Decoder(), arrivals)
    assert f"> ! {len(CHUNKED) + offset}: {reason}" in outline(seen)
    check_spans(arrivals, seen)


BAD_ANSWERS = {
    "not HTTP": (b"SSH-2.0-x\r\n", 0, "not a status line"),
    "two digits": (b"HTTP/1.1 20 OK\r\n\r\n", 0, "not a status line"),
    "escape in the reason": (b"HTTP/1.1 200 \x1bOK\r\n\r\n", 13, "control character 0x1b"),
    "empty line first": (b"\r\n" + OK, 0, "not a status line"),
    "length and chunked": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        0,
        "both Transfer-Encoding and Content-Length",
    ),
    "unasked upgrade": (b"HTTP/1.1 101 Go\r\nUpgrade: x\r\n\r\n", 0, "101 to a request that asked for no upgrade"),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_bad_answer(name: str) -> None:
    """An answer that breaks the protocol is an error of its direction; the other direction goes on."""
    data, offset, reason = BAD_ANSWERS[name]
    arrivals: list[Arrival] = [(REQUEST, GET), (RESPONSE, data), (REQUEST, GET)]
    seen = all_ways(Http1Decoder, arrivals)
    lines = outline(seen)
    assert f"< ! {offset}: {reason}" in lines
    assert ["> request 1 GET / HTTP/1.1", "> end 1"] == lines[-2:]
    check_spans(arrivals, seen)


def test_fields() -> None:
    """A head carries everything that was sent, as it was sent."""
    seen = feed(Http1Decoder(), conversation(b"PUT /a?b=c HTTP/1.1\r\nhost: h:1\r\nX-A:  b c \t\r\nContent-Length: 0\r\n\r\n"))
    assert isinstance(seen[0], Message)
    expected = {
        "method": "PUT",
        "target": "/a?b=c",
        "version": "1.1",
        "headers": [["host", "h:1"], ["X-A", "b c"], ["Content-Length", "0"]],
        "framing": "length",
        "length": 0,
        "host": "h:1",
    }
    assert expected == seen[0].fields
    assert (0, 66) == (seen[0].start, seen[0].end)


def test_trailers() -> None:
    """Trailers are given with the end, and never merged into the head."""
    seen = feed(Http1Decoder(), [(REQUEST, CHUNKED + b"2\r\nhi\r\n0\r\nContent-Length: 7\r\n\r\n" + GET)])
    end = seen[2]
    assert isinstance(end, Message)
    assert {"body_bytes": 2, "trailers": [["Content-Length", "7"]]} == end.fields
    assert "> request 1 GET / HTTP/1.1" == outline(seen)[3]


def test_body_streams() -> None:
    """A body is given as its bytes arrive, and nothing of it is kept."""
    decoder = Http1Decoder()
    decoder.receive(REQUEST, b"PUT / HTTP/1.1\r\nContent-Length: 8388608\r\n\r\n")
    assert 1 == len(drain(decoder))
    for _ in range(128):
        decoder.receive(REQUEST, b"x" * 65536)
        part = drain(decoder)[0]
        assert isinstance(part, Message)
        assert 65536 == len(part.content)


def test_early_bytes_are_bounded() -> None:
    """Bytes that wait for the answer to CONNECT are given as a tunnel when there are too many."""
    decoder = Http1Decoder()
    decoder.receive(REQUEST, b"CONNECT h:1 HTTP/1.1\r\n\r\n" + b"x" * HELD_BYTES_MAX)
    assert 2 == len(drain(decoder))
    decoder.receive(REQUEST, b"x")
    tunnel = drain(decoder)[0]
    assert isinstance(tunnel, Message)
    assert HELD_BYTES_MAX + 1 == len(tunnel.content)
