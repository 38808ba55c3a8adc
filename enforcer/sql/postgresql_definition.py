"""What statements of PostgreSQL do that define, drop, and give rights.

What lives here: their readers. What must not: which statement has which reader (postgresql_statement.py).

A definition that runs later on whoever uses it (a function, a trigger, a rule) is never complete: so what capd called complete
never put code behind a relation that it did not see. Expressions in definitions may call what is known to be pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from capd.enforcer.sql.calls import called
from capd.enforcer.sql.cursor import Cursor, NotUnderstoodError
from capd.enforcer.sql.effect import (
    ANYTHING,
    PERHAPS_TEMPORARY,
    READ,
    SCHEMA,
    TEMPORARY,
    TEMPORARY_SCHEMA,
    WRITE,
    Change,
    Effects,
    Relation,
    ordered,
)
from capd.enforcer.sql.lexeme import words
from capd.enforcer.sql.query import query_effects

CASCADES: Final = "with CASCADE it is about more than it names"
OF_WHICH: Final = "it does not name the table that it is about"
NOT_SEEN: Final = "what it defines is code, or reaches outside, and capd does not see what that does"
_QUERY: Final = frozenset({"select", "with", "values", "table", "("})
_RELATIONS: Final = (("table",), ("view",), ("materialized", "view"), ("index",), ("sequence",), ("foreign", "table"))
_PLAIN: Final = words(
    """
    function procedure routine aggregate type domain schema collation conversion database statistics publication
    language cast operator extension server subscription tablespace transform access foreign text event user large
    """
)
_RIGHTS: Final = frozenset({"role", "user", "group"})
_ALTERED: Final = frozenset(
    {"type", "domain", "schema", "collation", "database", "statistics", "function", "procedure", "routine"}
)


def _define(command: str, *relations: Relation, also: tuple[str, ...] = (), problems: tuple[str, ...] = ()) -> Effects:
    return Effects(command=command, effects=frozenset({"define", *also}), relations=ordered(relations), problems=problems)


def _unseen(_cursor: Cursor, command: str) -> Effects:
    return Effects(command=command, effects=frozenset({"define"}), problems=(NOT_SEEN,), changes=(ANYTHING,))


def _kind(cursor: Cursor) -> tuple[str, ...]:
    return next((kind for kind in _RELATIONS if cursor.take(*kind)), ())


def create(cursor: Cursor, command: str) -> Effects:
    """Read CREATE."""
    cursor.take("or", "replace")
    cursor.take_any("global", "local")
    temporary = bool(cursor.take_any("temp", "temporary"))
    cursor.take("unlogged")
    cursor.take("unique")
    cursor.take("recursive")
    if not temporary and cursor.take_any(*_RIGHTS):
        return _unseen(cursor, command) if cursor.peek() == "mapping" else _granted(command)
    word = "".join(_kind(cursor)) or cursor.take_any("schema", "type", "domain", "policy", "statistics", "database")
    cursor.take("concurrently")
    cursor.take("if", "not", "exists")
    named = Cursor(cursor.statement, cursor.at).relation(WRITE) if temporary else None
    made = {
        "table": _table,
        "view": _view,
        "materializedview": _view,
        "index": _index,
        "sequence": _sequence,
        "schema": _schema,
        "type": _type,
        "domain": _domain,
        "policy": _policy,
        "statistics": _statistics,
        "database": _database,
    }.get(word, _unseen)(cursor, command)
    return made if named is None else _temporary(made, named)


def _made(cursor: Cursor) -> Relation:
    """Read the name of what is made.

    Raises:
        NotUnderstoodError: it is one that the server's own relations may have: without a schema it would be taken for theirs.
    """
    found = cursor.relation(WRITE)
    if found.schema is None and found.name.startswith("pg_"):
        raise NotUnderstoodError("what it makes has a name like the server's own relations")
    return found


def _in_temporary_schema(made: Relation) -> Effects:
    temporary = made.schema is not None and made.schema.startswith(TEMPORARY_SCHEMA)
    return Effects(command="", changes=(Change(setting=TEMPORARY, values=(made.name,)),) if temporary else ())


def _granted(command: str) -> Effects:
    return Effects(command=command, effects=frozenset({"define", "grant"}))


def _temporary(made: Effects, named: Relation) -> Effects:
    """Note the name that is another relation's from now on."""
    relations = [replace(one, schema=TEMPORARY_SCHEMA) if one == named else one for one in made.relations]
    change = Change(setting=TEMPORARY, values=(named.name,))
    return replace(made, relations=ordered(relations), changes=(*made.changes, change))


