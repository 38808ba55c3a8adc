"""Server-sent events: a body in, events out, however it is cut."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capd.decoders.sse import EventStream, ServerSentEvent
from capd.decoders.sse.events import EVENT_BYTES_MAX, LINE_BYTES_MAX

Told = tuple[str, str, str, int | None, str | None]
END = "the stream ended before its blank line"


def told(events: list[ServerSentEvent]) -> list[Told]:
    """Give events as tuples."""
    return [(event.type, event.data, event.id, event.retry, event.incomplete) for event in events]


def read(content: bytes, step: int = 1 << 30) -> list[ServerSentEvent]:
    """Give the events of a body that arrives in steps."""
    stream = EventStream()
    events = [event for at in range(0, len(content), step) for event in stream.take(content[at : at + step])]
    return events + stream.end()


CASES: dict[str, tuple[bytes, list[Told]]] = {
    "one": (b"data: hello\n\n", [("message", "hello", "", None, None)]),
    "names, ids, several lines": (
        b"event: add\nid: 7\ndata: a\ndata:b\ndata:  c\n\ndata: next\n\n",
        [("add", "a\nb\n c", "7", None, None), ("message", "next", "7", None, None)],
    ),
    "ends of lines": (b"data: a\r\n\r\ndata: b\r\rdata: c\n\n", [("message", text, "", None, None) for text in "abc"]),
    "comments and unknown fields": (b": ping\n\n:\n\ndata: x\nother: y\n: z\ndata\n\n", [("message", "x\n", "", None, None)]),
    "a mark at the beginning": (b"\xef\xbb\xbfdata: x\n\n", [("message", "x", "", None, None)]),
    "retry": (b"retry: 3000\n\nretry: soon\ndata: x\n\n", [("message", "", "", 3000, None), ("message", "x", "", None, None)]),
    "a name without data": (b"event: ping\n\n", [("ping", "", "", None, None)]),
    "an id with NUL": (b"id: a\0b\ndata: x\n\n", [("message", "x", "", None, None)]),
    "not UTF-8": (b"data: \xff\xc3\xa9\n\n", [("message", "\ufffd\xe9", "", None, None)]),
    "no end": (b"data: a\n\ndata: b", [("message", "a", "", None, None), ("message", "b", "", None, END)]),
    "nothing": (b"\n\r\n\n", []),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("step", [1, 2, 3, 1 << 30])
def test_events(name: str, step: int) -> None:
    """A body gives these events, however it is cut."""
    content, expected = CASES[name]
    assert expected == told(read(content, step))


def test_spans() -> None:
    """An event says where in the content it stands, with its blank line."""
    content = b"data: a\r\n\r\n: x\n\ndata: b\n\n"
    assert [b"data: a\r\n\r", b"data: b\n\n"] == [content[event.start : event.end] for event in read(content)]
    assert [(0, 10), (16, 25)] == [(event.start, event.end) for event in read(content, 1)]


@given(
    st.lists(st.sampled_from([b"data: a", b"event:x", b"id:1", b":", b"\r", b"\n", b"\r\n", b"\0", b"\xff", b"dat", b"a: "]))
)
def test_any_bytes_any_cuts(parts: list[bytes]) -> None:
    """Whatever arrives, cut in whatever way, gives the same events, in order, and raises nothing."""
    content = b"".join(parts)
    whole = read(content)
    assert whole == read(content, 1) == read(content, 3)
    assert all(before.end <= after.start for before, after in pairwise(whole))


def test_lost_bytes() -> None:
    """The event in which bytes are missing says so; the next one is whole."""
    stream = EventStream()
    assert [] == stream.take(b"data: before\nda")
    stream.lose(10, "ring full")
    assert [("message", "before", "", None, "ring full")] == told(stream.take(b"ta: x\n\n"))
    assert [("message", "y", "", None, None)] == told(stream.take(b"data: y\n\n"))


def test_limits() -> None:
    """Neither a line nor an event grows without end; the event says that it is cut, and time grows with the bytes."""
    begin = time.process_time()
    (long,) = read(b"data: " + b"x" * (3 * LINE_BYTES_MAX) + b"\n\n", 1 << 16)
    assert (LINE_BYTES_MAX - 6, f"a line of more than {LINE_BYTES_MAX} bytes") == (len(long.data), long.incomplete)
    (many,) = read((b"data: " + b"y" * 4_000 + b"\n") * 2_000 + b"\n", 1 << 16)
    assert len(many.data) <= EVENT_BYTES_MAX
    assert f"data of more than {EVENT_BYTES_MAX} bytes" == many.incomplete
    assert time.process_time() - begin < 5
