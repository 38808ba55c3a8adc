"""MariaDB behind the proxy, cut (cuts.py): text and prepared statements, several at once, a cursor, hidden columns."""

# ruff: noqa: S608 - sequences by number
from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import pytest

from capd.enforcer.obligations.obligation import Obligations
from capd.enforcer.policy.rule import Mask, Replace
from capd.enforcer.proxy.question import Question, Verdict
from tests.decoders import mysql_bytes as my
from tests.e2e.certificates import make
from tests.enforcer.mysql_talk import by_text
from tests.enforcer.proxied import proxied
from tests.servers.mariadb import DATABASE, MariaDb, mariadb
from tests.soak.cuts import Language, Yard, cut_many
from tests.soak.cutting import Step, relay

COUNTED, DENIED = range(1, 11), range(11, 14)
"""Sequences: each statement moves one of its own, and nothing takes that back."""
MOVED = {**dict.fromkeys(COUNTED, 1), **dict.fromkeys(DENIED, 0)}
USER = "cuts"
"""Who needs no password: what it says is the same each time."""
SETUP = (
    f"create user {USER}@'%'",
    f"grant all on {DATABASE}.* to {USER}@'%'",
    f"use {DATABASE}",
    *(f"create sequence s{number} nocache" for number in (*COUNTED, *DENIED)),
    "create table people (id int, secret varchar(20))",
    "insert into people select seq, concat('hidden ', seq) from seq_1_to_20",
)
MASKS = (("hide", Mask(columns=(f"{DATABASE}.people.secret",), replace=Replace.PARTIAL)),)
LONG_BYTES = 3_000
FETCHED_ROWS = 5
LONGLONG, CURSOR, SEVERAL = 8, 1, 1 << 16
"""A type, a flag of an execution, a capability (several statements in one)."""
OKAY, END, ERROR, GREETING, OTHER = "OFEG."
"""Codes of messages."""


def moved(number: int, more: str = "", length: int = 40) -> str:
    """Give a statement that moves a sequence."""
    return f"select nextval(s{number}) > 0, repeat('x', {length}) {more}"


def signs_in() -> bytes:
    """Give the HandshakeResponse of somebody without a password."""
    head = struct.pack("<IIB", my.BASE | SEVERAL, 1 << 24, 45) + bytes(23)
    return my.packet(1, head + USER.encode() + b"\0\0" + DATABASE.encode() + b"\0mysql_native_password\0")


def executed(statement: int, value: int, *, flags: int = 0) -> bytes:
    """Give a COM_STMT_EXECUTE with one number."""
    return my.execute(statement, [(LONGLONG, 0)], struct.pack("<q", value), flags=flags)


def rows(said: bytes, results: int = 1) -> Step:
    """Give a step that ends with rows: behind the columns is an EOF, and behind the rows."""
    return Step(said=said, until=END, times=2 * results)


BEGIN = (Step(said=b"", until=GREETING), Step(said=signs_in(), until=OKAY))
STEPS = (
    rows(my.query(moved(1))),
    Step(said=my.query(moved(11, "/* denied */")), until=ERROR),
    rows(my.query("select id, secret from people where id < 5 order by id")),
    Step(said=my.query("begin"), until=OKAY),
    rows(my.query(moved(2))),
    Step(said=my.query(moved(12, "/* denied */")), until=ERROR),
    Step(said=my.query("update people set id = id + 1 where id > 18"), until=OKAY),
    Step(said=my.query("rollback"), until=OKAY),
    rows(my.prepare(moved(3, "where ? > 0"))),
    rows(executed(1, 1)),
    rows(executed(1, 0)),
    rows(my.query(moved(4))),
    Step(said=my.prepare(moved(13, "where ? > 0 /* denied */")), until=ERROR),
    rows(my.prepare("select id, secret from people where id > ? order by id")),
    rows(executed(2, 4)),
    Step(said=executed(2, 2, flags=CURSOR), until=END),
    Step(said=my.command(0x1C, struct.pack("<II", 2, FETCHED_ROWS)), until=END),
    Step(said=my.command(0x1C, struct.pack("<II", 2, FETCHED_ROWS)), until=END),
    Step(said=my.command(0x19, struct.pack("<I", 2))),
    rows(my.query(f"{moved(5)}; {moved(6)}"), 2),
    rows(my.query(moved(7, length=LONG_BYTES))),
    Step(said=my.query("begin"), until=OKAY),
    rows(my.query(moved(8))),
    Step(said=my.query("commit"), until=OKAY),
    rows(my.query(moved(9))),
    rows(my.query(moved(10))),
    Step(said=my.PING, until=OKAY),
    Step(said=my.query(moved(11, "/* denied again */")), until=ERROR),
)
LAST = Step(said=my.QUIT)
PACES = {
    "step by step": (*BEGIN, *STEPS, LAST),
    "at once": (
        *BEGIN,
        Step(said=b"".join(step.said for step in STEPS), until=ERROR, times=sum(step.until == ERROR for step in STEPS)),
        LAST,
    ),
}


