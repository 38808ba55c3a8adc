"""Statements that change rows of a relation with hidden columns: refused unless nothing of what is hidden goes elsewhere.

What lives here: INSERT, UPDATE and DELETE in their simple forms, by their pieces. What must not: what they return, which the
server describes like any result.

The forms are few because a hidden value must not be copied: an INSERT has its own values and no query, an UPDATE names hidden
columns only as what is set, a DELETE has one relation.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Final

from capd.enforcer.masking.rows.harmless import takes_row
from capd.enforcer.masking.rows.select_list import places_outside, returning_at, word
from capd.enforcer.policy.rule import Predicates
from capd.enforcer.sql.effect import READ, Effects
from capd.enforcer.sql.lexeme import Dialect, Kind, words
from capd.enforcer.sql.statement import Statement

READS_TOO: Final = "it changes rows, and reads relations with hidden columns as well"
SIMPLE: Final = "rows of a relation with hidden columns are changed by statements without queries, FROM, USING or WITH"
USES: Final = "a hidden column is used in what is set or asked for"
_QUERIES: Final = words("select with table from using join natural lateral merge")


def refusal_of_change(
    statement: Statement, done: Effects, names: AbstractSet[str], hidden: AbstractSet[str], predicates: Predicates
) -> str | None:
    """Say why a statement that changes rows is refused; None: it is not.

    Args:
        statement: its pieces.
        done: what it does.
        names: of the relations with hidden columns that it may be about.
        hidden: names of their hidden columns, in lower case.
        predicates: whether hidden columns may be compared.
    """
    lower = {name.lower() for name in names}
    if any(one.access == READ and one.name.lower() in lower for one in done.relations):
        return READS_TOO
    said = [word(one) for one in statement.lexemes]
    if said[0] not in {"insert", "replace", "update", "delete"}:
        return SIMPLE
    allowed = {"from": 1} if said[0] == "delete" else {}
    if any(said.count(one) > allowed.get(one, 0) for one in _QUERIES):
        return SIMPLE
    return _refusal_of_names(statement, said, hidden, lower, predicates)


def _refusal_of_names(
    statement: Statement, said: list[str], hidden: AbstractSet[str], relations: AbstractSet[str], predicates: Predicates
) -> str | None:
    """Look at each place where a hidden column, or the relation as a whole, is named."""
    lexemes = statement.lexemes
    body = _body(statement, said)
    if body is None:
        return SIMPLE
    start, alias = body
    found = returning_at(statement)
    returning = len(said) if found is None else found
    where = said.index("where") if "where" in said and said[0] in {"update", "delete"} else len(said)
    outside = frozenset(places_outside(statement, start))
    if alias.lower() == _OWN_ROW:
        return SIMPLE
    wholes = relations | ({alias.lower()} if alias else set())
    for at in range(start, len(lexemes)):
        one, before = lexemes[at], lexemes[at - 1].text
        if one.text == "*" and before == "." and at < returning:
            return USES
        if one.kind not in {Kind.WORD, Kind.NAME}:
            continue
        name = one.text.lower()
        following = lexemes[at + 1].text if at + 1 < len(lexemes) else ""
        if name in wholes | {_OWN_ROW} and following != "." and before != "." and name not in hidden:
            return USES
        if takes_row(lexemes, at, statement.dialect) and not _is_own(statement, at):
            return USES
        if name not in hidden or at > returning or (said[0] == "insert" and _is_own(statement, at)):
            continue
        # `SET a = 1, b = 2`: what is set stands before `=`, after SET or a comma.
        is_set = at in outside and following == "=" and (said[at - 1] == "set" or before == ",") and at < where
        compared = where < at < returning and predicates is Predicates.ALLOW
        if not (is_set or compared):
            return USES
    return None


def _is_own(statement: Statement, at: int) -> bool:
    """Say whether a column is one of the row that an INSERT brings itself: `excluded.a`."""
    lexemes = statement.lexemes
    return lexemes[at - 1].text == "." and lexemes[at - 2].text.lower() == _OWN_ROW


def _body(statement: Statement, said: list[str]) -> tuple[int, str] | None:
    """Give where what is set, inserted or asked for begins, behind the relation's name and columns; and its alias."""
    lexemes = statement.lexemes
    at = 1
    passed = _BEFORE_NAME[statement.dialect]
    while at < len(lexemes) and said[at] in passed:
        at += 1
    at += 1
    while at + 1 < len(lexemes) and lexemes[at].text == ".":
        at += 2
    if at < len(lexemes) and lexemes[at].text == "*":
        at += 1
    alias = ""
    if at < len(lexemes) and said[at] == "as":
        at += 1
        alias = lexemes[at].text if at < len(lexemes) else ""
        at += 1
    elif at < len(lexemes) and lexemes[at].kind <= Kind.NAME and said[at] not in _AFTER_NAME:
        alias = lexemes[at].text
        at += 1
    if said[0] in {"insert", "replace"} and at < len(lexemes) and lexemes[at].text == "(":
        at = statement.closing.get(at, at) + 1
    return (at, alias) if at <= len(lexemes) else None


_BEFORE_NAME: Final = {
    Dialect.POSTGRESQL: words("into from only"),
    Dialect.MYSQL: words("into from ignore low_priority high_priority delayed quick"),
}
_OWN_ROW: Final = "excluded"
_AFTER_NAME: Final = words("set where values default returning overriding")
