"""WebSocket as readers see it: what was said, unscrambled and unpacked."""

from __future__ import annotations

import json

from capd.cli.forms.writing import pieces
from capd.cli.payload import FULL
from capd.cli.record_json import as_json
from capd.cli.summary import to_json
from capd.recording.record import Kind
from tests.cli.spoken import over_websocket
from tests.cli.test_forms import form_of, spoken
from tests.cli.test_http2 import transcript

SHOWN = """\
> GET /v1/realtime HTTP/1.1
  Host: api.example.org
  Authorization: Bearer … (14 characters not shown)
  Upgrade: websocket
  … 2 more headers
< 101 Switching Protocols  after 1 ms
  Upgrade: websocket
  … 2 more headers
> text 42 bytes
  {
    "type": "session.update",
    "voice": "ada"
  }
< text 27 bytes
  {
    "type": "session.updated"
  }
> binary 20 bytes
  000000  00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f  ................
  000010  10 11 12 13                                      ....
< text 25 bytes
  plain words in two frames
> close 1000 done
"""


def test_transcript() -> None:
    """Every message is shown as it was said, with its direction; pings are shown by --full."""
    assert SHOWN == transcript(over_websocket())
    assert "< ping\n" in transcript(over_websocket(), FULL)


def test_json() -> None:
    """In JSON a message has its text, and its content where that does not stand in the payload."""
    told = [json.loads(to_json(as_json(r)))["body"] for r in over_websocket().records if r.kind is Kind.MESSAGE]
    texts = [each["text"] for each in told if each.get("type") == "text"]
    assert ['{"type": "session.update", "voice": "ada"}', '{"type": "session.updated"}', "plain words in two frames"] == texts
    assert [True, True, False] == ["content" in each for each in told if each.get("type") == "text"]


def test_no_form_gives_the_handshake_away() -> None:
    """Credentials of the handshake are in no form."""
    said = over_websocket()
    for form in ("har", "page", "pcap"):
        assert b"sk-very-secret" not in b"".join(pieces(form, [spoken(said.records)], FULL))
    (entry,) = json.loads(form_of("har", said))["log"]["entries"]
    assert 101 == entry["response"]["status"]
