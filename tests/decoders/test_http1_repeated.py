"""HTTP/1: heads whose field lines are those of the head before, or nearly, are read like any others.

What lives here: one decoder that remembers beside one that does not. What must not: what heads mean (test_http1.py).
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capd.decoders.http1 import Http1Decoder, side
from capd.decoders.message import Message
from tests.decoders.feeding import REQUEST, RESPONSE, Arrival, Seen, feed, split_at

LINES = (
    b"Host: h",
    b"host: g",
    b"X: 1",
    b"X: 12",
    b"x:",
    b"Content-Length: 2",
    b"Transfer-Encoding: chunked",
    b"Connection: upgrade",
)
BROKEN = (b" folded", b"X : 1", b"Content-Length: 2", b"")
BEGINS = {
    REQUEST: (b"GET / HTTP/1.1", b"POST / HTTP/1.1", b"HEAD /a HTTP/1.0", b"GET  / HTTP/1.1"),
    RESPONSE: (b"HTTP/1.1 200 OK", b"HTTP/1.0 404", b"HTTP/1.1 204 x", b"HTTP/1.1 100 y", b"HTTP/1.1  200"),
}


@st.composite
def said(draw: st.DrawFn) -> tuple[list[Arrival], list[int]]:
    """Draw heads of both directions, many with the lines of the one before, and where they are cut."""
    arrivals: list[Arrival] = []
    lines = {side: list[bytes]() for side in (REQUEST, RESPONSE)}
    for _ in range(draw(st.integers(2, 5))):
        for direction in (REQUEST, RESPONSE):
            if draw(st.integers(0, 2)) == 0:
                lines[direction] = draw(st.lists(st.sampled_from(LINES), max_size=3))
            more = draw(st.sampled_from((*[()] * 6, *((one,) for one in BROKEN))))
            begin = draw(st.sampled_from((*BEGINS[direction][:2] * 4, *BEGINS[direction])))
            arrivals.append(
                (direction, b"\r\n".join((begin, *lines[direction], *more, b"", draw(st.sampled_from((b"", b"hi"))))))
            )
    return arrivals, draw(st.lists(st.integers(1, 300), max_size=3))


@settings(max_examples=300, deadline=None)
@given(said())
def test_the_same_lines_again(drawn: tuple[list[Arrival], list[int]]) -> None:
    """Whatever was said before, and however it is cut, a decoder that remembers gives what one that does not would give."""
    arrivals, cuts = drawn
    cut = split_at(arrivals, cuts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(side, "REMEMBERED_BYTES_MAX", -1)
        anew = feed(Http1Decoder(), cut)
    assert shown(anew) == shown(feed(Http1Decoder(), cut))


def shown(seen: list[Seen]) -> list[str]:
    """Give events as text."""
    return [repr(one) for one in seen]


def test_what_is_remembered_is_bounded() -> None:
    """Long field lines are not kept."""
    decoder = Http1Decoder()
    feed(decoder, [(REQUEST, b"GET / HTTP/1.1\r\nX: %b\r\n\r\n" % (b"x" * side.REMEMBERED_BYTES_MAX))])
    assert decoder._sides[0]._before is None  # type: ignore[attr-defined] # it is of HTTP/1
    feed(decoder, [(REQUEST, b"GET / HTTP/1.1\r\nX: x\r\n\r\n")])
    assert decoder._sides[0]._before is not None  # type: ignore[attr-defined] # as above


def test_the_same_lines_mean_something_else_in_another_version() -> None:
    """Framing that HTTP/1.0 does not have is an error there, also when the head before had the same lines."""
    head, lines = b"POST / HTTP/1.%d\r\n", b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    seen = feed(Http1Decoder(), [(REQUEST, head % 1 + lines), (REQUEST, head % 1 + lines), (REQUEST, head % 0 + lines)])
    *whole, last = seen
    assert ["request", "end"] * 2 == [one.type for one in whole[:4] if isinstance(one, Message)]
    assert "HTTP/1.0" in repr(last)
