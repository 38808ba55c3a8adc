"""PostgreSQL through the proxy's core: when the server is asked again what names mean, against a model of it.

What lives here: how often it is asked, and what counts then. What must not: what it says (test_postgresql_walked_around.py).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from capd.enforcer.proxy.connection import Connection
from capd.enforcer.proxy.events import Held
from capd.enforcer.proxy.layer import Surroundings
from capd.enforcer.proxy.postgresql.cancelling import Cancels
from capd.enforcer.proxy.postgresql.layer import PostgresqlLayer
from capd.enforcer.proxy.postgresql.shared import Shared
from capd.enforcer.proxy.question import Question, Verdict
from tests.enforcer.postgresql_model import Server, query, startup
from tests.enforcer.postgresql_talk import HERE, Talk, by_text

SELECT = "select a from t"


def test_names_are_asked_for_again_when_they_are_unknown() -> None:
    """After a statement that nobody understands, the server is asked where names are looked for, and only when that matters."""
    talk = Talk().begin()
    talk.server.schemas = ["other"]
    talk.says(query('set search_path to "$user", public'), query("select 1"))
    assert 1 == talk.server.asked
    talk.says(query(SELECT))
    assert 2 == talk.server.asked
    resources = [one.statement.resources for one in talk.run.questions if one.statement is not None]
    assert (("other.t", "read"),) == resources[-1]


def test_functions_are_asked_for_again_when_one_may_have_been_made() -> None:
    """What the server said of one session counts for the next soon after; a definition makes it asked anew, here and there."""
    shared = Shared(cancels=Cancels(bytes(32)))
    around = Surroundings(destination=HERE)

    def talk() -> Talk:
        server = Server(functions=["abs"])
        return Talk(core=lambda: Connection(PostgresqlLayer(around, shared, dialled=False)), server=server).begin()

    def problems(of: Talk) -> bool:
        statement = of.run.questions[-1].statement
        assert statement is not None
        return bool(statement.problems)

    first, second = talk(), talk()
    assert (1, 1) == (first.server.asked, second.server.asked)
    assert (True, False) == (b"pg_proc" in first.run.upstream, b"pg_proc" in second.run.upstream)
    first.says(query("select abs(1)"))
    second.says(query("select abs(1)"))
    assert (True, True) == (problems(first), problems(second))
    second.server.functions = []
    second.says(query("create function f() returns int language sql as 'select 1'"), query("select abs(2)"))
    assert (False, True) == (problems(second), second.server.asked > 1)
    assert b"pg_proc" in second.run.upstream


def test_a_function_that_is_made_while_a_person_thinks() -> None:
    """What was allowed is sent as what it was asked as: where it is another by now, it is asked about anew."""
    shared = Shared(cancels=Cancels(bytes(32)))
    around = Surroundings(destination=HERE)

    def talk(judge: Callable[[Question], Verdict] | None) -> Talk:
        core = lambda: Connection(PostgresqlLayer(around, shared, dialled=False))  # noqa: E731 - of the same state each time
        return Talk(core=core, judge=judge)

    definer, waiting = talk(by_text).begin(), talk(None)
    waiting.says(startup()).decide().says(query("select abs(1)"))
    definer.says(query("create function f() returns int language sql as 'select 1'"))
    waiting.server.functions = ["abs"]
    waiting.decide()
    assert [] == waiting.server.ran
    first, second = (one.statement for one in waiting.run.questions[-2:])
    assert first is not None
    assert second is not None
    assert ((), True) == (first.problems, bool(second.problems))
    assert [waiting.run.questions[-2].number] == waiting.run.unsent
    waiting.decide()
    assert [("select abs(1)", None)] == waiting.server.ran


@pytest.mark.parametrize("person", [True, False])
def test_a_function_that_is_made_before_a_verdict(person: bool) -> None:
    """A verdict about what comes again is one about what it was then: what is another by now is asked about anew."""
    shared = Shared(cancels=Cancels(bytes(32)))
    around = Surroundings(destination=HERE)

    def talk() -> Talk:
        return Talk(core=lambda: Connection(PostgresqlLayer(around, shared, dialled=False))).begin()

    definer, waiting = talk(), talk()
    waiting.says(query("select abs(1)"))
    waiting.run.judge = None
    waiting.says(query("select abs(2)"))
    asked, ran = waiting.run.questions[-1].number, len(waiting.server.ran)
    definer.says(query("create function f() returns int language sql as 'select 1'"))
    waiting.server.functions = ["abs"]
    if person:
        waiting.run.tell(Held(asked, "a1"))
        waiting.go()
    else:
        waiting.decide()
    assert ran == len(waiting.server.ran)
    assert ([asked], []) == (
        (waiting.run.withdrawn, waiting.run.unsent) if person else (waiting.run.unsent, waiting.run.withdrawn)
    )
    again = waiting.run.questions[-1].statement
    assert again is not None
    assert again.problems
    waiting.decide()
    assert ("select abs(2)", None) == waiting.server.ran[-1]
