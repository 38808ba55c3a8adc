"""What is recognised in plain bytes, and that it does not matter how they are cut."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capd.enforcer.masking.place import Place, filled, joined
from capd.enforcer.masking.rules import Choice, Rules
from capd.enforcer.masking.scanner import Scanner
from tests.odd_bytes import odd_bytes

RULES = Rules(Choice())
ALL_IDENTIFIERS = Rules(Choice(identifiers=("card", "iban", "be.nn", "br.cpf", "pl.pesel", "us.ssn")))
KEY = b"-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE KEY-----"
HIDDEN_KEY = b"-----BEGIN RSA PRIVATE KEY-----***************-----END RSA PRIVATE KEY-----"

SEEN = [
    (b"Authorization: Bearer abc.def-123\r\nX: y", b"Authorization: Bearer ***********\r\nX: y"),
    (b"proxy-authorization: Basic dXNlcjpwYXNz\r\n", b"proxy-authorization: Basic ************\r\n"),
    (b"Cookie: sid=1; theme=dark\r\nHost: x", b"Cookie: *****************\r\nHost: x"),
    (b'["Authorization", "Bearer zzz"]', b'["Authorization", "Bearer ***"]'),
    (b'{"password": "hu\\"nter2", "a": 1}', b'{"password": "*********", "a": 1}'),
    (b'{"password": 12345, "a": 1}', b'{"password": *****, "a": 1}'),
    (b'{\\"apiKey\\": \\"a\\\\\\"b\\", \\"n\\": 1}', b'{\\"apiKey\\": \\"******\\", \\"n\\": 1}'),
    (b"GET /a?token=abcdefgh1&x=1 HTTP/1.1", b"GET /a?token=*********&x=1 HTTP/1.1"),
    (b"user=a&password=p%40ss%26word&x=1", b"user=a&password=*************&x=1"),
    (b"q=%7B%22password%22%3A%22p%40ss%22%7D", b"q=%7B%22password%22%3A%22******%22%7D"),
    (b"https://bob:s3cret@example.com/a", b"https://bob:******@example.com/a"),
    (b"postgresql://app:p%40ss@db:5432/shop", b"postgresql://app:******@db:5432/shop"),
    (b"ALTER ROLE x PASSWORD 'it''s' VALID", b"ALTER ROLE x PASSWORD '*****' VALID"),
    (b"CREATE USER a IDENTIFIED BY 'pw'", b"CREATE USER a IDENTIFIED BY '**'"),
    (b"tool --password hunter2 --x", b"tool --password ******* --x"),
    (b"tool --db-api-key=hunter2 --x", b"tool --db-api-key=******* --x"),
    (b"java -db-password hunter2 -x", b"java -db-password ******* -x"),
    (b"?x-amz_signature=abcdefghij", b"?x-amz_signature=**********"),
    ("postgresql://app:пароль@db:5432/shop".encode(), b"postgresql://app:************@db:5432/shop"),
    (b"DB_PASSWORD=foo bar", b"DB_PASSWORD=*** bar"),
    (b'name="password"\r\n\r\nhunter 2\r\n--x', b'name="password"\r\n\r\n********\r\n--x'),
    (KEY + b"\nrest", HIDDEN_KEY + b"\nrest"),
    (b"x eyJhbGciOi.eyJzdWIiOiIx.abcDEF-_ y", b"x " + b"*" * 32 + b" y"),
    (b"AKIAIOSFODNN7EXAMPLE.", b"*" * 20 + b"."),
    (b"t=ghp_" + b"a1" * 18 + b" x", b"t=" + b"*" * 40 + b" x"),
    (b"xoxb-1234567890-abcdef x", b"*" * 22 + b" x"),
    (b"sk_live_4eC39HqLyjWDarjtT1zdp7dc.", b"*" * 32 + b"."),
    (b"sk-ant-api03-" + b"Ab9_" * 8 + b" x", b"*" * 45 + b" x"),
    (b"sk-proj-" + b"Ab9_" * 8 + b" x", b"*" * 40 + b" x"),
    (b"pay 4111 1111 1111 1111, 4111111111111112", b"pay *******************, 4111111111111112"),
    (b"IBAN DE89 3704 0044 0532 0130 00.", b"IBAN ***************************."),
    (b"RSSMRA85T10A562S", b"*" * 16),
    (b"hetu 131052-308T", b"hetu ***********"),
]
"""What is said, and what stays of it."""
NOT_SEEN = [
    b"max_tokens: 4096, prompt_tokens: 12, token: 12",
    b"basic understanding of bearer authentication",
    b"http://example.com:8080/x@y",
    b"password=null&secret=true token=$1",
    b'{"password": null, "next_page_token": "abcdefghijkl"}',
    b"1732184801123456789 20261121101500",
    b"sk-1 eyJ ghp_short AKIA",
    b"3.14159265358979323846 4111.1111111111111",
    b"-----BEGIN CERTIFICATE-----\nMIIabc\n-----END CERTIFICATE-----",
    b"pass\xffword: abcdefghijkl",
]


def places(data: bytes, cuts: Sequence[int] = (), rules: Rules = RULES) -> list[Place]:
    """Give what a scanner finds in bytes that come cut."""
    scanner = Scanner(rules)
    found: list[Place] = []
    begin = 0
    for end in (*cuts, len(data)):
        found += scanner.feed(data[begin:end])
        begin = end
    found += scanner.feed(b"", final=True)
    assert len(data) == scanner.decided
    return joined(found)


@pytest.mark.parametrize(("said", "shown"), SEEN)
def test_what_is_hidden(said: bytes, shown: bytes) -> None:
    """What a default rule covers is filled, at its length, and nothing beside it."""
    assert shown == filled(said, places(said))


@pytest.mark.parametrize("said", NOT_SEEN)
def test_what_stays(said: bytes) -> None:
    """What only looks alike stays."""
    assert said == filled(said, places(said))


@pytest.mark.parametrize(("said", "_shown"), SEEN)
def test_any_one_cut_changes_nothing(said: bytes, _shown: bytes) -> None:
    """A secret that is split over two pieces is found like one that is not, wherever it is cut."""
    whole = places(said)
    assert [whole] * len(said) == [places(said, [cut]) for cut in range(len(said))]
    assert whole == places(said, range(1, len(said)))


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False))
def test_no_cutting_changes_anything(rnd: random.Random) -> None:
    """However a long stream is cut, the same places are found."""
    parts = [said for said, _ in SEEN] + NOT_SEEN + [b"\n", b"plain text ", b"{}", b'"']
    chosen = (rnd.choice(parts) if rnd.random() < 0.7 else odd_bytes(rnd) for _ in range(rnd.randrange(2, 60)))
    stream = rnd.choice([b" ", b""]).join(
        part[: rnd.randrange(len(part) + 1)] if rnd.random() < 0.2 else part for part in chosen
    )
    cuts = sorted(rnd.sample(range(len(stream)), min(rnd.randrange(1, 40), len(stream))))
    assert places(stream) == places(stream, cuts)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=2_000), st.lists(st.integers(0, 2_000), max_size=8))
def test_any_bytes_can_be_judged(data: bytes, cuts: list[int]) -> None:
    """Any bytes are judged to their end, cut or not, with the same result."""
    assert places(data) == places(data, sorted(min(cut, len(data)) for cut in cuts))


def test_ciphertext_can_be_judged() -> None:
    """Bytes that are none of a text are judged to their end: they have, torn by bytes beyond ASCII, all that is looked for."""
    chance = random.Random(1)
    for _ in range(3_000):
        data = chance.randbytes(80)
        assert places(data) == places(data, [40])


def test_what_waits_is_bounded() -> None:
    """However long a stream goes on without an end, few bytes wait to be judged."""
    for piece in (b"password", b"4111", b"-----BEGIN ", b"a" * 999, b'"password": "' + b"x" * 99, KEY, b"://a:", b"\\"):
        scanner = Scanner(RULES)
        for _ in range(300):
            scanner.feed(piece)
            assert scanner.waiting <= 512


def test_plain_bytes_wait_for_nothing() -> None:
    """A line that could not become anything is judged when it is there: who follows a session sees it."""
    for line in (b"hello there\r\n", b'{"a": 1}\n', b"+OK\r\n", b":1000\r\n"):
        scanner = Scanner(RULES)
        scanner.feed(line)
        assert 0 == scanner.waiting


def test_what_surrounds_a_gap_is_hidden() -> None:
    """A value of which bytes were lost is hidden before and behind the gap."""
    scanner = Scanner(RULES)
    found = scanner.feed(b"key sk-ant-api03-AAA")
    found += scanner.gap(7)
    found += scanner.feed(b'BBBB", "b": 1' + b" " * 400 + b"rest, and sk-ant-api03-" + b"C" * 20 + b" x\n", final=True)
    shown = filled(b"key sk-ant-api03-AAA" + b"." * 7 + b'BBBB", "b": 1' + b" " * 400 + b"rest, and", joined(found))
    assert b"key *" == shown[:5]
    assert b"sk-ant" not in shown
    assert b"......." + b"*" * 384 == shown[20 : 27 + 384]
    assert shown.endswith(b" rest, and")
    assert {"undecided", "secret"} == {place.kind for place in found}


def test_an_open_value_goes_on_behind_a_gap() -> None:
    """A value that had begun is hidden up to its own end, though bytes of it are missing."""
    scanner = Scanner(RULES)
    found = scanner.feed(b'{"password": "abc')
    found += scanner.gap(10)
    behind = b"d" * 1_000 + b'", "x": "y"}'
    found += scanner.feed(behind)
    assert b"*" * 1_000 + b'", "x": "y"}' == filled(behind, found, 27)


def least_seconds(data: bytes) -> float:
    """Give the least processor time of three tries: a collection of what other tests left takes longer than a look."""

    def once() -> float:
        began = time.process_time()
        places(data)
        return time.process_time() - began

    return min(once() for _ in range(3))


def test_time_is_linear() -> None:
    """Ten times as many bytes take about ten times as long, whatever is in them."""
    for piece in (
        b"password=x&",
        b'{"password": "x"} ',
        b"4111111111111111 ",
        b"eyJ",
        b"-----BEGIN RSA PRIVATE KEY-----\n",
        b"://a:b@",
    ):
        short, long = (piece * (size // len(piece)) for size in (20_000, 200_000))
        assert least_seconds(long) < 40 * least_seconds(short) + 0.05


def test_more_identifiers_can_be_had() -> None:
    """Numbers whose checksum is weak are masked when they are asked for."""
    said = b"pesel 44051401359 ssn 536-90-4399 nn 85.07.30-033.28 cpf 390.533.447-05"
    assert said == filled(said, places(said))
    assert 4 == len(places(said, rules=ALL_IDENTIFIERS))


def test_a_number_of_a_place_that_never_was_is_no_failure() -> None:
    """Checksum, date and province are right and the county is none: python-stdnum raises what is no verdict of its own then."""
    said = b"rows 110064199101010071, 655633207902119566 card 4111111111111111"
    assert b"4111111111111111" == b"".join(said[place.start : place.end] for place in places(said))
