"""What statements of PostgreSQL do that define, drop, and give rights.

What lives here: their readers. What must not: which statement has which reader (postgresql_statement.py).

A definition that runs later on whoever uses it (a function, a trigger, a rule) is never complete: so what capd called complete
never put code behind a relation that it did not see. Expressions in definitions may call what is known to be pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from capd.enforcer.sql import postgresql_object as object_
from capd.enforcer.sql.calls import called
from capd.enforcer.sql.cursor import Cursor, NotUnderstoodError
from capd.enforcer.sql.effect import (
    PERHAPS_TEMPORARY,
    READ,
    SCHEMA,
    TEMPORARY,
    TEMPORARY_SCHEMA,
    UNMAKES,
    WRITE,
    Change,
    Effects,
    Relation,
    ordered,
)
from capd.enforcer.sql.functions import OWN_SCHEMA
from capd.enforcer.sql.lexeme import words
from capd.enforcer.sql.postgresql_object import (
    CASCADES,
    NOT_NAMED,
    NOT_SEEN,
    OF_WHICH,
    collation,
    defined,
    publication,
    tablespace,
    text_search,
    type_,
    unseen,
)
from capd.enforcer.sql.query import query_effects

_QUERY: Final = frozenset({"select", "with", "values", "table", "("})
_RELATIONS: Final = (("table",), ("view",), ("materialized", "view"), ("index",), ("sequence",), ("foreign", "table"))
_PLAIN: Final = words(
    """
    function procedure routine aggregate type domain schema collation conversion database statistics publication
    language cast operator extension server subscription tablespace transform access foreign text event user large
    """
)
_ROLES_OF_SESSION: Final = frozenset({"current_role", "current_user", "session_user"})
_ENDINGS: Final = (
    ["with", "no", "data"],
    ["with", "data"],
    ["with", "check", "option"],
    ["with", "local", "check", "option"],
    ["with", "cascaded", "check", "option"],
)
_MADE: Final = words("schema type domain policy statistics database publication text collation tablespace")
_SETS: Final = "set_config"
SETS: Final = "what it defines changes settings of whoever uses it"
_RIGHTS: Final = frozenset({"role", "user", "group"})


def _kind(cursor: Cursor) -> tuple[str, ...]:
    return next((kind for kind in _RELATIONS if cursor.take(*kind)), ())


def create(cursor: Cursor, command: str) -> Effects:
    """Read CREATE."""
    return _without_settings(_create(cursor, command))


def _without_settings(found: Effects) -> Effects:
    """Add the problem of a definition that changes a setting: of whoever uses it, and whenever."""
    if not any(name.rpartition(".")[2] == _SETS for name in found.functions):
        return found
    return replace(found, problems=(*found.problems, SETS))


def _create(cursor: Cursor, command: str) -> Effects:
    cursor.take("or", "replace")
    cursor.take_any("global", "local")
    temporary = bool(cursor.take_any("temp", "temporary"))
    cursor.take("unlogged")
    cursor.take("unique")
    cursor.take("recursive")
    if not temporary and cursor.take_any(*_RIGHTS):
        return unseen(cursor, command) if cursor.peek() == "mapping" else _granted(command)
    word = "".join(_kind(cursor)) or cursor.take_any(*_MADE)
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
        "type": type_,
        "domain": _domain,
        "policy": _policy,
        "statistics": _statistics,
        "database": _database,
        "publication": publication,
        "text": text_search,
        "collation": collation,
        "tablespace": tablespace,
    }.get(word, unseen)(cursor, command)
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
        found = defined(command, made, *_mentioned(cursor, start, made)).joined(called(body, definition=True))
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
    for ending in _ENDINGS:
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


def _mentioned(cursor: Cursor, start: int, made: Relation) -> Iterator[Relation]:
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
        elif text == "identity" and at + 1 in cursor.statement.closing:
            yield from _sequence_named(Cursor(cursor.statement, at + 1), made)


def _index(cursor: Cursor, command: str) -> Effects:
    if cursor.peek() != "on":
        cursor.name()
    cursor.expect("on")
    cursor.take("only")
    made = cursor.relation(WRITE)
    if cursor.take("using"):
        cursor.name()
    return defined(command, made).joined(called(cursor.rest()))


def _sequence(cursor: Cursor, command: str) -> Effects:
    made = _made(cursor)
    owners: list[Relation] = []
    while cursor.left:
        word = cursor.peek()
        cursor.at += 1
        owners += _named_in_action(cursor, word)
    return defined(command, made, *owners).joined(_in_temporary_schema(made))


def _schema(cursor: Cursor, command: str) -> Effects:
    name = "" if cursor.peek() == "authorization" else cursor.name()
    if cursor.take("authorization"):
        owner = cursor.lexeme()
        cursor.name()
        name = name or (owner.text if owner is not None and owner.text not in _ROLES_OF_SESSION else "")
    found = defined(command).joined(Effects(command=command, changes=(Change(setting=SCHEMA),)))
    while cursor.left:
        found = found.joined(_element(cursor, name))
    return replace(found, command=command)


def _element(cursor: Cursor, schema: str) -> Effects:
    """Read one of the definitions in CREATE SCHEMA; what they name is looked for in that schema first."""
    start = cursor.at
    cursor.expect("create")
    while cursor.left and cursor.peek() not in {"create", "grant"}:
        cursor.skip()
    if not schema:
        raise NotUnderstoodError("of which schema it is, the session's role says")
    inner = create(Cursor(cursor.statement.part(start, cursor.at), 1), "CREATE")
    here = [replace(one, schema=schema) for one in inner.relations if one.schema is None]
    return replace(inner, relations=ordered((*inner.relations, *here)))


def _domain(cursor: Cursor, command: str) -> Effects:
    cursor.names()
    return defined(command).joined(called(cursor.rest()))


def _policy(cursor: Cursor, command: str) -> Effects:
    cursor.name()
    cursor.expect("on")
    made = cursor.relation(WRITE)
    rest = cursor.rest()
    queries = [opened for opened in rest.closing if rest.lexemes[opened + 1].text in _QUERY - {"("}]
    found = defined(command, made, also=("grant",)).joined(called(rest))
    for opened, closed in rest.closing.items():
        # Of brackets within brackets, the outer ones are read.
        outer = not any(begin < opened and closed < end for begin, end in rest.closing.items())
        if outer and any(opened <= one < closed for one in queries):
            inner = query_effects(rest.part(opened, closed + 1))
            found = found.joined(replace(inner, effects=frozenset()))
    return found


def _statistics(cursor: Cursor, command: str) -> Effects:
    if cursor.peek() != "on":
        cursor.names()
    if cursor.peek() == "(":
        cursor.skip()
    start = cursor.at
    while cursor.left and cursor.peek() != "from":
        cursor.skip()
    cursor.expect("from")
    return defined(command, cursor.relation(WRITE)).joined(called(cursor.statement.part(start)))


def _database(cursor: Cursor, command: str) -> Effects:
    said = [one.text for one in cursor.rest().lexemes if one.text != "="]
    copied = said[said.index("template") + 1 :][:1] if "template" in said else []
    return defined(command, problems=() if copied in ([], *_EMPTY) else (NOT_NAMED,))


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
    changes = (Change(setting=SCHEMA if word == "schema" else UNMAKES),)
    problems = (*problems, OF_WHICH) if word == "statistics" else problems
    problems = (*problems, NOT_NAMED) if word == "database" else problems
    problems = (*problems, NOT_SEEN) if word in _ELSEWHERE else problems
    return Effects(command=command, effects=frozenset({"drop"}), problems=problems, changes=changes)


_ELSEWHERE: Final = frozenset({"extension", "subscription"})
"""With an extension goes what its own script made; with a subscription what another server keeps for it."""
_EMPTY: Final = (["template0"], ["template1"], ["default"])
_ALTER_WORDS: Final = {"drop": "drop", "owner": "grant", "security": "grant", "detach": "define"}


def alter(cursor: Cursor, command: str) -> Effects:
    """Read ALTER."""
    return _without_settings(_alter(cursor, command))


def _alter(cursor: Cursor, command: str) -> Effects:
    kind = _kind(cursor)
    if kind:
        if [one.text for one in cursor.statement.lexemes[-3:]] == ["set", "schema", OWN_SCHEMA]:
            return unseen(cursor, command)
        found = _alter_relation(cursor, command)
        attaches = kind == ("index",) and any(one.text == "attach" for one in cursor.statement.lexemes)
        return replace(found, problems=(*found.problems, OF_WHICH)) if attaches else found
    if cursor.take("default", "privileges") or (cursor.peek(1) != "mapping" and cursor.take_any(*_RIGHTS)):
        return _granted(command)
    if cursor.take("policy"):
        return _policy(cursor, command)
    return object_.alter(cursor, command)


def _alter_relation(cursor: Cursor, command: str) -> Effects:
    cursor.take("if", "exists")
    cursor.take("only")
    if cursor.peek() == "all" and cursor.peek(1) == "in":
        raise NotUnderstoodError(NOT_NAMED)
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
            named = cursor.name()
            altered += [replace(altered[0], name=named)]
            changes = (Change(setting=PERHAPS_TEMPORARY, values=(named,)),)
        if word == "set" and cursor.take("schema"):
            altered += [replace(altered[0], schema=cursor.name())]
        if word == "cascade":
            problems = (CASCADES,)
        altered += _named_in_action(cursor, word)
        if word == "identity" and cursor.peek() == "(":
            altered += _sequence_named(cursor, altered[0])
    found = defined(command, *altered, also=tuple(also), problems=problems)
    return replace(found.joined(called(cursor.statement.part(start), definition=True)), changes=changes)


def _named_in_action(cursor: Cursor, word: str) -> list[Relation]:
    """Give the relation that stands after a word of ALTER, if one does."""
    if word == "owned" and cursor.take("by"):
        return [] if cursor.peek() == "none" and cursor.peek(1) != "." else [_of_column(cursor)]
    if word == "inherit" and cursor.peek(-2) == "no" and cursor.peek(-3) == ")":
        return []  # of a constraint: CHECK (...) NO INHERIT
    if word in {"references", "inherit"} or (word == "partition" and cursor.peek(-2) in {"attach", "detach"}):
        return [Cursor(cursor.statement, cursor.at).relation(WRITE)]
    return []


def _sequence_named(cursor: Cursor, table: Relation) -> Iterator[Relation]:
    """Give the sequence that the options of an identity column name, as pg_dump does: without a schema it is in the table's."""
    for at in range(cursor.at + 1, cursor.statement.closing[cursor.at]):
        here = Cursor(cursor.statement, at)
        if here.take("sequence", "name"):
            found = here.relation(WRITE)
            yield replace(found, schema=found.schema or table.schema)


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
        return defined(command, cursor.relation(WRITE))
    if cursor.take("column"):
        return defined(command, _of_column(cursor))
    if cursor.take_any("constraint", "trigger", "rule", "policy"):
        cursor.name()
        cursor.expect("on")
        if cursor.peek(1) not in {".", "is"} and cursor.take("domain"):
            return defined(command)
        return defined(command, cursor.relation(WRITE))
    return defined(command)


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
            problems = (NOT_NAMED,)
        elif cursor.peek() not in _NO_RELATIONS or cursor.peek(1) in {"to", "from", ",", "."}:
            cursor.take_any("table", "sequence")
            relations = cursor.relations(WRITE)
            if cursor.peek() not in {"to", "from"}:
                raise NotUnderstoodError("what rights are given on is not known")
    return Effects(command=command, effects=frozenset({"grant"}), relations=ordered(relations), problems=problems)


def reassign(_cursor: Cursor, _command: str) -> Effects:
    """Read REASSIGN OWNED."""
    raise NotUnderstoodError(NOT_NAMED)
