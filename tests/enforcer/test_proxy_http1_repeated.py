"""HTTP/1.1 on a connection that goes on: what was said before changes nothing of what is asked, sent and answered.

What lives here: a connection that remembers field lines beside one that does not. What must not: single cases.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capd.decoders.http1 import side
from capd.enforcer.proxy.http1 import fields, request, response
from tests.enforcer.rehearsal import Rehearsal, allow, deny

LINES = (
    *("Host: api.test", "host: api.test:80", "Host: b.test", "X: 1", "X: 12", "Connection: x", "Connection: close"),
    *("Content-Length: 2", "Transfer-Encoding: chunked", "Expect: 100-continue", "Expect: else", "Content_Length: 1"),
)
REQUESTS = (
    *("GET /a HTTP/1.1", "POST /b?q HTTP/1.1", "HEAD /a HTTP/1.0"),
    *("GET http://api.test/c HTTP/1.1", "GET http://b.test/c HTTP/1.1", "CONNECT a:1 HTTP/1.1"),
)
USUAL = ["Host: api.test"]
STATUSES = ("HTTP/1.1 200 OK", "HTTP/1.1 204 No", "HTTP/1.0 200 OK", "HTTP/1.1 200 Fine", "HTTP/1.1 100 Continue")
ANSWER_LINES = (
    "Content-Length: 2",
    "Transfer-Encoding: chunked",
    "Connection: close",
    "Connection: date",
    "Alt-Svc: x",
    "X: 1",
)
BODIES = ("", "hi", "2\r\nhi\r\n0\r\n\r\n")


def head(begin: str, lines: list[str], body: str) -> bytes:
    """Write one."""
    return "\r\n".join((begin, *lines, "", body)).encode()


@st.composite
def exchanges(draw: st.DrawFn) -> list[tuple[bytes, bytes, bool]]:
    """Draw exchanges on one connection, many with the lines of the one before: request, answer, whether it is allowed."""
    found, asked, answered = [], list(USUAL), ["Content-Length: 2"]
    for _ in range(draw(st.integers(2, 5))):
        if draw(st.booleans()):  # as most are, so that the connection goes on
            asked = USUAL + draw(st.lists(st.sampled_from(("X: 1", "Y: 1")), max_size=1))
            answered = ["Content-Length: 2", *draw(st.lists(st.sampled_from(("X: 1", "Y: 1")), max_size=1))]
            found.append((head(REQUESTS[0], asked, ""), head(STATUSES[0], answered, "hi"), True))
            continue
        if draw(st.integers(0, 2)) == 0:
            asked = USUAL + draw(st.lists(st.sampled_from(LINES), max_size=2))
        if draw(st.integers(0, 2)) == 0:
            answered = draw(st.lists(st.sampled_from(ANSWER_LINES), max_size=2))
        said = head(draw(st.sampled_from(REQUESTS[:2] * 4 + REQUESTS)), asked, draw(st.sampled_from(BODIES)))
        answer = head(draw(st.sampled_from(STATUSES[:1] * 4 + STATUSES)), answered, draw(st.sampled_from(BODIES)))
        found.append((said, answer, draw(st.integers(0, 4)) > 0))
    return found


def rehearsed(story: list[tuple[bytes, bytes, bool]]) -> tuple[object, ...]:
    """Give all that came of them."""
    allowed = iter(story)
    run = Rehearsal(judge=None)
    for said, answer, _ in story:
        if run.closed is None:
            run.says(said)
        while run.asked and run.closed is None:
            run.decide(allow if next(allowed, (b"", b"", True))[2] else deny)
        if run.closed is None:
            run.answers(answer)
    questions = [repr(one) for one in run.questions]
    return run.client, run.upstream, questions, run.refused, run.closed, run.finished, run.reading, run.armed


@settings(max_examples=300, deadline=None)
@given(exchanges())
def test_the_same_lines_again(story: list[tuple[bytes, bytes, bool]]) -> None:
    """A connection that remembers the field lines of the message before does what one that does not would do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(side, "REMEMBERED_BYTES_MAX", -1)
        patch.setattr(request.Requests, "_fields", lambda _, sent: request._read_fields(sent))
        patch.setattr(response.Responses, "read", lambda _, *said, **more: response._read(*said, **more))
        patch.setattr(fields.Lines, "text", lambda _, kept: fields.field_lines(kept))
        anew = rehearsed(story)
    assert anew == rehearsed(story)
