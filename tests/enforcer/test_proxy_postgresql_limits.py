"""Guard rails of PostgreSQL's answers, through the proxy's core: rows, bytes, seconds, alarms.

What lives here: what is counted, and what the client reads. What must not: totals of runs (enforcer/limits).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from capd.enforcer.limits.counting import Counting
from capd.enforcer.limits.meter import Exceeded, Meter
from capd.enforcer.obligations.obligation import Obligations
from capd.enforcer.policy.limit import Limit
from capd.enforcer.proxy.commands import Close
from capd.enforcer.proxy.events import Side, Timer
from capd.enforcer.proxy.postgresql import estimate
from capd.enforcer.proxy.postgresql.answers import Answers
from capd.enforcer.proxy.postgresql.due import Asked, Due
from capd.enforcer.proxy.postgresql.metered import Metered
from capd.enforcer.proxy.question import Question, Verdict
from tests.enforcer.postgresql_model import SYNC, Server, bind, error_fields, execute, message, parse, query
from tests.enforcer.postgresql_talk import Talk, by_text

NOTICE = message("N", b"SNOTICE\0C00000\0Ma row\0\0")
ROW = message("D", b"\0\1\0\0\0\1x")
CANCEL = bytes.fromhex("00000010 04d2162e")
SELECT = "select a from t"
FETCH = "fetch 3 from c"
TWICE = f"{SELECT}; {SELECT}"


class Rows(Server):
    """A server that gives three rows to every SELECT, and to a portal `p` as often as it is executed, suspending it."""

    cancelled = b""

    def hears(self, data: bytes) -> bytes:
        """Take bytes, of a connection to cancel with as well."""
        if data.startswith(CANCEL):
            self.cancelled = data[len(CANCEL) :]
            return b""
        return super().hears(data)

    def _execute(self, body: bytes) -> bytes:
        return ROW * 3 + message("s") if body.startswith(b"p\0") else super()._execute(body)

    def _run(self, sql: str, value: str | None, *, simple: bool) -> bytes:
        if sql == "notices":
            return NOTICE * 4 + message("C", b"DO\0")
        if sql == TWICE:
            return (ROW * 3 + message("C", b"SELECT 3\0")) * 2
        done = super()._run(sql, value, simple=simple)
        return ROW * 2 + done if sql in {SELECT, FETCH, "execute p"} else done


def limited(limit: Limit, step: int = 1) -> Talk:
    """Begin a session in which every statement is under a limit."""

    def judge(question: Question) -> Verdict:
        verdict = by_text(question)
        return verdict if question.statement is None else replace(verdict, obligations=Obligations(limits=(("rails", limit),)))

    return Talk(judge=judge, server=Rows(), step=step).begin()


GOES_ON = parse(SELECT, "s") + bind("s", "p") + execute("p") + parse("select 1") + bind() + execute() + execute("p") + SYNC
"""Another statement is judged in between, so that the portal is judged anew."""
EXTENDED = parse(SELECT) + bind() + execute() + SYNC
CASES = {
    "rows, simple": (Limit(rows=2), query(SELECT), 2),
    "rows, extended": (Limit(rows=2), EXTENDED, 2),
    "no row": (Limit(rows=1), query("copy t to stdout") + query(SELECT), 1),
    "a portal that goes on": (Limit(rows=4), GOES_ON, 5),
    "notices": (Limit(bytes=3 * len(NOTICE)), query("notices"), 0),
    "an error": (Limit(bytes=9), query("fail"), 0),
    "several statements": (Limit(rows=4), query(TWICE), 4),
    "bytes": (Limit(bytes=2 * len(ROW)), query(SELECT), 2),
}


def cancelled(talk: Talk) -> None:
    """See that the client is done with, and that the session lasts until the server has taken the request to cancel."""
    assert isinstance(talk.server, Rows)
    assert (2, b"\0\0\0\7keys", {Side.CLIENT}) == (len(talk.run.dials), talk.server.cancelled, talk.run.finished)
    said = len(talk.run.upstream)
    talk.run.says(query("select 1"))
    talk.run.ends(Side.CLIENT)
    assert (None, b"", said) == (talk.run.closed, talk.new(), len(talk.run.upstream))
    talk.run.ends(Side.UPSTREAM)
    assert Close() == talk.run.closed


@pytest.mark.parametrize("step", [0, 1, 5])
@pytest.mark.parametrize("name", CASES)
def test_beyond_a_limit(name: str, step: int) -> None:
    """At most so many rows go on; the client reads which limit it was, the server is told to cancel, and it is written down."""
    limit, said, rows = CASES[name]
    talk = limited(limit, step).says(said)
    told = talk.told()
    assert (rows if step == 1 else min(rows, sum(code == "D" for code, _ in told))) == sum(code == "D" for code, _ in told)
    assert ("E", "54000", "FATAL") == (told[-1][0], error_fields(told[-1][1])["C"], error_fields(told[-1][1])["S"])
    assert "of rule rails" in error_fields(told[-1][1])["M"]
    assert ["rails"] == [one.exceeded.rule for one in talk.run.exceeded]
    cancelled(talk)


@pytest.mark.parametrize("said", [query(SELECT), EXTENDED])
def test_within_a_limit(said: bytes) -> None:
    """What stays within it is as it is, each statement anew."""
    talk = limited(Limit(rows=3)).says(said, said)
    assert 6 == sum(code == "D" for code, _ in talk.told())
    assert (None, []) == (talk.run.closed, talk.run.exceeded)


def cursor(text: str) -> Callable[[Question], Verdict]:
    """Limit only statements that have a text."""

    def judge(question: Question) -> Verdict:
        verdict, said = by_text(question), question.statement
        limited = said is not None and text in (said.text or "")
        return replace(verdict, obligations=Obligations(limits=(("rails", Limit(rows=2)),))) if limited else verdict

    return judge


BY_NAME = {
    "a cursor": query("begin") + query("declare c cursor for select a from t") + query(FETCH),
    "a portal": query("begin") + parse(SELECT) + bind("", "c") + parse(FETCH) + bind() + execute() + SYNC,
    "a cursor, extended": query("begin; declare c cursor for select a from t") + parse(FETCH) + bind() + execute() + SYNC,
    "a prepared statement": query("prepare p as select a from t") + query("execute p"),
}


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("name", BY_NAME)
def test_what_is_only_named(name: str, step: int) -> None:
    """Rows of what a statement names are counted as those of what stands behind the name, which the rule is about."""
    talk = Talk(judge=cursor("from t"), server=Rows(), step=step).begin().says(BY_NAME[name])
    assert "54000" == error_fields(talk.told()[-1][1])["C"]
    assert ["rails"] == [one.exceeded.rule for one in talk.run.exceeded]
    cancelled(talk)


def test_a_cursor_that_nothing_limits() -> None:
    """Its rows are not counted."""
    talk = Talk(judge=cursor("from u"), server=Rows()).begin().says(BY_NAME["a cursor"])
    assert (None, []) == (talk.run.closed, talk.run.exceeded)


def test_seconds() -> None:
    """The time runs while a statement is answered, and no longer; when it is over, the session ends."""
    talk = limited(Limit(seconds=7))
    assert {} == talk.run.armed
    talk.says(query(SELECT))
    assert {} == talk.run.armed
    heard = talk.server.hears
    talk.server.hears = lambda _: b""  # type: ignore[method-assign, assignment] # it does not answer any more
    talk.says(query(SELECT))
    assert {Timer.DEADLINE: 7} == talk.run.armed
    talk.run.silent(Timer.DEADLINE)
    ((code, body),) = talk.told()[-1:]
    assert ("E", "54000") == (code, error_fields(body)["C"])
    talk.server.hears = heard  # type: ignore[method-assign]
    cancelled(talk.go())


class Deaf:
    """Takes what answers mean, and does nothing."""

    def executed(self, due: Due) -> None:
        """Nothing."""

    def failed(self, due: Due) -> None:
        """Nothing."""

    def group_failed(self) -> None:
        """Nothing."""

    def ready(self, due: Due, status: bytes) -> None:
        """Nothing."""

    def copy_in(self) -> None:
        """Nothing."""

    def reported(self, name: str, value: str) -> None:
        """Nothing."""


@pytest.mark.parametrize("code", ["N", "E"])
def test_counting_takes_nothing_from_hiding(code: str) -> None:
    """In a session in which something is hidden, errors and notices of what is only counted lose what they lose without."""
    body = b"SERROR\0C22P02\0Minvalid: 123-45-6789\0Drow 123-45-6789\0\0"
    counting = Counting(Meter(limits=(("rails", Limit(rows=1)),), totals=None, run="r"), float, list[Exceeded]().append)
    given = []
    for rewriting in (None, Metered(counting, None)):
        answers = Answers(Deaf())
        answers.reports = True
        answers.due.append(Due(Asked.QUERY, rewriting=rewriting))
        given.append(answers.receive(message(code, body)))
    assert given[0] == given[1]
    assert b"row 123-45-6789" not in given[0]


@pytest.mark.parametrize("reachable", [False, None])
def test_a_server_that_cannot_be_told_to_cancel(*, reachable: bool | None) -> None:
    """The session ends all the same: at once where nobody is there, else after a while."""
    talk = limited(Limit(rows=1))
    talk.run.reachable = reachable
    talk.says(query(SELECT))
    if reachable is None:
        talk.run.silent(Timer.DEADLINE)
    assert talk.run.closed is not None
    assert not talk.server.cancelled  # type: ignore[attr-defined]


PLANS = {
    "deeper than is read": b'[{"Plan": ' + b'{"Plans": [' * 100_000 + b"]}" * 100_000 + b"}]",
    "a number that is none": b'[{"Plan": {"Node Type": "Result", "Plan Rows": 1e999, "Total Cost": 1}}]',
    "no plan": b"[]",
    "no JSON": b"\xff",
    "nothing": None,
}


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_that_cannot_be_read_is_no_estimate(name: str) -> None:
    """Whatever a server says of its plan, a person is asked without it."""
    assert estimate.answer([[(b"2000", b"on")], [(PLANS[name],)]]) is None
