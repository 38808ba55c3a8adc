"""Whether a statement of PostgreSQL may be sent while rules hide columns, and what has to be known before that.

What lives here: the decision, before anything is sent, and again when the server has said what the statement would give. What
must not: connections, rebuilding rows (result.py).

Three ways lead out of a database for a hidden value: a column of a result that is it, which the server itself tells (origin);
an expression made of it, which is refused unless it is one of a few that cannot be (harmless.py); and what a statement leaves
behind: another relation, a setting, a lock, an error. Statements that could leave something are refused, errors are hidden
(report.py). What is not understood is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, cast

from capd.enforcer.masking.rows.catalogue import Catalogue, Origin, Relation
from capd.enforcer.masking.rows.changing import refusal_of_change
from capd.enforcer.masking.rows.comparing import refusal_of_comparing
from capd.enforcer.masking.rows.copy_form import BINARY, CopyForm, quoted, read_form
from capd.enforcer.masking.rows.field import Field
from capd.enforcer.masking.rows.harmless import Surroundings, is_certain, is_harmless
from capd.enforcer.masking.rows.protection import Hidden, Protection
from capd.enforcer.masking.rows.select_list import Item, Selection, selection
from capd.enforcer.policy.rule import Predicates
from capd.enforcer.sql import postgresql_scanner
from capd.enforcer.sql.effect import SCHEMA, Change, Effects
from capd.enforcer.sql.functions import catalogue as own_catalogue
from capd.enforcer.sql.lexeme import Dialect, Kind
from capd.enforcer.sql.message import Message
from capd.enforcer.sql.session import Session
from capd.enforcer.sql.statement import Statement, split

NOT_KNOWN: Final = "columns are hidden here, and capd does not know all that this statement does"
SEVERAL: Final = "a statement about hidden columns is sent alone, not with others in one message"
EXPLAINED: Final = "a plan tells of values; statements about hidden columns are not explained"
COPIED: Final = "it would copy what is hidden, or make something of it"
LEAVES: Final = "a function in it leaves something behind, and it is about hidden columns"
COPY_FORM: Final = "capd cannot follow how this COPY writes its rows"
COPY_WHICH: Final = "of which schema the relation is, is not known; name it, or the columns"
COPY_QUERY: Final = "of COPY with a query nobody says which column is which; name a table and its columns"
EXPRESSION: Final = "a column of its result is computed, and may be made of a hidden one"
RACED: Final = "what the server gives is not what it said before"
OTHER: Final = "capd does not know a way to hide columns in such a statement"
RENAMES: Final = "rules hide columns of schemas by their names, which it changes"
STORED: Final = "where the server keeps long values, they are in no column"
FILES: Final = "it is about files of the server, in which hidden values stand as well"
OWN_FUNCTION: Final = "a function is called in it as if it were a column"

_QUERIES: Final = frozenset({"SELECT", "WITH", "TABLE"})
_SELECTS: Final = frozenset({"select"})
_OWN_SCHEMAS: Final = ("pg_catalog.", "information_schema.")
_STORAGE: Final = "pg_toast"
REMEMBERED_MAX: Final = 512
"""Statements of which is remembered, by their bytes, what was said of them."""
REMEMBERED_BYTES_MAX: Final = 4_096
_OWN_MIN: Final = 16_384
FILE: Final = "file"
_QUIET: Final = frozenset({"lock", "maintain", "grant", "drop"})
"""Effects of statements that give no rows and copy none."""
_READS: Final = frozenset({"select", "lock"})
_CHANGES: Final = frozenset({"insert", "update", "delete"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """It is not sent, or what came of it is not passed on.

    Attributes:
        rule: that hides the columns.
        reason: for the agent; nothing of values.
    """

    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Stale:
    """It is about something that the catalogue does not have: ask the server anew, then judge again; stale twice is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """It may be sent, once its result is known where `describe` says so.

    Attributes:
        protection: it was judged by.
        touches: whether it is about hidden columns: then errors and notices are hidden (report.py).
        describe: what the server must describe before it is sent (Parse and Describe, or Describe of its portal); None:
            nothing; else a text of SQL, which for DECLARE is the query in it.
        shown: what it shows, where it is a SELECT.
        copies: of COPY ... TO STDOUT, how its rows are written; then `describe` has the columns;
            None: it copies nothing out, or nothing of it is looked at.
        changes: it may have changed rows, or be the end of what did: details of errors may be of any relation.
        declares: name of the cursor that it declares; "": none.
        judged_before: what it gives was judged when its cursor was declared.
    """

    protection: Protection
    touches: bool
    describe: str | None = None
    shown: Selection | None = None
    around: Surroundings | None = None
    copies: CopyForm | None = None
    changes: bool = False
    declares: str = ""
    judged_before: bool = False

    def settle(self, fields: Sequence[Field]) -> tuple[Hidden | None, ...] | Refused | Stale:
        """Say how each column of a result is hidden; None: it is shown as it is.

        Args:
            fields: that the server described, before or with the result.
        """
        return _settle(self, fields)


