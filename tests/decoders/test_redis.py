"""Redis: bytes in, events out."""

from __future__ import annotations

import pytest

from capd.decoders.message import Message
from capd.decoders.redis import RedisDecoder
from capd.decoders.redis.inline import split
from capd.decoders.redis.secret_arguments import answer_is_secret, secrets_of
from capd.decoders.redis.wire import DEPTH_MAX, HEAD_BYTES_MAX, INLINE_BYTES_MAX
from tests.decoders import redis_bytes as rd
from tests.decoders.feeding import REQUEST, RESPONSE, Arrival, all_ways, check_spans, feed, outline


def said(*turns: bytes) -> list[Arrival]:
    """Client and server in turn."""
    return [(REQUEST if index % 2 == 0 else RESPONSE, data) for index, data in enumerate(turns) if data]


SUBSCRIBED = [rd.command("SUBSCRIBE", "a", "b"), rd.confirmed(b"subscribe", b"a", 1) + rd.confirmed(b"subscribe", b"b", 2)]
CONVERSATIONS: dict[str, tuple[list[Arrival], list[str]]] = {
    "ping": (said(rd.PING, rd.PONG), ["> command 0 PING", "< reply 0 PONG"]),
    "a value with everything in it": (
        said(rd.command("SET", "k", b'a "b"\r\n\xff'), rd.OK, rd.command("GET", "k"), rd.string(b"a b\r\n")),
        [
            *['> command 0 SET k "\\x61\\x20\\x22\\x62\\x22\\x0d\\x0a\\xff"', "> command 1 GET k"],
            *["< reply 0 OK", "< reply 1 a b"],
        ],
    ),
    "pipeline": (
        said(
            rd.command("INCR", "a") + rd.command("GET", "b") + rd.command("X"), b":1\r\n" + rd.NIL + b"-ERR unknown command\r\n"
        ),
        [
            *["> command 0 INCR a", "> command 1 GET b", "> command 2 X"],
            *[
                "< reply 0 1",
                "< reply 1 (nil)",
                "< error 2 ERR unknown command",
            ],
        ],
    ),
    "inline": (
        said(b"SET k 'it \\'s'\r\n\r\nGET k\n*0\r\n*-1\r\n", rd.OK + rd.string(b"it 's")),
        [
            *['> command 0 SET k "it \'s"', "> nothing None", "> command 1 GET k", "> nothing None", "> nothing None"],
            *["< reply 0 OK", "< reply 1 it 's"],
        ],
    ),
    "passwords": (
        said(rd.command("AUTH", "pw") + rd.command("HELLO", "3", "AUTH", "u", "pw", "SETNAME", "n"), rd.OK + rd.HELLO_3),
        [
            *["> command 0 AUTH (hidden)", "> command 1 HELLO 3 AUTH u (hidden) SETNAME n"],
            *["< reply 0 OK", "< reply 1 {[server, redis], [proto, 3]}"],
        ],
    ),
    "transaction": (
        said(
            rd.command("MULTI") + rd.command("INCR", "a") + rd.command("GET", "b") + rd.command("EXEC") + rd.PING,
            rd.OK + rd.QUEUED + rd.QUEUED + rd.array(b":1\r\n", rd.NIL) + rd.PONG,
        ),
        [
            *["> command 0 MULTI", "> command 1 INCR a", "> command 2 GET b", "> command 3 EXEC", "> command 4 PING"],
            *["< reply 0 OK", "< reply 1 QUEUED", "< reply 2 QUEUED", "< reply 3 [1, (nil)]", "< reply 4 PONG"],
        ],
    ),
    "channels in RESP2": (
        said(
            *SUBSCRIBED,
            rd.command("UNSUBSCRIBE") + rd.PING,
            rd.published(b"a", b"m") + rd.confirmed(b"unsubscribe", b"a", 1) + rd.confirmed(b"unsubscribe", b"b", 0) + rd.PONG,
            rd.command("LRANGE", "l", "0", "-1"),
            rd.published(b"a", b"m"),
        ),
        [
            *["> command 0 SUBSCRIBE a b", "> command 1 UNSUBSCRIBE", "> command 2 PING", "> command 3 LRANGE l 0 -1"],
            *["< push 0 [subscribe, a, 1]", "< push 0 [subscribe, b, 2]", "< push None [message, a, m]"],
            *["< push 1 [unsubscribe, a, 1]", "< push 1 [unsubscribe, b, 0]", "< reply 2 PONG", "< reply 3 [message, a, m]"],
        ],
    ),
    "unsubscribed from nothing": (
        said(rd.command("PUNSUBSCRIBE") + rd.PING, rd.confirmed(b"punsubscribe", None, 0) + rd.PONG),
        ["> command 0 PUNSUBSCRIBE", "> command 1 PING", "< push 0 [punsubscribe, (nil), 0]", "< reply 1 PONG"],
    ),
    "channels in RESP3": (
        said(
            rd.command("HELLO", "3"),
            rd.HELLO_3,
            rd.command("SUBSCRIBE", "a") + rd.command("GET", "k"),
            rd.confirmed(b"subscribe", b"a", 1, b">") + rd.published(b"a", b"m", b">") + rd.published(b"a", b"m"),
        ),
        [
            *["> command 0 HELLO 3", "> command 1 SUBSCRIBE a", "> command 2 GET k"],
            *["< reply 0 {[server, redis], [proto, 3]}", "< push 1 [subscribe, a, 1]", "< push None [message, a, m]"],
            "< reply 2 [message, a, m]",
        ],
    ),
    "a subscription that is refused": (
        said(rd.command("SUBSCRIBE", "a", "b") + rd.PING, b"-NOPERM no\r\n" + rd.PONG),
        ["> command 0 SUBSCRIBE a b", "> command 1 PING", "< error 0 NOPERM no", "< reply 1 PONG"],
    ),
    "monitor": (
        said(rd.command("MONITOR") + rd.PING, rd.OK + b'+1700000000.123456 [0 127.0.0.1:1] "GET" "k"\r\n' + rd.PONG),
        [
            *["> command 0 MONITOR", "> command 1 PING", "< reply 0 OK"],
            *['< monitor None 1700000000.123456 [0 127.0.0.1:1] "GET" "k"', "< reply 1 PONG"],
        ],
    ),
    "answers left out": (
        said(
            rd.command("CLIENT", "REPLY", "SKIP") + rd.command("SET", "a", "1") + rd.PING,
            rd.PONG,
            rd.command("CLIENT", "REPLY", "OFF") + rd.command("SET", "a", "1") + rd.command("client", "reply", "on") + rd.PING,
            rd.OK + rd.PONG,
        ),
        [
            *["> command 0 CLIENT REPLY SKIP", "> command 1 SET a 1", "> command 2 PING", "> command 3 CLIENT REPLY OFF"],
            *["> command 4 SET a 1", "> command 5 client reply on", "> command 6 PING"],
            *["< reply 2 PONG", "< reply 5 OK", "< reply 6 PONG"],
        ],
    ),
    "RESP3 values": (
        said(
            rd.command("X") * 10,
            b"_\r\n#t\r\n,1.5\r\n,-inf\r\n(123456789012345678901234567890\r\n"
            + rd.string(b"txt:hi", b"=")
            + rd.string(b"ERR long", b"!")
            + rd.array(b":1\r\n", b":2\r\n", code=b"~")
            + rd.array(rd.string(b"ttl"), b":5\r\n", code=b"|")
            + rd.string(b"v")
            + rd.array(rd.array(b"*0\r\n")),
        ),
        [
            *[f"> command {n} X" for n in range(10)],
            *[
                "< reply 0 (nil)",
                "< reply 1 true",
                "< reply 2 1.5",
                "< reply 3 -inf",
                "< reply 4 123456789012345678901234567890",
            ],
            *["< reply 5 hi", "< error 6 ERR long", "< reply 7 [1, 2]", "< reply 8 v", "< reply 9 [[[]]]"],
        ],
    ),
    "reset": (
        said(
            rd.command("HELLO", "3"), rd.HELLO_3, rd.command("RESET"), b"+RESET\r\n", *SUBSCRIBED, b"", rd.published(b"b", b"m")
        ),
        [
            *["> command 0 HELLO 3", "> command 1 RESET", "> command 2 SUBSCRIBE a b"],
            *["< reply 0 {[server, redis], [proto, 3]}", "< reply 1 RESET"],
            *["< push 2 [subscribe, a, 1]", "< push 2 [subscribe, b, 2]", "< push None [message, b, m]"],
        ],
    ),
    "a replica": (
        said(
            rd.command("REPLCONF", "x", "y") + rd.command("PSYNC", "?", "-1"),
            rd.OK + b"+FULLRESYNC abc 0\r\n",
            b"",
            b"$5\r\nREDIS*1\r\n",
        ),
        [
            *["> command 0 REPLCONF x y", "> command 1 PSYNC ? -1", "< reply 0 OK", "< reply 1 FULLRESYNC abc 0"],
            "< ~ 24..37: a copy of the server's data (SYNC, PSYNC), which is not decoded",
        ],
    ),
    "the server speaks first": (
        [(RESPONSE, b"-DENIED protected mode\r\n")],
        ["< error None DENIED protected mode"],
    ),
}