def _table(cursor: Cursor, command: str) -> Effects:
    made = _made(cursor)
    start = cursor.at
    query = _query_at(cursor)
    if query is None:
        body = cursor.statement.part(start)
        found = _define(command, made, *_mentioned(cursor, start)).joined(called(body, definition=True))
    else:
        found = _of_query(cursor, command, made, query, "define", "insert")
    return found.joined(_in_temporary_schema(made))


def _query_at(cursor: Cursor) -> int | None:
    """Give where the query of a definition begins: after AS, outside of brackets."""
    while cursor.left:
        if cursor.take("as"):
            return cursor.at
        cursor.skip()
    return None


def _of_query(cursor: Cursor, command: str, made: Relation, at: int, *effects: str) -> Effects:
    rest = cursor.statement.part(at)
    texts = [one.text for one in rest.lexemes]
    for ending in (["with", "no", "data"], ["with", "data"], ["with", "check", "option"], ["with", "local", "check", "option"]):
        if texts[-len(ending) :] == ending:
            rest = rest.part(0, len(texts) - len(ending))
    if not rest.lexemes or rest.lexemes[0].text not in _QUERY:
        raise NotUnderstoodError("what it is made of is not known")
    found = Effects(command=command, effects=frozenset(effects), relations=(made,))
    return found.joined(query_effects(rest))


def _view(cursor: Cursor, command: str) -> Effects:
    made = _made(cursor)
    query = _query_at(cursor)
    if query is None:
        raise NotUnderstoodError("a view without a query")
    found = _of_query(cursor, command, made, query, "define").joined(_in_temporary_schema(made))
    # A view of a temporary relation is temporary.
    return replace(found, changes=(*found.changes, Change(setting=PERHAPS_TEMPORARY, values=(made.name,))))


def _mentioned(cursor: Cursor, start: int) -> Iterator[Relation]:
    """Give the relations that the definition of a table names."""
    lexemes = cursor.statement.lexemes
    depth = 0
    for at in range(start, len(lexemes)):
        text = lexemes[at].text if lexemes[at].kind.name in {"WORD", "SIGN"} else ""
        depth += (text == "(") - (text == ")")
        if text == "references" or (text == "of" and lexemes[at - 1].text == "partition"):
            yield Cursor(cursor.statement, at + 1).relation(WRITE)
        elif text == "like" and depth == 1 and lexemes[at - 1].text in {"(", ","}:
            yield Cursor(cursor.statement, at + 1).relation(READ)
        elif text == "inherits" and at + 1 in cursor.statement.closing:
            yield from Cursor(cursor.statement, at + 2).relations(WRITE)


def _index(cursor: Cursor, command: str) -> Effects:
    if cursor.peek() != "on":
        cursor.name()
    cursor.expect("on")
    cursor.take("only")
    made = cursor.relation(WRITE)
    if cursor.take("using"):
        cursor.name()
    return _define(command, made).joined(called(cursor.rest()))


def _sequence(cursor: Cursor, command: str) -> Effects:
    made = _made(cursor)
    owners: list[Relation] = []
    while cursor.left:
        word = cursor.peek()
        cursor.at += 1
        owners += _named_in_action(cursor, word)
    return _define(command, made, *owners).joined(_in_temporary_schema(made))


