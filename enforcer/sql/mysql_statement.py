"""What a statement of MySQL or MariaDB does, by its first words.

What lives here: which reader a statement has, and the readers. What must not: queries (query.py).

What has no reader here is not known: LOAD DATA, HANDLER, XA, HELP, PREPARE, and all that one of the two servers has alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Final

from capd.enforcer.sql.calls import called
from capd.enforcer.sql.cursor import Cursor, NotUnderstoodError
from capd.enforcer.sql.effect import (
    ANYTHING,
    BEGIN,
    COMMIT,
    DATABASE,
    READ,
    ROLLBACK,
    WRITE,
    Change,
    Effects,
    Relation,
    explained,
    ordered,
)
from capd.enforcer.sql.lexeme import Kind, Lexeme
from capd.enforcer.sql.query import query_effects
from capd.enforcer.sql.statement import Statement

UNKNOWN_COMMAND: Final = "unknown"
UNKNOWN: Final = "capd does not know what this statement does"
RUNS_CODE: Final = "it runs code that capd does not see"
_QUERIES: Final = frozenset({"select", "with", "values", "table", "insert", "update", "delete", "replace", "("})
ELSEWHERE: Final = "rows lie elsewhere than in the server's own files"
_ENGINES: Final = frozenset({"innodb", "myisam", "aria", "memory", "heap", "archive", "blackhole", "csv", "rocksdb", "ndb"})
_NO_RELATION: Final = frozenset({("update", "low_priority"), ("update", "ignore")})
_BEGINS_QUERY: Final = frozenset({"select", "with", "as"})
"""Words outside of brackets behind which the query of a definition stands."""
_INTO_ELSEWHERE: Final = frozenset({"outfile", "dumpfile"})
Reader = Callable[[Cursor, str], Effects]


def mysql_effects(statement: Statement) -> Effects:
    """Give what a statement does."""
    first = statement.lexemes[0]
    word = first.text.lower() if first.kind in {Kind.WORD, Kind.SIGN} else ""
    command = word.upper() if word.isalpha() else ("SELECT" if word == "(" else UNKNOWN_COMMAND)
    if statement.problems:
        return Effects(command=command, problems=statement.problems, changes=(ANYTHING,))
    if word in _QUERIES:
        return replace(_query(statement, word), command=command)
    reader = _READERS.get(word)
    if reader is None:
        return Effects(command=command, problems=(UNKNOWN,), changes=(ANYTHING,)).joined(called(statement))
    try:
        return reader(Cursor(statement, 1), command)
    except NotUnderstoodError as error:
        return Effects(command=command, problems=(str(error),), changes=(ANYTHING,)).joined(called(statement))


def _query(statement: Statement, word: str) -> Effects:
    words = {one.text.lower() for one in statement.lexemes if one.kind is Kind.WORD}
    if _INTO_ELSEWHERE & words:
        return Effects(command=word, effects=frozenset({"file", "select"}), problems=("it may write a file",)).joined(
            called(statement)
        )
    assigned = any(one.text == ":=" for one in statement.lexemes) or _into_variable(statement)
    if word == "replace":
        # What it does is INSERT, and DELETE of what is in the way.
        first = statement.lexemes[0]
        shown = replace(statement, lexemes=(Lexeme(Kind.WORD, "insert", first.start, first.end), *statement.lexemes[1:]))
        found = query_effects(shown)
        found = replace(found, effects=found.effects | {"delete"})
    else:
        found = query_effects(statement)
    odd = _odd(statement)
    found = replace(found, problems=(*found.problems, odd)) if odd is not None else found
    if assigned:
        return replace(found, effects=found.effects | {"session"}, problems=(*found.problems, "it sets variables"))
    return found


def _odd(statement: Statement) -> str | None:
    """Say what the server reads otherwise than the parser."""
    said = [one.text.lower() if one.kind is Kind.WORD else "" for one in statement.lexemes]
    pairs = list(pairwise(said))
    if said.count("with") - pairs.count(("with", "rollup")) > 1:
        # MySQL forgets an outer one where a query in brackets has its own.
        return "which names of a WITH hold within another one is the server's to say"
    if not _NO_RELATION.isdisjoint(pairs):
        return "the parser takes a word of the grammar for a relation"
    return None


def _into_variable(statement: Statement) -> bool:
    return any(
        one.text.lower() == "into" and one.kind is Kind.WORD and after.kind is Kind.VARIABLE
        for one, after in zip(statement.lexemes, statement.lexemes[1:], strict=False)
    )


def _session(cursor: Cursor, command: str, *changes: Change) -> Effects:
    cursor.end()
    return Effects(command=command, effects=frozenset({"session"}), changes=changes)


def _begin(cursor: Cursor, command: str) -> Effects:
    if command == "START":
        cursor.expect("transaction")
        while cursor.left:
            if not cursor.take_any("read", "only", "write", "with", "consistent", "snapshot", ","):
                raise NotUnderstoodError(UNKNOWN)
    cursor.take("work")
    return _session(cursor, command, Change(setting=BEGIN))


def _end(cursor: Cursor, command: str) -> Effects:
    cursor.take("work")
    if command == "ROLLBACK" and cursor.take("to"):
        cursor.take("savepoint")
        cursor.name()
        return _session(cursor, command)
    return _session(cursor, command, Change(setting=COMMIT if command == "COMMIT" else ROLLBACK))


def _savepoint(cursor: Cursor, command: str) -> Effects:
    if command == "RELEASE":
        cursor.expect("savepoint")
    cursor.name()
    return _session(cursor, command)


def _use(cursor: Cursor, command: str) -> Effects:
    name = cursor.name()
    return _session(cursor, command, Change(setting=DATABASE, values=(name,)))


_WORDS_OF_SET: Final = frozenset({"session", "local"})
_READS_TEXT: Final = frozenset({"sql_mode", "character_set_client", "character_set_connection", "character_set_results"})


def _set(cursor: Cursor, command: str) -> Effects:
    """SET [SESSION] name = literal: anything else that SET does is not read."""
    if cursor.take_any("names", "charset"):
        return _encoding(cursor, command)
    if cursor.take("session", "transaction") or cursor.take("transaction"):
        return Effects(command=command, effects=frozenset({"session"}))
    changes = []
    while True:
        cursor.take_any(*_WORDS_OF_SET)
        one = cursor.lexeme()
        if one is None or one.kind not in {Kind.WORD, Kind.VARIABLE}:
            raise NotUnderstoodError(UNKNOWN)
        cursor.at += 1
        name = one.text.lower().replace("`", "").removeprefix("@@").removeprefix("session.").removeprefix("local.")
        if not (cursor.take("=") or cursor.take(":=")):
            raise NotUnderstoodError(UNKNOWN)
        if name in {"global", "password", "persist", "role", "default"} or name.startswith(("global.", "persist")):
            raise NotUnderstoodError("it changes more than the session")
        values = _value(cursor)
        if name.endswith("storage_engine") and (values is None or values[0].lower() not in _ENGINES):
            raise NotUnderstoodError(ELSEWHERE)
        changes.append(Change(setting=name, values=values))
        if not cursor.take(","):
            break
    cursor.end()
    return Effects(command=command, effects=frozenset({"session"}), changes=tuple(changes), literal=True)


def _value(cursor: Cursor) -> tuple[str, ...] | None:
    """Read a value of SET: one literal or word, a variable, or CONCAT() of literals and variables; what is more is not read."""
    cursor.take("-")
    one = cursor.lexeme()
    if one is None:
        raise NotUnderstoodError(UNKNOWN)
    closing = cursor.statement.closing.get(cursor.at + 1)
    if closing is not None:
        joined = cursor.statement.lexemes[cursor.at + 2 : closing]
        if one.kind is not Kind.WORD or one.text.lower() != "concat" or not all(_joins(part) for part in joined):
            raise NotUnderstoodError("it sets what must be worked out first")
        cursor.at = closing + 1
        return None
    cursor.at += 1
    if one.kind is Kind.VARIABLE:
        return None
    if one.kind is Kind.STRING:
        inside = one.text[1:-1]
        return (inside,) if inside.replace("_", "").replace(",", "").isalnum() or not inside else None
    if one.kind is Kind.NUMBER and not one.text.isdigit():
        return None  # 0x414e5349 is 'ANSI'
    return (one.text,) if one.text.lower() != "default" else None


def _joins(part: Lexeme) -> bool:
    """Say whether a piece of CONCAT() is a literal, a variable, or stands between them."""
    return part.kind in {Kind.STRING, Kind.NUMBER, Kind.VARIABLE} or part.text == ","


def _encoding(cursor: Cursor, command: str) -> Effects:
    one = cursor.lexeme()
    if one is None:
        raise NotUnderstoodError(UNKNOWN)
    cursor.at += 1
    name = one.text.strip("'\"")
    if cursor.take("collate"):
        cursor.at += 1
    return replace(_session(cursor, command, Change(setting="character_set_client", values=(name,))), literal=True)


_OF_OTHERS: Final = frozenset({"binlog", "relaylog", "processlist", "engine", "explain", "analyze"})


def _show(cursor: Cursor, command: str) -> Effects:
    said = {one.text.lower() for one in cursor.rest().lexemes if one.kind is Kind.WORD}
    if said & {"select", "call", "with"} or ("where" in said and "table" in said):
        raise NotUnderstoodError(UNKNOWN)
    if said & _OF_OTHERS:
        raise NotUnderstoodError("it shows what others said to the server")
    found = Effects(command=command, effects=frozenset({"select"})).joined(called(cursor.rest()))
    shown = _shown(cursor)
    return found if shown is None else replace(found, relations=(shown,))


_USERS: Final = Relation(name="user", schema="mysql", access=READ)
"""SHOW GRANTS and SHOW CREATE USER show what is kept of passwords, MariaDB's to each user his own."""


