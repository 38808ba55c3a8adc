"""Guard rails of MySQL's answers, through the proxy's core: rows, bytes, seconds, totals of a run, alarms.

What lives here: what is counted, and what the client reads. What must not: totals of runs (enforcer/limits).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest

from capd.enforcer.limits.meter import admitted
from capd.enforcer.limits.shared import SharedTotals
from capd.enforcer.obligations.obligation import Obligations
from capd.enforcer.policy.host_name import normal_host
from capd.enforcer.policy.limit import Limit
from capd.enforcer.policy.rule import Mask, Replace
from capd.enforcer.proxy.commands import Close
from capd.enforcer.proxy.connection import Means, open_connection
from capd.enforcer.proxy.events import Timer
from capd.enforcer.proxy.layer import Opened
from capd.enforcer.proxy.question import Question, Verdict
from tests.decoders import mysql_bytes as my
from tests.enforcer.mysql_model import Server
from tests.enforcer.mysql_talk import HERE, Talk, by_text
from tests.enforcer.rehearsal import NoTls, Rehearsal
from tests.enforcer.test_proxy_mysql import CAPABILITIES, OTHER, SELECT, execute

MASKS = (("hide", Mask(columns=("shop.t.a",), replace=Replace.FIXED)),)
PREPARED = my.prepare("select a from t where b = ?")
FETCH = my.command(0x1C, struct.pack("<II", 1, 2))
ROWS = (my.piece("x"), my.piece("y"), b"\0\0\1x", b"\0\0\1y")
ROW_BYTES = len(my.packet(1, my.piece("x")))
HEAD = my.packet(1, b"\1") + my.column(2, "a")
"""Of a result, before its rows."""
LONG_BYTES = 0xFFFFFE


class Long(Server):
    """A server that gives a row of two packets to whoever says `long`."""

    def _query(self, body: bytes) -> bytes:
        if b"long" not in body:
            return super()._query(body)
        row = b"\xfd" + LONG_BYTES.to_bytes(3, "little") + b"x" * LONG_BYTES
        whole = b"\xff\xff\xff\3" + row[:0xFFFFFF] + my.packet(4, row[0xFFFFFF:])
        return my.packet(1, b"\1") + my.column(2, "a") + whole + my.end(5)


@pytest.fixture
def totals() -> Iterator[SharedTotals]:
    """Give a table of totals."""
    made = SharedTotals(64)
    yield made
    made.close()


def judging(limit: Limit, totals: SharedTotals | None, *, hides: bool = False) -> Callable[[Question], Verdict]:
    """Give a judge that limits statements, and counts them as the world does."""
    obligations = Obligations(limits=(("rail", limit),), masks=MASKS if hides else ())

    def judge(question: Question) -> Verdict:
        found = by_text(question)
        if question.statement is None or not found.allowed:
            return found
        exceeded = None if totals is None else admitted(obligations.limits, totals, "r", 0.0)
        if exceeded is not None:
            return replace(found, allowed=False, reason="limit_exceeded", message=exceeded.words)
        return replace(found, obligations=obligations)

    return judge


def limited(
    limit: Limit,
    totals: SharedTotals | None = None,
    *,
    login: int = my.BASE | my.NO_EOF,
    step: int = 0,
    hides: bool = False,
    server: Server | None = None,
) -> Talk:
    """Begin a session in which every statement is under a limit."""
    talk = Talk(judge=judging(limit, totals, hides=hides), login=login, step=step, server=server or Server())
    means = Means(contexts=NoTls(), normalise=normal_host, totals=totals)
    opened = Opened(session="s", run="r")
    talk.run = Rehearsal(judge=talk.judge, destination=HERE, core=partial(open_connection, HERE, opened, means))
    return talk.begin()


BEYOND = {
    "a row": (Limit(rows=1), [my.query(SELECT)], 1),
    "bytes": (Limit(bytes=ROW_BYTES), [my.query(SELECT)], 1),
    "the first row": (Limit(bytes=ROW_BYTES - 1), [my.query(SELECT)], 0),
    "several statements": (Limit(rows=3), [my.query(f"{SELECT}; {SELECT}")], 3),
    "an execution": (Limit(bytes=1), [PREPARED, execute()], 0),
    "a cursor": (Limit(rows=3), [PREPARED, execute(flags=1), FETCH, FETCH], 3),
    "columns": (Limit(bytes=1), [my.command(4, b"t\0")], 0),
    "an error": (Limit(bytes=8), [my.query("fail")], 0),
}


def bodies(said: bytes) -> list[bytes]:
    """Give the bodies of packets whose sequences follow each other; a new answer begins with 1."""
    found, at, expected = [], 0, 1
    while at < len(said):
        length, sequence = int.from_bytes(said[at : at + 3], "little"), said[at + 3]
        assert sequence in {expected, 1}
        expected = sequence + 1
        found.append(said[at + 4 : at + 4 + length])
        at += 4 + length
    return found


@pytest.mark.parametrize("step", [0, 1, 5])
@pytest.mark.parametrize("capabilities", CAPABILITIES)
@pytest.mark.parametrize("name", BEYOND)
def test_beyond_a_limit(name: str, capabilities: int, step: int) -> None:
    """So many rows go on, then an ERR in the next packet's place, in sequence; the session ends, and it is written down."""
    limit, said, rows = BEYOND[name]
    talk = limited(limit, login=capabilities, step=step).says(*said)
    told = bodies(talk.new())
    assert rows == sum(body in ROWS for body in told)
    assert told[-1].startswith(b"\xff" + struct.pack("<H", 1226) + b"#42000capd: more than")
    assert told[-1].endswith(b"of rule rail")
    assert ["rail"] == [one.exceeded.rule for one in talk.run.exceeded]
    assert Close() == talk.run.closed