def _schema(cursor: Cursor, command: str) -> Effects:
    if cursor.peek() != "authorization":
        cursor.name()
    if cursor.take("authorization"):
        cursor.name()
    cursor.end()
    return _define(command).joined(Effects(command=command, changes=(Change(setting=SCHEMA),)))


def _type(cursor: Cursor, command: str) -> Effects:
    cursor.names()
    cursor.expect("as")
    cursor.take("enum")
    if cursor.peek() != "(":
        return _unseen(cursor, command)
    cursor.skip()
    cursor.end()
    return _define(command)


def _domain(cursor: Cursor, command: str) -> Effects:
    cursor.names()
    return _define(command).joined(called(cursor.rest()))


def _policy(cursor: Cursor, command: str) -> Effects:
    cursor.name()
    cursor.expect("on")
    made = cursor.relation(WRITE)
    rest = cursor.rest()
    queries = any(rest.lexemes[opened + 1].text in _QUERY - {"("} for opened in rest.closing)
    problems = ("it has a query in it",) if queries else ()
    return _define(command, made, also=("grant",), problems=problems).joined(called(rest))


def _statistics(cursor: Cursor, command: str) -> Effects:
    while cursor.left and cursor.peek() != "from":
        cursor.skip()
    cursor.expect("from")
    return _define(command, cursor.relation(WRITE)).joined(called(cursor.statement))


def _database(_cursor: Cursor, command: str) -> Effects:
    return _define(command)


def drop(cursor: Cursor, command: str) -> Effects:
    """Read DROP."""
    cascade = cursor.statement.lexemes[-1].text == "cascade"
    problems = (CASCADES,) if cascade else ()
    kind = _kind(cursor)
    if kind == ("index",):
        problems = (*problems, OF_WHICH)
    if kind:
        cursor.take("concurrently")
        cursor.take("if", "exists")
        found = cursor.relations(WRITE)
        cursor.take_any("cascade", "restrict")
        cursor.end()
        return Effects(command=command, effects=frozenset({"drop"}), relations=tuple(found), problems=problems)
    if cursor.take_any("trigger", "rule", "policy"):
        cursor.take("if", "exists")
        cursor.name()
        cursor.expect("on")
        return Effects(command=command, effects=frozenset({"drop"}), relations=(cursor.relation(WRITE),), problems=problems)
    if cursor.peek() in _RIGHTS and cursor.peek(1) != "mapping":
        return Effects(command=command, effects=frozenset({"drop", "grant"}), problems=problems)
    word = cursor.take_any(*_PLAIN)
    if not word:
        raise NotUnderstoodError("what it drops is not known")
    changes = (Change(setting=SCHEMA),) if word == "schema" else ()
    problems = (*problems, OF_WHICH) if word == "statistics" else problems
    return Effects(command=command, effects=frozenset({"drop"}), problems=problems, changes=changes)


_ALTER_WORDS: Final = {"drop": "drop", "owner": "grant", "security": "grant", "detach": "define"}


def alter(cursor: Cursor, command: str) -> Effects:
    """Read ALTER."""
    kind = _kind(cursor)
    if kind:
        found = _alter_relation(cursor, command)
        return replace(found, problems=(*found.problems, OF_WHICH)) if kind == ("index",) else found
    if cursor.take("default", "privileges") or (cursor.peek(1) != "mapping" and cursor.take_any(*_RIGHTS)):
        return _granted(command)
    if cursor.take("policy"):
        return _policy(cursor, command)
    word = cursor.take_any(*_ALTERED)
    if not word:
        return _unseen(cursor, command)
    said = {one.text for one in cursor.rest().lexemes}
    also = tuple(effect for name, effect in _ALTER_WORDS.items() if name in said)
    problems = [CASCADES] if "cascade" in said else []
    if word == "domain" or (word == "type" and said.isdisjoint({"value", "owner", "rename"})):
        problems.append("it is about relations that it does not name: those that have columns of it")
    problems += [OF_WHICH] if word == "statistics" else []
    changes = (Change(setting=SCHEMA),) if word == "schema" else ()
    found = _define(command, also=also, problems=tuple(problems)).joined(Effects(command=command, changes=changes))
    return found.joined(called(cursor.rest())) if word == "domain" else found