def _shown(cursor: Cursor) -> Relation | None:
    """Read of which relation SHOW [FULL] COLUMNS FROM a [FROM b], INDEX FROM a, CREATE TABLE a is."""
    created = cursor.take("create")
    if cursor.take("grants" if not created else "user"):
        return _USERS
    if created:
        return cursor.relation(READ) if cursor.take_any("table", "view", "sequence") else None
    while cursor.take_any("full", "extended"):
        pass
    if not cursor.take_any("columns", "fields", "index", "indexes", "keys") or not cursor.take_any("from", "in"):
        return None
    found = cursor.relation(READ)
    return replace(found, schema=cursor.name()) if cursor.take_any("from", "in") else found


_EXPLAINS: Final = frozenset({"extended", "partitions", "format", "=", "analyze"})
_FORMATS: Final = frozenset({"traditional", "traditional_strict", "json", "tree"})


def _explain(cursor: Cursor, command: str) -> Effects:
    if command in {"DESCRIBE", "DESC", "EXPLAIN"} and cursor.peek() not in _QUERIES | {
        "extended",
        "partitions",
        "format",
        "analyze",
    }:
        relation = cursor.relation(READ)
        cursor.at += cursor.left  # of which column
        cursor.end()
        return Effects(command=command, effects=frozenset({"select"}), relations=(relation,))
    analyzes = command == "ANALYZE"
    while cursor.left and cursor.peek() not in _QUERIES:
        analyzes = analyzes or cursor.peek() == "analyze"
        if not cursor.take_any(*_EXPLAINS, *_FORMATS):
            raise NotUnderstoodError(UNKNOWN)  # FOR SCHEMA b: names are looked for there
    if not cursor.left:
        raise NotUnderstoodError(UNKNOWN)
    inner = mysql_effects(cursor.rest())
    return explained(inner, command, runs=analyzes)


