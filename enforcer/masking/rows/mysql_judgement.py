"""Whether a statement of MySQL or MariaDB may be sent while rules hide columns, and how its result is hidden.

What lives here: the decision, before anything is sent, and when the columns of a result are defined. What must not:
connections, rebuilding rows (mysql_row.py).

These servers say where a column comes from only where FROM has relations by their names and nothing else (mysql_column.py).
So a statement about hidden columns is such a plain one, or it does not name any of them and has no star: then it cannot reach
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from capd.enforcer.masking.rows.changing import refusal_of_change
from capd.enforcer.masking.rows.comparing import refusal_of_comparing, refusal_of_nesting
from capd.enforcer.masking.rows.harmless import Surroundings, is_certain, is_harmless
from capd.enforcer.masking.rows.judgement import (
    COPIED,
    EXPLAINED,
    EXPRESSION,
    FILE,
    FILES,
    LEAVES,
    NOT_KNOWN,
    OTHER,
    SEVERAL,
    Refused,
    Stale,
    leaving,
    placed,
)
from capd.enforcer.masking.rows.mysql_catalogue import Name, names_of
from capd.enforcer.masking.rows.mysql_column import MysqlColumn
from capd.enforcer.masking.rows.mysql_protection import ANY_COLUMN, MysqlProtection
from capd.enforcer.masking.rows.protection import Hidden
from capd.enforcer.masking.rows.select_list import Item, Selection, Source, returned, selection, word
from capd.enforcer.policy.rule import Predicates, Replace
from capd.enforcer.sql import mysql_scanner
from capd.enforcer.sql.effect import Effects
from capd.enforcer.sql.lexeme import Dialect, words
from capd.enforcer.sql.message import Message
from capd.enforcer.sql.session import Session
from capd.enforcer.sql.statement import Statement, split

SHOWS_OTHERS: Final = "it shows what other sessions say, or the server's own records of values or passwords"
CHECKED: Final = "a checksum is made of hidden values: whoever has it can try which they are"
RETURNS: Final = "what it returns is computed, and may be made of a hidden column"
_QUIET: Final = frozenset({"lock", "maintain", "grant", "drop"})
_READS: Final = frozenset({"select", "lock"})
_CHANGES: Final = frozenset({"insert", "update", "delete"})
_SHOW_OTHERS: Final = words("processlist engine binlog relaylog profile profiles explain analyze slave replica grants")
_SHOW_USER: Final = ["create", "user"]
_SHOW_REPORTS: Final = frozenset({"warnings", "errors"})
REPORT_COLUMN: Final = "Message"
"""Of SHOW WARNINGS: repeats values, as errors do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MysqlJudged:
    """It may be sent.

    Attributes:
        protection: it was judged by.
        touches: whether it is about hidden columns: then errors are hidden (mysql_report.py), and also where it changes rows.
        changes: it may change rows.
        reports: it shows errors and warnings of another statement.
        items, sources: what it shows, where that is plain.
        around: names of columns that it can mean.
        schema: the session's database; "": none.
    """

    protection: MysqlProtection
    touches: bool
    changes: bool = False
    reports: bool = False
    items: tuple[Item, ...] = ()
    sources: tuple[Source, ...] | None = None
    around: Surroundings | None = None
    schema: str = ""

    def settle(self, columns: Sequence[MysqlColumn]) -> tuple[Hidden | None, ...] | Refused | Stale:
        """Say how each column of a result is hidden; None: it is shown as it is.

        `Refused` and `Stale` here: nothing of the result is passed on, and the client gets an error in its place.
        """
        return _settle(self, columns)


def judge_mysql(sql: Message, text: bytes, session: Session, protection: MysqlProtection) -> MysqlJudged | Refused:
    """Judge a message.

    Args:
        sql: what it does.
        text: of it.
        session: in which it is said.
        protection: of the relations that it names, and of what these lead to.
    """
    rule = protection.rule
    if not protection.hides:
        return MysqlJudged(protection=protection, touches=False)
    names = None if sql.resources is None else names_of(sql.resources)
    if not sql.complete or names is None or sql.effects is None:
        return Refused(rule=rule, reason=NOT_KNOWN)
    if FILE in sql.effects:
        return Refused(rule=rule, reason=FILES)
    touched = protection.touched(sorted(names))
    shows = any(one.command == "SHOW" for one in sql.statements)
    if not touched and not shows:
        return MysqlJudged(protection=protection, touches=False, changes=not sql.effects <= _READS | {"session"})
    statements = split(mysql_scanner.scan(text, session.reading), Dialect.MYSQL)
    if len(sql.statements) != 1 or len(statements) != 1:
        return Refused(rule=rule, reason=SEVERAL)
    if shows:
        return _show(statements[0], protection)
    schemas = session.names.schemas
    case = _Case(sql.statements[0], statements[0], protection, tuple(touched), schemas[0].lower() if schemas else "")
    return _one(case)


@dataclass(frozen=True, slots=True)
class _Case:
    done: Effects
    statement: Statement
    protection: MysqlProtection
    touched: tuple[Name, ...]
    schema: str


def _show(statement: Statement, protection: MysqlProtection) -> MysqlJudged | Refused:
    first = [word(one) for one in statement.lexemes[1:3]]
    said = {word(one) for one in statement.lexemes}
    if said & _SHOW_OTHERS or first == _SHOW_USER:
        return Refused(rule=protection.rule, reason=SHOWS_OTHERS)
    return MysqlJudged(protection=protection, touches=False, reports=bool(said & _SHOW_REPORTS))