def judge(
    sql: Message,
    text: bytes,
    session: Session,
    protection: Protection,
    *,
    cursors: frozenset[str] = frozenset(),
    seeks: bool = False,
) -> Judged | Refused:
    """Judge a message.

    Args:
        sql: what it does.
        text: of it.
        session: in which it is said.
        protection: what is hidden.
        cursors: names of those whose declaration was judged by the same masks, and succeeded.
        seeks: secrets and numbers are looked for in all that is shown (seeking.py).
    """
    key = (text, sql.problems, session.reading, session.names, session.functions, cursors, seeks)
    known = protection.remembered.get(key)
    if known is None:
        if len(protection.remembered) >= REMEMBERED_MAX:
            del protection.remembered[next(iter(protection.remembered))]
        known = _judge(sql, text, session, protection, cursors, seeks=seeks)
        if len(text) <= REMEMBERED_BYTES_MAX:
            protection.remembered[key] = known
    return cast("Judged | Refused", known)


def _judge(
    sql: Message, text: bytes, session: Session, protection: Protection, cursors: AbstractSet[str], *, seeks: bool
) -> Judged | Refused:
    rule = protection.rule
    if not protection.columns:
        return _untouched(sql, text, session, protection, seeks=seeks)
    reason = _reason(sql) or (OWN_FUNCTION if _calls_as_column(text, session, protection.catalogue) else None)
    if reason is not None:
        return Refused(rule=rule, reason=reason)
    touched = _touched(sql, protection)
    fetches = any(one.command == "FETCH" for one in sql.statements)
    if not touched and not fetches:
        return _untouched(sql, text, session, protection, seeks=seeks)
    if len(sql.statements) != 1:
        return Refused(rule=rule, reason=SEVERAL)
    statements = split(postgresql_scanner.scan(text, session.reading), Dialect.POSTGRESQL)
    if len(statements) != 1:
        return Refused(rule=rule, reason=SEVERAL)
    decoded = text.decode(session.reading.encoding or "ascii")
    return _one(_Case(sql.statements[0], statements[0], decoded, protection, touched, cursors))


def _reason(sql: Message) -> str | None:
    """Say why a message is refused where any column is hidden, whatever it is about."""
    if any(one.command == "ALTER" and Change(setting=SCHEMA) in one.changes for one in sql.statements):
        return RENAMES
    if not sql.complete or sql.resources is None:
        return NOT_KNOWN
    if sql.effects is not None and FILE in sql.effects:
        return FILES
    names = [part for name, _ in sql.resources for part in (name, name.partition(".")[2])]
    return STORED if any(name.startswith(_STORAGE) for name in names) else None


@dataclass(frozen=True, slots=True)
class _Case:
    """One statement that is about hidden columns."""

    done: Effects
    statement: Statement
    text: str
    protection: Protection
    touched: tuple[Relation, ...]
    cursors: AbstractSet[str]


def _untouched(sql: Message, text: bytes, session: Session, protection: Protection, *, seeks: bool) -> Judged | Refused:
    # The end of a transaction (`session`) looks at constraints that were put off, and repeats the row that breaks one.
    changes = protection.columns and (sql.effects is None or not sql.effects <= _READS)
    found = Judged(protection=protection, touches=False, changes=changes)
    command = sql.statements[0].command if len(sql.statements) == 1 else ""
    if command not in {"DECLARE", "COPY"}:
        # Of what is not known the server says first what it is: then it may be asked for anew.
        unknown = protection.columns and command in _QUERIES and sql.effects == _SELECTS and _names_unknown(sql, protection)
        return replace(found, describe=text.decode(session.reading.encoding or "ascii")) if unknown else found
    statement = split(postgresql_scanner.scan(text, session.reading), Dialect.POSTGRESQL)[0]
    if command == "DECLARE":
        return replace(found, declares=statement.lexemes[1].text)
    form = read_form(statement)
    if seeks and sql.effects is not None and "insert" not in sql.effects and (form is None or form.format == BINARY):
        return Refused(rule=protection.rule, reason=COPY_FORM)
    return replace(found, copies=form)


