"""Bodies of HTTP/2 that are not as long as their content-length says: an error of their stream, and of no other.

What lives here: both sides. What must not: other malformed things (test_proxy_http2_refused.py).
"""

from __future__ import annotations

import hpack
import pytest

from capd.enforcer.proxy.events import Side
from tests.enforcer.rehearsal import Rehearsal
from tests.enforcer.streams import head, streams
from tests.enforcer.test_proxy_differential import frame


@pytest.mark.parametrize(("length", "body"), [("2", b"abc"), ("2", b"a"), ("x", b"a"), ("2", None)])
def test_a_request_of_another_length_ends_alone(length: str, body: bytes | None) -> None:
    """A request whose body is longer or shorter than was said is refused; what else is asked in its connection goes on."""
    run = Rehearsal(judge=None).says(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
    packer = hpack.Encoder()
    run.says(frame(1, 5, 1, packer.encode(head())))
    run.says(frame(1, 4 | (body is None), 3, packer.encode(head("POST", "/", ("content-length", length)))))
    if body is not None:
        run.says(frame(0, 1, 3, body))
    assert (1, set(), b"") == (len(run.refused), run.finished, run.upstream)
    assert [1] == [question.exchange for question in run.asked]


@pytest.mark.parametrize("body", [b"abc", b""])
def test_an_answer_of_another_length_ends_alone(body: bytes) -> None:
    """An answer that is not as long as it says is cut, and no other."""
    told = streams()
    wrong, right = told.asks(head()), told.asks(head(path="/b"))
    told.run.answers(
        frame(1, 4, 1, hpack.Encoder().encode([(":status", "200"), ("content-length", "1")])) + frame(0, 1, 1, body)
    )
    told.go()
    assert (1, False) == (told.at_client(wrong).reset, told.at_client(wrong).ended)
    assert (None, set()) == (told.at_client(right).reset, told.run.finished & {Side.CLIENT})


def test_an_answer_without_a_body_may_name_a_length() -> None:
    """304 says how long the body would be (RFC 9110 8.6); a target that ends it in a frame of its own breaks nothing."""
    told = streams()
    told.asks(head())
    told.run.answers(
        frame(1, 4, 1, hpack.Encoder().encode([(":status", "304"), ("content-length", "1")])) + frame(0, 1, 1, b"")
    )
    assert told.run.client.endswith(frame(0, 1, 1, b""))
    assert not told.run.refused