@pytest.mark.parametrize("step", [0, 1, 5])
@pytest.mark.parametrize("capabilities", CAPABILITIES)
def test_beyond_a_limit_where_columns_are_hidden(capabilities: int, step: int) -> None:
    """Rows that are made anew are counted as the server sent them; what was hidden is written down."""
    talk = limited(Limit(rows=1), login=capabilities, step=step, hides=True).says(my.query(SELECT))
    told = bodies(talk.new())
    assert my.piece("x") not in told
    assert told[-1].endswith(b"capd: more than rows 1 of rule rail")
    assert [{"hide": 1}] == [report.carried_out.masked for report in talk.run.reports]
    assert (["rows"], Close()) == ([one.exceeded.limit for one in talk.run.exceeded], talk.run.closed)


@pytest.mark.parametrize("hides", [False, True])
@pytest.mark.parametrize("capabilities", CAPABILITIES)
def test_within_a_limit(capabilities: int, hides: bool) -> None:
    """What stays within it is as it would be without, each execution anew; capd's own questions do not count."""
    said = [my.query(SELECT), my.query(OTHER), my.query(SELECT), PREPARED, execute(), execute(flags=1), FETCH, execute()]
    talk = limited(Limit(rows=2, bytes=64), login=capabilities, hides=hides).says(*said)
    assert (None, []) == (talk.run.closed, talk.run.exceeded)
    if not hides:
        assert Talk(login=capabilities).begin().says(*said).new() == talk.new()


@pytest.mark.parametrize(("most", "sent"), [(1 << 20, 0), (0xFFFFFF + 4, 0xFFFFFF)])
def test_a_long_row(most: int, sent: int) -> None:
    """One that is too long does not begin; one that turns out to be is cut, without a word that would be taken for data."""
    talk = limited(Limit(bytes=most), server=Long()).says(my.query("select long from t"))
    head, told = my.packet(1, b"\1") + my.column(2, "a"), talk.new()
    assert told.startswith(head)
    rest = told[len(head) :]
    assert (b"\xff\xff\xff\3" if sent else b"") == rest[: 4 if sent else 0]
    assert (b"capd" in rest) is not bool(sent)
    assert sent == (len(rest) - 4 if sent else 0)
    assert Close() == talk.run.closed


def test_a_run_has_so_much_and_no_more(totals: SharedTotals) -> None:
    """Over all its connections; then its statements are denied, and the server never hears of them."""
    first, second = (limited(Limit(run_rows=4), totals) for _ in range(2))
    for one in (first, second):
        one.says(my.query(SELECT))
    assert not first.run.exceeded + second.run.exceeded
    for one in (first, second):
        one.says(my.query(SELECT))
        assert b"more than run_rows 4 of rule rail" in one.new()
        assert [SELECT] == one.server.heard
        assert one.run.closed is None


def test_a_run_cannot_be_counted() -> None:
    """Then nothing of its rows goes on."""
    talk = limited(Limit(run_rows=9)).says(my.query(SELECT))
    assert b"run_rows of rule rail cannot be counted now" in talk.new()
    assert Close() == talk.run.closed


def test_an_export_is_only_told_of(totals: SharedTotals) -> None:
    """The answers arrive, and the log has once that the limit was reached."""
    talk = limited(Limit(export_rows=1), totals).says(my.query(SELECT), my.query(SELECT))
    assert 4 == sum(body in ROWS for body in bodies(talk.new()))
    assert (["export_rows"], None) == ([one.exceeded.limit for one in talk.run.exceeded], talk.run.closed)


@pytest.mark.parametrize(
    ("come", "place"),
    [(0, 1), (1, 1), (len(HEAD), 3), (len(HEAD) + 1, 3), (len(HEAD) + 5, 0)],
)
def test_seconds(come: int, place: int) -> None:
    """The time runs while a statement is answered; when it is over the session ends, with a word between packets."""
    talk = limited(Limit(seconds=7)).says(my.query(SELECT), PREPARED)
    assert {} == talk.run.armed
    answer = talk.server.hears(execute())
    talk.server.hears = lambda _: b""  # type: ignore[method-assign, assignment] # it does not answer any more
    talk.new()
    talk.says(execute())
    assert {Timer.STATEMENT: 7} == talk.run.armed
    talk.server_says(answer[:come])
    talk.run.silent(Timer.STATEMENT)
    told = talk.new()
    assert Close() == talk.run.closed
    assert (b"a statement took longer than a rule allows" in told) is bool(place)
    if place:
        assert place == told[told.rindex(b"\xff\xca\x04#42000") - 1]
