"""Redis with bytes missing, and with messages too long to hold."""

from __future__ import annotations

import pytest

from capd.decoders.message import Gap, Message
from capd.decoders.redis import RedisDecoder
from capd.decoders.redis.answers import RUNS_MAX
from capd.decoders.redis.wire import ANSWER_BYTES_MAX, COMMAND_BYTES_MAX, PREFIX_BYTES, VALUES_MAX
from tests.decoders import redis_bytes as rd
from tests.decoders.feeding import REQUEST, RESPONSE, Arrival, all_ways, byte_by_byte, check_spans, feed, normal, outline
from tests.decoders.test_redis import ordered, said

LOST = Gap(length=4, reason="ring full")
UNKNOWN = Gap(length=None, reason="ring full")
WORDS = "4 bytes lost: ring full"
NO_COMMAND = f"no command known to begin after {WORDS}"
NO_ANSWER = f"no answer known to begin after {WORDS}"
GET = rd.command("GET", "k")
SET = rd.command("SET", "k", "abcdefgh")
VALUE = rd.string(b"abcdefgh")

CUT_PASSWORD: list[Arrival] = [(REQUEST, rd.command("AUTH", "password")[:-7])]
CUT_AND_WHOLE: list[Arrival] = [(REQUEST, GET[:3]), (REQUEST, LOST), (REQUEST, GET[7:] + GET)]

OUT_OF_TURN: list[Arrival] = [(REQUEST, GET + GET), (RESPONSE, VALUE), (REQUEST, GET), (RESPONSE, VALUE)]
CUT_AND_MORE: list[Arrival] = [(REQUEST, GET[:3]), (REQUEST, LOST), (REQUEST, GET[7:] + SET + GET + GET[:-2])]