def _one(case: _Case) -> MysqlJudged | Refused:
    done, rule = case.done, case.protection.rule
    if done.command in {"EXPLAIN", "DESCRIBE", "DESC", "ANALYZE"} and "select" in done.effects:
        said = {word(one) for one in case.statement.lexemes[1:]}
        if said & {"select", "with", "insert", "update", "delete", "replace", "values", "table"}:
            return Refused(rule=rule, reason=EXPLAINED)
        return MysqlJudged(protection=case.protection, touches=False)
    if done.command == "CHECKSUM":
        return Refused(rule=rule, reason=CHECKED)
    if leaving(done.functions, Dialect.MYSQL):
        return Refused(rule=rule, reason=LEAVES)
    if done.effects and done.effects <= _QUIET:
        return MysqlJudged(protection=case.protection, touches=True, changes=True)
    if done.effects <= _READS:
        return _read(case)
    if done.effects <= _READS | _CHANGES:
        return _change(case)
    return Refused(rule=rule, reason=COPIED if "define" in done.effects else OTHER)


def _read(case: _Case) -> MysqlJudged | Refused:
    shown = selection(case.statement)
    around = _around(case, shown)
    plain = shown is not None and shown.sources is not None
    if not plain:
        reason = refusal_of_nesting(case.statement, around)
    elif case.protection.predicates is Predicates.DENY:
        reason = refusal_of_comparing(case.statement, shown, around, ())
    else:
        reason = None
    if reason is not None:
        return Refused(rule=case.protection.rule, reason=reason)
    return MysqlJudged(
        protection=case.protection,
        touches=True,
        items=shown.items if shown is not None and plain else (),
        sources=shown.sources if shown is not None else None,
        around=around,
        schema=case.schema,
    )


def _change(case: _Case) -> MysqlJudged | Refused:
    around = _around(case, None)
    reason = refusal_of_change(
        case.statement, case.done, {name for _, name in case.touched}, around.hidden, case.protection.predicates
    )
    if reason is not None:
        return Refused(rule=case.protection.rule, reason=reason)
    items = returned(case.statement)
    if any(item.column is None and not item.is_star and not is_harmless(item, around) for item in items):
        return Refused(rule=case.protection.rule, reason=RETURNS)
    sources = tuple(Source(name=name, alias="", schema=schema) for schema, name in case.touched)
    return MysqlJudged(
        protection=case.protection,
        touches=True,
        changes=True,
        items=items,
        sources=sources,
        around=around,
        schema=case.schema,
    )


def _around(case: _Case, shown: Selection | None) -> Surroundings:
    """Give the names of columns that the statement can mean, by the relations that it names."""
    hidden: set[str] = set()
    known: set[str] = set()
    sources = (shown.sources if shown is not None else None) or ()
    named = {(one.schema.lower() or case.schema, one.name.lower()) for one in sources}
    for name in {*case.touched, *named}:
        columns = case.protection.hidden.get(name, {})
        for column in case.protection.columns(name):
            (hidden if case.protection.of(name, column) is not None else known).add(column)
        hidden |= columns.keys() - {ANY_COLUMN}
    for item in shown.items if shown is not None else ():
        if item.alias and item.column is not None and item.column.lower() in hidden:
            hidden.add(item.alias.lower())
    return Surroundings(hidden=frozenset(hidden), known=frozenset(known - hidden), relations=frozenset())


def _settle(judged: MysqlJudged, columns: Sequence[MysqlColumn]) -> tuple[Hidden | None, ...] | Refused | Stale:
    protection = judged.protection
    report = Hidden(rule=protection.rule, replace=Replace.FIXED)
    if judged.reports:
        return tuple(report if one.name == REPORT_COLUMN else None for one in columns)
    if not judged.touches or judged.sources is None:
        # It cannot reach them; what the server names all the same is hidden.
        return tuple(protection.of((one.schema.lower(), one.org_table.lower()), one.org_name) for one in columns)
    found: list[Hidden | None] = []
    for index, column in enumerate(columns):
        one = _of_source(judged, column) if column.table else _of_expression(judged, index, len(columns))
        if isinstance(one, Refused | Stale):
            return one
        found.append(one)
    return tuple(found)


def _of_expression(judged: MysqlJudged, index: int, count: int) -> Refused | None:
    item = placed(judged.items, index, count)
    if item is None or not (is_certain(item) or (judged.around is not None and is_harmless(item, judged.around))):
        return Refused(rule=judged.protection.rule, reason=EXPRESSION)
    return None


def _of_source(judged: MysqlJudged, column: MysqlColumn) -> Hidden | Refused | Stale | None:
    """Say how a column of one of the relations in FROM is hidden."""
    names = [
        (one.schema.lower() or judged.schema, one.name.lower())
        for one in judged.sources or ()
        if (one.alias or one.name).lower() == column.table.lower()
    ]
    if not names:
        return Refused(rule=judged.protection.rule, reason=EXPRESSION)
    for name in names:
        hidden = judged.protection.of(name, column.org_name)
        if hidden is not None:
            return hidden
        known = judged.protection.columns(name)
        if judged.protection.hidden.get(name) and column.org_name.lower() not in known:
            return Stale()
    return None
