"""Heads with folded fields, which decoders refuse: nothing of what is in them is stored."""

from __future__ import annotations

import pytest

from capd.daemon.masking.levels import Levels
from capd.daemon.masking.stage import Stage
from capd.enforcer.masking.rules import Choice, Rules
from tests.assembly.world import REQUEST, RESPONSE, stream
from tests.masking.test_stage import Talk, cycles, passed, stored

RULES = Rules(Choice())
SECRET = b"Zq7vKw93Lm-x4"
FIELDS = [
    b"Authorization: Bearer\r\n %b",
    b"Authorization:\r\n\tBearer\r\n %b",
    b"Authorization: Bearer abc\r\n %b",
    b"AUTHORIZATION \t: Basic\r\n   \r\n\t %b",
    b"Proxy-Authorization: Basic\n %b",
    b"Cookie: a=b;\r\n c=%b",
    b'X-A: b\r\n c\r\nCookie: a="b"; c=%b',
    b'X-A: b\r\n c\r\nAuthorization: Digest username="a", response="%b"',
    b"X-Api-Key:\r\n %b",
    b"Location:\r\n https://ann:%b@h/",
    b"Referer:\r\n https://h/?a=1&password=a'%b&b=2",
    b'Authorization: Digest username="a", response="%b"',
]
ANSWER = (RESPONSE, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def talks(field: bytes) -> list[Talk]:
    """Give conversations with the field in a request, in an older one, in an answer, and in trailers."""
    said = field % SECRET
    asked = b"POST / HTTP/%b\r\nHost: a.test\r\n%b\r\nContent-Length: 3\r\n\r\na=b"
    answered = b"HTTP/1.1 200 OK\r\n%b\r\nContent-Length: 0\r\n\r\n" % said.replace(b"Cookie", b"Set-Cookie")
    trailers = b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n%b\r\n\r\n" % said
    return [
        [(REQUEST, asked % (b"1.1", said)), ANSWER],
        [(REQUEST, asked % (b"1.0", said)), ANSWER],
        [(REQUEST, b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"), (RESPONSE, answered)],
        [(REQUEST, trailers), ANSWER],
    ]


@pytest.mark.parametrize("field", FIELDS)
def test_a_folded_field_is_hidden(field: bytes) -> None:
    """However a head is cut, its credential is in no payload, text, index or export; its bytes keep their places."""
    for talk in talks(field):
        for size, per_cycle in ((100_000, 100), (100_000, 1), (7, 1)):
            shown = passed(Stage(RULES, Levels()), cycles(talk, 80, size, per_cycle))
            assert SECRET not in stored(shown)
            for direction in (REQUEST, RESPONSE):
                assert sum(len(data) for one, data in talk if one == direction) == len(stream(shown, direction))