def ordered(lines: list[str]) -> list[str]:
    """What the client said, then what the server said."""
    return sorted(lines, key=lambda line: line[0] == "<")


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversation(name: str) -> None:
    """Commands and their answers come out as they were said, however the bytes are cut."""
    arrivals, expected = CONVERSATIONS[name]
    seen = all_ways(RedisDecoder, arrivals)
    assert expected == ordered(outline(seen))
    check_spans(arrivals, seen)


BROKEN: dict[str, tuple[list[Arrival], str]] = {
    "an argument that is no string": (said(b"*1\r\n:1\r\n"), "> ! 4: an argument begins with ':', not with '$'"),
    "a count with a leading zero": (said(b"*01\r\n$4\r\nPING\r\n"), "> ! 0: not a count of arguments: '01'"),
    "a count that is no number": (said(b"*x\r\n"), "> ! 0: not a count of arguments: 'x'"),
    "a count without end": (said(b"*" + b"1" * 70), f"> ! 0: a count of arguments of more than {HEAD_BYTES_MAX} bytes"),
    "a length that is no number": (said(b"*1\r\n$-1\r\n"), "> ! 4: not a length: '-1'"),
    "an argument longer than its length": (said(b"*1\r\n$4\r\nPINGX\r\n"), "> ! 12: an argument is longer than its length"),
    "other bytes for CRLF": (said(b"*1\r\n$4\r\nPING\n\r"), "> ! 12: an argument is longer than its length"),
    "quotes": (said(b'SET k "v\n'), "> ! 0: unbalanced quotes in an inline command"),
    "a zero byte": (said(b"GET \0\n"), "> ! 0: a zero byte in an inline command"),
    "an endless line": (said(b"x" * INLINE_BYTES_MAX), f"> ! 0: an inline command of more than {INLINE_BYTES_MAX} bytes"),
    "an unknown type": (said(rd.PING, b"?1\r\n"), "< ! 0: no RESP value begins with '?'"),
    "a number that is none": (said(rd.PING, b":1x\r\n"), "< ! 0: not a number: '1x'"),
    "a number beyond 64 bits": (said(rd.PING, b":9223372036854775808\r\n"), "< ! 0: not a number: '9223372036854775808'"),
    "a boolean that is none": (said(rd.PING, b"*1\r\n#x\r\n"), "< ! 4: not a value: '#x'"),
    "a length of a streamed string": (said(rd.PING, b"$?\r\n"), "< ! 0: not a length: '?'"),
    "a string longer than its length": (said(rd.PING, b"$1\r\nxy\r\n"), "< ! 5: a string is longer than its length"),
    "an array of minus two": (said(rd.PING, b"*-2\r\n"), "< ! 0: not a count: '-2'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken(name: str) -> None:
    """What is no RESP is an error with its place, and the rest is skipped."""
    arrivals, expected = BROKEN[name]
    # The line that does not end is fed at fewer places, to be quick.
    seen = (
        all_ways(RedisDecoder, arrivals)
        if sum(len(data) for _, data in arrivals if isinstance(data, bytes)) < 999
        else feed(RedisDecoder(), arrivals)
    )
    lines = outline(seen)
    assert expected in lines
    assert all(line[2] == "~" for line in lines[lines.index(expected) + 1 :])
    check_spans(arrivals, seen)


def test_depth_is_bounded() -> None:
    """Answers that nest deeper than anybody needs are followed, given in part, and beyond a limit refused."""
    decoder = RedisDecoder()
    (deep,) = [event for event in feed(decoder, said(b"", b"*1\r\n" * DEPTH_MAX + b":1\r\n")) if isinstance(event, Message)]
    assert "not all of it is given" == deep.incomplete
    assert [f"< ! {4 * DEPTH_MAX}: values nest deeper than {DEPTH_MAX}"] == outline(
        feed(RedisDecoder(), said(b"", b"*1\r\n" * (DEPTH_MAX + 1)))
    )[:1]


SECRETS = {
    "AUTH pw": {1},
    "auth user pw": {2},
    "AUTH a b c": {1, 2, 3},
    "AUTH": set(),
    "HELLO 3 AUTH u pw": {4},
    "HELLO 3 SETNAME n AUTH u pw": {6},
    "HELLO 3 AUTH pw": {3},
    "HELLO": set(),
    "ACL SETUSER u on >pw #hash <old !gone ~k +@all": {4, 5, 6, 7},
    "ACL GETUSER u": set(),
    "CONFIG SET maxmemory 1 requirepass pw": {5},
    "CONFIG SET MASTERAUTH pw": {3},
    "CONFIG GET requirepass": set(),
    "SENTINEL SET m auth-pass pw": {4},
    "MIGRATE h 1 k 0 5 COPY AUTH pw": {8},
    "MIGRATE h 1 k 0 5 AUTH2 u pw KEYS auth k": {8},
    "SET auth pw": set(),
}


@pytest.mark.parametrize("line", SECRETS)
def test_secret_arguments(line: str) -> None:
    """Passwords are told from other words by where they stand."""
    assert SECRETS[line] == set(secrets_of(line.encode().split()))


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("CONFIG GET requirepass", True),
        ("config get REQUIRE*", True),
        ("CONFIG GET *", True),
        ("CONFIG GET max*", False),
        ("CONFIG GET [r]x", True),
        ("CONFIG SET requirepass x", False),
        ("ACL LIST", True),
        ("ACL GETUSER u", True),
        ("ACL WHOAMI", False),
        ("GET k", False),
    ],
)
def test_secret_answers(line: str, *, secret: bool) -> None:
    """So are answers that hold some."""
    assert secret == answer_is_secret(line.encode().split())


