"""HTTP/2 as readers see it: streams told apart, bodies whole, credentials never spelled."""

from __future__ import annotations

import json

import pytest

from capd.cli.forms.writing import pieces
from capd.cli.line import plain
from capd.cli.payload import BRIEF, FULL, Limits
from capd.cli.transcript import Transcript
from capd.cli.window import Window
from capd.decoders.http2.frames import HEADER_BYTES, frame_at
from capd.recording.record import Kind
from tests.cli.recorded import REQUEST, RESPONSE, Conversation
from tests.cli.spoken import over_http2
from tests.cli.test_forms import form_of, spoken
from tests.decoders import http2_bytes as h2
from tests.decoders.test_http2 import GET_1, OK_1

SHOWN = """\
> POST /v1/chat?n=1 HTTP/2  stream 1
  :authority: api.example.org
  authorization: Bearer … (14 characters not shown)
  content-type: application/json
  … 3 more headers
> GET /logo.png HTTP/2  stream 3
  :authority: api.example.org
  cookie: sid=… (6 characters not shown)
  … 3 more headers
> · body 16 bytes · application/json · stream 1
  {
    "model": "m-1"
  }
< 200  stream 1  after 252 ms
  content-type: application/json
  set-cookie: sid=… (6 characters not shown)
  … 1 more header
< 404  stream 3  after 251 ms
  content-type: text/plain
  … 1 more header
< · body 8 bytes · text/plain · stream 3
  no logo
< · body 25 bytes · application/json · stream 1
  {
    "id": 42,
    "name": "Ada"
  }
  trailer x-checksum: c0ffee
> POST /shop.Orders/List HTTP/2  stream 5
  :authority: api.example.org
  content-type: application/grpc
  … 3 more headers
> /shop.Orders/List message 0: 5 bytes  stream 5
  000000  0a 03 61 64 61                                   ..ada
< 200  stream 5  after 1 ms
  content-type: application/grpc
  … 1 more header
< /shop.Orders/List message 0: 7 bytes  stream 5
  000000  0a 05 6f 72 64 65 72                             ..order
< /shop.Orders/List message 1: 7 bytes  stream 5
  000000  0a 05 6f 74 68 65 72                             ..other
< grpc-status 8  stream 5
  trailer grpc-status: 8
  trailer grpc-message: too many
> POST /v1/chat?n=1 HTTP/2  stream 7
  :authority: api.example.org
  authorization: Bearer … (14 characters not shown)
  content-type: text/plain
  … 3 more headers
> · body 8 bytes · text/plain · stream 7
  never mi
  incomplete: reset: CANCEL
> RST_STREAM CANCEL  stream 7
> GOAWAY NO_ERROR
"""


def transcript(said: Conversation, limits: Limits = BRIEF) -> str:
    """Give a conversation as text, without times and numbers."""
    told = Transcript(limits, protocol="http2")
    blocks = [block for record in said.records for block in told.feed(record)] + told.pending()
    lines = []
    for block in blocks:
        if block.direction is not None:
            lines += [f"{'><'[block.direction]} {plain(block.lines[0])}", *(f"  {plain(line)}" for line in block.lines[1:])]
    return "\n".join(lines) + "\n"


def test_transcript() -> None:
    """Of streams that are mixed each request, answer, body and message of gRPC is shown whole, with the stream's number."""
    shown = transcript(over_http2())
    assert SHOWN == "".join(line for line in shown.splitlines(keepends=True) if "SETTINGS" not in line)
    assert "< SETTINGS MAX_CONCURRENT_STREAMS 100, INITIAL_WINDOW_SIZE 65536\n" in shown
    assert "WINDOW_UPDATE" not in shown
    assert "> WINDOW_UPDATE\n" in transcript(over_http2(), FULL)


def test_a_body_that_is_still_coming() -> None:
    """What was received of a body is shown when nothing follows for a while."""
    said = Conversation(b"open")
    said.say(REQUEST, h2.OPENING + h2.headers(1, GET_1, end=True))
    said.say(RESPONSE, h2.SETTINGS + h2.headers(1, OK_1) + h2.data(1, b"so far", padding=3))
    assert transcript(said).endswith("< · body 6 bytes · text/plain · stream 1\n  so far\n")


def test_har_of_a_promise_and_a_reset() -> None:
    """An answer that a server gives unasked has its request; a stream that is reset says so."""
    said = Conversation(b"push")
    said.say(REQUEST, h2.OPENING + h2.headers(1, GET_1, end=True))
    promise = h2.frame(5, b"\0\0\0\2" + h2.literal(*h2.GET[:2], (":path", "/style"), h2.GET[3]), 4, 1)
    said.say(RESPONSE, h2.SETTINGS + promise + h2.headers(2, h2.literal(*h2.OK)) + h2.data(2, b"a{}", end=True) + h2.reset(1))
    entries = json.loads(form_of("har", said.close()))["log"]["entries"]
    assert [("http://x.example/style", 200, "a{}"), ("http://x.example/a", 0, None)] == [
        (entry["request"]["url"], entry["response"]["status"], entry["response"]["content"].get("text")) for entry in entries
    ]
    assert "promised by the server" in entries[0]["comment"]
    assert "RST_STREAM CANCEL of the response" in entries[1]["comment"]


def frame_of(before: bytes, said: bytes) -> bytes:
    """Give the payload of the frame that comes behind some bytes."""
    head = frame_at(said, len(before))
    return said[len(before) + HEADER_BYTES :][: head.length]


@pytest.mark.parametrize("form", ["har", "page", "pcap"])
def test_no_form_gives_a_credential_away(form: str) -> None:
    """Neither as it is nor as it was compressed: blocks with a credential are filled in packets, others are not."""
    said = over_http2()
    given = b"".join(pieces(form, [spoken(said.records)], FULL))
    raw = b"".join(bytes(record.body["payload"]) for record in said.records if record.kind is Kind.DATA)  # type: ignore[arg-type]
    first = frame_of(h2.OPENING + h2.frame(8, bytes(4)), raw)
    assert first in raw
    assert first not in given
    assert b"sk-very-secret" not in given
    assert (b"*" * len(first) in given) == (form == "pcap")


def test_a_window_gives_pieces() -> None:
    """Pieces of a span are given in order, as far as they are kept, and the span is forgotten."""
    window = Window(100)
    for at, part in ((0, b"abcd"), (4, b"efgh"), (20, b"uvwx")):
        window.put(at, part)
    assert b"bcfgv" == window.take(0, 22, [(1, 2), (5, 2), (12, 3), (21, 1)])
    assert b"wx" == window.take(20, 24)