CASES: dict[str, tuple[list[Arrival], list[str]]] = {
    "inside an argument": (
        [(REQUEST, SET[:-8]), (REQUEST, LOST), (REQUEST, SET[-4:] + GET), (RESPONSE, rd.OK + VALUE)],
        [
            *[f"> command 0 SET k ab… (8 bytes) ({WORDS}; not all of it is given)", "> command 1 GET k"],
            *["< reply 0 OK", "< reply 1 abcdefgh"],
        ],
    ),
    "inside a string": (
        [(REQUEST, GET + GET), (RESPONSE, VALUE[:6]), (RESPONSE, LOST), (RESPONSE, VALUE[10:] + VALUE)],
        [
            *["> command 0 GET k", "> command 1 GET k"],
            *[f"< reply 0 ab… (8 bytes) ({WORDS}; not all of it is given)", "< reply 1 abcdefgh"],
        ],
    ),
    "inside a string of an array": (
        [(REQUEST, GET), (RESPONSE, b"*2\r\n" + VALUE[:4]), (RESPONSE, LOST), (RESPONSE, VALUE[8:] + b":1\r\n")],
        ["> command 0 GET k", f'< reply 0 [""… (8 bytes), 1] ({WORDS}; not all of it is given)'],
    ),
    "over the end of a string": (
        [*said(GET), (RESPONSE, VALUE[:-4]), (RESPONSE, LOST), *said(GET, VALUE)],
        ["> command 0 GET k", "> command 1 GET k", f"< reply 0 abcdef… (8 bytes) ({WORDS})", "< reply 1 abcdefgh"],
    ),
    "of unknown length inside a string": (
        [*said(GET), (RESPONSE, VALUE[:6]), (RESPONSE, UNKNOWN), (RESPONSE, b"gh\r\n"), *said(GET, VALUE)],
        [
            *["> command 0 GET k", "> command 1 GET k"],
            "< reply 0 ab… (8 bytes) (bytes lost: ring full)",
            "< ~ 6..10: no answer known to begin after bytes lost: ring full",
            "< reply 1 abcdefgh",
        ],
    ),
    "whole answers, of a client that takes turns": (
        [*said(GET, VALUE, GET), (RESPONSE, Gap(length=14, reason="x")), *said(GET, VALUE)],
        ["> command 0 GET k", "> command 1 GET k", "> command 2 GET k", "< reply 0 abcdefgh", "< reply 2 abcdefgh"],
    ),
    "a command, of a client that takes turns": (
        [*said(GET, VALUE), (REQUEST, Gap(length=20, reason="x")), (RESPONSE, VALUE), *said(GET, VALUE)],
        ["> command 0 GET k", "> command 1 GET k", "< reply 0 abcdefgh", "< reply None abcdefgh", "< reply 1 abcdefgh"],
    ),
    "one of two commands": (
        [*said(GET, VALUE), *CUT_AND_WHOLE, (RESPONSE, VALUE * 2), *said(GET, VALUE)],
        [
            *["> command 0 GET k", "> ~ 20..23: cut off: 4 bytes lost: ring full"],
            *[f"> ~ 27..60: {NO_COMMAND}", "> command 1 GET k"],
            *["< reply 0 abcdefgh", "< reply None abcdefgh", "< reply None abcdefgh", "< reply 1 abcdefgh"],
        ],
    ),
    "a client that does not take turns": (
        [
            *OUT_OF_TURN,
            *CUT_AND_MORE,
            (RESPONSE, VALUE),
            (REQUEST, GET[-2:]),
            (RESPONSE, VALUE),
        ],
        [
            *["> command 0 GET k", "> command 1 GET k", "> command 2 GET k", "> ~ 60..63: cut off: 4 bytes lost: ring full"],
            *[f"> ~ 67..80: {NO_COMMAND}", "> command 3 SET k abcdefgh", "> command 4 GET k", "> command 5 GET k"],
            *["< reply 0 abcdefgh", "< reply 1 abcdefgh", "< reply None abcdefgh", "< reply None abcdefgh"],
        ],
    ),
    "answers, of a client that does not take turns": (
        [
            *OUT_OF_TURN,
            (RESPONSE, LOST),
            (RESPONSE, VALUE),
            (REQUEST, GET),
            (RESPONSE, VALUE),
        ],
        [
            *["> command 0 GET k", "> command 1 GET k", "> command 2 GET k", "> command 3 GET k"],
            *["< reply 0 abcdefgh", "< reply 1 abcdefgh", f"< ~ 32..46: {NO_ANSWER}", f"< ~ 46..60: {NO_ANSWER}"],
        ],
    ),
    "the beginning": (
        [(REQUEST, UNKNOWN), (RESPONSE, UNKNOWN), *said(GET, VALUE)],
        ["> command 0 GET k", "< reply 0 abcdefgh"],
    ),
    "a command that never ends": (
        [(REQUEST, SET[:-5]), (REQUEST, b"")],
        ["> command 0 SET k abcde… (8 bytes) (the direction ended inside it)"],
    ),
    "arguments that never come": (
        [(REQUEST, b"*3\r\n$3\r\nGET\r\n"), (REQUEST, b"")],
        ["> command 0 GET (the direction ended inside it)"],
    ),
    "a head that never ends": (
        [(REQUEST, b"*3\r"), (REQUEST, b"")],
        ["> ~ 0..3: cut off: the direction ended inside a command"],
    ),
    "an answer that never ends": (
        [(REQUEST, GET), (RESPONSE, b"*3\r\n:1\r\n*2\r\n" + VALUE[:7]), (RESPONSE, b"")],
        ["> command 0 GET k", "< reply 0 [1, [abc… (8 bytes), (1 more)], (1 more)] (the direction ended inside it)"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_gap(name: str) -> None:
    """Around what is missing everything is given that is certain, and nothing else."""
    arrivals, expected = CASES[name]
    seen = all_ways(RedisDecoder, arrivals)
    assert expected == ordered(outline(seen))
    check_spans(arrivals, seen)


def test_a_password_that_is_cut_is_hidden() -> None:
    """What is there of a password is in no message."""
    for arrivals in (
        [(REQUEST, rd.command("AUTH", "password")[:-7])],
        [(REQUEST, rd.command("AUTH", "password")[:-7]), (REQUEST, LOST)],
    ):
        seen = feed(RedisDecoder(), [*arrivals, (REQUEST, b"")])
        assert "pass" not in repr(seen)
        assert "hidden" in repr(seen)


def large(direction_said: list[Arrival]) -> list[Message]:
    """Messages of a conversation that is too large to be cut everywhere."""
    whole = feed(RedisDecoder(), direction_said)
    pieces: list[Arrival] = [
        (direction, data[at : at + 60_000])
        for direction, data in direction_said
        for at in range(0, len(data) if isinstance(data, bytes) else 0, 60_000)
        if isinstance(data, bytes)
    ]
    assert normal(whole) == normal(feed(RedisDecoder(), pieces))
    check_spans(direction_said, whole)
    return [event for event in whole if isinstance(event, Message)]


def test_a_long_argument() -> None:
    """Of an argument beyond the limit the beginning is given, and the next command is read."""
    long, following = large([(REQUEST, rd.command("SET", "k", b"x" * (COMMAND_BYTES_MAX + 1)) + rd.PING)])
    assert "not all of it is given" == long.incomplete
    assert {"begins": "x" * PREFIX_BYTES, "bytes": COMMAND_BYTES_MAX + 1} == list(long.fields["arguments"])[1]  # type: ignore[arg-type]
    assert "PING" == following.summary


def test_a_long_string() -> None:
    """The same for an answer."""
    long, following = large([(RESPONSE, rd.string(b"x" * (ANSWER_BYTES_MAX + 1)) + rd.PONG)])
    assert "not all of it is given" == long.incomplete
    assert {"begins": "x" * PREFIX_BYTES, "bytes": ANSWER_BYTES_MAX + 1} == long.fields["value"]
    assert "PONG" == following.summary


def test_many_values() -> None:
    """Of an answer of too many values the first are given, and how many more there are."""
    many, following = large([(RESPONSE, rd.array(*[b":1\r\n"] * (VALUES_MAX + 5)) + rd.PONG)])
    value = many.fields["value"]
    assert isinstance(value, list)
    assert [1, {"omitted": 5}] == value[-2:]
    assert VALUES_MAX + 1 == len(value)
    assert "PONG" == following.summary


def test_many_arguments() -> None:
    """The same for a command."""
    many, following = large([(REQUEST, rd.command("DEL", *["k"] * (VALUES_MAX + 5)) + rd.PING)])
    assert 6 == many.fields["omitted"]
    assert "PING" == following.summary


def test_answers_that_are_due_are_bounded() -> None:
    """A client that asks for more than can be remembered gets answers without exchange, not wrong ones."""
    ask = (rd.PING + rd.command("MULTI")) * (RUNS_MAX // 2 + 1)
    seen = feed(RedisDecoder(), [(REQUEST, ask), (RESPONSE, rd.PONG)])
    assert "< reply None PONG" == outline(seen)[-1]


def test_byte_by_byte_with_a_gap_in_crlf() -> None:
    """A gap in the bytes behind a string leaves nobody a place to go on from, until it is the client's turn."""
    arrivals: list[Arrival] = [*said(GET), (RESPONSE, VALUE[:-2]), (RESPONSE, Gap(length=2, reason="x")), *said(GET, VALUE)]
    seen = feed(RedisDecoder(), byte_by_byte(arrivals))
    assert "< reply 1 abcdefgh" == outline(seen)[-1]
