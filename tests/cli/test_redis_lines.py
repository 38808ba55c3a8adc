"""How a conversation with Redis reads."""

from __future__ import annotations

from capd.cli.payload import BRIEF
from capd.cli.redis_lines import RedisLines
from capd.decoders.message import Message
from capd.decoders.redis import RedisDecoder
from tests.decoders import redis_bytes as rd
from tests.decoders.feeding import REQUEST, RESPONSE, Arrival, feed

SAID: list[Arrival] = [
    (
        REQUEST,
        rd.command("AUTH", "pw") + rd.command("SET", "k", "a b\x1b") + rd.command("GET", "k") + rd.command("GET", "long"),
    ),
    (RESPONSE, rd.OK + rd.OK + rd.string(b"a b\x1b") + rd.string(b'{"a": 1}' + b" " * 300)),
    (REQUEST, rd.command("HGETALL", "h") + rd.command("X") + rd.command("LRANGE", "l", "0", "-1")),
    (RESPONSE, rd.array(rd.string(b"name"), rd.string(b"Ada"), code=b"%") + b"-ERR unknown\r\n" + rd.array(*[b":1\r\n"] * 40)),
    (RESPONSE, rd.array(rd.string(b"invalidate"), rd.array(rd.string(b"k")), code=b">")),
    (REQUEST, b"\r\n" + rd.command("SET", "cut", "away")[:-4]),
    (REQUEST, b""),
]
READS = [
    *["AUTH (hidden)", 'SET k "a b\\x1b"', "GET k", "GET long", "OK", "OK", '"a b\\x1b"', "{", '  "a": 1', "}"],
    *["HGETALL h", "X", "LRANGE l 0 -1", "name:", "  Ada", "ERR unknown"],
    *[f"{n}) 1" for n in range(1, 21)],
    *[
        "… more values",
        "push 1) invalidate",
        "2)",
        "  1) k",
        "SET cut aw… (4 bytes)",
        "incomplete: the direction ended inside it",
    ],
]


def test_lines() -> None:
    """Commands read as redis-cli takes them, answers as it prints them; what is long is cut, and no password is shown."""
    lines = RedisLines(BRIEF)
    messages = [event for event in feed(RedisDecoder(), SAID) if isinstance(event, Message)]
    told = [
        {"type": m.type, "summary": m.summary, "fields": m.fields, "incomplete": m.incomplete, "exchange": m.exchange}
        for m in messages
    ]
    assert READS == ["".join(span.text for span in line) for one in told for line in lines.message(one)]