def _truncate(cursor: Cursor, command: str) -> Effects:
    cursor.take("table")
    found = cursor.relation(WRITE)
    cursor.take_any("wait", "nowait")
    cursor.end()
    return Effects(command=command, effects=frozenset({"drop"}), relations=(found,), has_where=False)


def _drop(cursor: Cursor, command: str) -> Effects:
    cursor.take("temporary")
    if cursor.take("table") or cursor.take("tables") or cursor.take("view"):
        cursor.take("if", "exists")
        found = cursor.relations(WRITE)
        cursor.take_any("cascade", "restrict")
        cursor.end()
        return Effects(command=command, effects=frozenset({"drop"}), relations=tuple(found))
    if cursor.take("index"):
        cursor.take("if", "exists")
        cursor.name()
        cursor.expect("on")
        return Effects(command=command, effects=frozenset({"drop"}), relations=(cursor.relation(WRITE),))
    if cursor.take_any("user", "role"):
        return Effects(command=command, effects=frozenset({"drop", "grant"}))
    if cursor.take_any("database", "schema"):
        raise NotUnderstoodError("it drops relations that it does not name")
    if cursor.take_any("procedure", "function", "trigger", "event"):
        return Effects(command=command, effects=frozenset({"drop"}))
    raise NotUnderstoodError(UNKNOWN)


