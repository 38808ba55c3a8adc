"""Server-sent events as readers see them: one by one, whatever the chunks in which they came."""

from __future__ import annotations

from capd.cli.line import plain
from capd.cli.payload import BRIEF, Limits
from capd.cli.transcript import Transcript
from capd.recording.record import Kind
from tests.cli.recorded import REQUEST, RESPONSE, Conversation
from tests.cli.spoken import over_events
from tests.cli.test_http2 import transcript
from tests.decoders import http2_bytes as h2
from tests.decoders.test_http2 import GET_1

SHOWN = """\
> GET /stream HTTP/1.1
  Host: api.example.org
< 200 OK  after 1 ms
  Content-Type: text/event-stream; charset=utf-8
  Transfer-Encoding: chunked
< event delta  id 1
  {
    "text": "Zoë"
  }
< event message  id 1
  two
  lines
  event message  id 1
  [DONE]
< event message  id 1  incomplete: the stream ended before its blank line
  cut
"""


def test_over_http1() -> None:
    """Each event is shown when it is whole, and what has no end at the end, with the reason."""
    assert SHOWN == transcript(over_events())


def test_over_http2() -> None:
    """Two streams of events at a time are told apart."""
    said = Conversation(b"two")
    head = h2.literal((":status", "200"), ("content-type", "text/event-stream"))
    said.say(REQUEST, h2.OPENING + h2.headers(1, GET_1, end=True))
    parts = (h2.data(1, b"data: on"), h2.data(3, b"data: two\n\n"), h2.data(1, b"e\n\n"))
    said.say(RESPONSE, h2.SETTINGS + h2.headers(1, head) + h2.headers(3, head) + b"".join(parts))
    assert transcript(said).endswith("< event message  stream 3\n  two\n< event message  stream 1\n  one\n")


def test_what_is_missing() -> None:
    """The event in which bytes were lost, or are not read because they are many, says so; the next one does not."""
    said = over_events()
    at = next(number for number, record in enumerate(said.records) if "delta" in repr(record.body.get("text")))
    lost = Conversation(b"lost")
    lost.lose(RESPONSE, 5)
    (gap,) = (record for record in lost.records if record.kind is Kind.GAP)
    said.records.insert(at + 1, gap)
    shown = transcript(said)
    assert "event delta  incomplete: bytes lost\n" in shown
    assert "event message\n  two\n" in shown
    small = Transcript(Limits(body_bytes=16), protocol="http1")
    lines = [plain(line) for record in said.records for block in small.feed(record) for line in block.lines]
    assert any("incomplete: its middle is not shown; --full gives more" in line for line in lines)
    assert BRIEF.body_bytes > 16