def _alter_relation(cursor: Cursor, command: str) -> Effects:
    cursor.take("if", "exists")
    cursor.take("only")
    if cursor.peek() == "all" and cursor.peek(1) == "in":
        raise NotUnderstoodError("it is about relations that it does not name")
    altered = [cursor.relation(WRITE)]
    start = cursor.at
    also: list[str] = []
    problems: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    while cursor.left:
        word = cursor.peek()
        cursor.at += 1
        also += [_ALTER_WORDS[word]] if word in _ALTER_WORDS else []
        if word == "rename" and cursor.take("to"):
            changes = (Change(setting=PERHAPS_TEMPORARY, values=(cursor.name(),)),)
        if word == "cascade":
            problems = (CASCADES,)
        altered += _named_in_action(cursor, word)
    found = _define(command, *altered, also=tuple(also), problems=problems).joined(called(cursor.statement.part(start)))
    return replace(found, changes=changes)


def _named_in_action(cursor: Cursor, word: str) -> list[Relation]:
    """Give the relation that stands after a word of ALTER, if one does."""
    if word == "owned" and cursor.take("by"):
        return [] if cursor.peek() == "none" else [_of_column(cursor)]
    if word in {"references", "inherit"} or (word == "partition" and cursor.peek(-2) in {"attach", "detach"}):
        return [Cursor(cursor.statement, cursor.at).relation(WRITE)]
    return []


def _of_column(cursor: Cursor) -> Relation:
    """Read the name of a column; give its relation."""
    names = cursor.names()[:-1]
    if not names or names[2:]:
        raise NotUnderstoodError("a column is not named with its relation alone")
    return Relation(schema=names[0] if names[1:] else None, name=names[-1], access=WRITE)


def comment(cursor: Cursor, command: str) -> Effects:
    """Read COMMENT ON and SECURITY LABEL ON."""
    if cursor.take("label") and cursor.take("for"):
        cursor.at += 1
    cursor.expect("on")
    if _kind(cursor):
        return _define(command, cursor.relation(WRITE))
    if cursor.take("column"):
        return _define(command, _of_column(cursor))
    if cursor.take_any("constraint", "trigger", "rule", "policy"):
        cursor.name()
        cursor.expect("on")
        return _define(command) if cursor.take("domain") else _define(command, cursor.relation(WRITE))
    return _define(command)


_NO_RELATIONS: Final = words(
    """
    schema database function procedure routine type domain language tablespace foreign large parameter
    """
)


def grant(cursor: Cursor, command: str) -> Effects:
    """Read GRANT and REVOKE."""
    while cursor.left and cursor.peek() not in {"on", "to", "from"}:
        cursor.skip()
    relations: list[Relation] = []
    problems: tuple[str, ...] = ()
    if cursor.take("on"):
        if cursor.peek() == "all":
            problems = ("it is about relations that it does not name",)
        elif cursor.peek() not in _NO_RELATIONS or cursor.peek(1) in {"to", "from", ","}:
            cursor.take_any("table", "sequence")
            relations = cursor.relations(WRITE)
            if cursor.peek() not in {"to", "from"}:
                raise NotUnderstoodError("what rights are given on is not known")
    return Effects(command=command, effects=frozenset({"grant"}), relations=ordered(relations), problems=problems)


def reassign(_cursor: Cursor, _command: str) -> Effects:
    """Read REASSIGN OWNED."""
    raise NotUnderstoodError("it is about relations that it does not name")
