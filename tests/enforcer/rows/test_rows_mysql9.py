"""The statements made at random on a real MySQL 9, with and without the proxy: nothing hidden arrives there either.

What lives here: a smoke of what is tried at length on MariaDB. What must not: how (test_rows_mysql_made.py, _proxied.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from capd.enforcer.masking.rows import mysql_judgement
from capd.enforcer.policy.rule import Predicates, Replace
from tests.enforcer.rows import test_rows_mysql_made as made
from tests.enforcer.rows import test_rows_mysql_proxied as through
from tests.enforcer.rows.mysql_client import WAYS
from tests.enforcer.rows.test_rows_mysql_made import filled
from tests.enforcer.rows.test_rows_mysql_proxied import test_what_is_not_hidden_is_the_same
from tests.servers.mysql import Mysql, mysql

__all__ = ["filled", "test_what_is_not_hidden_is_the_same"]
"""Of those modules, on this server."""
MADE = 60
"""Statements of each; CAPD_ROWS_MADE makes more where that is wanted."""


@pytest.fixture(scope="module")
def mariadb() -> Iterator[Mysql]:
    """Give a MySQL in the place of a MariaDB, without TLS as that is."""
    with mysql(["--tls-version="]) as running:
        yield running


@pytest.fixture(scope="module")
def place(filled: made.Filled, tmp_path_factory: pytest.TempPathFactory) -> Iterator[through.Place]:
    """Give the proxy before it, and a client of it."""
    yield from through.placed(filled.server, filled.maker, tmp_path_factory.mktemp("rows"))


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have fewer statements made, unless more are asked for."""
    for module in (made, through):
        if "CAPD_ROWS_MADE" not in module.os.environ:
            monkeypatch.setattr(module, "MADE", MADE)


@pytest.mark.parametrize("predicates", list(Predicates))
def test_no_hidden_value_reaches_the_agent(filled: made.Filled, predicates: Predicates) -> None:
    """Of statements made at random none shows a hidden value, and columns that are not hidden stay as they are."""
    filled.maker.chance.seed(f"mysql {predicates}")
    found, counts = made.tried(filled, predicates, Replace.PARTIAL)
    assert [] == found, counts
    assert counts["shown"] + counts["hidden"] > made.MADE * made.SHOWN_MIN, counts


@pytest.mark.parametrize("way", WAYS)
def test_no_hidden_value_arrives(place: through.Place, way: str) -> None:
    """In every way of the protocol no hidden value arrives, and after each statement client and server are in step."""
    place.maker.chance.seed(f"mysql {way}")
    found, counts = through.tried(place, way, Predicates.ALLOW)
    assert [] == found, counts
    assert counts["shown"] > through.MADE * through.SHOWN_MIN, counts


def test_a_hole_is_found(filled: made.Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same statements find a hole that is opened by hand: expressions that nobody looks at."""
    monkeypatch.setattr(mysql_judgement, "_of_expression", lambda *_: None)
    filled.maker.chance.seed("mysql holes")
    found, counts = made.tried(filled, Predicates.ALLOW, Replace.FIXED)
    assert found, counts