def _names_unknown(sql: Message, protection: Protection) -> bool:
    own = own_catalogue(Dialect.POSTGRESQL).relations | protection.all_names
    outside = (name for name, _ in sql.resources or () if not name.startswith(_OWN_SCHEMAS))
    return any(name.partition(".")[2] not in own for name in outside)


def _touched(sql: Message, protection: Protection) -> tuple[Relation, ...]:
    found = {one.oid: one for name, _ in sql.resources or () for one in protection.may_be(name)}
    return tuple(found.values())


def _calls_as_column(text: bytes, session: Session, known: Catalogue) -> bool:
    """Say whether `a.f` may be a call of a function that is not the server's own."""
    if not session.functions or b"." not in text:
        return False
    lexemes = postgresql_scanner.scan(text, session.reading).lexemes
    columns = {column.name for relation in known.relations.values() for column in relation.columns}
    names = session.functions - columns
    dotted = (one for before, one in pairwise(lexemes) if before.text == ".")
    return any(one.kind <= Kind.NAME and one.text in names for one in dotted)


def _one(case: _Case) -> Judged | Refused:
    done, protection = case.done, case.protection
    handle = _HANDLERS.get(done.command)
    if handle is not None:
        return handle(case)
    if leaving(done.functions):
        return Refused(rule=protection.rule, reason=LEAVES)
    if done.effects <= _QUIET and done.effects:
        return Judged(protection=protection, touches=True, changes=True)
    if done.effects <= _READS:
        return _read(case, case.statement, case.text)
    if done.effects <= _READS | _CHANGES:
        return _change(case)
    return Refused(rule=protection.rule, reason=COPIED if "define" in done.effects else OTHER)


def _change(case: _Case) -> Judged | Refused:
    hidden = _around(case.touched, None, case.protection).hidden
    names = {one.name for one in case.touched}
    reason = refusal_of_change(case.statement, case.done, names, hidden, case.protection.predicates)
    if reason is not None:
        return Refused(rule=case.protection.rule, reason=reason)
    return Judged(protection=case.protection, touches=True, describe=case.text, changes=True)


def _fetch(case: _Case) -> Judged | Refused:
    before = bool(case.cursors) and _fetched(case.statement) in case.cursors
    return Judged(protection=case.protection, touches=True, describe=case.text, judged_before=before)


def _explain(case: _Case) -> Judged | Refused:
    return Refused(rule=case.protection.rule, reason=EXPLAINED)


def _prepare(case: _Case) -> Judged | Refused:
    return Refused(rule=case.protection.rule, reason=OTHER)


def leaving(functions: Sequence[str], dialect: Dialect = Dialect.POSTGRESQL) -> bool:
    """Say whether a function does more than give a value: what it is given can be found again elsewhere."""
    known = own_catalogue(dialect)
    names = [name.removeprefix("pg_catalog.").lower() for name in functions]
    return any(name not in known.pure and (known.effects.get(name) != frozenset() or name in _TELLING) for name in names)


_TELLING: Final = frozenset({"currval", "lastval", "pg_sequence_last_value"})


def _read(case: _Case, statement: Statement, text: str) -> Judged | Refused:
    shown = selection(statement)
    around = _around(case.touched, shown, case.protection)
    if case.protection.predicates is Predicates.DENY:
        reason = refusal_of_comparing(statement, shown, around, case.touched)
        if reason is not None:
            return Refused(rule=case.protection.rule, reason=reason)
    return Judged(protection=case.protection, touches=True, describe=text, shown=shown, around=around)


def _declared(case: _Case) -> Judged | Refused:
    if leaving(case.done.functions) or not case.done.effects <= _READS | {"session"}:
        return Refused(rule=case.protection.rule, reason=LEAVES)
    lexemes = case.statement.lexemes
    at = next((place for place, one in enumerate(lexemes) if one.kind is Kind.WORD and one.text == "for"), None)
    if at is None or at + 1 >= len(lexemes):
        return Refused(rule=case.protection.rule, reason=OTHER)
    found = _read(case, case.statement.part(at + 1), case.text[lexemes[at + 1].start : lexemes[-1].end])
    return replace(found, declares=lexemes[1].text) if isinstance(found, Judged) else found


def _fetched(statement: Statement) -> str:
    """Give the name of the cursor of a FETCH, which stands last in it."""
    last = statement.lexemes[-1]
    return last.text if last.kind <= Kind.NAME else ""


