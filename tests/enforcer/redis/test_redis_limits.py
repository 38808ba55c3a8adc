"""Guard rails of Redis: answers beyond a limit are errors, never short; what is told of, and what ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from capd.enforcer.limits.meter import admitted
from capd.enforcer.limits.shared import SharedTotals
from capd.enforcer.obligations.obligation import Obligations
from capd.enforcer.policy.host_name import normal_host
from capd.enforcer.policy.limit import Limit
from capd.enforcer.proxy.connection import Means, open_connection
from capd.enforcer.proxy.events import Side, Timer
from capd.enforcer.proxy.layer import Opened
from capd.enforcer.proxy.question import Kind, Question, Verdict
from capd.enforcer.proxy.redis.server import HELD_BYTES_MAX
from tests.decoders import redis_bytes as rd
from tests.enforcer.redis.test_proxy_redis import HERE, Talk, judge
from tests.enforcer.rehearsal import NoTls, Rehearsal


@pytest.fixture
def totals() -> Iterator[SharedTotals]:
    """Give a table of totals."""
    made = SharedTotals(64)
    yield made
    made.close()


def limited(limit: Limit, totals: SharedTotals) -> Callable[[Question], Verdict]:
    """Give a judge that limits statements, and counts them as the world does."""
    limits = (("rail", limit),)

    def decide(question: Question) -> Verdict:
        verdict = judge(question)
        if question.kind is not Kind.STATEMENT:
            return verdict
        exceeded = admitted(limits, totals, "r", 0.0)
        if exceeded is not None:
            return replace(verdict, allowed=False, reason="limit_exceeded", message=exceeded.words)
        return replace(verdict, obligations=Obligations(limits=limits))

    return decide


def talk(limit: Limit, totals: SharedTotals, step: int = 0) -> Talk:
    """Give a conversation under a limit."""
    made = Talk(judge=limited(limit, totals), step=step)
    means = Means(contexts=NoTls(), normalise=normal_host, totals=totals)
    made.run = Rehearsal(
        judge=made.judge, destination=HERE, core=lambda: open_connection(HERE, Opened(session="s", run="r"), means)
    )
    return made


@pytest.mark.parametrize("step", [0, 1, 7])
@pytest.mark.parametrize(("limit", "name"), [(Limit(rows=3), "rows"), (Limit(bytes=60), "bytes")])
def test_an_answer_beyond_a_limit_is_an_error(totals: SharedTotals, limit: Limit, name: str, step: int) -> None:
    """In its place, whatever the pieces, and the session goes on; what is within the limit arrives as it was."""
    said = talk(limit, totals, step).says(rd.PING)
    said.server.values[0, b"long"] = b"x" * 100
    three, four = rd.array(*[b":1\r\n"] * 3), rd.array(*[rd.string(b"v" * 20)] * 4)
    for answer in (three, four, three):
        said.run.says(rd.command("LRANGE", "l", "0", "-1"))
        said._taken = len(said.run.upstream)
        said.run.answers(answer, step=step)
    told = said.told()
    assert ["+PONG", "[1, 1, 1]", f"-ERR capd: more than {name} {limit.rows or limit.bytes} of rule rail", "[1, 1, 1]"] == told
    assert [name] == [one.exceeded.limit for one in said.run.exceeded]
    assert said.run.closed is None


def test_a_long_answer_that_has_begun_is_cut(totals: SharedTotals) -> None:
    """What is too long to be kept goes on, and when it is beyond its limit the connection ends: nobody takes it for whole."""
    said = talk(Limit(bytes=2 * HELD_BYTES_MAX), totals).says(rd.PING)
    said.run.says(rd.command("GET", "k"))
    value = rd.string(b"x" * (4 * HELD_BYTES_MAX))
    for at in range(0, len(value), 65_536):
        if said.run.closed is None:
            said.run.answers(value[at : at + 65_536])
    assert said.run.closed is not None
    assert HELD_BYTES_MAX < len(said.run.client) <= 2 * HELD_BYTES_MAX + 65_536
    assert value.startswith(said.run.client.removeprefix(rd.PONG))


def test_a_run_has_so_much_and_no_more(totals: SharedTotals) -> None:
    """Over all its connections; then its commands are denied, and the server never hears of them."""
    first, second = (talk(Limit(run_rows=2), totals) for _ in range(2))
    assert ["+PONG"] == first.says(rd.PING).told()
    assert ["+PONG"] == second.says(rd.PING).told()
    for one in (first, second):
        one.says(rd.PING)
        assert one.told()[-1].startswith("-NOPERM capd: more than run_rows 2 of rule rail")
        assert 1 == len(one.server.heard)


def test_an_export_is_only_told_of(totals: SharedTotals) -> None:
    """The answer arrives, and the log has that the limit was reached."""
    said = talk(Limit(export_bytes=10), totals).says(rd.PING, rd.PING, rd.PING)
    assert ["+PONG"] * 3 == said.told()
    assert ["export_bytes"] == [one.exceeded.limit for one in said.run.exceeded]


def test_so_many_in_a_minute(totals: SharedTotals) -> None:
    """One more than may be is denied, in its place."""
    said = talk(Limit(per_minute=3), totals).says(rd.PING * 4)
    assert ["+PONG"] * 3 == said.told()[:3]
    assert said.told()[3].startswith("-NOPERM capd: more than per_minute 3")


def test_a_command_that_takes_too_long(totals: SharedTotals) -> None:
    """Its connection is cut, with a word to the client; one that is answered in time is not."""
    said = talk(Limit(seconds=5), totals).says(rd.PING)
    assert Timer.STATEMENT not in said.run.armed
    said.run.says(rd.command("BLPOP", "k", "0") + rd.PING)
    assert 5.0 == said.run.armed[Timer.STATEMENT]
    said.run.silent(Timer.STATEMENT)
    assert said.run.closed is not None
    assert b"-ERR capd: a command took longer than a rule allows" in said.run.client


def test_pushes_are_not_counted(totals: SharedTotals) -> None:
    """A message of a channel that comes while an answer is due passes, and is not of that answer."""
    said = talk(Limit(rows=2), totals).says(rd.command("HELLO", "3"))
    said.run.says(rd.command("GET", "k"))
    push = rd.published(b"a", b"m" * 50, b">")
    said.run.answers(push + push[:30])
    said.run.answers(push[30:] + rd.string(b"v"))
    assert said.run.client.endswith(push + push + rd.string(b"v"))
    assert not said.run.exceeded
    assert Side.CLIENT not in said.run.finished