def masking(question: Question) -> Verdict:
    """Allow what has no `denied` in it, with columns hidden; what moves a sequence would be refused then."""
    verdict = by_text(question)
    statement = question.statement
    if statement is not None and b"people" in statement.content and verdict.allowed:
        return replace(verdict, obligations=Obligations(masks=MASKS))
    return verdict


JUDGES = {"plain": by_text, "masked": masking}


def packets(data: bytes) -> list[int]:
    """Tell where packets begin, and where the last one ends, whole or not."""
    found, at = [0], 0
    while at < len(data):
        at += 4 + int.from_bytes(data[at : at + 3], "little")
        found.append(at)
    return found


def code_of(one: bytes) -> str:
    """Tell what a packet is."""
    if not one[3]:
        return GREETING
    if one[4] == 0xFF:
        return ERROR
    if one[4] == 0xFE and len(one) < 4 + 9:
        return END
    return OKAY if one[4] == 0 and one[3] <= 2 else OTHER


def same(one: bytes) -> bytes:
    """Give a packet without what is another in each session: the greeting's scramble, our session's name."""
    if code_of(one) == GREETING:
        return b"greeting"
    return bytes(3) + re.sub(rb"session=s\d+", b"", one[3:]) if code_of(one) == ERROR else one


def taken_apart(data: bytes) -> tuple[list[bytes], bytes]:
    """Give what the server said in whole packets, and what is left."""
    found = [(begin, end) for begin, end in pairwise(packets(data)) if end <= len(data)]
    return [same(data[begin:end]) for begin, end in found], data[found[-1][1] if found else 0 :]


def seen(data: bytes, code: str) -> int:
    """Tell how many packets of a code there are; what a prepared statement says of itself is none that answers it."""
    return sum(one != b"greeting" and code_of(one) == code for one in taken_apart(data)[0]) + (code == GREETING and bool(data))


LANGUAGE = Language(
    edges=lambda data, _: packets(data),
    taken_apart=taken_apart,
    seen=seen,
    ends_it=lambda one: code_of(one) == ERROR,
    differs=lambda one: one == b"greeting" or (one[:3] == bytes(3) and code_of(one) == ERROR),
)


@dataclass(frozen=True)
class Sequences:
    """What statements move."""

    server: MariaDb
    begun: dict[int, int] = field(default_factory=dict)

    def connected(self) -> int:
        """Tell how many sessions of the client's the server has."""
        return sum(row[1] == USER for row in self.server.administer("show processlist"))

    def reset(self) -> None:
        """Count from here: to put them back would be a change of a definition each."""
        self.begun.update(self._values())

    def counts(self) -> dict[int, int]:
        """Tell how often each was moved."""
        return {one: value - self.begun[one] for one, value in self._values().items()}

    def _values(self) -> dict[int, int]:
        each = (f"select {one}, next_not_cached_value from {DATABASE}.s{one}" for one in MOVED)
        return {int(row[0]): int(row[1]) for row in self.server.administer(" union all ".join(each))}


@pytest.fixture(scope="module")
def yard() -> Iterator[Yard]:
    """Make one."""
    with ExitStack() as stack:
        # A session that is made of an old one would go on counting its prepared statements.
        server = stack.enter_context(mariadb(["--thread-cache-size=0"]))
        server.administer(*SETUP)
        yield Yard(relay=stack.enter_context(relay(server.port)), sequences=Sequences(server), language=LANGUAGE)


@pytest.mark.parametrize("pace", PACES)
@pytest.mark.parametrize("judge", JUDGES)
def test_cut(yard: Yard, tmp_path: Path, judge: str, pace: str) -> None:
    """Everything ends, and nothing has run that must not have."""
    with proxied(tmp_path, yard.relay.port, make(tmp_path), JUDGES[judge]) as proxy:
        told = cut_many(yard, proxy, PACES[pace], MOVED, share=3)
    assert (b"hidden 1" in told) == (judge == "plain")