def _copy(case: _Case) -> Judged | Refused:
    rule = case.protection.rule
    if case.done.effects == {"insert"}:
        return Judged(protection=case.protection, touches=True, changes=True)
    if case.done.effects != {"select"}:
        return Refused(rule=rule, reason=COPIED)
    form = read_form(case.statement)
    if form is None or not form.relation:
        return Refused(rule=rule, reason=COPY_QUERY if form is not None else COPY_FORM)
    columns = form.columns
    if columns is None:
        if len(case.touched) != 1:
            return Refused(rule=rule, reason=COPY_WHICH)
        columns = tuple(one.name for one in case.touched[0].columns if not one.generated)
    asked = f"SELECT {', '.join(map(quoted, columns))} FROM {form.relation}"  # noqa: S608 - names in quotes
    return Judged(protection=case.protection, touches=True, describe=asked, copies=form)


_HANDLERS: Final[Mapping[str, Callable[[_Case], Judged | Refused]]] = {
    "FETCH": _fetch,
    "EXPLAIN": _explain,
    "PREPARE": _prepare,
    "COPY": _copy,
    "DECLARE": _declared,
}


def _around(touched: Sequence[Relation], shown: Selection | None, protection: Protection) -> Surroundings:
    """Give the names of columns that the statement can mean, by the relations that it may name."""
    hidden: set[str] = set()
    known: set[str] = set()
    names: set[str] = set()
    sources = (shown.sources if shown is not None else None) or ()
    by_name: Mapping[str, list[Relation]] = _by_name(protection.catalogue, {one.name for one in sources})
    for relation in [*touched, *(one for some in by_name.values() for one in some)]:
        columns = protection.hidden.get(relation.oid, {})
        for column in relation.columns:
            (hidden if column.number in columns else known).add(column.name.lower())
        names.add(relation.name.lower())
    for source in sources:
        names |= {source.alias.lower(), source.name.lower()} - {""}
    for item in shown.items if shown is not None else ():
        if item.alias and item.column is not None and item.column.lower() in hidden:
            hidden.add(item.alias.lower())
    return Surroundings(hidden=frozenset(hidden), known=frozenset(known - hidden), relations=frozenset(names))


def _by_name(known: Catalogue, names: set[str]) -> dict[str, list[Relation]]:
    found: dict[str, list[Relation]] = {}
    for relation in known.relations.values():
        if relation.name in names:
            found.setdefault(relation.name, []).append(relation)
    return found


def _settle(judged: Judged, fields: Sequence[Field]) -> tuple[Hidden | None, ...] | Refused | Stale:
    found: list[Hidden | None] = []
    shown = judged.shown
    for index, field in enumerate(fields):
        origin = Origin(field.table, field.column)
        if origin.relation == 0 or origin.column == 0:
            whole = origin.column == 0 and origin.relation in judged.protection.touched
            computed = judged.touches and not judged.judged_before
            if whole or (computed and not _is_harmless_field(judged, shown, index, len(fields))):
                return Refused(rule=judged.protection.rule, reason=EXPRESSION)
            found.append(None)
            continue
        if not _is_known(judged.protection.catalogue, origin):
            return Stale()
        found.append(judged.protection.of(origin))
    return tuple(found)


def _is_known(known: Catalogue, origin: Origin) -> bool:
    relation = known.relations.get(origin.relation)
    if relation is None:
        return origin.relation < _OWN_MIN
    return origin.column < 0 or any(column.number == origin.column for column in relation.columns)


def _is_harmless_field(judged: Judged, shown: Selection | None, index: int, count: int) -> bool:
    """Say whether a computed column is one of the items that can carry nothing."""
    item = None if shown is None else placed(shown.items, index, count)
    if shown is None or item is None:
        return False
    return is_certain(item) or (judged.around is not None and shown.sources is not None and is_harmless(item, judged.around))


def placed(items: Sequence[Item], index: int, count: int) -> Item | None:
    """Give the item that a column of a result is; None: of a star, or that is not known.

    Args:
        items: of the list.
        index: of the column.
        count: of columns.
    """
    stars = [place for place, item in enumerate(items) if item.is_star]
    if not stars:
        return items[index] if len(items) == count else None
    if index < stars[0]:
        return items[index]
    # Counted from the end: of a star nobody knows here how many columns it gives.
    after = count - index
    return items[len(items) - after] if after < len(items) - stars[-1] else None
