"""Columns that rules hide, through the core of MySQL's proxy, against a model of its server.

What lives here: what is asked, sent and told. What must not: real servers (test_mysql_masked.py).
"""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from capd.enforcer.obligations.obligation import Obligations
from capd.enforcer.policy.rule import Mask, Replace
from capd.enforcer.proxy.question import Question, Verdict
from tests.decoders import mysql_bytes as my
from tests.enforcer.mysql_model import Server, outline
from tests.enforcer.mysql_talk import Talk, by_text
from tests.enforcer.test_proxy_mysql import CAPABILITIES, OTHER, SELECT, execute


def hiding(question: Question) -> Verdict:
    """Hide a column in what statements give."""
    found = by_text(question)
    masks = (("hide", Mask(columns=("shop.t.a",), replace=Replace.FIXED)),)
    return replace(found, obligations=Obligations(masks=masks)) if question.statement is not None else found


@pytest.mark.parametrize("step", [0, 1, 5])
@pytest.mark.parametrize("capabilities", CAPABILITIES)
def test_hidden_columns(step: int, capabilities: int) -> None:
    """The server is asked what the relations have, then the statement is sent, and its rows come with the column replaced."""
    talk = Talk(judge=hiding, step=step, login=capabilities).begin().says(my.query(SELECT), my.query(OTHER))
    said = talk.new()
    assert [SELECT, OTHER] == [sql for sql, _ in talk.server.ran]
    assert 2 == len(
        [text for text in talk.server.own if text.startswith(("SHOW COLUMNS FROM `shop`.`t`", "SELECT view_definition"))]
    )
    assert (b"\1x", b"\1y") not in [(said[at : at + 2], b"") for at in range(len(said))]
    assert my.piece("x") not in said[len(my.packet(1, b"\1") + my.column(2, "a")) :]
    assert {"hide": 2} == talk.run.reports[0].carried_out.masked
    assert not talk.run.closed


def test_hidden_columns_of_executions_and_cursors() -> None:
    """So do rows of the binary protocol, and those that a cursor fetches later."""
    sql = "select a from t where b = ?"
    talk = (
        Talk(judge=hiding)
        .begin()
        .says(my.prepare(sql), execute(), execute(flags=1), my.command(0x1C, struct.pack("<II", 1, 2)))
    )
    said = talk.new()
    assert [sql, sql] == [one for one, _ in talk.server.ran]
    assert b"\0\0\1x" not in said
    assert b"\0\0\1y" not in said
    assert not talk.run.closed


@pytest.mark.parametrize(
    "sql",
    [
        *["select concat(a, 'x') from t", "select * from t join (select a from t) s", "select f(a) from t", "checksum table t"],
        *["delete from t as returning where a = 'x'", "delete from t returning where a = 'x'"],
        *["update t returning set b = a", "insert into t (b) values (1) as returning on duplicate key update b = a"],
        "delete from t where returning = 1 and a = 'x'",
    ],
)
def test_what_cannot_be_hidden_is_not_sent(sql: str) -> None:
    """A statement in which a hidden column cannot be followed is denied, and the server never heard of it."""
    talk = Talk(judge=hiding).begin().says(my.query(sql), my.query("select 1"))
    assert "1e1....f" == outline(talk.new())
    assert ["select 1"] == [one for one, _ in talk.server.ran]


@pytest.mark.parametrize(("error", "sent"), [(1146, True), (1969, False), (3024, False), (1317, False)])
def test_a_relation_of_which_nothing_is_told(error: int, sent: bool) -> None:
    """One that is not there may be named; one of which the server had no time to tell may be a view of what is hidden."""
    talk = Talk(judge=hiding).begin()
    talk.server.own_error = error
    talk.says(my.query("select b from v"))
    assert (["select b from v"] if sent else []) == talk.server.heard


@pytest.mark.parametrize(
    "by", ["2", "(2)", "b, ((2))", "+2", "- -2", "-(-2)", "not false", "!false", "(true) desc", "2 limit 1", "?"]
)
def test_sorted_by_a_number(by: str) -> None:
    """In whatever form servers take one: what is sorted by a hidden column is told by inserting values beside it."""
    for way in ("order by", "group by"):
        said = f"select b, a from t {way} {by}"  # noqa: S608 - for a model of a server
        talk = Talk(judge=hiding).begin()
        talk.says(my.query(said) if by != "?" else my.prepare(said) + execute())
        assert [] == talk.server.ran, said
    talk = Talk(judge=hiding).begin().says(my.query("select b, a from t order by b + 1, length(b), (b) limit 2"))
    assert 1 == len(talk.server.ran)


def test_a_result_that_is_not_what_was_judged() -> None:
    """Where the server names other columns than were known, nothing of the result goes on but an error."""

    class Racing(Server):
        def _query(self, body: bytes) -> bytes:
            said = super()._query(body)
            return said.replace(my.piece("a") + my.piece("a"), my.piece("a") + my.piece("z")) if b"from t" in body else said

    talk = Talk(judge=hiding, server=Racing()).begin().says(my.query(SELECT), my.query("select 1"))
    assert "1e1....f" == outline(talk.new())
    assert not talk.run.closed


def test_errors_where_columns_are_hidden() -> None:
    """They may repeat values: number and state stay."""

    class Failing(Server):
        def _query(self, body: bytes) -> bytes:
            return my.err(1, 1366, "HY000", "Incorrect value: 'x'") if b"update" in body else super()._query(body)

    talk = Talk(judge=hiding, server=Failing()).begin().says(my.query("update t set a = 1 where b = 2"))
    said = talk.new()
    assert ("1e", False, True) == (outline(said), b"'x'" in said, b"#HY000" in said)
