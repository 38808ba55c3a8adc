"""Statements made at random never bring a hidden value to the agent, in any form, on a real PostgreSQL.

What lives here: running them, and looking at every byte that comes. What must not: making them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator

import psycopg
import pytest

from capd.enforcer.masking.rows import judgement, protection
from capd.enforcer.policy.rule import Mask, Predicates, Replace
from tests.enforcer.rows import postgresql_agent
from tests.enforcer.rows.postgresql_agent import Agent, Got
from tests.enforcer.rows.postgresql_maker import HIDDEN, SCHEMA, Maker

MADE = int(os.environ.get("CAPD_ROWS_MADE", "400"))
"""Statements of a run; ten thousand take minutes."""
SHOWN_MIN = 0.1
"""Share of statements that must come through, so that something is tried at all."""
EVERYTHING = """
SELECT concat_ws(' ', (SELECT string_agg(concat_ws(' ', said, n), ' ') FROM notes),
  (SELECT string_agg(concat_ws(' ', note, total), ' ') FROM orders),
  (SELECT string_agg(concat_ws(' ', name, city), ' ') FROM people))
"""
FIRST = (
    "SELECT id FROM people WHERE pg_try_advisory_lock(pin)",
    "SELECT objid, classid FROM pg_locks WHERE locktype = 'advisory'",
)
"""Two that belong together."""
Connection = psycopg.Connection[tuple[object, ...]]


@pytest.fixture(scope="module")
def filled(database: str) -> Iterator[tuple[Connection, Maker]]:
    """Give a connection to a database with needles, and what made them."""
    maker = Maker(5)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(SCHEMA)
        for text, parameters in maker.content():
            connection.execute(text, parameters)
        yield connection, maker


def an_agent(connection: Connection, predicates: Predicates, replace: Replace) -> Agent:
    """Give an agent from whom everything in HIDDEN is hidden."""
    return Agent(connection, (("hide", Mask(columns=HIDDEN, replace=replace, predicates=predicates)),))


def leaks(agent: Agent, maker: Maker, text: str, number: int) -> tuple[list[str], Got]:
    """Run a statement in a transaction, and say what of it shows a hidden value."""
    agent.pgconn.exec_(b"BEGIN")
    got = agent.run(text, extended=number % 3 > 0, binary=number % 3 > 1)
    said = [f"{text}\n    {found}" for value in got.everything if (found := maker.needles.found_in(value)) is not None]
    for raw, row in zip(got.raw, got.rows, strict=False):
        kept = [(one, other) for one, other, hidden in zip(raw, row, got.hidden, strict=True) if not hidden]
        said += [f"{text}\n    {one!r} became {other!r}" for one, other in kept if one != other]
    if not got.failed and got.refused is None and not text.startswith(("SELECT", "COPY", "TABLE")):
        everything = agent.pgconn.exec_(EVERYTHING.encode())
        found = maker.needles.found_in(everything.get_value(0, 0) or b"") if everything.ntuples else None
        said += [f"{text}\n    left behind: {found}"] if found is not None else []
    agent.pgconn.exec_(b"ROLLBACK")
    return said, got


def tried(connection: Connection, maker: Maker, predicates: Predicates, replace: Replace) -> tuple[list[str], Counter[str]]:
    """Run many statements; give what leaked, and what came of how many."""
    agent = an_agent(connection, predicates, replace)
    connection.execute("SET statement_timeout = '5s'")
    found: list[str] = []
    counts: Counter[str] = Counter()
    for number, text in enumerate([*FIRST, *(maker.statement() for _ in range(MADE))]):
        agent.time += 1.0
        said, got = leaks(agent, maker, text, number)
        found += said
        counts["refused" if got.refused else "failed" if got.failed else "hidden" if any(got.hidden) else "shown"] += 1
    return found, counts


@pytest.mark.slow
@pytest.mark.parametrize("replace", [Replace.NULL, Replace.FIXED, Replace.PARTIAL])
@pytest.mark.parametrize("predicates", list(Predicates))
def test_no_hidden_value_reaches_the_agent(filled: tuple[Connection, Maker], predicates: Predicates, replace: Replace) -> None:
    """Of statements made at random none shows a hidden value, and columns that are not hidden stay as they are."""
    connection, maker = filled
    maker.chance.seed(f"{predicates} {replace}")
    found, counts = tried(connection, maker, predicates, replace)
    assert [] == found, counts
    assert counts["shown"] + counts["hidden"] > MADE * SHOWN_MIN, counts
    assert counts["hidden"] > 0, counts


def _anything(*_args: object, **_kwargs: object) -> bool:
    return True


def _nothing(*_args: object, **_kwargs: object) -> None:
    return None


BREAKS: dict[str, tuple[object, str, Callable[..., object]]] = {
    "expressions": (judgement, "_is_harmless_field", _anything),
    "changes": (judgement, "refusal_of_change", _nothing),
    "errors": (postgresql_agent, "hidden_report", lambda body, **_: body),
    "functions": (judgement, "leaving", lambda _functions: False),
    "views and children": (protection, "_reached", lambda _catalogue, named: frozenset(named)),
}


@pytest.mark.slow
@pytest.mark.parametrize("broken", list(BREAKS))
def test_a_hole_is_found(filled: tuple[Connection, Maker], monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """Each part of masking is needed: without it, the same statements show hidden values."""
    connection, maker = filled
    monkeypatch.setattr(*BREAKS[broken])
    maker.chance.seed("holes")
    found, counts = tried(connection, maker, Predicates.ALLOW, Replace.FIXED)
    assert found, counts