WORDS: dict[bytes, list[bytes] | None] = {
    b"": [],
    b"  a\tb ": [b"a", b"b"],
    b'"a b" c': [b"a b", b"c"],
    b'"\\x41\\n\\"\\q"': [b'A\n"q'],
    b"'\\'\\n'": [b"'\\n"],
    b'a"b"': [b"ab"],
    b'"a"b': None,
    b'"a': None,
    b"'a": None,
}


@pytest.mark.parametrize("line", WORDS)
def test_inline_words(line: bytes) -> None:
    """A line is split as Redis splits it."""
    assert WORDS[line] == split(line)


def test_the_answer_to_a_transaction_names_its_commands() -> None:
    """A reader can tell of which command each part of EXEC's answer is; one that holds passwords is marked."""
    asked = rd.command("MULTI") + rd.command("CONFIG", "GET", "requirepass") + rd.command("EXEC")
    answer = rd.array(rd.array(rd.string(b"requirepass"), rd.string(b"pw")))
    seen = feed(RedisDecoder(), said(asked, rd.OK + rd.QUEUED + answer))
    (last,) = [event for event in seen if isinstance(event, Message) and event.exchange == 2 and event.type == "reply"]
    assert [1] == last.fields["commands"]
    assert last.fields["secret"] is True