def _create(cursor: Cursor, command: str) -> Effects:
    replaces = cursor.take("or", "replace")
    if cursor.take_any("user", "role"):
        return Effects(command=command, effects=frozenset({"define", "grant"}))
    if cursor.take_any("database", "schema"):
        return Effects(command=command, effects=frozenset({"define"}))
    cursor.take("temporary")
    if cursor.take("table"):
        table = _create_table(cursor, command)
        return replace(table, effects=table.effects | {"drop"}) if replaces else table
    while cursor.take_any("unique", "fulltext", "spatial"):
        pass
    if cursor.take("index"):
        cursor.take("if", "not", "exists")
        cursor.name()
        while cursor.left and cursor.peek() != "on":
            cursor.at += 1
        cursor.expect("on")
        made = cursor.relation(WRITE)
        return Effects(command=command, effects=frozenset({"define"}), relations=(made,)).joined(called(cursor.rest()))
    if cursor.take("view"):
        cursor.take("if", "not", "exists")
        made = cursor.relation(WRITE)
        return _of_query(cursor, command, made, "define")
    raise NotUnderstoodError("what it defines is code, or capd does not see what it does")


def _create_table(cursor: Cursor, command: str) -> Effects:
    cursor.take("if", "not", "exists")
    made = cursor.relation(WRITE)
    query = Cursor(cursor.statement, cursor.at)
    while query.left and query.peek() not in _BEGINS_QUERY:
        query.skip()
    said = {one.text.lower() for one in cursor.rest().lexemes if one.kind is Kind.WORD}
    if "table" in said:
        raise NotUnderstoodError("it may be made of a relation that it does not select from")
    selects = "select" in said
    part = cursor.statement.part(cursor.at, query.at if selects else None)
    words = [one.text.lower() if one.kind is Kind.WORD else "" for one in part.lexemes]
    if {"union", "connection", "directory"} & set(words) or not _is_of_server(cursor):
        raise NotUnderstoodError(ELSEWHERE)
    _expect_no_sequence(cursor)
    more = []
    for at, word in enumerate(words):
        if word in {"references", "like"} and at + 1 < len(words) and (word == "references" or at <= 1):
            more.append(Cursor(cursor.statement, cursor.at + at + 1).relation(WRITE if word == "references" else READ))
    defined = Effects(command=command, effects=frozenset({"define"}), relations=ordered((made, *more))).joined(called(part))
    return defined.joined(_of_query(cursor, command, made, "define", "insert")) if selects else defined


def _is_of_server(cursor: Cursor) -> bool:
    """Say whether each engine that is named keeps rows in the server's own files."""
    rest = [one.text.lower() for one in cursor.rest().lexemes if one.text != "="]
    return all(name in _ENGINES for word, name in pairwise(rest) if word == "engine")


def _expect_no_sequence(cursor: Cursor) -> None:
    """Be without MariaDB's NEXT VALUE FOR a, PREVIOUS VALUE FOR a: the default of a column may be one."""
    said = [one.text.lower() for one in cursor.rest().lexemes]
    if ("value", "for") in pairwise(said):
        raise NotUnderstoodError("it takes values of a sequence")


def _of_query(cursor: Cursor, command: str, made: Relation, *effects: str) -> Effects:
    while cursor.left and cursor.peek() not in _BEGINS_QUERY:
        cursor.skip()
    cursor.take("as")
    words = [one.text.lower() for one in cursor.rest().lexemes]
    rest = cursor.rest()
    if words[-3:] == ["with", "check", "option"]:
        rest = rest.part(0, len(words) - 3)
    if not rest.lexemes or rest.lexemes[0].text.lower() not in {"select", "with", "(", "values"}:
        raise NotUnderstoodError("what it is made of is not known")
    return Effects(command=command, effects=frozenset(effects), relations=(made,)).joined(query_effects(rest))


