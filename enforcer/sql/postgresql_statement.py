"""What a statement of PostgreSQL does, by its first words.

What lives here: which reader a statement has, and the short ones. What must not: definitions (postgresql_definition.py), rights
and objects (postgresql_object.py), queries (query.py).

What has no reader here is not known. A reader that finds what it does not expect says so, and the statement is incomplete.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from capd.enforcer.sql import postgresql_definition as definition
from capd.enforcer.sql.calls import called
from capd.enforcer.sql.cursor import Cursor, NotUnderstoodError
from capd.enforcer.sql.effect import (
    ANYTHING,
    BEGIN,
    COMMIT,
    MEANS,
    READ,
    ROLE,
    ROLES,
    ROLLBACK,
    ROLLBACK_TO,
    SETS_LATER,
    WRITE,
    Change,
    Effects,
    explained,
)
from capd.enforcer.sql.functions import OWN_CATALOGUE, is_own
from capd.enforcer.sql.lexeme import Kind
from capd.enforcer.sql.postgresql_object import OF_WHICH
from capd.enforcer.sql.query import query_effects
from capd.enforcer.sql.statement import Statement

UNKNOWN_COMMAND: Final = "unknown"
UNKNOWN: Final = "capd does not know what this statement does"
RUNS_CODE: Final = "it runs code that capd does not see"
ENDS_ANOTHER: Final = "it ends a transaction whose statements were said elsewhere"
_QUERIES: Final = frozenset({"select", "with", "values", "table", "insert", "update", "delete", "merge", "("})
Reader = Callable[[Cursor, str], Effects]


def postgresql_effects(statement: Statement) -> Effects:
    """Give what a statement does."""
    first = statement.lexemes[0]
    word = first.text if first.kind in {Kind.WORD, Kind.SIGN} else ""
    command = word.upper() if word.isalpha() else ("SELECT" if word == "(" else UNKNOWN_COMMAND)
    if statement.problems:
        # Of brackets that do not close each other, no reader can make anything.
        return Effects(command=command, problems=statement.problems, changes=(ANYTHING,))
    if word in _QUERIES:
        return replace(query_effects(statement), command=command)
    reader = _READERS.get(word)
    if reader is None:
        return Effects(command=command, effects=frozenset(), problems=(*statement.problems, UNKNOWN)).joined(called(statement))
    try:
        found = reader(Cursor(statement, 1), command)
    except NotUnderstoodError as error:
        # What could be read before is lost; that it is not complete is what counts.
        return Effects(command=command, problems=(*statement.problems, str(error)), changes=(ANYTHING,)).joined(
            called(statement)
        )
    return replace(found, problems=(*statement.problems, *found.problems))


def _session(cursor: Cursor, command: str, *changes: Change) -> Effects:
    cursor.end()
    return Effects(command=command, effects=frozenset({"session"}), changes=changes)


def _begin(cursor: Cursor, command: str) -> Effects:
    # What follows are words of modes.
    while cursor.left:
        one = cursor.lexeme()
        if one is None or one.kind is not Kind.WORD:
            cursor.expect(",")
        else:
            cursor.at += 1
    return _session(cursor, command, Change(setting=BEGIN))


def _start(cursor: Cursor, command: str) -> Effects:
    cursor.expect("transaction")
    return _begin(cursor, command)


def _end(cursor: Cursor, command: str) -> Effects:
    if cursor.take("prepared"):
        cursor.at += 1
        # What it defined is there from now on, or gone.
        return replace(_session(cursor, command, Change(setting=MEANS)), problems=(ENDS_ANOTHER,))
    cursor.take_any("work", "transaction")
    chain = False
    if cursor.take("and"):
        chain = not cursor.take("no")
        cursor.expect("chain")
    setting = COMMIT if command in {"COMMIT", "END"} else ROLLBACK
    if setting == ROLLBACK and cursor.take("to"):
        cursor.take("savepoint")
        cursor.name()
        return _session(cursor, command, Change(setting=ROLLBACK_TO))
    changes = (Change(setting=setting), *((Change(setting=BEGIN),) if chain else ()))
    return _session(cursor, command, *changes)


def _prepare(cursor: Cursor, command: str) -> Effects:
    if cursor.take("transaction"):
        cursor.at += 1
        return _session(cursor, command, ANYTHING)
    cursor.name()
    if cursor.peek() == "(":
        cursor.skip()
    cursor.expect("as")
    inner = _inner(cursor)
    # It only keeps the statement; EXECUTE, which runs it, is never complete.
    kept = tuple(replace(one, access=READ) for one in inner.relations)
    return Effects(command=command, effects=frozenset({"session"}), relations=kept, problems=inner.problems)


def _inner(cursor: Cursor) -> Effects:
    if not cursor.left:
        raise NotUnderstoodError("a statement is expected, and is not there")
    return postgresql_effects(cursor.rest())


def _code(_cursor: Cursor, command: str) -> Effects:
    return Effects(command=command, effects=frozenset({"code"}), problems=(RUNS_CODE,), changes=(ANYTHING,))


def _named(cursor: Cursor, command: str) -> Effects:
    """SAVEPOINT a, RELEASE [SAVEPOINT] a, LISTEN a, UNLISTEN a, DEALLOCATE a, CLOSE a."""
    cursor.take_any("savepoint", "prepare")
    if not cursor.take("*"):
        cursor.name()
    return _session(cursor, command)


def _notify(cursor: Cursor, command: str) -> Effects:
    cursor.name()
    if cursor.take(","):
        cursor.at += 1
    cursor.end()
    return Effects(command=command, effects=frozenset({"notify"}))


def _set(cursor: Cursor, command: str) -> Effects:
    local = cursor.take("local")
    if cursor.peek(1) not in {"=", "to", "."} and (not local or cursor.peek(1) == "authorization"):
        cursor.take("session")
    if cursor.peek(1) == ".":
        return _setting_named(cursor, command, local=local)  # whatever word the name begins with
    if cursor.take("xml", "option"):
        return Effects(command=command, effects=frozenset({"session"}))
    if cursor.take("constraints") or cursor.take("transaction") or cursor.take("characteristics"):
        return Effects(command=command, effects=frozenset({"session"}))
    if cursor.take("role") or cursor.take("authorization"):
        return Effects(command=command, effects=frozenset({"session", "grant"}), changes=(Change(setting=ROLE),))
    if cursor.take("time", "zone"):
        return Effects(command=command, effects=frozenset({"session"}))
    if cursor.take("names"):
        return _setting(cursor, command, "client_encoding", local=local)
    if cursor.take("schema"):
        return _setting(cursor, command, "search_path", local=local)
    return _setting_named(cursor, command, local=local)


def _setting_named(cursor: Cursor, command: str, *, local: bool) -> Effects:
    setting = ".".join(cursor.names()).lower()
    if not cursor.take("="):
        cursor.expect("to")
    return _setting(cursor, command, setting, local=local)


def _setting(cursor: Cursor, command: str, setting: str, *, local: bool) -> Effects:
    values: list[str] | None = []
    while cursor.left:
        one = cursor.lexeme()
        assert one is not None
        cursor.at += 1
        if one.kind is Kind.STRING and values is not None:
            plain = one.text.startswith("'") and "\\" not in one.text and one.text.count("'") == 2  # noqa: PLR2004 - both ends
            values = [*values, one.text[1:-1]] if plain else None
        elif one.text == "default" and one.kind is Kind.WORD:
            values = None
        elif one.text != "," and values is not None:
            values = [*values, one.text]
    effects = {"session", "grant"} if setting in ROLES else {"session"}
    kept = None if values is None else tuple(values)
    changed = Change(setting=ROLE) if "grant" in effects else Change(setting=setting, values=kept, local=local)
    return Effects(command=command, effects=frozenset(effects), changes=(changed,), literal=True)


def _reset(cursor: Cursor, command: str) -> Effects:
    if cursor.take("all") or cursor.take("session", "authorization"):
        return Effects(command=command, effects=frozenset({"session", "grant"}), changes=(ANYTHING,))
    if cursor.take("time", "zone") or cursor.take("transaction", "isolation", "level"):
        return _session(cursor, command)
    setting = ".".join(cursor.names()).lower()
    cursor.end()
    if setting in ROLES:
        return Effects(command=command, effects=frozenset({"session", "grant"}), changes=(ANYTHING,))
    return _session(cursor, command, Change(setting=setting))


def _discard(cursor: Cursor, command: str) -> Effects:
    all_ = cursor.take("all")
    if not all_ and not cursor.take_any("plans", "sequences", "temporary", "temp"):
        raise NotUnderstoodError(UNKNOWN)
    return _session(cursor, command, *((ANYTHING,) if all_ else ()))


def _show(cursor: Cursor, command: str) -> Effects:
    if not (cursor.take("time", "zone") or cursor.take("session", "authorization")):
        cursor.take("transaction")
        cursor.take("isolation")
        cursor.names()
    cursor.end()
    return Effects(command=command, effects=frozenset({"select"}))


def _lock(cursor: Cursor, command: str) -> Effects:
    cursor.take("table")
    found = cursor.relations(READ, "only")
    while cursor.left:
        if cursor.peek() not in {"in", "access", "row", "share", "update", "exclusive", "mode", "nowait"}:
            raise NotUnderstoodError(UNKNOWN)
        cursor.at += 1
    return Effects(command=command, effects=frozenset({"lock"}), relations=tuple(found))


def _truncate(cursor: Cursor, command: str) -> Effects:
    cursor.take("table")
    found = cursor.relations(WRITE, "only")
    if cursor.take_any("restart", "continue"):
        cursor.expect("identity")
    cascade = cursor.take_any("cascade", "restrict") == "cascade"
    cursor.end()
    problems = ("with CASCADE it empties relations that it does not name",) if cascade else ()
    return Effects(command=command, effects=frozenset({"drop"}), relations=tuple(found), has_where=False, problems=problems)


def _maintain(cursor: Cursor, command: str) -> Effects:
    """VACUUM, ANALYZE, CLUSTER, REINDEX, REFRESH MATERIALIZED VIEW, CHECKPOINT."""
    if cursor.peek() == "(":
        cursor.skip()
    while cursor.take_any("full", "freeze", "verbose", "analyze", "analyse", "materialized", "view", "table"):
        pass
    cursor.take("concurrently")
    if cursor.take("index"):
        raise NotUnderstoodError(OF_WHICH)
    if command == "CHECKPOINT":
        cursor.end()
        return Effects(command=command, effects=frozenset({"maintain"}))
    if cursor.lexeme() is None or (command == "REINDEX" and cursor.peek() in {"schema", "database", "system"}):
        raise NotUnderstoodError("it is about relations that it does not name")
    found = [cursor.relation(WRITE)]
    if command == "CLUSTER" and cursor.take("on"):
        found = [cursor.relation(WRITE)]  # before it stood an index of it
    while cursor.left:
        if cursor.peek() == "(":
            cursor.skip()
        elif cursor.take("using"):
            cursor.name()  # an index of it
        elif cursor.take(","):
            found.append(cursor.relation(WRITE))
        elif not cursor.take_any("with", "no", "data"):
            raise NotUnderstoodError(UNKNOWN)
    return Effects(command=command, effects=frozenset({"maintain"}), relations=tuple(found))


def _declare(cursor: Cursor, command: str) -> Effects:
    cursor.name()
    while cursor.left and cursor.peek() != "for":
        if cursor.peek() not in {"binary", "insensitive", "asensitive", "no", "scroll", "cursor", "with", "without", "hold"}:
            raise NotUnderstoodError(UNKNOWN)
        cursor.at += 1
    cursor.expect("for")
    inner = _inner(cursor)
    changes = (*inner.changes, Change(setting=SETS_LATER)) if inner.changes else ()
    return replace(inner, command=command, effects=inner.effects | {"session"}, changes=changes)


def _fetch(_cursor: Cursor, command: str) -> Effects:
    """What the cursor reads was judged when it was declared."""
    effects = {"session", "select"} if command == "FETCH" else {"session"}
    return Effects(command=command, effects=frozenset(effects))


_ANALYZES: Final = {"": True, "true": True, "on": True, "1": True, "false": False, "off": False, "0": False}


def _explain(cursor: Cursor, command: str) -> Effects:
    analyzes = False
    if cursor.peek() == "(" and cursor.peek(1) not in _QUERIES:
        end = cursor.statement.closing[cursor.at]
        cursor.at += 1
        while cursor.at < end:
            option = cursor.name()
            value = ""
            while cursor.at < end and cursor.peek() != ",":
                one = cursor.lexeme()
                assert one is not None
                value += one.text.strip("'").lower()
                cursor.at += 1
            cursor.take(",")
            if option in {"analyze", "analyse"}:
                if value not in _ANALYZES:
                    raise NotUnderstoodError("whether it runs the statement is not known")
                analyzes = _ANALYZES[value]
        cursor.at = end + 1
    else:
        analyzes = bool(cursor.take_any("analyze", "analyse"))
        cursor.take("verbose")
    inner = _inner(cursor)
    return explained(inner, command, runs=analyzes)


def _copy(cursor: Cursor, command: str) -> Effects:
    cursor.take("binary")
    if cursor.peek() == "(":
        end = cursor.statement.closing[cursor.at]
        inner = _inner(Cursor(cursor.statement.part(cursor.at + 1, end)))
        cursor.at = end + 1
        cursor.expect("to")
        way = "to"
    else:
        relation = cursor.relation(READ)
        if cursor.peek() == "(":
            cursor.skip()
        way = cursor.take_any("from", "to")
        if not way:
            raise NotUnderstoodError(UNKNOWN)
        relation = relation if way == "to" else replace(relation, access=WRITE)
        effects = frozenset({"select" if way == "to" else "insert"})
        problems = (OWN_CATALOGUE,) if relation.access == WRITE and is_own(relation) else ()
        inner = Effects(command=command, effects=effects, relations=(relation,), problems=problems)
    after = Effects(command=command, literal=True)
    if cursor.take("program"):
        after = Effects(command=command, effects=frozenset({"code", "file"}), problems=("it runs a program",), literal=True)
    elif not cursor.take_any("stdin", "stdout"):
        after = Effects(command=command, effects=frozenset({"file"}), literal=True)
        cursor.at += 1
    rest = called(cursor.rest()) if cursor.left and "where" in [one.text for one in cursor.rest().lexemes] else after
    return replace(inner, command=command).joined(after).joined(rest)


_READERS: Final[dict[str, Reader]] = {
    "begin": _begin,
    "start": _start,
    **dict.fromkeys(("commit", "end", "rollback", "abort"), _end),
    **dict.fromkeys(("savepoint", "release", "listen", "unlisten", "deallocate", "close"), _named),
    "prepare": _prepare,
    **dict.fromkeys(("execute", "call", "do", "load"), _code),
    "notify": _notify,
    "set": _set,
    "reset": _reset,
    "discard": _discard,
    "show": _show,
    "lock": _lock,
    "truncate": _truncate,
    **dict.fromkeys(("vacuum", "analyze", "analyse", "cluster", "reindex", "refresh", "checkpoint"), _maintain),
    "declare": _declare,
    **dict.fromkeys(("fetch", "move"), _fetch),
    "explain": _explain,
    "copy": _copy,
    "create": definition.create,
    "drop": definition.drop,
    "alter": definition.alter,
    "comment": definition.comment,
    "security": definition.comment,
    "grant": definition.grant,
    "revoke": definition.grant,
    "reassign": definition.reassign,
}
