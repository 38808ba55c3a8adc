"""What is masked in HTTP, whatever the framing and the coding of a body."""

from __future__ import annotations

import gzip
import random
import time
import zlib

import pytest
import zstandard

from capd.decoders.message import Direction
from capd.enforcer.masking.header import header_places
from capd.enforcer.masking.packed import BLOCK_BYTES
from capd.enforcer.masking.rules import Choice, Rules
from tests.enforcer.judging import Turn, http_shown, pieces

RULES = Rules(Choice(json_paths=["$.user.ssn", "$.cards[*].number"]))
TOKEN = b"sk-ant-api03-" + b"Ab9_" * 8
REQUEST, RESPONSE = Direction.REQUEST, Direction.RESPONSE


def request(body: bytes, *headers: bytes, target: bytes = b"/a") -> bytes:
    """Give a request with a body."""
    lines = [b"POST %s HTTP/1.1" % target, b"Host: x", *headers, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(body: bytes, size: int) -> bytes:
    """Give a body in chunks of a size."""
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x;a=b\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def response(body: bytes, *headers: bytes) -> bytes:
    """Give an answer whose body is framed by the headers given."""
    return b"\r\n".join([b"HTTP/1.1 200 OK", *headers]) + b"\r\n\r\n" + body


HEAD = (
    b"GET /?access_token=abcdefgh&q=1 HTTP/1.1\r\nHost: x\r\n"
    b"Authorization: Bearer a.b\r\nX-Api-Key: k 1\r\nCookie: a=1; b=22\r\n\r\n"
)
HIDDEN_HEAD = (
    b"GET /?access_token=********&q=1 HTTP/1.1\r\nHost: x\r\n"
    b"Authorization: Bearer ***\r\nX-Api-Key: ***\r\nCookie: a=*; b=**\r\n\r\n"
)
ANSWER = response(b"{}", b"Set-Cookie: sid=abc; Path=/; HttpOnly", b"Location: https://u:pw@h/", b"Content-Length: 2")
HIDDEN_ANSWER = response(b"{}", b"Set-Cookie: sid=***; Path=/; HttpOnly", b"Location: https://u:**@h/", b"Content-Length: 2")
JSON = b'{"user": {"ssn": "123", "x": [1]}, "ssn": "4", "cards": [{"number": 41, "e": 1}], "password": "pw"}'
HIDDEN_JSON = b'{"user": {"ssn": "***", "x": [1]}, "ssn": "4", "cards": [{"number": **, "e": 1}], "password": "**"}'


@pytest.mark.parametrize("size", [0, 1, 7, 64])
def test_heads_and_pipelining(size: int) -> None:
    """Fields, cookies and parameters are masked in every head, also of requests that wait for no answer."""
    turns: list[Turn] = [(REQUEST, HEAD * 3), (RESPONSE, ANSWER * 3)]
    assert (HIDDEN_HEAD * 3, HIDDEN_ANSWER * 3) == http_shown(RULES, pieces(turns, size))


@pytest.mark.parametrize("size", [0, 1, 5, 33])
@pytest.mark.parametrize("chunk", [1, 3, 10, 1000])
def test_bodies_in_chunks(size: int, chunk: int) -> None:
    """A value that is split over chunks is masked, and the chunks' own framing stays."""
    body = b'data: {"text": "key ' + TOKEN + b' end", "password": "hunter2"}\n\n'
    hidden = b'data: {"text": "key ' + b"*" * len(TOKEN) + b' end", "password": "*******"}\n\n'
    said = response(chunked(body, chunk), b"Transfer-Encoding: chunked")
    shown = response(chunked(hidden, chunk), b"Transfer-Encoding: chunked")
    turns: list[Turn] = [(REQUEST, HEAD), (RESPONSE, said)]
    assert (HIDDEN_HEAD, shown) == http_shown(RULES, pieces(turns, size))
    assert (HIDDEN_HEAD, shown) == http_shown(RULES, pieces(turns, size), judge_often=False)


@pytest.mark.parametrize("size", [0, 1, 5])
def test_extensions_of_chunks(size: int) -> None:
    """What an extension says is looked at too; the framing stays."""
    said = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;a=1;password=%b\r\nabc\r\n0\r\n\r\n"
    turns: list[Turn] = [(REQUEST, said % b"hunter2-0")]
    assert said % b"*********" == http_shown(RULES, pieces(turns, size))[0]


@pytest.mark.parametrize("size", [0, 1, 4])
def test_json_by_path(size: int) -> None:
    """Values are masked where the path says, not where only the name is the same."""
    said = request(JSON, b"Content-Type: application/json")
    assert request(HIDDEN_JSON, b"Content-Type: application/json") == http_shown(RULES, pieces([(REQUEST, said)], size))[0]


def test_forms() -> None:
    """Fields of a form are masked, percent-encoded or not."""
    said = request(b"user=a&password=p%40+s&client_secret=1&x=2", b"Content-Type: application/x-www-form-urlencoded")
    assert http_shown(RULES, [(REQUEST, said)])[0].endswith(b"user=a&password=******&client_secret=*&x=2")


def bare_deflate(data: bytes) -> bytes:
    """Give DEFLATE without a wrapping."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


CODINGS = [
    (b"gzip", gzip.compress),
    (b"deflate", zlib.compress),
    (b"deflate", bare_deflate),
    (b"zstd", zstandard.ZstdCompressor().compress),
]


@pytest.mark.parametrize(("coding", "compress"), CODINGS)
@pytest.mark.parametrize("size", [0, 1, 50])
def test_packed_bodies(coding: bytes, compress: type[bytes], size: int) -> None:
    """A packed body with nothing in it stays; one with a secret is masked whole."""
    for content, hidden in ((b'{"a": "nothing to see"}' * 20, False), (b'{"a": "' + TOKEN + b'"}', True)):
        body = compress(content)
        said = response(body, b"Content-Encoding: " + coding, b"Content-Length: %d" % len(body))
        shown = http_shown(RULES, pieces([(REQUEST, HEAD), (RESPONSE, said)], size))[1]
        assert (said[: -len(body)] + b"*" * len(body) if hidden else said) == shown


def test_json_by_path_in_a_packed_body() -> None:
    """Paths are followed into what was packed."""
    body = gzip.compress(b'{"user": {"ssn": "123"}}')
    said = response(
        chunked(body, 9), b"Content-Type: application/json", b"Content-Encoding: gzip", b"Transfer-Encoding: chunked"
    )
    shown = http_shown(RULES, [(REQUEST, HEAD), (RESPONSE, said)])[1]
    assert b"*********" in shown
    assert body[:9] not in shown


@pytest.mark.parametrize("size", [0, 1_000, 70_001])
def test_long_packed_bodies(size: int) -> None:
    """Blocks in front of the first hit stay, whatever comes behind them is masked, however the body arrived."""
    noise = random.Random(3).randbytes(3 * BLOCK_BYTES)
    body = gzip.compress(noise + b" " + TOKEN + b" " + noise, 1)
    said = response(body, b"Content-Encoding: gzip", b"Content-Length: %d" % len(body))
    shown = http_shown(RULES, pieces([(REQUEST, HEAD), (RESPONSE, said)], size))[1][-len(body) :]
    stays = shown.rstrip(b"*")
    assert body.startswith(stays)
    assert (2 * BLOCK_BYTES, len(body)) == (len(stays), len(shown))


@pytest.mark.parametrize(("unreadable", "shown"), [(True, b"*****"), (False, b"\x0b\x02\x80ab")])
def test_what_cannot_be_looked_into(unreadable: bool, shown: bytes) -> None:
    """A body in a coding that capd cannot unpack is masked, unless the configuration says otherwise."""
    rules = Rules(Choice(unreadable=unreadable))
    for coding in (b"br", b"gzip, gzip", b"x-own", b"gzip"):
        said = response(b"\x0b\x02\x80ab", b"Content-Encoding: " + coding, b"Content-Length: 5")
        assert http_shown(rules, [(REQUEST, HEAD), (RESPONSE, said)])[1].endswith(b"\r\n\r\n" + shown)


def test_a_bomb_is_not_unpacked() -> None:
    """What unpacks to very much more than it is cannot be looked into."""
    body = gzip.compress(bytes(64 << 20), 9)
    said = response(body, b"Content-Encoding: gzip", b"Content-Length: %d" % len(body))
    assert http_shown(RULES, [(REQUEST, HEAD), (RESPONSE, said)])[1].endswith(b"*" * (len(body) // 2))


def test_trailers_and_tunnels() -> None:
    """What follows a body or a switch of protocols is looked at as well."""
    said = response(b"2\r\nab\r\n0\r\nX-Api-Key: k\r\n\r\n", b"Transfer-Encoding: chunked")
    assert b"X-Api-Key: *\r\n" in http_shown(RULES, [(REQUEST, HEAD), (RESPONSE, said)])[1]
    turns: list[Turn] = [
        (REQUEST, b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n"),
        (RESPONSE, b"HTTP/1.1 200 OK\r\n\r\n"),
        (REQUEST, b"password=hunter2\n"),
    ]
    assert http_shown(RULES, turns)[0].endswith(b"password=*******\n")


@pytest.mark.parametrize("size", [1, 7, 40, 1000])
def test_what_runs_in_a_tunnel_is_one_text(size: int) -> None:
    """Behind a switch of protocols a secret is hidden wherever reading cut it; the last name of a path hides there too."""
    said = b"220 hello\r\nAUTH PLAIN " + TOKEN + b'\r\n{"ssn": "123"}\r\n'
    hidden = b"220 hello\r\nAUTH PLAIN " + b"*" * len(TOKEN) + b'\r\n{"ssn": "***"}\r\n'
    asked, answered = b"CONNECT x:25 HTTP/1.1\r\nHost: x:25\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"
    begin: list[Turn] = [(REQUEST, asked), (RESPONSE, answered)]
    parts = [said[:30], *(said[at : at + size] for at in range(30, len(said), size))]
    turns: list[Turn] = [*begin, *((RESPONSE, part) for part in parts)]
    for often in (True, False):
        assert (asked, answered + hidden) == http_shown(RULES, turns, judge_often=often)


def test_a_body_that_is_kept_is_looked_at_as_it_is() -> None:
    """What capd cannot unpack, and is told to keep, is not kept with a secret in clear."""
    said = response(b"\x0b" + TOKEN + b"!", b"Content-Encoding: br", b"Content-Length: %d" % (len(TOKEN) + 2))
    kept = http_shown(Rules(Choice(unreadable=False)), [(REQUEST, HEAD), (RESPONSE, said)])[1]
    assert said.replace(TOKEN, b"*" * len(TOKEN)) == kept


def test_cookies_take_linear_time() -> None:
    """Eight times as many blanks behind a cookie take about eight times as long."""
    seconds: list[float] = []
    for size in (5_000, 40_000):
        began = time.process_time()
        assert header_places({"cookie"}, (), "cookie", b"a=b;" + b" " * size)
        seconds.append(time.process_time() - began)
    assert seconds[1] < 32 * seconds[0] + 0.2
