"""The keys of commands, against what a real server says of them."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import redis

from capd.enforcer.redis.catalogue import Known, catalogue, look_up
from capd.enforcer.redis.keys import UnknownKeysError, keys_of
from tests.servers.redis import RedisServer, redis_server

COMMANDS_EACH = 60
SEED = 7
WORDS = (
    *(
        "STREAMS",
        "streams",
        "STORE",
        "STOREDIST",
        "store",
        "GET",
        "get",
        "BY",
        "KEYS",
        "COUNT",
        "LIMIT",
        "GROUP",
        "BLOCK",
        "NOACK",
    ),
    *(
        "AUTH",
        "AUTH2",
        "COPY",
        "REPLACE",
        "SET",
        "INCRBY",
        "OVERFLOW",
        "ASC",
        "ALPHA",
        "WEIGHTS",
        "AGGREGATE",
        "LEFT",
        "RIGHT",
        "DB",
    ),
)
VALUES = ("k", "key:1", "{a}b", "0", "1", "2", "3", "-1", "x*", "#", "", "u8", "é")
NOT_SAID = frozenset({"variable_flags", "incomplete", "not_key"})
"""Flags that say nothing of what is done with a key."""
SILENT = frozenset({"MIGRATE"})
"""Commands of which the server tells keys, and nothing of what is done with them."""


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A server."""
    with redis_server() as running:
        yield running


def made_up(known: Known, chance: random.Random) -> list[bytes]:
    """A command, with about as many words as it takes."""
    words = known.name.split("|")
    least = abs(known.arity)
    count = least + (chance.choice((-1, 0, 0, 0, 0, 1, 2, 3, 5)) if known.arity < 0 else chance.choice((-1, 0, 0, 0, 1)))
    while len(words) < count:
        words.append(chance.choice(WORDS if chance.random() < 0.35 else VALUES))
    return [word.encode() for word in words]


SHAPED = """
XREAD COUNT 2 STREAMS a b 0 0; XREADGROUP GROUP g c STREAMS a >; XREADGROUP COUNT 1 GROUP STREAMS c STREAMS a >
XREAD STREAMS STREAMS 0; XREAD COUNT STREAMS STREAMS a 0; SORT a BY nosort LIMIT 0 1 GET # STORE b STORE c
SORT a BY w_* GET o_*
GEORADIUS a 1 2 3 m STORE b; GEORADIUS a 1 2 3 m STORE b STOREDIST c; GEORADIUSBYMEMBER a m 3 km STOREDIST b
EVAL s 2 a b c; EVAL s 0 a; EVAL s 3 a b; EVAL s -1 a; EVAL s 01 a; FCALL_RO f 1 a; ZUNIONSTORE d 2 a b WEIGHTS 1 2
MIGRATE h 1 a 0 5; MIGRATE h 1 '' 0 5 KEYS a b; MIGRATE h 1 a 0 5 AUTH KEYS COPY; MIGRATE h 1 '' 0 5 AUTH2 u KEYS KEYS a
SET a b GET; SET a b EX 5; SET a GET; BITFIELD a GET u8 0; BITFIELD a GET u8 0 SET u8 0 1; BITFIELD a OVERFLOW SAT
BLPOP a b 0; BLMPOP 0 2 a b LEFT; MSET a 1 b 2; BITOP AND d a b; LMOVE a b LEFT RIGHT; XINFO STREAM a FULL; OBJECT ENCODING a
MEMORY USAGE a SAMPLES 5; COPY a b DB 1; PFCOUNT a b; SINTERCARD 2 a b LIMIT 1; GEOSEARCHSTORE d a FROMMEMBER m BYRADIUS 1 m
"""


def said(agent: redis.Redis, words: list[bytes]) -> list[tuple[bytes, frozenset[str]]] | None:
    """What the server says of a command: its keys and what is done with them; None: it is no command to it."""
    try:
        answer = agent.execute_command("COMMAND GETKEYSANDFLAGS", *words)  # type: ignore[no-untyped-call]  # as redis-py is
    except redis.ResponseError as error:
        return [] if "no key arguments" in str(error) else None
    return [(key, frozenset(flag.decode() for flag in flags) - NOT_SAID) for key, flags in answer]


def ours(words: list[bytes]) -> list[tuple[bytes, frozenset[str]]] | None:
    """What we say; None: not known."""
    known = look_up(words)
    if known is None or not known.takes(len(words)):
        return None
    try:
        return [(words[found.index], found.flags - NOT_SAID) for found in keys_of(known, words)]
    except UnknownKeysError:
        return None


def test_keys_are_those_of_the_server(server: RedisServer) -> None:
    """Of thousands of commands of every kind the keys are those that the server names, or not known."""
    chance = random.Random(SEED)
    lines = SHAPED.strip().replace("\n", "; ").split("; ")
    commands = [line.replace("''", "").split(" ") for line in lines]
    tried = [[word.encode() for word in words] for words in commands]
    tried += [made_up(known, chance) for known in catalogue().values() for _ in range(COMMANDS_EACH)]
    known = 0
    with redis.Redis(port=server.port, protocol=2) as agent:
        for words in tried:
            mine = ours(words)
            if mine is None or len(words) == 1:  # the server tells of two words and more
                assert not mine
                continue
            theirs = said(agent, words)
            name = words[0].upper().decode()
            if name in SILENT:
                theirs = None if theirs is None else [(key, dict(mine).get(key, frozenset())) for key, _ in theirs]
            assert theirs == mine, words
            known += bool(mine)
    assert known > len(tried) // 5


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("XREAD COUNT 2 STREAMS a b 0 0", ["a", "b"]),
        ("SORT a STORE b STORE c", ["a", "c"]),
        ("EVAL s 2 a b c", ["a", "b"]),
        ("SET a b", ["a"]),
        ("BLMPOP 0 2 a b LEFT", ["a", "b"]),
        ("GEORADIUS a 1 2 3 m STORE b", ["a", "b"]),
        ("MIGRATE h 1 k 0 5", ["k"]),
        ("OBJECT ENCODING a", ["a"]),
        ("PING", []),
    ],
)
def test_common_commands_are_known(line: str, expected: list[str]) -> None:
    """What agents say every day is not among what is not known."""
    found = ours([word.encode() for word in line.split()])
    assert found is not None
    assert expected == [key.decode() for key, _ in found]