def _alter(cursor: Cursor, command: str) -> Effects:
    cursor.take_any("online", "offline", "ignore")
    if cursor.take_any("user", "role"):
        return Effects(command=command, effects=frozenset({"grant"}))
    cursor.expect("table")
    cursor.take("if", "exists")
    altered = [cursor.relation(WRITE)]
    words = {one.text.lower() for one in cursor.rest().lexemes if one.kind is Kind.WORD}
    if words & {"rename", "exchange", "union", "connection", "directory", "discard", "import", "select"}:
        raise NotUnderstoodError("capd does not read this kind of ALTER TABLE")
    if not _is_of_server(cursor):
        raise NotUnderstoodError(ELSEWHERE)
    _expect_no_sequence(cursor)
    if "convert" in words and words & {"table", "partition"}:
        raise NotUnderstoodError("another table becomes a partition, or a partition another table")
    rest = cursor.rest()
    for at, one in enumerate(rest.lexemes):
        if one.kind is Kind.WORD and one.text.lower() == "references":
            altered.append(Cursor(rest, at + 1).relation(WRITE))
    effects = {"define", "drop"} if words & {"drop", "truncate"} else {"define"}
    return Effects(command=command, effects=frozenset(effects), relations=ordered(altered)).joined(called(rest))


def _rename(cursor: Cursor, command: str) -> Effects:
    if not cursor.take_any("table", "tables"):
        raise NotUnderstoodError(UNKNOWN)
    found = []
    while True:
        found.append(cursor.relation(WRITE))
        cursor.expect("to")
        found.append(cursor.relation(WRITE))
        if not cursor.take(","):
            break
    cursor.end()
    return Effects(command=command, effects=frozenset({"define"}), relations=ordered(found))


def _grant(_cursor: Cursor, command: str) -> Effects:
    """Rights and accounts: of the server, or of a database, a table; which is not read."""
    return Effects(command=command, effects=frozenset({"grant"}), problems=("what the rights are on is not read",))


def _lock(cursor: Cursor, command: str) -> Effects:
    cursor.take_any("tables", "table")
    found = []
    while True:
        found.append(cursor.relation(READ))
        if cursor.peek() not in {"read", "write", "low_priority"}:
            cursor.take("as")
            cursor.name()
        while cursor.take_any("read", "local", "low_priority", "write", "concurrent"):
            pass
        if not cursor.take(","):
            break
    cursor.end()
    return Effects(command=command, effects=frozenset({"lock"}), relations=ordered(found))


def _unlock(cursor: Cursor, command: str) -> Effects:
    cursor.take_any("tables", "table")
    cursor.end()
    return Effects(command=command, effects=frozenset({"lock"}))


def _maintain(cursor: Cursor, command: str) -> Effects:
    if command == "ANALYZE" and cursor.peek() not in {"table", "tables", "local", "no_write_to_binlog"}:
        return _explain(cursor, command)
    cursor.take_any("local", "no_write_to_binlog")
    if not cursor.take_any("table", "tables"):
        raise NotUnderstoodError(UNKNOWN)
    found = cursor.relations(WRITE)
    return Effects(command=command, effects=frozenset({"maintain"}), relations=tuple(found)).joined(called(cursor.rest()))


def _code(_cursor: Cursor, command: str) -> Effects:
    return Effects(command=command, effects=frozenset({"code"}), problems=(RUNS_CODE,), changes=(ANYTHING,))


_READERS: Final[dict[str, Reader]] = {
    "begin": _begin,
    "start": _begin,
    "commit": _end,
    "rollback": _end,
    "savepoint": _savepoint,
    "release": _savepoint,
    "use": _use,
    "set": _set,
    "show": _show,
    **dict.fromkeys(("explain", "describe", "desc"), _explain),
    "truncate": _truncate,
    "drop": _drop,
    "create": _create,
    "alter": _alter,
    "rename": _rename,
    **dict.fromkeys(("grant", "revoke"), _grant),
    "lock": _lock,
    "unlock": _unlock,
    **dict.fromkeys(("analyze", "optimize", "check", "repair", "checksum"), _maintain),
    **dict.fromkeys(("call", "do", "execute", "prepare", "kill", "load", "install", "uninstall"), _code),
}
