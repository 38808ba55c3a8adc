"""Statements made at random never bring a hidden value to the agent, in any form, on a real MariaDB.

What lives here: running them, and looking at every byte that comes. What must not: making them.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pymysql
import pytest

from capd.enforcer.masking.rows import mysql_judgement
from capd.enforcer.masking.rows.mysql_protection import MysqlProtection
from capd.enforcer.policy.rule import Mask, Predicates, Replace
from tests.enforcer.rows import mysql_agent
from tests.enforcer.rows.mysql_agent import Got, MysqlAgent, connected, fill
from tests.enforcer.rows.mysql_maker import HIDDEN, SCHEMA, MysqlMaker
from tests.servers.mariadb import MariaDb

MADE = int(os.environ.get("CAPD_ROWS_MADE", "400"))
"""Statements of a run; ten thousand take minutes."""
SHOWN_MIN = 0.2
"""Share of statements that must come through, so that something is tried at all."""
EVERYTHING = (
    "SELECT concat_ws(' ', (SELECT group_concat(concat_ws(' ', said, n) SEPARATOR ' ') FROM notes),"
    " (SELECT group_concat(concat_ws(' ', note, total) SEPARATOR ' ') FROM orders),"
    " (SELECT group_concat(concat_ws(' ', id, name, city) SEPARATOR ' ') FROM people))"
)
FIRST = ("DELETE FROM people WHERE ssn + 0 > 5", "UPDATE people SET city = 'c' WHERE ssn + 0 > 5")
"""Errors of a strict session repeat what is no number."""
DEATHS_MAX = 2
"""Of the server in a run: it died once of a statement that was made at random, and of none of 30,000 others."""


@dataclass
class Filled:
    """A database with needles.

    Attributes:
        server: which it is on.
        maker: what made them, and makes statements.
        connection: to it.
    """

    server: MariaDb
    maker: MysqlMaker
    connection: Any = None

    def connect(self) -> Any:  # noqa: ANN401 - pymysql has no names for it
        """Connect anew."""
        self.connection = connected(self.server, "masked")
        with self.connection.cursor() as cursor:
            cursor.execute("SET group_concat_max_len = 1000000")
        return self.connection


@pytest.fixture(scope="module")
def filled(mariadb: MariaDb) -> Iterator[Filled]:
    """Give a connection to a database with needles, and what made them."""
    maker = MysqlMaker(5)
    fill(mariadb, "masked", SCHEMA, maker.content())
    made = Filled(mariadb, maker)
    made.connect()
    yield made
    made.connection.close()
    with connected(mariadb, "mysql") as admin, admin.cursor() as cursor:
        cursor.execute("DROP DATABASE masked")


def leaks(agent: MysqlAgent, maker: MysqlMaker, text: str, number: int) -> tuple[list[str], Got]:
    """Run a statement in a transaction, and say what of it shows a hidden value."""
    agent.ask("BEGIN")
    got = agent.run(text, prepared=number % 3 == 2)
    said = [f"{text}\n    {found}" for value in got.everything if (found := maker.needles.found_in(value)) is not None]
    for raw, row in zip(got.raw, got.rows, strict=True):
        kept = [(one, other) for one, other, hidden in zip(raw, row, got.hidden, strict=True) if not hidden]
        said += [f"{text}\n    {one!r} became {other!r}" for one, other in kept if one != other]
    if not got.failed and got.refused is None and not text.startswith(("SELECT", "SHOW", "WITH")):
        everything = agent.ask(EVERYTHING)
        found = maker.needles.found_in((everything or [(b"",)])[0][0] or b"")
        said += [f"{text}\n    left behind: {found}"] if found is not None else []
    agent.ask("ROLLBACK")
    agent.ask("UNLOCK TABLES")
    return said, got


def revived(filled: Filled, text: str) -> None:
    """Start a server that a statement made die, and say so; one that lives should not have closed the connection."""
    assert filled.server.died(), text
    logging.getLogger(__name__).warning("MariaDB died of: %s\n%s", text, filled.server.log[-4000:])
    filled.connection._force_close()
    filled.server.begin()
    filled.connect()


def tried(filled: Filled, predicates: Predicates, replace: Replace) -> tuple[list[str], Counter[str]]:
    """Run many statements; give what leaked, and what came of how many."""
    maker = filled.maker
    agent = MysqlAgent(filled.connection, "masked", (("hide", Mask(columns=HIDDEN, replace=replace, predicates=predicates)),))
    found: list[str] = []
    counts: Counter[str] = Counter()
    for number, text in enumerate([*FIRST, *(maker.statement() for _ in range(MADE))]):
        agent.time += 1.0
        try:
            said, got = leaks(agent, maker, text, number)
        except pymysql.err.OperationalError:
            revived(filled, text)
            agent.connection = filled.connection
            counts["died"] += 1
            continue
        found += said
        counts["refused" if got.refused else "failed" if got.failed else "hidden" if any(got.hidden) else "shown"] += 1
    assert counts["died"] <= DEATHS_MAX, counts
    return found, counts


@pytest.mark.slow
@pytest.mark.parametrize("replace", [Replace.NULL, Replace.FIXED, Replace.PARTIAL])
@pytest.mark.parametrize("predicates", list(Predicates))
def test_no_hidden_value_reaches_the_agent(filled: Filled, predicates: Predicates, replace: Replace) -> None:
    """Of statements made at random none shows a hidden value, and columns that are not hidden stay as they are."""
    filled.maker.chance.seed(f"{predicates} {replace}")
    found, counts = tried(filled, predicates, replace)
    assert [] == found, counts
    assert counts["shown"] + counts["hidden"] > MADE * SHOWN_MIN, counts
    assert counts["hidden"] > 0, counts


BREAKS: dict[str, tuple[object, str, Callable[..., object]]] = {
    "expressions": (mysql_judgement, "_of_expression", lambda *_: None),
    "queries within queries": (mysql_judgement, "refusal_of_nesting", lambda *_: None),
    "changes": (mysql_judgement, "refusal_of_change", lambda *_: None),
    "errors": (mysql_agent, "hidden_error", lambda body: body),
    "names": (MysqlProtection, "of", lambda *_: None),
}


@pytest.mark.slow
@pytest.mark.parametrize("broken", list(BREAKS))
def test_a_hole_is_found(filled: Filled, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """Each part of masking is needed: without it, the same statements show hidden values."""
    monkeypatch.setattr(*BREAKS[broken])
    filled.maker.chance.seed("holes")
    found, counts = tried(filled, Predicates.ALLOW, Replace.FIXED)
    assert found, counts
